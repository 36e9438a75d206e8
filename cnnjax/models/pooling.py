"""The largest of each window, as one JAX primitive: what computes it is chosen when a program is lowered.

XLA's own is two to twenty times slower on a CPU, above all its gradient. There it is written out as comparisons of
the maps with themselves, shifted, which run over all maps at once.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Pairs = tuple[tuple[int, int], ...]

# Three roles: 'output' of the maps x; how a small change of x changes it, 'tangent' of (change, x); and back,
# 'images' of (gradient of the output, x). The last two are linear in the first operand, and each other's transpose.
max_pool_p = Primitive("max_pool")
OTHER = {"tangent": "images", "images": "tangent"}


def largest(x: jax.Array, window: int, stride: int, padding: Pairs) -> jax.Array:
    """The largest of each window of maps [N, H, W, C], which are padded with -infinity; of equals the first counts."""
    out = ((low + size + high - window) // stride + 1 for size, (low, high) in zip(x.shape[1:3], padding, strict=True))
    shape = (x.shape[0], *out, x.shape[3])
    return max_pool_p.bind(x, role="output", shape=shape, window=window, stride=stride, padding=padding)


# ------------------------------------------------------------------------------------------ values, shapes, derivatives


@functools.cache
def _compiled(**params: Any) -> Any:
    return jax.jit(functools.partial(max_pool_p.bind, **params))


def _jvp(primals: Any, tangents: Any, *, role: str, **options: Any) -> Any:
    """Where the largest is changes in steps, so that only the first operand, which is linear or x, has a gradient."""
    out = max_pool_p.bind(*primals, role=role, **options)
    if isinstance(tangents[0], ad.Zero):
        return out, jnp.zeros_like(out)
    along = "tangent" if role == "output" else role
    return out, max_pool_p.bind(tangents[0], primals[-1], role=along, **options)


def _transpose(cotangent: Any, change: Any, x: Any, *, role: str, shape: Any, **options: Any) -> Any:
    back = max_pool_p.bind(cotangent, x, role=OTHER[role], shape=change.aval.shape, **options)
    return back, None


def _batched(operands: Any, axes: Any, *, shape: Any, **options: Any) -> Any:
    count = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    operands = [
        jnp.broadcast_to(x[None], (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    joined = [x.reshape(-1, *x.shape[2:]) for x in operands]
    out = max_pool_p.bind(*joined, shape=(count * shape[0], *shape[1:]), **options)
    return out.reshape(count, *shape), 0


max_pool_p.def_impl(lambda *operands, **params: _compiled(**params)(*operands))
max_pool_p.def_abstract_eval(lambda a, *rest, shape, **params: a.update(shape=shape, weak_type=False))
ad.primitive_jvps[max_pool_p] = _jvp
ad.primitive_transposes[max_pool_p] = _transpose
batching.primitive_batchers[max_pool_p] = _batched


# ------------------------------------------------------------------------------------------------------------ lowering


def _by_xla(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs) -> Any:
    """As JAX itself writes it."""
    *linear, x = operands

    def pool(x: Any) -> Any:
        lowest = np.array(-np.inf, x.dtype)
        sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, lowest, lax.max, sizes, steps, ((0, 0), *padding, (0, 0)))

    if role == "output":
        return pool(x)
    return jax.jvp(pool, (x,), tuple(linear))[1] if role == "tangent" else jax.vjp(pool, x)[1](*linear)[0]


def _by_shifts(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs) -> Any:
    """With one slice of the maps for each place in the window."""
    *linear, x = operands
    edges = ((0, 0), *padding, (0, 0))
    padded = jnp.pad(x, edges, constant_values=-np.inf)
    sides = [(size - window) // stride + 1 for size in padded.shape[1:3]]

    def places(maps: jax.Array) -> Iterator[jax.Array]:
        for i in range(window):
            for j in range(window):
                ends = (maps.shape[0], i + (sides[0] - 1) * stride + 1, j + (sides[1] - 1) * stride + 1, maps.shape[3])
                yield lax.slice(maps, (0, i, j, 0), ends, (1, stride, stride, 1))

    if role == "output":
        return functools.reduce(jnp.maximum, places(padded))
    best, first = None, jnp.zeros((), jnp.uint8)
    for number, one in enumerate(places(padded)):
        if best is None:
            best, first = one, jnp.zeros(one.shape, jnp.uint8)
        else:
            best, first = jnp.maximum(best, one), jnp.where(one > best, jnp.uint8(number), first)
    if role == "tangent":
        changes = places(jnp.pad(linear[0], edges))
        return sum(jnp.where(first == number, change, 0) for number, change in enumerate(changes))
    return _spread(linear[0], first, window, stride, padded.shape)[
        :, padding[0][0] : padding[0][0] + shape[1], padding[1][0] : padding[1][0] + shape[2]
    ]


def _spread(g: jax.Array, first: jax.Array, window: int, stride: int, shape: tuple[int, ...]) -> jax.Array:
    """The gradient of the padded maps: each pixel collects from the windows in which it was the largest.

    All pixels of one phase, their place modulo the stride, are reached from the same places in windows.
    """
    rows, columns = (-(-size // stride) for size in shape[1:3])
    reach = (window - 1) // stride  # windows before a pixel's own that cover it too
    grow = ((0, 0), *((reach, max(0, n - size)) for n, size in zip((rows, columns), g.shape[1:3], strict=True)), (0, 0))
    g, first = jnp.pad(g, grow), jnp.pad(first, grow, constant_values=window**2)

    def phase(a: int, b: int) -> Any:
        total = jnp.zeros((), g.dtype)
        for i in range(a, window, stride):
            for j in range(b, window, stride):
                down, right = reach - i // stride, reach - j // stride
                here = (slice(None), slice(down, down + rows), slice(right, right + columns))
                total = total + jnp.where(first[here] == i * window + j, g[here], 0)
        return jnp.broadcast_to(total, (shape[0], rows, columns, shape[3]))

    phases = jnp.stack([jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)], 2)
    return phases.reshape(shape[0], rows * stride, columns * stride, shape[3])


mlir.register_lowering(max_pool_p, mlir.lower_fun(_by_xla, multiple_results=False))
mlir.register_lowering(max_pool_p, mlir.lower_fun(_by_shifts, multiple_results=False), platform="cpu")
