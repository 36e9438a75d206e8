"""Converts a JAX function to an ONNX graph, from its jaxpr.

What does not depend on the images is computed here and becomes constants. Each remaining primitive is a row of
`OPERATORS`: to support another, add a row.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import core

from cnnjax.errors import InputError
from cnnjax.onnx.builder import Array, Builder, Operator, Unsupported, Value, is_empty, is_static
from cnnjax.onnx.elementwise import ELEMENTWISE
from cnnjax.onnx.graph import BATCH, Graph
from cnnjax.onnx.layers import LAYERS
from cnnjax.onnx.shapes import SHAPES
from cnnjax.summarize.receptive_field import ALL, NOTHING, ReceptiveField, output_field

OPERATORS: dict[str, Operator] = {**ELEMENTWISE, **SHAPES, **LAYERS}
CALLS = {  # primitives that call a function, and the parameter with its jaxpr
    "jit": "jaxpr", "pjit": "jaxpr", "closed_call": "call_jaxpr", "core_call": "call_jaxpr", "remat2": "jaxpr",
    "checkpoint": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr",
}  # fmt: skip
NUMPY: dict[str, Callable[..., np.ndarray]] = {  # constants that NumPy computes: JAX would compile each for seconds
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "max": np.maximum, "neg": np.negative,
    "sqrt": np.sqrt, "rsqrt": lambda x: np.reciprocal(np.sqrt(x)),
}  # fmt: skip
LOGITS, PROBABILITIES = "logits", "probabilities"  # the outputs


def to_graph(logits: Callable[[jax.Array], jax.Array], shape: Sequence[int], dtype: Any) -> Graph:
    """Converts a function images [b, *shape] -> logits [b, classes] to a graph, for any b.

    The graph's outputs are 'logits' and 'probabilities', the softmax of them. `dtype` is that of the images.

    Raises:
      InputError: an operation has no counterpart here; names the primitive and the layer.
    """
    (batch,) = jax.export.symbolic_shape(BATCH)
    closed = jax.make_jaxpr(logits)(jax.ShapeDtypeStruct((batch, *shape), dtype))
    builder = Builder((batch, *shape), np.dtype(dtype))
    try:
        (out,) = _convert(builder, closed.jaxpr, closed.consts, [builder.images], (), [True])
        scores = builder.value_in_own_order(builder.full(out, closed.out_avals[0].shape))
    except Unsupported as error:
        raise InputError(str(error)) from error
    builder.path = ()
    probabilities = builder.node("Softmax", [scores.name], scores.shape, scores.dtype, axis=-1)
    return builder.graph({LOGITS: scores, PROBABILITIES: probabilities})


def _convert(
    builder: Builder, jaxpr: Any, constants: Sequence[Any], inputs: Sequence[Array], path: tuple[str, ...],
    needed: Sequence[bool],
) -> list[Any]:  # fmt: skip
    """Adds the equations of a jaxpr to the graph and returns its outputs, None where one is not `needed`.

    `constants` and `inputs` are the values of its variables, `path` the modules that it is in.
    """
    values: dict[Any, Array] = dict(zip(jaxpr.constvars, map(_as_constant, constants), strict=True))
    values |= dict(zip(jaxpr.invars, inputs, strict=True))

    def read(atom: Any) -> Any:
        """Returns the value of a variable or a literal."""
        literal = isinstance(atom, core.Literal)
        return _as_constant(atom.val, np.dtype(getattr(atom.aval, "dtype", None))) if literal else values.get(atom)

    for equation, wanted in _needed_equations(jaxpr, needed):
        # Flax names each module, and its methods other than __call__ as 'block1.method'; JAX's own names have brackets.
        scope = str(equation.source_info.name_stack).split("/")
        inner = (*path, *(name for name in scope if re.fullmatch(r"\w+", name)))
        operands = [read(atom) for atom in equation.invars]
        results = _results(builder, equation, operands, inner, wanted)
        values.update(zip(equation.outvars, results, strict=True))
    return [read(atom) if used else None for atom, used in zip(jaxpr.outvars, needed, strict=True)]


def _results(
    builder: Builder, equation: Any, operands: Sequence[Any], path: tuple[str, ...], needed: Sequence[bool]
) -> Sequence[Any]:
    """Returns the results of an equation: computed if all operands are constant, else outputs of the graph."""
    name = equation.primitive.name
    if name in CALLS:
        return _convert(builder, *_opened(equation.params[CALLS[name]]), operands, path, needed)
    shapes = [atom.aval.shape for atom in (*equation.invars, *equation.outvars)]
    static = all(is_static(size) for shape in shapes for size in shape) and name != "dim_as_value"
    if static and name != "broadcast_in_dim" and all(_is_constant(x) for x in operands):
        return _computed(equation, operands)
    if name == "scan":
        return _unrolled(builder, equation, operands, path, needed)
    builder.path = path[1:]  # the first name is that of the network's class
    builder.field = _field(builder, equation, operands)
    try:
        if name not in OPERATORS:
            raise Unsupported("it is not in the table of cnnjax.onnx")
        results = OPERATORS[name](builder, operands, equation)
    except Unsupported as error:
        where = "/".join(path[1:]) or "the network"
        raise InputError(f"JAX's operation {name!r} in {where} has no counterpart in ONNX here: {error}") from error
    return results if isinstance(results, list) else [results]


def _field(builder: Builder, equation: Any, operands: Sequence[Any]) -> ReceptiveField | None:
    """Returns the receptive field of an equation's result; None for the whole image."""
    fields = [builder.tensors[x.name].field or ALL if isinstance(x, Value) else NOTHING for x in operands]
    field = output_field(equation, fields) if set(fields) - {NOTHING} else ALL
    return field if isinstance(field, ReceptiveField) else None


