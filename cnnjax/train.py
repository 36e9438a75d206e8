"""Training, top to bottom: the state, the step, the loop."""

import functools
import pathlib
import time
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from rich.console import Console

from cnnjax import augment, checkpoint, losses, metrics, optim, sharding, spec, workdir
from cnnjax.config import Config, check, is_due, length
from cnnjax.config import steps as steps_of
from cnnjax.data import pipeline
from cnnjax.data.build import load
from cnnjax.errors import InputError
from cnnjax.evaluate import make_scorer, naming
from cnnjax.interrupt import Interrupted, Signals
from cnnjax.models import create_model
from cnnjax.progress import Bar
from cnnjax.state import TrainState, path_name

Key = jax.Array

EVENTS = ("log", "eval", "checkpoint")  # each has a field, "log_every" and so on


# ---------------------------------------------------------------------------------------------------- state and step


def init_state(key: Key, *, model: nn.Module, shape: tuple[int, ...], make_tx, ema: bool) -> TrainState:
    """The state before the first step, for images of `shape` [H, W, C]."""
    variables = dict(model.init(key, jnp.zeros((1, *shape)), train=False))
    params = variables.pop("params")
    averaged = jax.tree.map(jnp.copy, params) if ema else {}
    return TrainState(jnp.zeros((), jnp.int32), params, variables, make_tx(params).init(params), averaged)


