"""What makes of pixels in [0, 1] what a network sees: `(image, statistics of the training split) -> image`.

A normalisation is a pure function of one image, float32 [H, W, C], and of what it asks for of `mean` and `std`, the
training split's, each [1, 1, C].
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array


def mean_std(image: Array, mean: Array, std: Array) -> Array:
    """Each channel to mean 0 and standard deviation 1 over the training split."""
    return (image - mean) / std


def centered(image: Array, mean: Array) -> Array:
    """Each channel to mean 0 over the training split, its scale left alone."""
    return image - mean


def symmetric(image: Array) -> Array:
    """[0, 1] to [-1, 1]."""
    return 2 * image - 1


def range_to(image: Array, low: float, high: float) -> Array:
    """[0, 1] to [low, high]; LeNet-5 of 1998 has -0.1 and 1.175 (LeCun et al. 1998, II.B)."""
    return low + (high - low) * image


def constants(image: Array, means: Sequence[float], stds: Sequence[float]) -> Array:
    """As `mean_std`, with a mean and a standard deviation per channel that are given, on the scale of [0, 1]."""
    return (image - per_channel(means)) / per_channel(stds)


def none(image: Array) -> Array:
    """Leaves pixels in [0, 1]."""
    return image


NORMALIZE = {"mean_std": mean_std, "centered": centered, "symmetric": symmetric, "range_to": range_to,
             "constants": constants, "none": none}  # fmt: skip


def per_channel(values: Sequence[float]) -> Array:
    """[C] values as a [1, 1, C] array."""
    return jnp.array(values, jnp.float32).reshape(1, 1, -1)


def statistics(known: Mapping[str, Any]) -> dict[str, Array]:
    """What operations and normalisations may ask for, as arrays: of what a run's data.json holds of its split."""
    given = {"eigen": jnp.asarray(known["eigen"], jnp.float32)} if "eigen" in known else {}
    return given | {"mean": per_channel(known["mean"]), "std": jnp.maximum(per_channel(known["std"]), 1e-6)}