def _unrolled(
    builder: Builder, equation: Any, operands: Sequence[Any], path: tuple[str, ...], needed: Sequence[bool]
) -> Sequence[Any]:
    """Adds the body of a loop over stacked constants once for each of its steps. Returns the results of the loop."""
    params = equation.params
    jaxpr, constants = _opened(params["jaxpr"])
    fixed, carried = _loop_sizes(params)
    stacked = operands[fixed + carried :]
    if any(needed[carried:]) or not all(map(_is_constant, stacked)):
        raise InputError("a loop (scan) over arrays that depend on the image has no counterpart in ONNX here")
    carry = list(operands[fixed : fixed + carried])
    stacked = [
        _repeated(x, atom.aval.shape) for x, atom in zip(stacked, equation.invars[fixed + carried :], strict=True)
    ]
    steps = range(params["length"])
    for step in reversed(steps) if params["reverse"] else steps:
        inputs = [*operands[:fixed], *carry, *(np.asarray(x[step]) for x in stacked)]
        wanted = [i < carried for i in range(len(jaxpr.outvars))]
        carry = _convert(builder, jaxpr, constants, inputs, (*path, str(step)), wanted)[:carried]
    return [*carry, *(None for _ in needed[carried:])]


def _loop_sizes(params: Mapping[str, Any]) -> tuple[int, int]:
    """Returns how many arrays of a scan are the same in all steps, and how many are carried between steps."""
    if "num_carry" in params:
        return params["num_consts"], params["num_carry"]
    fixed, carried, _ = map(len, params["ft_in"].unpack())  # JAX 0.12
    return fixed, carried


def _opened(jaxpr: Any) -> tuple[Any, Sequence[Any]]:
    """Returns a jaxpr and its constants, whether it is closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def _needed_equations(jaxpr: Any, needed: Sequence[bool]) -> list[tuple[Any, list[bool]]]:
    """Returns the equations on which the needed outputs depend, each with which of its own outputs are needed.

    Arrays without elements, as jnp.pad makes them for axes that it does not pad, count as not needed.
    """
    required = {atom for atom, used in zip(jaxpr.outvars, needed, strict=True) if used and isinstance(atom, core.Var)}
    equations = []
    for equation in reversed(jaxpr.eqns):
        wanted = [variable in required for variable in equation.outvars]
        if any(wanted):
            required.update(atom for atom in equation.invars if isinstance(atom, core.Var) and not is_empty(atom))
            equations.append((equation, wanted))
    return equations[::-1]


def _computed(equation: Any, operands: Sequence[Any]) -> list[Any]:
    """Computes an equation whose operands are constant."""
    name, dtype = equation.primitive.name, equation.outvars[0].aval.dtype
    if name in NUMPY and dtype == np.float32:
        return [np.asarray(NUMPY[name](*operands), dtype)]
    whole = [_repeated(x, atom.aval.shape) for x, atom in zip(operands, equation.invars, strict=True)]
    results = equation.primitive.bind(*whole, **equation.params)
    return list(map(_as_constant, results if equation.primitive.multiple_results else [results]))


def _repeated(x: Any, shape: Sequence[int]) -> Any:
    """Returns a constant with the sizes `shape`, repeated along axes that it was only broadcast along."""
    return np.broadcast_to(x, shape) if isinstance(x, np.ndarray) else x


def _is_constant(x: Any) -> bool:
    """Returns whether a value is no tensor of the graph: an array, or a key of jax.random."""
    return isinstance(x, np.ndarray | jax.Array)


def _as_constant(x: Any, dtype: Any = None) -> Any:
    """Returns an array of numpy; a key of jax.random stays as it is."""
    if isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.extended):
        return x
    return np.asarray(x, dtype)
