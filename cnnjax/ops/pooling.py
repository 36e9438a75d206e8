"""Max and sum pooling as JAX primitives; the implementation is chosen when a program is lowered.

On a CPU, XLA's pools take 2 to 20 times as long, above all the gradient of max pooling. There oneDNN computes them (see
`cnnjax.ops.onednn`), or sums and comparisons of shifted slices, which are vectorized over the whole feature maps.
Elsewhere XLA does.
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
from cnnjax.ops.partitioning import Axes, on_each_device
from cnnjax.ops.primitive import primitive, uses_onednn

Pairs = tuple[tuple[int, int], ...]
MAX_WINDOW = 15  # side of the largest window for max pooling by oneDNN
MAX_SHIFTED = 8  # side of the largest window for `_by_shifts`, which compiles an operation for each of its positions

# Parameter `role` selects the function. Max pooling has 'output' (x), 'images' (gradient of the output, x), which is
# the gradient of x, and 'tangent' (tangent of x, x); the last two are linear in their first operand and each other's
# transpose. Sum pooling has 'output' (x) and its transpose, 'images' (gradient of the output).
max_pool_p, sum_pool_p = primitive("max_pool"), primitive("sum_pool")
MAX_TRANSPOSES = {"tangent": "images", "images": "tangent"}
SUM_TRANSPOSES = {"output": "images", "images": "output"}


def max_pool(x: jax.Array, window: int, stride: int, padding: Pairs) -> jax.Array:
    """Applies max pooling over square windows: [N, H, W, C] -> [N, H', W', C].

    `padding` is ((top, bottom), (left, right)) in pixels, filled with -infinity. Of equal maxima in a window, the
    gradient goes to the first.
    """
    return max_pool_p.bind(x, role="output", **_options(x, window, stride, padding))


def sum_pool(x: jax.Array, window: int, stride: int, padding: Pairs) -> jax.Array:
    """Sums over square windows: [N, H, W, C] -> [N, H', W', C].

    `padding` is ((top, bottom), (left, right)) in pixels, filled with 0.
    """
    return sum_pool_p.bind(x, role="output", **_options(x, window, stride, padding))


def _options(x: jax.Array, window: int, stride: int, padding: Pairs) -> dict[str, Any]:
    """Returns the primitive's parameters for images x [N, H, W, C], among them the output shape."""
    out = ((low + size + high - window) // stride + 1 for size, (low, high) in zip(x.shape[1:3], padding, strict=True))
    return {"shape": (x.shape[0], *out, x.shape[3]), "window": window, "stride": stride, "padding": padding}


# --------------------------------------------------------------------------------------------------------- derivatives


def _max_jvp(primals: Any, tangents: Any, *, role: str, **options: Any) -> Any:
    """Differentiates max pooling with respect to the first operand of `role` (see `_by_xla`).

    A second operand only locates the maxima, and has no gradient, as their locations are piecewise constant in x.
    """
    out = max_pool_p.bind(*primals, role=role, **options)
    if isinstance(tangents[0], ad.Zero):
        return out, jnp.zeros_like(out)
    tangent_role = "tangent" if role == "output" else role
    return out, max_pool_p.bind(tangents[0], primals[-1], role=tangent_role, **options)


def _max_transpose(cotangent: Any, tangent: Any, x: Any, *, role: str, shape: Any, **options: Any) -> Any:
    """Transposes the roles of max pooling that are linear in `tangent`, their first operand.

    Returns the cotangent of `tangent`, and None for x.
    """
    if isinstance(cotangent, ad.Zero):
        return ad.Zero(tangent.aval), None
    return max_pool_p.bind(cotangent, x, role=MAX_TRANSPOSES[role], shape=tangent.aval.shape, **options), None


def _sum_transpose(cotangent: Any, x: Any, *, role: str, shape: Any, **options: Any) -> Any:
    """Transposes sum pooling, or its transpose; returns the cotangent of its operand x."""
    return [sum_pool_p.bind(cotangent, role=SUM_TRANSPOSES[role], shape=x.aval.shape, **options)]


def _batched(pool_p: Primitive, operands: Any, axes: Any, *, shape: Any, **options: Any) -> Any:
    """Implements vmap by joining the mapped axis with the batch axis; returns the result and its mapped axis."""
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


def _by_xla(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, is_max: bool) -> Any:
    """Computes a pool or a derivative of it, the `role`, with XLA's reduce_window and JAX's derivatives.

    'output' is the pool of x, the only operand. 'images' is the gradient of x, from the output's gradient and, for max
    pooling, x. 'tangent', of max pooling only, is the output's tangent, from x's tangent and x. `shape` is that of the
    result, and `is_max` tells max from sum pooling.
    """
    *linear, x = operands

    def pool(x: Any) -> Any:
        start, join = (np.array(-np.inf, x.dtype), lax.max) if is_max else (np.zeros((), x.dtype), lax.add)
        sizes, steps = (1, window, window, 1), (1, stride, stride, 1)
        return lax.reduce_window(x, start, join, sizes, steps, ((0, 0), *padding, (0, 0)))

    if role == "output":
        return pool(x)
    if not is_max:
        return jax.linear_transpose(pool, jax.ShapeDtypeStruct(shape, x.dtype))(x)[0]
    return jax.jvp(pool, (x,), tuple(linear))[1] if role == "tangent" else jax.vjp(pool, x)[1](*linear)[0]


def _by_onednn(
    *operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, is_max: bool, devices: int = 1,
    dtype: Any = None,
) -> Any:  # fmt: skip
    """Computes a role (see `_by_xla`) other than 'tangent' with oneDNN; the result has the dtype of the operands.

    oneDNN has no sum pooling: it is computed as average pooling times the area of the window, in float32, as a mean in
    bfloat16 would be rounded twice. `dtype` is that of max pooling, None for `onednn.compute_dtype`. `devices` is the
    number of devices of this process that compute at the same time, and so divide its cores.
    """
    first, x = operands[0], operands[-1]
    dtype = (dtype or onednn.compute_dtype(x.dtype)) if is_max else jnp.float32
    out = jax.ffi.ffi_call(onednn.POOL, jax.ShapeDtypeStruct(shape, dtype))(
        first.astype(dtype),
        x.astype(dtype),
        is_max=is_max,
        backward=role == "images",
        window=np.int64(window),
        stride=np.int64(stride),
        padding=np.array(padding, np.int64).ravel(),
        devices=np.int64(devices),
    )
    return (out if is_max else out * window**2).astype(first.dtype)


def _by_shifts(*operands: Any, role: str, shape: Any, window: int, stride: int, padding: Pairs, is_max: bool) -> Any:
    """Computes a role (see `_by_xla`) by strided slices of the padded operands, one per position in the window.

    `window` is at most 15, as positions are numbered in uint8.
    """
    *linear, x = operands
    edges = ((0, 0), *padding, (0, 0))
    inside = tuple(slice(low, low + size) for (low, _), size in zip(padding, shape[1:3], strict=True))
    if not is_max:
        if role == "output":
            return sum(_window_positions(jnp.pad(x, edges), window, stride))
        sides = [low + size + high for size, (low, high) in zip(shape[1:3], padding, strict=True)]
        return _scatter_windows(x, None, window, stride, sides)[:, *inside]

    padded = jnp.pad(x, edges, constant_values=-np.inf)
    if role == "output":
        return functools.reduce(jnp.maximum, _window_positions(padded, window, stride))
    best, *others = _window_positions(padded, window, stride)
    first = jnp.zeros(best.shape, jnp.uint8)
    for number, other in enumerate(others, start=1):
        best, first = jnp.maximum(best, other), jnp.where(other > best, jnp.uint8(number), first)
    if role == "images":
        return _scatter_windows(linear[0], first, window, stride, padded.shape[1:3])[:, *inside]
    tangents = enumerate(_window_positions(jnp.pad(linear[0], edges), window, stride))
    return sum(jnp.where(first == number, tangent, 0) for number, tangent in tangents)


def _window_positions(padded: jax.Array, window: int, stride: int) -> Iterator[jax.Array]:
    """Yields one array [N, H', W', C] per position in the window, row by row: the values there in all windows.

    `padded` is the padded input [N, H, W, C].
    """
    rows, columns = ((size - window) // stride * stride + 1 for size in padded.shape[1:3])
    for i in range(window):
        for j in range(window):
            limits = (padded.shape[0], i + rows, j + columns, padded.shape[3])
            yield lax.slice(padded, (0, i, j, 0), limits, (1, stride, stride, 1))


def _scatter_windows(
    g: jax.Array, first: jax.Array | None, window: int, stride: int, sides: Sequence[int]
) -> jax.Array:
    """Computes the gradient of a pool's padded input, whose height and width are `sides`, from that of its output, g.

    Each pixel sums g over the windows that cover it. `first` is the position of the maximum in each window, numbered
    row by row; then a window counts only for the pixel at that position. None (sum pooling) counts all. Pixels whose
    positions agree modulo the stride are computed together: they are at the same positions of their windows.
    """
    rows, columns = (-(-side // stride) for side in sides)
    reach = (window - 1) // stride  # earlier windows that cover a pixel, besides its own
    grow = ((0, 0), *((reach, max(0, n - size)) for n, size in zip((rows, columns), g.shape[1:3], strict=True)), (0, 0))
    g = jnp.pad(g, grow)
    first = None if first is None else jnp.pad(first, grow, constant_values=window**2)

    def phase(a: int, b: int) -> Any:
        """Returns the gradient of the pixels at (a, b) modulo the stride."""
        gradient = jnp.zeros((), g.dtype)
        for i in range(a, window, stride):
            for j in range(b, window, stride):
                down, right = reach - i // stride, reach - j // stride
                here = (slice(None), slice(down, down + rows), slice(right, right + columns))
                gradient = gradient + (
                    g[here] if first is None else jnp.where(first[here] == i * window + j, g[here], 0)
                )
        return jnp.broadcast_to(gradient, (g.shape[0], rows, columns, g.shape[3]))

    phases = jnp.stack([jnp.stack([phase(a, b) for b in range(stride)], 3) for a in range(stride)], 2)
    return phases.reshape(g.shape[0], rows * stride, columns * stride, g.shape[3])


def _lower(context: Any, *operands: Any, role: str, window: int, padding: Pairs, is_max: bool, **params: Any) -> Any:
    """Lowers a pool for CPUs: to oneDNN where that can compute the role, else to shifted slices or, if large, to XLA.

    oneDNN has no role 'tangent', and no windows that lie in the padding alone. In bfloat16, oneDNN 3.2 takes other
    pixels than the maxima in windows of more than 255.
    """
    fits = role != "tangent" and max(map(max, padding)) < window and (window <= MAX_WINDOW or not is_max)
    by = _by_shifts if window <= MAX_SHIFTED else _by_xla
    if fits and uses_onednn(context):
        x, y = "nhwc", "npqc"
        operands_axes = {"output": (x,), "images": (y, x)[: len(operands)]}[role]
        axes = Axes(operands_axes, x if role == "images" else y, divisible="nc")
        by = on_each_device(context, _by_onednn, axes)
    compute = functools.partial(by, role=role, window=window, padding=padding, is_max=is_max, **params)
    return mlir.lower_fun(compute, multiple_results=False)(context, *operands)


for _primitive in (max_pool_p, sum_pool_p):
    batching.primitive_batchers[_primitive] = functools.partial(_batched, _primitive)
    _kind = {"is_max": _primitive is max_pool_p}
    mlir.register_lowering(_primitive, mlir.lower_fun(functools.partial(_by_xla, **_kind), multiple_results=False))
    mlir.register_lowering(_primitive, functools.partial(_lower, **_kind), platform="cpu")
