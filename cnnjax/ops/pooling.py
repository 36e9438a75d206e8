"""The largest and the sum of each window, as JAX primitives: what computes them is chosen when a program is lowered.

XLA's own take two to twenty times as long on a CPU, above all the gradient of the largest. There they are oneDNN's (see
`cnnjax.ops.onednn`), or written out as sums and comparisons of the maps with themselves, shifted, which run over all
maps at once.
"""

import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from cnnjax.ops import onednn
from cnnjax.ops.primitive import by_native, primitive

Pairs = tuple[tuple[int, int], ...]

# In roles. 'output': of the maps x. 'images', back from there: of a gradient of the output, and for the largest of x.
# 'tangent': of a small change of x, and of x. The last two are linear in the first operand and each other's transpose;
# so are the sum's 'output' and 'images'.
max_pool_p, sum_pool_p = primitive("max_pool"), primitive("sum_pool")
BACK = {"tangent": "images", "images": "tangent"}, {"output": "images", "images": "output"}


def largest(x: jax.Array, window: int, stride: int, padding: Pairs) -> jax.Array:
    """The largest of each window of maps [N, H, W, C], which are padded with -infinity; of equals the first counts."""
    return max_pool_p.bind(x, role="output", **_options(x, window, stride, padding))


def total(x: jax.Array, window: int, stride: int, padding: Pairs) -> jax.Array:
    """The sum of each window of maps [N, H, W, C], which are padded with 0."""
    return sum_pool_p.bind(x, role="output", **_options(x, window, stride, padding))


