"""How strongly images excite the channels of a layer, and how typical their earlier feature maps are."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize.activations import features_model, normalization
from cnnjax.visualize.names import LOGITS, check_layer, layer_shapes

MIN_SPREAD = 1e-3  # added to standard deviations of feature maps before their logarithm is taken

# Reduces the feature maps [B, height, width, C] of a layer to an excitation [B, C].
OBJECTIVES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "mean": lambda maps: maps.mean(axis=(1, 2)),
    "center": lambda maps: maps[:, maps.shape[1] // 2, maps.shape[2] // 2],
}


@dataclasses.dataclass(frozen=True)
class Excitation:
    """Pure functions of images float32 [B, H, W, C] with values in [0, 1], in the size that the network takes.

    Attributes:
      of_channels: (variables, images) -> float32 [B, channels of the layer].
      with_statistics: (variables, images) -> that, and float32 [B, D]: of each feature map of the earlier layers, the
        mean and the logarithm of the standard deviation over its positions. D may be 0.
    """

    of_channels: Callable[[Any, jax.Array], jax.Array]
    with_statistics: Callable[[Any, jax.Array], tuple[jax.Array, jax.Array]]


def build(net: TrainedNetwork, layer: str, objective: str) -> Excitation:
    """Builds the functions for a layer of `net.features`, or 'logits'. `objective` is a key of OBJECTIVES.

    The images are preprocessed as in evaluation, except for what changes their size. Layers without feature maps have
    their activations as excitation. Raises InputError for an unknown layer or objective.
    """
    check_layer(net, layer, with_logits=True)
    if objective not in OBJECTIVES:
        raise unknown("objective", objective, OBJECTIVES)
    normalize, model = normalization(net, net.data.shape), features_model(net)
    shapes = layer_shapes(net)
    names = [*shapes, LOGITS]
    earlier = [name for name in names[: names.index(layer)] if len(shapes[name]) == 3]

    def excitation(values: jax.Array) -> jax.Array:
        values = values.astype(jnp.float32)
        return OBJECTIVES[objective](values) if values.ndim == 4 else values

    def logits(variables: Any, inputs: jax.Array) -> Any:
        return net.model.apply(variables, inputs, train=False)

    def features(variables: Any, inputs: jax.Array) -> Any:
        return model.apply(variables, inputs, train=False)

    def of_channels(variables: Any, images: jax.Array) -> jax.Array:
        inputs = normalize(255 * images)
        return excitation(logits(variables, inputs) if layer == LOGITS else features(variables, inputs)[layer])

    def with_statistics(variables: Any, images: jax.Array) -> tuple[jax.Array, jax.Array]:
        inputs = normalize(255 * images)
        maps = features(variables, inputs)
        values = logits(variables, inputs) if layer == LOGITS else maps[layer]
        return excitation(values), _statistics([maps[name] for name in earlier], len(images))

    return Excitation(of_channels, with_statistics)


def _statistics(layers: Sequence[jax.Array], count: int) -> jax.Array:
    """Returns mean and log standard deviation of each map of several layers [B, height, width, C]: [B, D]."""
    parts = [jnp.zeros((count, 0))]
    for maps in layers:
        maps = maps.astype(jnp.float32)
        mean = maps.mean(axis=(1, 2))
        variance = jnp.square(maps - mean[:, None, None]).mean(axis=(1, 2))
        parts += [mean, 0.5 * jnp.log(variance + MIN_SPREAD**2)]
    return jnp.concatenate(parts, axis=1)


def measure(function: Callable[[Any, jax.Array], Any], variables: Any, images: np.ndarray, batch_size: int) -> Any:
    """Applies a function of an Excitation to images, uint8 [N, H, W, C], in batches; returns arrays of N rows."""
    apply = jax.jit(lambda variables, batch: function(variables, batch.astype(jnp.float32) / 255))
    size = min(batch_size, len(images))
    outputs = []
    for start in range(0, len(images), size):
        batch = images[start : start + size]
        padded = np.pad(batch, [(0, size - len(batch)), (0, 0), (0, 0), (0, 0)], mode="edge")
        outputs.append(jax.device_get(apply(variables, padded)))
    return jax.tree.map(lambda *rows: np.concatenate(rows)[: len(images)], *outputs)
