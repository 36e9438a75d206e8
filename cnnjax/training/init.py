"""New states: a network's variables, and the optimizer state that belongs to them."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import optim
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.models.normalization import BatchNorm
from cnnjax.optim import freezing
from cnnjax.state import TrainState, Tree
from cnnjax.training.recipe import Recipe


def init_state(
    key: jax.Array, *, recipe: Recipe, model: nn.Module, schedule: optax.Schedule, shape: tuple[int, ...]
) -> TrainState:
    """Initializes a network at random for images of `shape` [H, W, C], and returns the state at step 0.

    Raises InputError if the network returns anything but logits [N, K].
    """
    logits, variables = model.init_with_output(key, jnp.zeros((1, *shape)), train=False)
    if getattr(logits, "ndim", 0) != 2:
        what = (
            f"maps of {logits.shape[1:]}" if hasattr(logits, "shape") else f"feature maps {', '.join(sorted(logits))}"
        )
        raise InputError(f"the network returns {what}; training needs logits: not features_only, nor head='conv'")
    return first_state(variables, recipe=recipe, schedule=schedule)


def first_state(variables: Tree, *, recipe: Recipe, schedule: optax.Schedule) -> TrainState:
    """Returns the state at step 0 with the Flax `variables`, a new optimizer state and new monitors.

    The average of the weights, if the recipe keeps one, starts as a copy of the trained parameters.
    """
    model_state = dict(variables)
    params = model_state.pop("params")
    trainable = freezing.trainable(recipe.optim.freezing, params)
    ema = jax.tree.map(jnp.copy, trainable) if recipe.optim.keeps_average else {}
    opt_state = optim.build(recipe.optim, trainable, schedule).init(trainable)
    monitors = jax.tree.map(jnp.asarray, optim.init_monitors(recipe.optim.monitors))
    return TrainState(jnp.zeros((), jnp.int32), params, model_state, opt_state, ema, monitors)


def check_training_pass(
    recipe: Recipe, model: nn.Module, state: TrainState, shape: tuple[int, ...], num_classes: int
) -> None:
    """Traces the network in training mode, and raises InputError for what would fail there, or train wrongly.

    That is an output, also of an auxiliary classifier, with another number of logits than `num_classes`; and a
    BatchNorm layer that would take the mean and variance of a single value per channel: its output would be its bias
    whatever the image, so that nothing below it learns. This happens where each image is normalized on its own and has
    been reduced to a 1x1 feature map. `state` are arrays or their shapes; `shape` is that of an image, [H, W, C].
    """
    config, lonely = recipe.config, []
    rows = config.batch_size // config.grad_accum_steps
    by_one = (getattr(model, "ghost_batch_size", 0) or rows) == 1

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if by_one and isinstance(module, BatchNorm | nn.BatchNorm) and context.method_name == "__call__":
            by_average = module.use_running_average or kwargs.get("use_running_average", args[1:2] == (True,))
            if by_average is not True and args[0].size == args[0].shape[-1] * rows:
                lonely.append("/".join(module.path))
        return call(*args, **kwargs)

    def apply(state: TrainState) -> Any:
        frozen = freezing.freeze_batch_stats(recipe.optim.freezing, state.params, {}, state.step)
        with frozen, nn.intercept_methods(intercept):  # the former is asked first
            images, keys = jnp.zeros((rows, *shape)), {"dropout": jax.random.key(0)}
            return model.apply(state.variables, images, train=True, mutable=True, rngs=keys)

    logits, updated = jax.eval_shape(apply, state)
    for output in (logits, *jax.tree.leaves(updated.get("aux_logits", {}))):
        if output.shape[-1] != num_classes:
            what = "the network" if output is logits else "an auxiliary classifier of the network"
            raise InputError(
                f"config.model = {config.model!r}: {what} returns {output.shape[-1]} logits; expected {num_classes}, "
                "the number of classes, which a network is given as `num_classes`"
            )
    if lonely:
        raise InputError(
            f"config.batch_size = {config.batch_size}: the batch normalization {lonely[0]!r} would see a single value "
            "per channel (one image, a 1x1 feature map), and nothing would be learned; use at least 2 images per "
            "micro-batch and ghost batch, larger images, or another normalization"
        )


def split_keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Returns two random keys made from config.seed: for the initialization, and for the training steps."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return init_key, step_key
