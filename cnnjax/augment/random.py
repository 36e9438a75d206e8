"""What operations draw, with the check of what they were asked for."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnnjax.errors import InputError

Array = jax.Array
Amount = float | tuple[float, float]


def bernoulli(name: str, key: Array, probability: float) -> Array:
    """True with that probability."""
    if not 0 <= probability <= 1:
        raise InputError(f"{name}: probability = {probability!r}: expected 0 to 1")
    return jax.random.bernoulli(key, probability)


def uniform(
    name: str, key: Array, value: Amount, *, around: float = 0.0, least: float = -math.inf, most: float = math.inf
) -> Array:
    """A number in (low, high); one number v stands for (around - v, around + v), from no less than `least`.

    Raises InputError for a range that is empty or leaves `least` to `most`, under the `name` of who asks.
    """
    if not isinstance(value, tuple):
        low, high = max(around - value, least), around + value
    else:
        low, high = value
    if not (least <= low <= high <= most and math.isfinite(high - low)):
        limits = "" if math.isinf(least) else f", from {least:g}" + ("" if math.isinf(most) else f" to {most:g}")
        raise InputError(f"{name}: {value!r}: expected at least 0, or (low, high) with low <= high{limits}")
    return jax.random.uniform(key, minval=low, maxval=high)


def uniform_index(share: Array, count: Array | int) -> Array:
    """The number of a uniform draw from [0, 1) among `count` equal parts."""
    return jnp.floor(share * count).astype(jnp.int32)


def rectangle(shape: tuple[int, ...], top: Array, left: Array, height: Array | int, width: Array | int) -> Array:
    """True inside the rectangle, as far as it is in the image of `shape` [H, W, C]: bool [H, W, 1]."""
    rows, columns = jnp.arange(shape[0])[:, None, None] - top, jnp.arange(shape[1])[None, :, None] - left
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def sequential_on_cpu(operation: Callable[..., Array]) -> Callable[..., Array]:
    """A function of arrays that on a CPU takes a batch one after the other.

    vmap computes every branch of a choice for every image and then selects. That suits an accelerator; on a CPU the
    branches that were not chosen would take nearly all of the time.
    """
    single = jax.custom_batching.custom_vmap(operation)

    @single.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        each = [x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip(arrays, batched, strict=True)]
        out = jax.lax.platform_dependent(
            *each, cpu=lambda *xs: jax.lax.map(lambda x: single(*x), xs), default=jax.vmap(operation)
        )
        return out, True

    return single
