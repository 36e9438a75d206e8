"""The layers of a network, read from the traced computation: shapes, parameters, MACs, receptive fields."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnnjax.errors import InputError

Pair = tuple[int, int]  # (rows, columns)


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


class _View(NamedTuple):
    """The pixels that an array's units see: windows of `receptive_field` pixels, `jump` pixels apart."""

    receptive_field: Pair
    jump: Pair


_NOTHING, _ALL = "nothing", "all"  # in place of a _View: units that do not depend on the image, or see all of it


class _Operation(NamedTuple):
    """A jaxpr equation, the path of module names that contain it, and the view of its result ('all': whole image)."""

    path: tuple[str, ...]
    eqn: Any
    view: _View | str


KINDS = {  # primitives that are layers, and the kinds that the table shows for them
    "convolution": "convolution", "conv_general_dilated": "convolution", "dot_general": "fully connected",
    "max_pool": "max pool", "sum_pool": "average pool", "reduce_sum": "global average pool",
}  # fmt: skip
SCOPES = {"local_response_norm": "response norm"}  # named scopes that are layers without parameters


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """Lists the layers of a network for images [height, width, channels], in the order of execution.

    A layer is a convolution, a fully connected layer, a pool, or any other module with parameters. Only shapes are
    traced. Raises InputError for images that do not fit, with the layer and the sizes.
    """
    if getattr(model, "scan", False):
        model = model.clone(scan=False)  # to list the layers of a loop one by one
    jaxpr, outputs, variables = _trace(model, input_shape)
    operations: list[_Operation] = []
    _collect(jaxpr, _equations_of(jaxpr, outputs), [_View((1, 1), (1, 1))], (), operations)
    params = variables.get("params", {})
    rows = _rows(operations, params)
    for path, own in _owners(params):
        if path not in rows:  # an auxiliary classifier
            rows[path] = _new_row(path, "training only", own)
    for path, own in _owners(variables.get("batch_stats", {})):
        rows[path].stats = _size(own)
    return list(rows.values())