def train_step(
    state: TrainState,
    batch: pipeline.Batch,
    key: Key,
    *,
    model: nn.Module,
    tx: optax.GradientTransformation,
    schedule: optax.Schedule,
    prepare: Callable[[Key, jax.Array], jax.Array],
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    accumulate: int,
    ema: float,
    aux_weight: float,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update from one global batch. All randomness comes from `key`, folded with the step."""
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))

    def loss_fn(params, model_state, images, labels, key):
        logits, updated = model.apply(
            {"params": params, **model_state},
            images,
            train=True,
            mutable=[*model_state, "aux_logits"],
            rngs={"dropout": key},
        )
        model_state = dict(updated)
        auxiliary = jax.tree.leaves(model_state.pop("aux_logits", {}))
        each = loss(logits, labels)
        total = each.mean() + aux_weight * sum(loss(one, labels).mean() for one in auxiliary)
        return total, (model_state, metrics.sums(logits, labels, each))

    def part(carry, index):
        grads, model_state = carry
        images, labels = (x.reshape(-1, accumulate, *x.shape[1:])[:, index] for x in (batch["image"], batch["label"]))
        images = prepare(jax.random.fold_in(augment_key, index), images)
        part_key = jax.random.fold_in(dropout_key, index)
        (_, (model_state, sums)), new = jax.value_and_grad(loss_fn, has_aux=True)(
            state.params, model_state, images, labels, part_key
        )
        return (jax.tree.map(jnp.add, grads, new), model_state), sums

    # Not a lax.scan: inside a loop XLA compiles convolutions for a CPU to something tens of times slower.
    carry, parts = (jax.tree.map(jnp.zeros_like, state.params), state.model_state), []
    for index in range(accumulate):
        carry, sums = part(carry, index)
        parts.append(sums)
    grads, model_state = carry
    grads = jax.tree.map(lambda g: g / accumulate, grads)
    sums = jax.tree.map(lambda *xs: sum(xs), *parts)

    updates, opt_state = tx.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    averaged = state.ema
    if ema:  # the average starts short, so that it forgets the initialisation
        decay = jnp.minimum(ema, (1 + state.step) / (10 + state.step))
        averaged = jax.tree.map(lambda average, p: decay * average + (1 - decay) * p, state.ema, params)
    sums["lr"] = schedule(state.step)
    return TrainState(state.step + 1, params, model_state, opt_state, averaged), sums


# ----------------------------------------------------------------------------------------------------------- the run


def check_names(config: Config) -> None:
    """Raises InputError for any name in the config that does not exist, before anything is read or written."""
    create_model(config.model, 10, config.dtype)
    losses.build(config.loss)
    for text in (config.augment, config.preprocess):
        for call in pipeline.split_ops(text)[1]:
            spec.find("operation", call, augment.OPS, key=None, image=None, mean=None, std=None)
    spec.find("normalization", spec.parse(config.normalize), augment.NORMALIZE, image=None, mean=None, std=None)
    spec.find("optimizer", spec.parse(config.optimizer), optim.OPTIMIZERS, decay=None)
    optim.build_schedule(config, epoch=1000, total=1_000_000)
    for name in ("duration", *(f"{event}_every" for event in EVENTS)):
        if not steps_of(getattr(config, name), epoch=1000, total=1_000_000):
            raise InputError(f"config.{name} = {getattr(config, name)!r}: expected more than 0")


def train(
    config: Config,
    folder: pathlib.Path,
    *,
    data_dir: str = "",
    mesh: Mesh | None = None,
    console: Console | None = None,
) -> dict[str, Any]:
    """Trains a network from the first step, or from the newest checkpoint in `folder`, to the last.

    Returns the final numbers, which `folder`/result.json holds too. Raises InputError for a config, data set or
    folder that does not fit, FloatingPointError when the loss is no longer finite, and Interrupted after SIGINT or
    SIGTERM, once the state is saved.
    """
    check(config)
    check_names(config)
    mesh = mesh or sharding.make_mesh()
    leader = jax.process_index() == 0
    console = console if console and leader else Console(quiet=True)
    begun = time.monotonic()
    sharding.check_batch(config.batch_size // config.accumulate, mesh)

    # Data: the splits, and what the training split says of all of them.
    splits = (config.train_split, config.val_split, config.test_split)
    examples = {split: load(config.dataset, split, data_dir) for split in splits if split}
    classes = examples[config.train_split].classes
    host_ops, step_ops = pipeline.split_ops(config.augment)
    source = pipeline.open_source(
        examples[config.train_split], host_ops, cache=config.cache, seed=config.seed, mesh=mesh
    )
    known = {"classes": classes, "shape": list(source.shape), **pipeline.statistics(source.histogram())}
    prepare = augment.build(step_ops, config.normalize, known["mean"], known["std"], source.shape)
    epoch = source.count / config.batch_size
    total = steps_of(config.duration, epoch=epoch)

    # The network, its update rule, and its state: from the newest checkpoint, or new.
    model = create_model(config.model, len(classes), config.dtype)
    loss = losses.build(config.loss)
    schedule = optim.build_schedule(config, epoch, total)
    make_tx = functools.partial(optim.build, config, schedule=schedule)
    init = functools.partial(init_state, model=model, shape=source.shape, make_tx=make_tx, ema=bool(config.ema))
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    whole = sharding.replicated(mesh)
    with naming(config.model, source.shape):
        abstract = sharding.placed(jax.eval_shape(init, init_key), whole)
        _check_logits(model, abstract.variables, source.shape)
    tx = make_tx(abstract.params)
    score = {split: make_scorer(config, known, examples[split], model, mesh) for split in splits[1:] if split}

    if leader:
        workdir.claim(folder, config)
        workdir.write_json(folder / "data.json", known)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("the run's folder is there")
    state = checkpoint.restore(folder, abstract, console.print, set_aside=leader)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("damaged checkpoints are out of the way")
    if state is None:
        state = jax.jit(init, out_shardings=whole)(init_key)
    start = int(state.step)

    # Compiled once each.
    step_fn = jax.jit(
        functools.partial(train_step, model=model, tx=tx, schedule=schedule, prepare=prepare, loss=loss,
                          accumulate=config.accumulate, ema=config.ema, aux_weight=config.aux_weight),
        in_shardings=(whole, sharding.split(mesh), whole),
        out_shardings=(whole, whole),
        donate_argnums=0,
        compiler_options=sharding.compiler_options(),
    )  # fmt: skip

    # The loop.
    every = {name: length(getattr(config, f"{name}_every"), epoch=epoch, total=total) for name in EVENTS}
    batches = pipeline.train_batches(source, seed=config.seed, batch_size=config.batch_size, start=start, stop=total)
    size = sum(int(np.prod(x.shape)) for x in jax.tree.leaves(abstract.params))
    console.print(
        f"{config.model} on {config.dataset}: {size:,} parameters, {source.count:,} images, {total:,} steps of "
        f"{config.batch_size} on {mesh.size} {jax.default_backend()} device(s), in {folder}",
        soft_wrap=True,
    )
    if start:
        console.print(f"going on from step {start:,}")
    with (
        workdir.Metrics(folder, start, leader) as log,
        checkpoint.open_manager(folder, config.keep) as manager,
        Signals() as stop,
        Bar(console, start, total, epoch) as bar,
    ):
        pending, since = [], time.monotonic()
        for step, batch in enumerate(batches, start + 1):
            state, sums = step_fn(state, batch, step_key)
            pending.append(sums)
            jax.block_until_ready(pending[-2:][0])  # no more than two steps ahead of the device
            bar.advance(step)
            leave = stop.agreed(step)
            due = {name: is_due(step, period) or step == total for name, period in every.items()}
            evaluating = bool(config.val_split) and due["eval"]
            saving = due["checkpoint"] or evaluating or leave

            if due["log"] or saving:
                values = _finite(pending, step)
                values["images_per_second"] = len(pending) * config.batch_size / (time.monotonic() - since)
                bar.show(values)
                if due["log"]:
                    log.write(step, step / epoch, "train", values)
            val = None
            if evaluating:
                val = metrics.means(score[config.val_split](state.variables))
                log.write(step, step / epoch, "val", val)
                bar.note(f"epoch {step / epoch:.1f}: val loss {val['loss']:.4f}, accuracy {val['accuracy']:.2%}")
            if saving:
                _check_finite(state, step)
                checkpoint.save(manager, state, val)
            if due["log"] or saving:
                pending, since = [], time.monotonic()
            if leave:
                break
        checkpoint.finish(manager)
        if stop.signal is not None and int(state.step) < total:
            raise Interrupted(stop.signal, int(state.step))

        # The final numbers.
        result: dict[str, Any] = {"step": total, "folder": str(folder)}
        if config.test_split:
            test = metrics.means(score[config.test_split](state.variables))
            log.write(total, total / epoch, "test", test)
            result |= {"split": config.test_split, **test}
        result["seconds"] = round(time.monotonic() - begun, 1)
        if leader:
            workdir.write_json(folder / "result.json", result)
    return result


def _check_logits(model: nn.Module, variables: dict[str, Any], shape: tuple[int, ...]) -> None:
    """Raises InputError when the network gives anything but a row of logits for each image of this shape."""
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    out = jax.eval_shape(functools.partial(model.apply, train=False), variables, image)
    if not hasattr(out, "shape") or len(out.shape) != 2:
        what = f"maps of {out.shape[1:]}" if hasattr(out, "shape") else f"the maps {', '.join(out)}"
        raise InputError(f"the network gives {what}; training needs logits: not features_only, nor head='conv'")


def _finite(pending: list[dict[str, jax.Array]], step: int) -> dict[str, float]:
    """The mean metrics of the steps since the last time. Raises FloatingPointError when a loss was not finite."""
    sums = jax.device_get(pending)
    for ago, one in zip(range(len(sums) - 1, -1, -1), sums, strict=True):
        if not np.isfinite(one["loss"]):
            raise FloatingPointError(f"the loss became {one['loss']:.0f} at step {step - ago}")
    rate = float(sums[-1].pop("lr"))
    for one in sums[:-1]:
        one.pop("lr")
    return metrics.means(metrics.add(sums)) | {"lr": rate}


def _check_finite(state: TrainState, step: int) -> None:
    """Raises FloatingPointError for a state not to be saved: the loss of a step is of the parameters before it."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get((state.params, state.model_state))):
        if not np.isfinite(leaf).all():
            raise FloatingPointError(f"{path_name(path[1:])} became infinite or NaN by step {step}")
