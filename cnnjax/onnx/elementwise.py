"""Operations on each element of arrays: rows of the table from JAX's primitives to ONNX, see `cnnjax.onnx.convert`."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from cnnjax.onnx.builder import Array, Builder, Operator, Unsupported, Value, broadcast, common_order
from cnnjax.onnx.file import element_type


def elementwise(builder: Builder, values: Sequence[Array], equation: Any, *, op: str) -> Value:
    """Applies an operation that broadcasts, such as 'Add'."""
    order, shape = common_order(values), broadcast([x.shape for x in values])
    inputs = [builder.arranged(x, order) for x in values]
    return builder.node(op, inputs, shape, equation.outvars[0].aval.dtype, order)


def _chain(builder: Builder, values: Sequence[Array], equation: Any, *, ops: Sequence[str]) -> Array:
    """Applies several operations of one operand, one after the other."""
    (x,) = values
    for op in ops:
        x = elementwise(builder, [x], equation, op=op)
    return x


def _with_constant(
    builder: Builder, values: Sequence[Array], equation: Any, *, op: str, constant: float, before: str = "",
    first: bool = False,
) -> Array:  # fmt: skip
    """Applies `before`, if any, and then `op` with a constant: as the first operand if `first`, else as the second."""
    (x,) = values
    x = elementwise(builder, [x], equation, op=before) if before else x
    number = np.array(constant, equation.outvars[0].aval.dtype)
    return elementwise(builder, [number, x] if first else [x, number], equation, op=op)


def _square(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Multiplies x by itself."""
    return elementwise(builder, [values[0], values[0]], equation, op="Mul")


def _integer_pow(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Raises x to the power y, which is a parameter."""
    if equation.params["y"] == 2:
        return _square(builder, values, equation)
    return _with_constant(builder, values, equation, op="Pow", constant=equation.params["y"])


def _max(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Takes the larger of two; with a constant 0 this is a ReLU."""
    for x, other in (values, reversed(values)):
        if isinstance(other, np.ndarray) and other.ndim == 0 and other == 0 and isinstance(x, Value):
            return elementwise(builder, [x], equation, op="Relu")
    return elementwise(builder, values, equation, op="Max")


def _log1p(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Computes log(1 + x)."""
    more = _with_constant(builder, values, equation, op="Add", constant=1)
    return elementwise(builder, [more], equation, op="Log")


def _not_equal(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Compares: a != b."""
    return elementwise(builder, [elementwise(builder, values, equation, op="Equal")], equation, op="Not")


def _select(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Selects from two arrays by a boolean one, the second where that is True."""
    which, *cases = values
    if which.dtype != np.bool_ or len(cases) != 2:
        raise Unsupported("a choice among more than two arrays")
    return elementwise(builder, [which, *cases[::-1]], equation, op="Where")


def _clamp(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Limits x to [low, high]."""
    low, x, high = values
    return elementwise(builder, [elementwise(builder, [x, low], equation, op="Max"), high], equation, op="Min")


def _convert(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Converts to another dtype."""
    (x,), dtype = values, np.dtype(equation.params["new_dtype"])
    if x.dtype == dtype or isinstance(x, np.ndarray):
        return x.astype(dtype) if isinstance(x, np.ndarray) else x
    return builder.node("Cast", [x.name], x.shape, dtype, x.order, to=element_type(dtype))


def _same(builder: Builder, values: Sequence[Array], equation: Any) -> Array:
    """Returns the operand."""
    return values[0]


ELEMENTWISE: dict[str, Operator] = {
    **{
        primitive: partial(elementwise, op=op)
        for primitive, op in {
            "add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "min": "Min", "pow": "Pow",
            "neg": "Neg", "abs": "Abs", "sign": "Sign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "tanh": "Tanh",
            "logistic": "Sigmoid", "erf": "Erf", "floor": "Floor", "ceil": "Ceil", "sin": "Sin", "cos": "Cos",
            "eq": "Equal", "gt": "Greater", "ge": "GreaterOrEqual", "lt": "Less", "le": "LessOrEqual",
            "and": "And", "or": "Or", "not": "Not",
        }.items()
    },
    "max": _max,
    "square": _square,
    "integer_pow": _integer_pow,
    "rsqrt": partial(_chain, ops=("Sqrt", "Reciprocal")),
    "expm1": partial(_with_constant, before="Exp", op="Sub", constant=1),
    "erfc": partial(_with_constant, before="Erf", op="Sub", constant=1, first=True),
    "log1p": _log1p,
    "ne": _not_equal,
    "select_n": _select,
    "clamp": _clamp,
    "convert_element_type": _convert,
    "copy": _same,
    "copy_p": _same,
    "stop_gradient": _same,
    "reduce_precision": _same,
}  # fmt: skip
