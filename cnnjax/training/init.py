"""New states: a network's variables, and the optimizer state that belongs to them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnnjax import optim
from cnnjax.config import Config
from cnnjax.errors import InputError
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


def split_keys(config: Config) -> tuple[jax.Array, jax.Array]:
    """Returns two random keys made from config.seed: for the initialization, and for the training steps."""
    init_key, step_key = jax.random.split(jax.random.key(config.seed))
    return init_key, step_key
