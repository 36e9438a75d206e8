"""Operations that move elements: rows of the table from JAX's primitives to ONNX, see `cnnjax.onnx.convert`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.onnx.builder import (
    NCHW,
    Array,
    Builder,
    Operator,
    Shape,
    Unsupported,
    Value,
    common_order,
    identity,
    integers,
    is_empty,
    is_static,
    tensor,
    without,
)  # fmt: skip

BEFORE_THE_FIRST = np.iinfo(np.int64).min  # the limit of a slice that goes backwards to the start


def _broadcast_in_dim(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Inserts axes of size 1; what is only repeated stays as it is."""
    x, axes = values[0], equation.params["broadcast_dimensions"]
    rank = len(equation.params["shape"])
    sizes: list[Any] = [1] * rank
    for axis, size in zip(axes, x.shape, strict=True):
        sizes[axis] = size
    if isinstance(x, np.ndarray):
        return x.reshape(sizes)
    if len(axes) == rank:
        return x
    present = tuple(axes[axis] for axis in x.order)
    order = NCHW if rank == len(NCHW) else identity(rank)
    if tuple(axis for axis in order if axis in axes) != present:
        x = builder.value_in_own_order(x)
        order = identity(rank)
    new = integers([i for i, axis in enumerate(order) if axis not in axes])
    return builder.node("Unsqueeze", [x.name, new], tuple(sizes), x.dtype, order)


