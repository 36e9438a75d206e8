"""The layers of a network, read from the traced computation: shapes, parameters, MACs, receptive fields."""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnnjax.errors import InputError
from cnnjax.summarize.receptive_field import NOTHING, Pair, ReceptiveField, output_field, window


@dataclasses.dataclass
class Layer:
    """A row of the table: one layer of a network, for one image. Pairs are (rows, columns).

    `params` and `stats` count trainable parameters, of which `biases` are biases, and running statistics. `output` is
    (height, width, channels) or (features,). `kernel`, `stride`, `padding` ((top, bottom), (left, right)), `dilation`
    and `input`, the size of the incoming feature maps, are None except for convolutions and pools. `macs` are
    multiply-accumulates, also those with zero padding. `receptive_field` is the input pixels seen by one output unit,
    None for all; `jump`, the cumulative stride, is those between neighboring output units.
    """

    name: str
    kind: str
    params: int = 0
    biases: int = 0
    stats: int = 0
    output: tuple[int, ...] = ()
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: tuple[Pair, Pair] | None = None
    dilation: Pair | None = None
    input: Pair | None = None
    macs: int = 0
    receptive_field: Pair | None = None
    jump: Pair | None = None

    @property
    def activations(self) -> int:
        """Returns the number of elements of the layer's output, for one image."""
        return math.prod(self.output) if self.output else 0


IMAGE = -1  # in place of the index of an operation


class Operation(NamedTuple):
    """A jaxpr equation, the path of module names that contain it, and the field of its result ('all': whole image).

    `inputs` are the indices of the operations whose results it takes, IMAGE for the image; constants are left out.
    """

    path: tuple[str, ...]
    eqn: Any
    field: ReceptiveField | str
    inputs: tuple[int, ...]


class _Value(NamedTuple):
    """The field of an array, and the index of the operation that made it."""

    field: Any
    operation: int = IMAGE


class _Traced(NamedTuple):
    """A traced network: its operations, the fields of outputs that it returns by name, and shapes of its variables."""

    operations: list[Operation]
    fields: dict[str, ReceptiveField | str]
    variables: Any


KINDS = {  # primitives that are layers, and the kinds that the table shows for them
    "convolution": "convolution", "conv_general_dilated": "convolution", "dot_general": "fully connected",
    "max_pool": "max pool", "sum_pool": "average pool", "reduce_sum": "global average pool",
    "reduce_window_max": "max pool", "reduce_window_sum": "average pool",  # Flax's own
}  # fmt: skip
SCOPES = {  # named scopes that are layers without parameters
    "local_response_norm": "response norm", "spatial_response_norm": "spatial response norm",
}  # fmt: skip


class Flow(NamedTuple):
    """A network's layers, its operations in the order of execution, and the name of each one's layer, None without."""

    layers: list[Layer]
    operations: list[Operation]
    layer_of: list[str | None]


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Lists the layers of a network for images [height, width, channels], in the order of execution.

    A layer is a convolution, a fully connected layer, a pool, or any other module with parameters. Only shapes are
    traced. Raises InputError for images that do not fit, with the layer and the sizes.
    """
    return flow(model, input_shape).layers


def flow(model: nn.Module, input_shape: tuple[int, int, int]) -> Flow:
    """Returns the layers of a network as `layers` does, with the operations that they consist of."""
    traced = _trace(model, input_shape)
    params = traced.variables.get("params", {})
    rows, layer_of = _rows(traced.operations, params)
    for path, own in _owners(params):
        if path not in rows:  # an auxiliary classifier
            rows[path] = _new_row(path, "training only", own)
    for path, own in _owners(traced.variables.get("batch_stats", {})):
        rows.setdefault(path, _new_row(path, "normalization", {})).stats = _size(own)  # without parameters
    return Flow(list(rows.values()), traced.operations, layer_of)


def receptive_fields(model: nn.Module, input_shape: tuple[int, int, int]) -> dict[str, ReceptiveField]:
    """Returns the receptive fields of the layers that a network built with features_only=True returns by name.

    They are in the order of the network. Raises InputError for images [height, width, channels] that do not fit.
    """
    whole = ReceptiveField(input_shape[:2], input_shape[:2], is_global=True)
    fields = _trace(model, input_shape).fields
    return {name: whole if isinstance(field, str) else field for name, field in fields.items()}


def _trace(model: nn.Module, input_shape: tuple[int, int, int]) -> _Traced:
    """Traces a network in inference. Raises InputError for images that do not fit, with the layer and the sizes."""
    if getattr(model, "scan", False):
        model = model.clone(scan=False)  # to see the layers of a loop one by one
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    names: list[str] = []  # of the outputs
    modules: list[str] = []  # the paths of the modules whose calls are being traced

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        modules.append("/".join(context.module.path))
        out = call(*args, **kwargs)
        modules.pop()
        return out

    def init_and_apply(image: Any) -> Any:
        out, variables = model.init_with_output(jax.random.key(0, impl="rbg"), image, train=False)
        names.extend(out if isinstance(out, Mapping) else [])  # in the order of the network, which JAX sorts
        return out, variables

    try:
        with nn.intercept_methods(record):
            closed, (out, variables) = jax.make_jaxpr(init_and_apply, return_shape=True)(image)
    except (TypeError, ValueError) as error:
        size = "x".join(map(str, input_shape))
        where = f", at {modules[-1]}" if modules and modules[-1] else ""
        raise InputError(f"images of {size} do not fit{where}: {error}") from error
    operations: list[Operation] = []
    count = len(jax.tree.leaves(out))
    inputs = [_Value(ReceptiveField((1, 1), (1, 1)))]
    values = _collect(closed.jaxpr, _equations_of(closed.jaxpr, count), inputs, (), operations)
    value_of = dict(zip(sorted(names), values, strict=False))
    return _Traced(operations, {name: value_of[name].field for name in names}, variables)


def _owners(variables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (path, own variables) for each module with variables besides those of its submodules."""
    if own := {name: leaf for name, leaf in variables.items() if not isinstance(leaf, Mapping)}:
        yield "/".join(path), own
    for name, inner in variables.items():
        if isinstance(inner, Mapping):
            yield from _owners(inner, (*path, name))


