"""The activations of a named layer as a function of images, for pictures that need its derivatives."""

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnnjax import augment
from cnnjax.evaluation import scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import create_model
from cnnjax.spec import with_argument
from cnnjax.state import Tree
from cnnjax.visualize.names import check_layer


def normalization(net: TrainedNetwork, shape: Sequence[int]) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from views uint8 [N, H, W, C] to the network's inputs, as in evaluation.

    `shape` is [H, W, C], that of a view of `net.single_views`. Raises InputError if the network does not take it.
    """
    recipe, shape = parse_eval_recipe(net.config), tuple(shape)
    scoring.check_accepts(recipe, net.data, net.model, shape)
    prepare = augment.build(recipe.operations.step, recipe.normalization, net.data.statistics, shape)
    return lambda views: prepare(jax.random.key(0), views)


def features_model(net: TrainedNetwork) -> nn.Module:
    """Returns the network built with features_only=True: it returns {layer: activations}."""
    text = with_argument(net.config.model, ["features_only"], True)
    return create_model(text, len(net.classes), net.config.dtype)


def layer_function(net: TrainedNetwork, layer: str) -> Callable[[Tree, jax.Array], jax.Array]:
    """Returns the function (variables, inputs [N, H, W, C]) -> activations of a layer, float32 [N, height, width, K].

    A layer of vectors has height and width 1. Raises InputError for an unknown layer.
    """
    check_layer(net, layer)
    model = features_model(net)

    def activations(variables: Tree, inputs: jax.Array) -> jax.Array:
        maps: dict[str, jax.Array] = model.apply(variables, inputs, train=False)  # pyright: ignore[reportAssignmentType]
        values = maps[layer].astype(jnp.float32)
        return values if values.ndim == 4 else values[:, None, None, :]

    return activations