def _reshape(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Reshapes; the size that depends on the batch is computed by ONNX."""
    shape = tuple(equation.outvars[0].aval.shape)
    if equation.params.get("dimensions") is not None:
        raise Unsupported("a reshape that also transposes")
    x = builder.full(values[0], equation.invars[0].aval.shape)
    if tuple(x.shape) == shape:
        return x
    if sum(not is_static(size) for size in shape) > 1:
        raise Unsupported("a reshape to two sizes that depend on the batch")
    sizes = integers([size if is_static(size) else -1 for size in shape])
    return builder.node("Reshape", [builder.in_own_order(x), sizes], shape, x.dtype)


def _squeeze(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Removes axes of size 1."""
    (x,), axes = values, equation.params["dimensions"]
    if isinstance(x, np.ndarray):
        return x.squeeze(tuple(axes))
    shape, order = without(axes, x)
    return builder.node("Squeeze", [x.name, integers(sorted(map(x.position, axes)))], shape, x.dtype, order)


def _transpose(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Transposes: only the order of axes that is remembered changes."""
    (x,), moves = values, equation.params["permutation"]
    if isinstance(x, np.ndarray):
        return x.transpose(moves)
    shape = tuple(x.shape[axis] for axis in moves)
    return Value(x.name, shape, x.dtype, tuple(moves.index(axis) for axis in x.order))


def _concatenate(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Concatenates along an axis. Arrays without elements are left out."""
    pairs = zip(values, equation.invars, strict=True)
    whole = [builder.full(x, variable.aval.shape) for x, variable in pairs if not is_empty(variable)]
    order, out = common_order(whole), equation.outvars[0].aval
    if len(whole) == 1:
        return whole[0]
    axis = order.index(equation.params["dimension"])
    return builder.node("Concat", [builder.arranged(x, order) for x in whole], out.shape, out.dtype, order, axis=axis)


def _stack(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Concatenates along a new axis."""
    axis, out = equation.params["axis"], equation.outvars[0].aval
    shape = (*out.shape[:axis], 1, *out.shape[axis + 1 :])
    axes, wide = integers([axis]), []
    for x, variable in zip(values, equation.invars, strict=True):
        whole = builder.full(x, variable.aval.shape)
        if isinstance(whole, np.ndarray):
            wide.append(np.expand_dims(whole, axis))
        else:
            wide.append(builder.node("Unsqueeze", [builder.in_own_order(whole), axes], shape, whole.dtype).name)
    return builder.node("Concat", wide, out.shape, out.dtype, axis=axis)


def _split(builder: Builder, values: Sequence[Array], equation: Any) -> list[Array]:
    """Splits along an axis."""
    x = tensor(builder.full(values[0], equation.invars[0].aval.shape))
    axis, shapes = x.position(equation.params["axis"]), [variable.aval.shape for variable in equation.outvars]
    sizes = integers(equation.params["sizes"])
    return [*builder.nodes_outputs("Split", [x.name, sizes], shapes, x.dtype, x.order, axis=axis)]


def _pad(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Pads with a constant, or crops."""
    x, number = tensor(builder.full(values[0], equation.invars[0].aval.shape)), values[1]
    config, out = equation.params["padding_config"], equation.outvars[0].aval
    if any(interior for *_, interior in config):
        raise Unsupported("padding between pixels")
    return padded(builder, x, [config[axis][:2] for axis in range(len(config))], number, out.shape)


def padded(builder: Builder, x: Value, pads: Sequence[Sequence[int]], number: Any, shape: Shape) -> Value:
    """Pads each of JAX's axes of `x` by (before, after), `pads`, with `number`; the result has the sizes `shape`."""
    if not any(map(any, pads)):
        return x
    amounts = integers([*(pads[axis][0] for axis in x.order), *(pads[axis][1] for axis in x.order)])
    return builder.node("Pad", [x.name, amounts, number], shape, x.dtype, x.order)


def _slice(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Slices along the axes that are not taken whole."""
    x, params = tensor(builder.full(values[0], equation.invars[0].aval.shape)), equation.params
    strides = params["strides"] or [1] * len(x.shape)
    cuts = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return _cut(builder, x, dict(enumerate(cuts)), equation.outvars[0].aval.shape)


def _rev(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Reverses axes."""
    x = tensor(builder.full(values[0], equation.invars[0].aval.shape))
    return _cut(builder, x, dict.fromkeys(equation.params["dimensions"], (-1, BEFORE_THE_FIRST, -1)), x.shape)


def _cut(builder: Builder, x: Value, cuts: Mapping[int, tuple[Any, Any, int]], shape: Shape) -> Value:
    """Slices `x`; `cuts` are (start, limit, stride) by axis. Axes that are taken whole may be among them."""
    parts = {axis: cut for axis, cut in cuts.items() if cut != (0, x.shape[axis], 1)}
    if not parts:
        return x
    starts, limits, strides = (integers(values) for values in zip(*parts.values(), strict=True))
    axes = integers(list(map(x.position, parts)))
    return builder.node("Slice", [x.name, starts, limits, axes, strides], shape, x.dtype, x.order)


def _gather(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Takes elements at constant positions of each image, found by gathering from an array of indices."""
    x, places = tensor(builder.full(values[0], equation.invars[0].aval.shape)), values[1]
    sizes = equation.params["slice_sizes"]
    if not isinstance(places, np.ndarray) or not x.shape or x.shape[0] != sizes[0] or is_static(sizes[0]):
        raise Unsupported("indices that depend on the image")
    out, inner = equation.outvars[0].aval, tuple(x.shape[1:])
    numbers = np.arange(np.prod(inner), dtype=np.int32).reshape(1, *inner)
    taken = np.asarray(equation.primitive.bind(numbers, places, **equation.params | {"slice_sizes": (1, *sizes[1:])}))
    if tuple(taken.shape[1:]) != tuple(out.shape[1:]) or taken.min() < 0:
        raise Unsupported("indices outside of the array")
    if cut := _regular(taken[0], numbers[0]):
        return _cut(builder, x, dict(enumerate(cut, start=1)), out.shape)
    flat = builder.node(
        "Reshape", [builder.in_own_order(x), integers([-1, numbers.size])], (x.shape[0], numbers.size), x.dtype
    )
    return builder.node("Gather", [flat.name, taken[0].astype(np.int64)], out.shape, x.dtype, axis=1)


def _regular(taken: np.ndarray, numbers: np.ndarray) -> list[tuple[int, int, int]] | None:
    """Returns start, limit and stride on each axis if `taken` is a slice of `numbers` (0, 1, ...), else None."""
    if taken.ndim != numbers.ndim:
        return None
    first = np.unravel_index(taken.flat[0], numbers.shape)
    last = np.unravel_index(taken.flat[-1], numbers.shape)
    cut = [
        (int(start), int(end) + 1, int(end - start) // (size - 1) if size > 1 else 1)
        for start, end, size in zip(first, last, taken.shape, strict=True)
    ]
    if any(stride < 1 for *_, stride in cut):
        return None
    return cut if np.array_equal(taken, numbers[tuple(slice(*one) for one in cut)]) else None


SHAPES: dict[str, Operator] = {
    "broadcast_in_dim": _broadcast_in_dim,
    "reshape": _reshape,
    "squeeze": _squeeze,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "split": _split,
    "pad": _pad,
    "slice": _slice,
    "rev": _rev,
    "gather": _gather,
}