def _size(variables: Mapping[str, Any]) -> int:
    """Returns the number of elements of these arrays."""
    return sum(math.prod(leaf.shape) for leaf in variables.values())


def _equations_of(jaxpr: Any, outputs: int) -> list[Any]:
    """Returns the equations that the first `outputs` outputs need, without those of auxiliary classifiers."""
    required, equations = set(jaxpr.outvars[:outputs]), []
    for eqn in reversed(jaxpr.eqns):
        if required.intersection(eqn.outvars):
            required.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
            equations.append(eqn)
    return equations[::-1]


def _collect(
    jaxpr: Any, eqns: Sequence[Any], values: Sequence[_Value], prefix: tuple[str, ...], operations: list[Operation]
) -> list[_Value]:
    """Appends the equations that depend on the image, nested ones too, to `operations`; returns the outputs.

    `values` are the inputs.
    """
    value_of = dict(zip(jaxpr.invars, values, strict=True))

    def value(atom: Any) -> _Value:
        return _Value(NOTHING) if isinstance(atom, core.Literal) else value_of.get(atom, _Value(NOTHING))

    for eqn in eqns:
        # Flax names each module, and after it its methods other than __call__, as 'block1.method'.
        path = (*prefix, *(name for name in str(eqn.source_info.name_stack).split("/") if name and "." not in name))
        inputs = [value(atom) for atom in eqn.invars]
        if all(field == NOTHING for field, _ in inputs):
            continue
        inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr") if key in eqn.params), None)
        if (inner := getattr(inner, "jaxpr", inner)) is not None:
            out = _collect(inner, inner.eqns, inputs, path, operations)
        else:
            out = [_Value(output_field(eqn, [field for field, _ in inputs]), len(operations))] * len(eqn.outvars)
            sources = tuple(index for field, index in inputs if field != NOTHING)
            operations.append(Operation(path[1:], eqn, out[0].field, sources))  # the first name is the network's class
        value_of.update(zip(eqn.outvars, out, strict=True))
    return [value(atom) for atom in jaxpr.outvars]


def _rows(operations: Sequence[Operation], params: Mapping[str, Any]) -> tuple[dict[str, Layer], list[str | None]]:
    """Builds {name: row}, with the name of each operation's row: one for each module with parameters, and each pool."""
    rows: dict[str, Layer] = {}
    row_of: list[str | None] = []
    owners = dict(_owners(params))
    for path, group in itertools.groupby(operations, key=lambda operation: operation.path):
        own, scope = owners.get("/".join(path), {}), SCOPES.get("".join(path[-1:]))
        row = rows.get("/".join(path)) if own else None
        for op in group:
            kind = _kind(op, own) or scope
            if kind is None:
                row_of.append(None)
                continue
            if row is None or not (own or scope):
                name = "/".join(path if own or scope else (*path, kind.replace(" ", "_")))
                name = next(name + end for i in itertools.count(1) if name + (end := f"_{i}" * (i > 1)) not in rows)
                row = rows[name] = _new_row(name, kind, own)
            _update(row, op, kind, own)
            row_of.append(row.name)
    return rows, row_of


def _new_row(name: str, kind: str, own: Mapping[str, Any]) -> Layer:
    """Returns the row of a layer with the parameters `own`, without shapes."""
    biases = {leaf_name: leaf for leaf_name, leaf in own.items() if leaf_name == "bias"}
    return Layer(name, kind, _size(own), _size(biases))


def _kind(op: Operation, own: Mapping[str, Any]) -> str | None:
    """Returns the kind of layer of an operation in a module with the parameters `own`; None if it is no layer."""
    kind = KINDS.get(op.eqn.primitive.name)
    if op.eqn.primitive.name == "reduce_sum" and (own or set(op.eqn.params["axes"]) != {1, 2}):
        kind = None  # part of a normalization
    if op.eqn.primitive.name.startswith("reduce_window") and window(op.eqn) is None:
        kind = None  # over channels
    if own and kind is None:
        kind = "PReLU" if "slope" in own else "normalization"
    return kind


def _update(row: Layer, op: Operation, kind: str | None, own: Mapping[str, Any]) -> None:
    """Enters the shapes and MACs of one operation in the row of its layer; `own` are the layer's parameters."""
    shape = op.eqn.outvars[0].aval.shape
    row.output = tuple(shape[1:])
    if isinstance(op.field, ReceptiveField):
        row.receptive_field, row.jump = op.field.size, op.field.jump
    else:
        row.receptive_field = row.jump = None
    if geometry := window(op.eqn):
        row.kernel, row.stride, row.padding, row.dilation = geometry
        row.input = tuple(op.eqn.invars[0].aval.shape[1:3])
    if kind in ("convolution", "fully connected"):
        row.kind = kind
        weights = own.get("kernel", op.eqn.invars[1].aval)  # LeNet-5's C3 has fewer weights than its kernel
        row.macs += math.prod(weights.shape) * math.prod(shape[1:-1])
