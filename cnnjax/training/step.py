"""The training step: one pure function from state and batch to state and metrics, and its compiled form."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import losses, metrics, optim
from cnnjax.data import pipeline
from cnnjax.distributed import sharding
from cnnjax.ops.convolution import matmul_precision
from cnnjax.optim import freezing
from cnnjax.state import TrainState, Tree, merge_trees
from cnnjax.training.distill import Teacher
from cnnjax.training.recipe import Recipe
from cnnjax.training.setup import Setup

Array = jax.Array
Sums = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Microbatch:
    """The input of one forward and backward pass: N = batch_size / grad_accum_steps examples of a batch.

    Attributes:
      inputs: network input, float32 [N, H, W, C].
      labels: int32 [N].
      targets: float32 [N, K], one-hot or mixed.
      teacher_logits: float32 [N, K]; None without a teacher.
      dropout_key: random key of the pass.
    """

    inputs: Array
    labels: Array
    targets: Array
    teacher_logits: Any
    dropout_key: Array


def train_step(
    state: TrainState,
    batch: pipeline.Batch,
    key: Array,
    teacher_variables: Tree = None,
    *,
    recipe: Recipe,
    model: nn.Module,
    schedule: optax.Schedule,
    prepare: Callable[..., Array],
    mix: Callable[..., tuple[Array, Array]],
    teacher: Teacher | None = None,
    unfreeze_steps: Mapping[str, int] | None = None,
) -> tuple[TrainState, Sums]:
    """Performs one training step on a global batch: a pure function, to be jitted by `jit_step`.

    Args:
      state: state before the step.
      batch: "image" uint8 [B, H, W, C], "label", "example" and "epoch" int32 [B].
      key: random key of the run; the step number is folded into it.
      teacher_variables: the teacher's variables; None without a teacher.
      recipe: the parsed config.
      model: the network.
      schedule: learning rate by step, without a plateau monitor's factor.
      prepare: augmentation and normalization, as in `Setup`.
      mix: mixing of the batch, as in `Setup`.
      teacher: for distillation, or None.
      unfreeze_steps: as in `Setup`; None for {}.

    Returns:
      The new state, and the metric sums over the batch with the learning rate as "lr". Accuracy compares with each
      image's own label, even where images are mixed.
    """
    schedule = optim.scaled_schedule(schedule, state.monitors)
    config, frozen = recipe.config, recipe.optim.freezing
    params = freezing.trainable(frozen, state.params)
    optimizer = optim.build(recipe.optim, params, schedule)
    augment_key, dropout_key, mix_key = jax.random.split(jax.random.fold_in(key, state.step), 3)
    unfreeze_steps = unfreeze_steps or {}
    count = config.grad_accum_steps

    # The whole batch is augmented and mixed before it is split, so that micro-batches do not change what is drawn.
    # Before 0.3 each micro-batch folded in its index: with index 0, runs with one micro-batch draw the same as then.
    augment_key, mix_key = (jax.random.fold_in(key, 0) for key in (augment_key, mix_key))
    drawn = augment_key, batch["image"], batch["example"], batch["epoch"]
    inputs, targets = mix(mix_key, prepare(*drawn), batch["label"])
    teacher_inputs = mix(mix_key, teacher.prepare(*drawn), batch["label"])[0] if teacher else None

    def microbatch(i: int) -> Microbatch:
        take = lambda x: x.reshape(-1, count, *x.shape[1:])[:, i]  # noqa: E731
        with matmul_precision(config.matmul_precision):
            teacher_logits = teacher.logits(teacher_variables, take(teacher_inputs)) if teacher else None
        pass_key = jax.random.fold_in(dropout_key, i)
        return Microbatch(take(inputs), take(batch["label"]), take(targets), teacher_logits, pass_key)

    def loss_fn(params: Tree, model_state: Tree, rows: Microbatch) -> tuple[Array, tuple[Tree, Sums]]:
        variables = {"params": merge_trees(state.params, params), **model_state}
        frozen_statistics = freezing.freeze_batch_stats(frozen, state.params, unfreeze_steps, state.step)
        with frozen_statistics, matmul_precision(config.matmul_precision):
            return _loss(variables, rows, recipe, model, teacher)

    def gradient(params: Tree) -> tuple[Tree, Tree, Sums]:
        # Not a lax.scan, which was tens of times slower on a CPU with XLA's own convolutions.
        grads, model_state, sums = jax.tree.map(jnp.zeros_like, params), state.model_state, []
        for i in range(count):
            grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
            (_, (model_state, new_sums)), new_grads = grad_fn(params, model_state, microbatch(i))
            grads = jax.tree.map(jnp.add, grads, new_grads)
            sums.append(new_sums)
        grads = jax.tree.map(lambda g: g / count, grads)
        return grads, model_state, jax.tree.map(lambda *xs: sum(xs), *sums)

    def value(params: Tree) -> Any:  # for a line search
        return sum(loss_fn(params, state.model_state, microbatch(i))[0] for i in range(count)) / count

    grads, model_state, sums = gradient(params)
    unfrozen = freezing.is_unfrozen(params, unfreeze_steps, state.step)
    if config.sam_rho:  # at the perturbed parameters, with the same images and dropout
        ascent = optim.zero_where_frozen(grads, unfrozen) if unfreeze_steps else grads
        grads, *_ = gradient(optim.sam_perturb(params, ascent, config.sam_rho))
    updates, opt_state = optimizer.update(grads, state.opt_state, params, value_fn=value, is_unfrozen=unfrozen)
    params = optax.apply_updates(params, updates)
    ema = optim.eval_params(opt_state, params)
    if config.ema:
        decay = _average_decay(config.ema, state.step)
        ema = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, params)
    sums["lr"] = schedule(state.step)
    all_params = merge_trees(state.params, params)
    return TrainState(state.step + 1, all_params, model_state, opt_state, ema, state.monitors), sums


def _average_decay(decay: float, step: Array) -> Array:
    """Returns the decay of the weight average at a step: (1 + step) / (10 + step), at most `decay`.

    The average thus forgets the initial weights quickly.
    """
    return jnp.minimum(decay, (1 + step) / (10 + step))


def _loss(
    variables: Tree, rows: Microbatch, recipe: Recipe, model: nn.Module, teacher: Teacher | None
) -> tuple[Array, tuple[Tree, Sums]]:
    """Returns the mean loss of a microbatch, and as auxiliary output the updated model state and the metric sums.

    The loss includes aux_weight times that of each auxiliary classifier. The metric sums have the main loss alone, NaN
    if the inputs or the model state are not finite: max pools and rectifiers of oneDNN take NaN for a small number.
    """
    loss = losses.from_call(recipe.loss)
    mutable = [name for name in variables if name != "params"]
    logits, updated = model.apply(
        variables, rows.inputs, train=True, mutable=[*mutable, "aux_logits"], rngs={"dropout": rows.dropout_key}
    )
    model_state = dict(updated)
    aux_logits = jax.tree.leaves(model_state.pop("aux_logits", {}))
    example_losses = loss(logits, rows.targets)
    if teacher:
        example_losses = teacher.loss(example_losses, logits, rows.teacher_logits)
    aux_loss = sum(loss(aux, rows.targets).mean() for aux in aux_logits)
    total = example_losses.mean() + recipe.config.aux_weight * aux_loss
    floating = [x for x in jax.tree.leaves((rows.inputs, model_state)) if jnp.issubdtype(x.dtype, jnp.inexact)]
    is_finite = jnp.array([jnp.isfinite(x).all() for x in floating]).all()
    return total, (model_state, metrics.sums(logits, rows.labels, jnp.where(is_finite, example_losses, jnp.nan)))


def train_steps(
    state: TrainState,
    group: pipeline.StepGroup,
    key: Array,
    teacher_variables: Tree = None,
    *,
    step: Callable[..., tuple[TrainState, Sums]],
    batch_sharding: Any,
) -> tuple[TrainState, Sums]:
    """Runs the group.num_steps training steps of a group in one device call, to save the overhead of a call per step.

    `step` is `train_step` with its keyword arguments bound; `batch_sharding` is the sharding of a gathered batch.
    Returns the new state and the metric sums of each step, arrays [K, ...] of which the first group.num_steps rows are
    filled and the others are 0. Not for CPUs, where XLA's loops are slow.
    """

    def batch_of(i: Array | int) -> pipeline.Batch:
        batch = pipeline.gather_batch(group.device_split, *group.indices[:, i])
        return jax.lax.with_sharding_constraint(batch, batch_sharding)

    def body(i: Array, carry: tuple) -> tuple:
        state, columns = carry
        state, sums = step(state, batch_of(i), key, teacher_variables)
        return state, jax.tree.map(lambda column, value: column.at[i].set(value), columns, sums)

    _, sums = jax.eval_shape(lambda: step(state, batch_of(0), key, teacher_variables))
    columns = jax.tree.map(lambda x: jnp.zeros((group.indices.shape[1], *x.shape), x.dtype), sums)
    return jax.lax.fori_loop(0, group.num_steps, body, (state, columns))


def jit_step(setup: Setup) -> Any:
    """Returns the jitted training step: (state, feed, key, teacher variables) -> (new state, metric sums).

    The feed is a batch, or a `pipeline.StepGroup` if setup.steps_per_call > 1. The state is donated: its buffers cannot
    be used after the call.
    """
    step = functools.partial(
        train_step,
        recipe=setup.recipe,
        model=setup.model,
        schedule=setup.schedule,
        prepare=setup.prepare,
        mix=setup.mix,
        teacher=setup.teacher,
        unfreeze_steps=setup.unfreeze_steps,
    )
    rows, replicated = sharding.batch_sharding(setup.mesh), sharding.replicated(setup.mesh)
    feed = rows
    if setup.steps_per_call > 1:
        step, feed = functools.partial(train_steps, step=step, batch_sharding=rows), replicated
    return jax.jit(
        step,
        in_shardings=(setup.shardings, feed, replicated, None),
        out_shardings=(setup.shardings, replicated),
        donate_argnums=0,
        compiler_options=sharding.compiler_options(),
    )
