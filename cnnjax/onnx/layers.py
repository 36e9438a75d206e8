"""Layers: rows of the table from JAX's primitives and our own to ONNX, see `cnnjax.onnx.convert`."""

import string
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cnnjax.onnx.builder import NCHW, Array, Builder, Operator, Unsupported, identity, integers, tensor, without
from cnnjax.onnx.elementwise import elementwise
from cnnjax.onnx.shapes import padded


def _reduce(builder: Builder, values: Sequence[Array], equation: Any, *, op: str) -> Array:
    """Reduces over axes, which are removed."""
    x, axes = tensor(builder.full(values[0], equation.invars[0].aval.shape)), equation.params["axes"]
    if not axes:
        return x
    shape, order = without(axes, x)
    positions = integers(sorted(map(x.position, axes)))
    return builder.node(op, [x.name, positions], shape, x.dtype, order, keepdims=0)


def _dot_general(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Multiplies matrices; contractions of other axes are written as einsum."""
    (left_axes, right_axes), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (builder.full(x, v.aval.shape) for x, v in zip(values, equation.invars, strict=True))
    out, rank = equation.outvars[0].aval, len(left.shape)
    if tuple(left_axes) == (rank - 1,) and not left_batch and len(right.shape) == 2:
        turned = builder.arranged(right, (*right_axes, *(axis for axis in (0, 1) if axis not in right_axes)))
        op = "Gemm" if rank == 2 else "MatMul"
        return builder.node(op, [builder.in_own_order(left), turned], out.shape, out.dtype)
    letters = iter(string.ascii_letters)
    names: tuple[dict[int, str], dict[int, str]] = ({}, {})
    for first, second in ((left_batch, right_batch), (left_axes, right_axes)):
        for axis, other in zip(first, second, strict=True):
            names[0][axis] = names[1][other] = next(letters)
    texts = ["".join(own.setdefault(axis, next(letters)) for axis in range(len(x.shape)))
             for own, x in zip(names, (left, right), strict=True)]  # fmt: skip
    summed = {names[0][axis] for axis in left_axes}
    batch = "".join(names[0][axis] for axis in left_batch)
    free = "".join(letter for text in texts for letter in text if letter not in summed and letter not in batch)
    equation_text = f"{texts[0]},{texts[1]}->{batch}{free}"
    inputs = [builder.in_own_order(x) for x in (left, right)]
    return builder.node("Einsum", inputs, out.shape, out.dtype, equation=equation_text)


def _convolution(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Convolves images NHWC with kernels HWIO: the primitive of `cnnjax.ops.convolution`."""
    params = equation.params
    if params["role"] != "output":
        raise Unsupported("a gradient")
    return _convolve(
        builder, values, equation, specs=(NCHW, (3, 2, 0, 1), NCHW), strides=params["strides"],
        padding=params["padding"], dilation=params["dilation"], groups=params["groups"],
    )  # fmt: skip


def _conv_general_dilated(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Convolves by JAX's own primitive."""
    params = equation.params
    if any(gap != 1 for gap in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise Unsupported("a transposed convolution")
    return _convolve(
        builder, values, equation, specs=params["dimension_numbers"], strides=params["window_strides"],
        padding=params["padding"], dilation=params["rhs_dilation"], groups=params["feature_group_count"],
    )  # fmt: skip


def _convolve(
    builder: Builder, values: Sequence[Array], equation: Any, *, specs: Sequence[Sequence[int]],
    strides: Sequence[int], padding: Sequence[Sequence[int]], dilation: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """Convolves. `specs` are the axes of images, kernel and output in the order of ONNX."""
    x, kernel = (builder.full(x, v.aval.shape) for x, v in zip(values, equation.invars, strict=True))
    out, inputs = (
        equation.outvars[0].aval,
        [builder.arranged(a, spec) for a, spec in zip((x, kernel), specs, strict=False)],
    )
    attributes: dict[str, Any] = {
        "kernel_shape": tuple(kernel.shape[axis] for axis in specs[1][2:]),
        "strides": tuple(strides),
        "pads": (*(low for low, _ in padding), *(high for _, high in padding)),
        "dilations": tuple(dilation),
        "group": groups,
    }
    if min(attributes["pads"]) < 0:
        raise Unsupported("a convolution that crops")
    return builder.node("Conv", inputs, out.shape, out.dtype, specs[2], **attributes)


def _pool(builder: Builder, values: Sequence[Array], equation: Any, *, is_max: bool) -> Array:
    """Pools over square windows: the primitives of `cnnjax.ops.pooling`. A sum is the mean times the window's area."""
    params = equation.params
    if params["role"] != "output":
        raise Unsupported("a gradient")
    x, window, stride = values[0], params["window"], params["stride"]
    return _pools(builder, x, equation, window=(window, window), strides=(stride, stride), padding=params["padding"],
                  is_max=is_max)  # fmt: skip


def _reduce_window(builder: Builder, values: Sequence[Array], equation: Any, *, is_max: bool) -> Array:
    """Pools by JAX's own primitive, over rows and columns, or over channels as response normalization does."""
    params = equation.params
    dilations = (*params["base_dilation"], *params["window_dilation"])
    sides = [*zip(params["window_dimensions"], params["window_strides"], params["padding"], strict=True)]
    pooled = {axis for axis, side in enumerate(sides) if side != (1, 1, (0, 0))}
    if len(sides) != len(NCHW) or set(dilations) != {1} or not (pooled <= {1, 2} or pooled <= {2, 3}):
        raise Unsupported("a window over other axes than rows and columns, or columns and channels")
    order = NCHW if pooled <= {1, 2} else identity(len(NCHW))
    window, strides, padding = zip(*(sides[axis] for axis in order[2:]), strict=True)
    return _pools(builder, values[0], equation, window=window, strides=strides, padding=padding, is_max=is_max,
                  order=order)  # fmt: skip


def _pools(
    builder: Builder, x: Array, equation: Any, *, window: Sequence[int], strides: Sequence[int],
    padding: Sequence[Sequence[int]], is_max: bool, order: Sequence[int] = NCHW,
) -> Array:  # fmt: skip
    """Pools over the last two axes of `order`, which has JAX's axes as ONNX's pool gets them.

    Padding as wide as the window, which ONNX's pools do not take, is added before.
    """
    x, out = builder.full(x, equation.invars[0].aval.shape), equation.outvars[0].aval
    if any(max(pads) >= side for pads, side in zip(padding, window, strict=True)):
        number = np.array(-np.inf if is_max else 0, x.dtype)
        pads, sizes = [(0, 0)] * len(order), list(x.shape)
        for axis, (low, high) in zip(order[2:], padding, strict=True):
            pads[axis], sizes[axis] = (low, high), sizes[axis] + low + high
        x = padded(builder, tensor(x), pads, number, tuple(sizes))
        padding = ((0, 0), (0, 0))
    attributes: dict[str, Any] = {
        "kernel_shape": tuple(window),
        "strides": tuple(strides),
        "pads": (*(low for low, _ in padding), *(high for _, high in padding)),
    }
    attributes |= {} if is_max else {"count_include_pad": 1}
    name = builder.arranged(x, order)
    y = builder.node("MaxPool" if is_max else "AveragePool", [name], out.shape, out.dtype, order, **attributes)
    if is_max:
        return y
    return elementwise(builder, [y, np.array(np.prod(window), out.dtype)], equation, op="Mul")


LAYERS: dict[str, Operator] = {
    "reduce_sum": partial(_reduce, op="ReduceSum"),
    "reduce_max": partial(_reduce, op="ReduceMax"),
    "reduce_min": partial(_reduce, op="ReduceMin"),
    "reduce_prod": partial(_reduce, op="ReduceProd"),
    "dot_general": _dot_general,
    "convolution": _convolution,
    "conv_general_dilated": _conv_general_dilated,
    "max_pool": partial(_pool, is_max=True),
    "sum_pool": partial(_pool, is_max=False),
    "reduce_window_max": partial(_reduce_window, is_max=True),
    "reduce_window_sum": partial(_reduce_window, is_max=False),
}
