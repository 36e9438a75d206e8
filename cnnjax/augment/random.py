"""Random numbers for augmentation operations, with checks of the operations' arguments."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnnjax.errors import InputError

Array = jax.Array
Amount = float | tuple[float, float]  # see `uniform`


def bernoulli(name: str, key: Array, probability: float) -> Array:
    """Returns True with the given probability, from 0 to 1: bool [].

    Raises InputError, which begins with the operation's `name`, for any other probability.
    """
    if not 0 <= probability <= 1:
        raise InputError(f"{name}: probability = {probability!r}: expected 0 to 1")
    return jax.random.bernoulli(key, probability)


def uniform(
    name: str,
    key: Array,
    amount: Amount,
    *,
    around: float = 0.0,
    lower_limit: float = -math.inf,
    upper_limit: float = math.inf,
) -> Array:
    """Draws uniformly from `amount` = (low, high), or from `around` - amount to `around` + amount: float32 [].

    For a single number, a lower end below `lower_limit` is raised to it. Raises InputError, which begins with the
    operation's `name`, for a range that is empty, infinite or otherwise exceeds the limits.
    """
    if not isinstance(amount, tuple):
        low, high = max(around - amount, lower_limit), around + amount
    else:
        low, high = amount
    if not (lower_limit <= low <= high <= upper_limit and math.isfinite(high - low)):
        to = "" if math.isinf(upper_limit) else f" to {upper_limit:g}"
        limits = "" if math.isinf(lower_limit) else f", from {lower_limit:g}{to}"
        raise InputError(f"{name}: {amount!r}: expected at least 0, or (low, high) with low <= high{limits}")
    return jax.random.uniform(key, minval=low, maxval=high)


def uniform_index(unit: Array, count: Array | int) -> Array:
    """Converts draws uniform in [0, 1) to indices uniform in {0, ..., count - 1}: int32, of the shape of `unit`."""
    return jnp.floor(unit * count).astype(jnp.int32)


def rectangle_mask(shape: tuple[int, ...], top: Array, left: Array, height: Array | int, width: Array | int) -> Array:
    """Returns bool [H, W, 1]: True in the `height` x `width` rectangle whose upper left pixel is (top, left).

    `shape` is the image's, [H, W, C]. The rectangle may extend beyond the image.
    """
    rows, columns = jnp.arange(shape[0])[:, None, None] - top, jnp.arange(shape[1])[None, :, None] - left
    return (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)


def sequential_on_cpu(operation: Callable[..., Array]) -> Callable[..., Array]:
    """Wraps `operation` so that `jax.vmap` of it runs image after image on a CPU, and as usual on other devices.

    All arguments of `operation` are arrays. Under vmap, `lax.switch` computes all branches for every image and selects
    one. That suits an accelerator; on a CPU the unselected branches would take nearly all of the time.
    """
    single = jax.custom_batching.custom_vmap(operation)

    @single.def_vmap
    def _(size: int, batched: list[bool], *arrays: Array) -> tuple[Array, bool]:
        batches = [x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip(arrays, batched, strict=True)]
        out = jax.lax.platform_dependent(
            *batches, cpu=lambda *xs: jax.lax.map(lambda x: single(*x), xs), default=jax.vmap(operation)
        )
        return out, True

    return single