def _trace(model: nn.Module, input_shape: tuple[int, int, int]) -> tuple[Any, int, Any]:
    """Returns the jaxpr of initialization and inference, its number of outputs, and the shapes of the variables."""
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    modules: list[str] = []  # the paths of the modules whose calls are being traced

    def record(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
        modules.append("/".join(context.module.path))
        out = call(*args, **kwargs)
        modules.pop()
        return out

    init_and_apply = functools.partial(model.init_with_output, jax.random.key(0, impl="rbg"), train=False)
    try:
        with nn.intercept_methods(record):
            closed, (out, variables) = jax.make_jaxpr(init_and_apply, return_shape=True)(image)
    except (TypeError, ValueError) as error:
        size = "x".join(map(str, input_shape))
        where = f", at {modules[-1]}" if modules and modules[-1] else ""
        raise InputError(f"images of {size} do not fit{where}: {error}") from error
    return closed.jaxpr, len(jax.tree.leaves(out)), variables


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
    """Returns the equations behind the first `outputs` outputs: no auxiliary classifiers, which init also runs."""
    required, equations = set(jaxpr.outvars[:outputs]), []
    for eqn in reversed(jaxpr.eqns):
        if required.intersection(eqn.outvars):
            required.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
            equations.append(eqn)
    return equations[::-1]


def _collect(
    jaxpr: Any, eqns: Sequence[Any], views: Sequence[Any], prefix: tuple[str, ...], operations: list[_Operation]
) -> list[Any]:
    """Appends the equations that depend on the image, nested ones too, to `operations`; returns the outputs' views."""
    view_of = dict(zip(jaxpr.invars, views, strict=True))

    def view(atom: Any) -> Any:
        return _NOTHING if isinstance(atom, core.Literal) else view_of.get(atom, _NOTHING)

    for eqn in eqns:
        # Flax names each module, and after it its methods other than __call__, as 'block1.method'.
        path = (*prefix, *(name for name in str(eqn.source_info.name_stack).split("/") if name and "." not in name))
        inputs = [view(atom) for atom in eqn.invars]
        if all(input_view == _NOTHING for input_view in inputs):
            continue
        inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr") if key in eqn.params), None)
        if (inner := getattr(inner, "jaxpr", inner)) is not None:
            out = _collect(inner, inner.eqns, inputs, path, operations)
        else:
            out = [_output_view(eqn, inputs)] * len(eqn.outvars)
            operations.append(_Operation(path[1:], eqn, out[0]))  # the first name is the network's class
        view_of.update(zip(eqn.outvars, out, strict=True))
    return [view(atom) for atom in jaxpr.outvars]


def _output_view(eqn: Any, inputs: Sequence[Any]) -> _View | str:
    """Computes the view of an equation's result from the views of its inputs."""
    windows = [view for view in inputs if isinstance(view, _View)]
    if not windows:
        return _ALL
    field = [max(view.receptive_field[side] for view in windows) for side in (0, 1)]
    jump = [max(view.jump[side] for view in windows) for side in (0, 1)]
    if eqn.invars[0].aval.ndim == 4 and eqn.outvars[0].aval.ndim < 4 and eqn.primitive.name != "squeeze":
        return _ALL  # flattened, or globally pooled
    if window := _window(eqn):
        kernel, stride, _, dilation = window
        field = [f + (k - 1) * d * j for f, k, d, j in zip(field, kernel, dilation, jump, strict=True)]
        jump = [j * s for j, s in zip(jump, stride, strict=True)]
    elif eqn.primitive.name == "slice" and eqn.params["strides"] and eqn.invars[0].aval.ndim == 4:
        jump = [j * s for j, s in zip(jump, eqn.params["strides"][1:3], strict=True)]
    return _View((field[0], field[1]), (jump[0], jump[1]))


def _window(eqn: Any) -> tuple[Pair, Pair, tuple[Pair, Pair], Pair] | None:
    """Returns (kernel, stride, padding, dilation) of a convolution or pool; None for other equations."""
    p = eqn.params
    if eqn.primitive.name == "convolution":
        return eqn.invars[1].aval.shape[:2], p["strides"], p["padding"], p["dilation"]
    if eqn.primitive.name == "conv_general_dilated":  # flax's own, in a network from outside
        axes = p["dimension_numbers"].rhs_spec[2:]
        kernel = tuple(eqn.invars[1].aval.shape[axis] for axis in axes)
        return kernel, p["window_strides"], p["padding"], p["rhs_dilation"]
    if eqn.primitive.name in ("max_pool", "sum_pool"):
        return (p["window"],) * 2, (p["stride"],) * 2, p["padding"], (1, 1)
    return None


def _rows(operations: Sequence[_Operation], params: Mapping[str, Any]) -> dict[str, Layer]:
    """Builds {name: row}: one row for each module with parameters of its own, and one for each pool elsewhere."""
    rows: dict[str, Layer] = {}
    owners = dict(_owners(params))
    for path, group in itertools.groupby(operations, key=lambda operation: operation.path):
        own, scope = owners.get("/".join(path), {}), SCOPES.get("".join(path[-1:]))
        row = rows.get("/".join(path)) if own else None
        for op in group:
            kind = _kind(op, own) or scope
            if kind is None:
                continue
            if row is None or not (own or scope):
                name = "/".join(path if own or scope else (*path, kind.replace(" ", "_")))
                name = next(name + end for i in itertools.count(1) if name + (end := f"_{i}" * (i > 1)) not in rows)
                row = rows[name] = _new_row(name, kind, own)
            _update(row, op, kind, own)
    return rows


def _new_row(name: str, kind: str, own: Mapping[str, Any]) -> Layer:
    """Returns the row of a layer with the parameters `own`, without shapes."""
    biases = {leaf_name: leaf for leaf_name, leaf in own.items() if leaf_name == "bias"}
    return Layer(name, kind, _size(own), _size(biases))


def _kind(op: _Operation, own: Mapping[str, Any]) -> str | None:
    """Returns the kind of layer of an operation in a module with the parameters `own`; None if it is no layer."""
    kind = KINDS.get(op.eqn.primitive.name)
    if op.eqn.primitive.name == "reduce_sum" and (own or set(op.eqn.params["axes"]) != {1, 2}):
        kind = None  # part of a normalization
    if own and kind is None:
        kind = "PReLU" if "slope" in own else "normalization"
    return kind


def _update(row: Layer, op: _Operation, kind: str | None, own: Mapping[str, Any]) -> None:
    """Enters the shapes and MACs of one operation in the row of its layer; `own` are the layer's parameters."""
    shape = op.eqn.outvars[0].aval.shape
    row.output = tuple(shape[1:])
    row.receptive_field, row.jump = op.view if isinstance(op.view, _View) else (None, None)
    if window := _window(op.eqn):
        row.kernel, row.stride, row.padding, row.dilation = window
        row.input = tuple(op.eqn.invars[0].aval.shape[1:3])
    if kind in ("convolution", "fully connected"):
        row.kind = kind
        weights = own.get("kernel", op.eqn.invars[1].aval)  # LeNet-5's C3 has fewer weights than its kernel
        row.macs += math.prod(weights.shape) * math.prod(shape[1:-1])