def _options(x: jax.Array, window: int, stride: int, padding: Pairs) -> dict[str, Any]:
    out = ((low + size + high - window) // stride + 1 for size, (low, high) in zip(x.shape[1:3], padding, strict=True))
    return {"shape": (x.shape[0], *out, x.shape[3]), "window": window, "stride": stride, "padding": padding}


# --------------------------------------------------------------------------------------------------------- derivatives


def _max_jvp(primals: Any, tangents: Any, *, role: str, **options: Any) -> Any:
    """Where the largest is changes in steps, so that only the first operand, which is linear or x, has a gradient."""
    out = max_pool_p.bind(*primals, role=role, **options)
    if isinstance(tangents[0], ad.Zero):
        return out, jnp.zeros_like(out)
    along = "tangent" if role == "output" else role
    return out, max_pool_p.bind(tangents[0], primals[-1], role=along, **options)


def _max_transpose(cotangent: Any, change: Any, x: Any, *, role: str, shape: Any, **options: Any) -> Any:
    if isinstance(cotangent, ad.Zero):
        return ad.Zero(change.aval), None
    return max_pool_p.bind(cotangent, x, role=BACK[0][role], shape=change.aval.shape, **options), None


def _sum_transpose(cotangent: Any, x: Any, *, role: str, shape: Any, **options: Any) -> Any:
    return [sum_pool_p.bind(cotangent, role=BACK[1][role], shape=x.aval.shape, **options)]


def _batched(pool_p: Primitive, operands: Any, axes: Any, *, shape: Any, **options: Any) -> Any:
    """vmap: more images."""
    count = next(x.shape[axis] for x, axis in zip(operands, axes, strict=True) if axis is not None)
    operands = [
        jnp.broadcast_to(x[None], (count, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(operands, axes, strict=True)
    ]
    joined = [x.reshape(-1, *x.shape[2:]) for x in operands]
    out = pool_p.bind(*joined, shape=(count * shape[0], *shape[1:]), **options)
    return out.reshape(count, *shape), 0


ad.primitive_jvps[max_pool_p] = _max_jvp
ad.primitive_transposes[max_pool_p] = _max_transpose
ad.deflinear2(sum_pool_p, _sum_transpose)


# ------------------------------------------------------------------------------------------------------------ lowering


def _by_xla(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, biggest: bool) -> Any:
    """As JAX itself writes it."""
    *linear, x = operands

    def pool(x: Any) -> Any:
        start, join = (np.array(-np.inf, x.dtype), lax.max) if biggest else (np.zeros((), x.dtype), lax.add)
        sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, start, join, sizes, steps, ((0, 0), *padding, (0, 0)))

    if role == "output":
        return pool(x)
    if not biggest:
        return jax.linear_transpose(pool, jax.ShapeDtypeStruct(shape, x.dtype))(x)[0]
    return jax.jvp(pool, (x,), tuple(linear))[1] if role == "tangent" else jax.vjp(pool, x)[1](*linear)[0]


def _by_onednn(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, biggest: bool) -> Any:
    """In float32, whatever the dtype. oneDNN has no sum, but the mean."""
    first, x = operands[0], operands[-1]
    out = jax.ffi.ffi_call(onednn.POOL, jax.ShapeDtypeStruct(shape, jnp.float32))(
        first.astype(jnp.float32),
        x.astype(jnp.float32),
        biggest=biggest,
        back=role == "images",
        window=np.int64(window),
        stride=np.int64(stride),
        padding=np.array(padding, np.int64).ravel(),
    )
    return (out if biggest else out * window**2).astype(first.dtype)


def _by_shifts(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, biggest: bool) -> Any:
    """With one slice of the maps for each place in the window."""
    *linear, x = operands
    edges = ((0, 0), *padding, (0, 0))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(padding, shape[1:3], strict=True))
    if not biggest:
        if role == "output":
            return sum(_places(jnp.pad(x, edges), window, stride))
        sides = [low + size + high for size, (low, high) in zip(shape[1:3], padding, strict=True)]
        return _spread(x, None, window, stride, sides)[:, *inside]

    padded = jnp.pad(x, edges, constant_values=-np.inf)
    if role == "output":
        return functools.reduce(jnp.maximum, _places(padded, window, stride))
    best, *others = _places(padded, window, stride)
    first = jnp.zeros(best.shape, jnp.uint8)
    for number, one in enumerate(others, start=1):
        best, first = jnp.maximum(best, one), jnp.where(one > best, jnp.uint8(number), first)
    if role == "images":
        return _spread(linear[0], first, window, stride, padded.shape[1:3])[:, *inside]
    changes = enumerate(_places(jnp.pad(linear[0], edges), window, stride))
    return sum(jnp.where(first == number, change, 0) for number, change in changes)


def _places(padded: jax.Array, window: int, stride: int) -> Iterator[jax.Array]:
    """What stands at each place of the window, row by row: [N, H', W', C]."""
    rows, columns = ((size - window) // stride * stride + 1 for size in padded.shape[1:3])
    for i in range(window):
        for j in range(window):
            ends = (padded.shape[0], i + rows, j + columns, padded.shape[3])
            yield lax.slice(padded, (0, i, j, 0), ends, (1, stride, stride, 1))


def _spread(g: jax.Array, first: jax.Array | None, window: int, stride: int, sides: Sequence[int]) -> jax.Array:
    """The gradient of padded maps of these sides: each pixel collects from the windows that cover it.

    Where `first` says which place of a window counts, from those alone. All pixels of one phase, which is their place
    modulo the stride, stand at the same places of windows.
    """
    rows, columns = (-(-side // stride) for side in sides)
    reach = (window - 1) // stride  # windows before a pixel's own that cover it too
    grow = ((0, 0), *((reach, max(0, n - size)) for n, size in zip((rows, columns), g.shape[1:3], strict=True)), (0, 0))
    g = jnp.pad(g, grow)
    first = None if first is None else jnp.pad(first, grow, constant_values=window**2)

    def phase(a: int, b: int) -> Any:
        found = jnp.zeros((), g.dtype)
        for i in range(a, window, stride):
            for j in range(b, window, stride):
                down, right = reach - i // stride, reach - j // stride
                here = (slice(None), slice(down, down + rows), slice(right, right + columns))
                found = found + (g[here] if first is None else jnp.where(first[here] == i * window + j, g[here], 0))
        return jnp.broadcast_to(found, (g.shape[0], rows, columns, g.shape[3]))

    phases = jnp.stack([jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)], 2)
    return phases.reshape(g.shape[0], rows * stride, columns * stride, g.shape[3])


def _lower(context: Any, *operands: Any, role: str, window: int, padding: Pairs, **params: Any) -> Any:
    """On a CPU. oneDNN's windows hold a pixel at least, and it has no forward derivative."""
    fits = role != "tangent" and max(map(max, padding)) < window
    by = _by_onednn if fits and by_native(context) else _by_shifts
    compute = functools.partial(by, role=role, window=window, padding=padding, **params)
    return mlir.lower_fun(compute, multiple_results=False)(context, *operands)


for _primitive in (max_pool_p, sum_pool_p):
    batching.primitive_batchers[_primitive] = functools.partial(_batched, _primitive)
    _biggest = {"biggest": _primitive is max_pool_p}
    mlir.register_lowering(_primitive, mlir.lower_fun(functools.partial(_by_xla, **_biggest), multiple_results=False))
    mlir.register_lowering(_primitive, functools.partial(_lower, **_biggest), platform="cpu")
