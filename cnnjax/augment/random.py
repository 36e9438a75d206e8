"""Random numbers and masks for augmentation operations."""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Array = jax.Array


def uniform(
    key: Array, amount: float | tuple[float, float], *, around: float = 0.0, lowest: float = -math.inf
) -> Array:
    """Draws uniformly from `amount` = (low, high), or from `around` - amount to `around` + amount: float32 [].

    For a single number, a lower end below `lowest` is raised to it.
    """
    low, high = amount if isinstance(amount, tuple) else (max(around - amount, lowest), around + amount)
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
