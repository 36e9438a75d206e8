"""A network as a table of its layers: shapes, parameters, multiplications, memory and receptive fields.

All of it is read from what JAX is going to compute, not from what the layers say of themselves.
"""

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core
from rich.table import Table

from cnnjax.errors import InputError

Pair = tuple[int, int]  # of rows and columns


@dataclasses.dataclass
class Layer:
    """A row of the table, for one image."""

    name: str
    kind: str
    params: int = 0
    stats: int = 0  # running means and variances, which a normalisation has
    output: tuple[int, ...] = ()  # (height, width, maps), or (features,)
    kernel: Pair | None = None
    stride: Pair | None = None
    padding: tuple[Pair, Pair] | None = None  # (above, below), (left, right)
    macs: int = 0  # multiplications of weights with inputs, the padding's zeros included
    field: Pair | None = None  # what a position of the output sees of the image, in pixels; None: all of it
    step: Pair | None = None  # from that to what the next position sees

    @property
    def activations(self) -> int:
        """The numbers in the output."""
        return math.prod(self.output) if self.output else 0


class _View(NamedTuple):
    """What the positions of an array see of the image: windows of `field` pixels, `step` pixels apart."""

    field: Pair
    step: Pair


# Of what does not depend on the image, and of what depends on all of it, such as the mean of a map.
_NOTHING, _ALL = "nothing", "all"


class _Operation(NamedTuple):
    path: tuple[str, ...]  # of the module it is in
    eqn: Any
    view: _View | str  # of its result


KINDS = {
    "convolution": "convolution",
    "dot_general": "full connection",
    "max_pool": "max pool",
    "sum_pool": "average pool",
    "reduce_sum": "mean of maps",
}
SCOPES = {"local_response_norm": "response norm"}  # functions that are layers, though without parameters


def layers(model: nn.Module, input_shape: tuple[int, int, int]) -> list[Layer]:
    """The layers of a network for images of that height, width and channels, in the order in which they run.

    A layer is a convolution, a full connection, a pool, and whatever else has parameters. Raises InputError, with the
    layer and the numbers, for images that do not fit. Computes shapes only.
    """
    if getattr(model, "scan", False):
        model = model.clone(scan=False)  # the layers of a loop, one by one
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    inside: list[str] = []

    def follow(run: Any, args: Any, kwargs: Any, context: Any) -> Any:
        inside.append("/".join(context.module.path))
        out = run(*args, **kwargs)
        inside.pop()
        return out

    def start(x: jax.Array) -> Any:
        return model.init_with_output(jax.random.key(0, impl="rbg"), x, train=False)

    try:
        with nn.intercept_methods(follow):
            closed, (out, variables) = jax.make_jaxpr(start, return_shape=True)(image)
    except (TypeError, ValueError) as error:
        size = "x".join(map(str, input_shape))
        where = f", at {inside[-1]}" if inside and inside[-1] else ""
        raise InputError(f"images of {size} do not fit{where}: {error}") from error
    operations: list[_Operation] = []
    needed = _needed(closed.jaxpr, len(jax.tree.leaves(out)))
    _follow(closed.jaxpr, needed, [_View((1, 1), (1, 1))], (), operations)
    params = variables.get("params", {})
    rows = _rows(operations, params)
    for path, own in _owners(params):
        if path not in rows:  # auxiliary classifiers
            rows[path] = Layer(path, "in training alone", _size(own))
    for path, own in _owners(variables.get("batch_stats", {})):
        rows[path].stats = _size(own)
    return list(rows.values())


def _owners(variables: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each module that has variables of its own, by path, and these."""
    if own := {name: leaf for name, leaf in variables.items() if not isinstance(leaf, Mapping)}:
        yield "/".join(path), own
    for name, inner in variables.items():
        if isinstance(inner, Mapping):
            yield from _owners(inner, (*path, name))


def _size(own: Mapping[str, Any]) -> int:
    return sum(math.prod(leaf.shape) for leaf in own.values())


def _needed(jaxpr: Any, results: int) -> list[Any]:
    """The equations that the first results depend on: without auxiliary classifiers, which run to be initialised."""
    wanted, needed = set(jaxpr.outvars[:results]), []
    for eqn in reversed(jaxpr.eqns):
        if wanted.intersection(eqn.outvars):
            wanted.update(atom for atom in eqn.invars if not isinstance(atom, core.Literal))
            needed.append(eqn)
    return needed[::-1]


def _follow(
    jaxpr: Any, eqns: Sequence[Any], views: Sequence[Any], outer: tuple[str, ...], done: list[_Operation]
) -> list[Any]:
    """Adds those of a jaxpr's equations that depend on the image to `done`; returns what the results see of it."""
    known = dict(zip(jaxpr.invars, views, strict=True))

    def view(atom: Any) -> Any:
        return _NOTHING if isinstance(atom, core.Literal) else known.get(atom, _NOTHING)

    for eqn in eqns:
        # Flax names a module, and after it each of its methods but __call__, as 'block1.method'.
        path = (*outer, *(part for part in str(eqn.source_info.name_stack).split("/") if part and "." not in part))
        seen = [view(atom) for atom in eqn.invars]
        if all(one == _NOTHING for one in seen):
            continue
        inner = next((eqn.params[key] for key in ("jaxpr", "call_jaxpr") if key in eqn.params), None)
        if inner is not None:
            inner = getattr(inner, "jaxpr", inner)
            out = _follow(inner, inner.eqns, seen, path, done)
        else:
            out = [_view(eqn, seen)] * len(eqn.outvars)
            done.append(_Operation(path[1:], eqn, out[0]))  # the first part is the network's class
        known.update(zip(eqn.outvars, out, strict=True))
    return [view(atom) for atom in jaxpr.outvars]


def _view(eqn: Any, seen: Sequence[Any]) -> _View | str:
    """What the result of one operation sees of the image, given what its operands see."""
    windows = [one for one in seen if isinstance(one, _View)]
    if not windows:
        return _ALL
    field = [max(one.field[side] for one in windows) for side in (0, 1)]
    step = [max(one.step[side] for one in windows) for side in (0, 1)]
    if eqn.invars[0].aval.ndim == 4 and eqn.outvars[0].aval.ndim < 4 and eqn.primitive.name != "squeeze":
        return _ALL  # flattened, or the mean
    if found := _window(eqn):
        kernel, stride, _, dilation = found
        field = [f + (k - 1) * d * s for f, k, d, s in zip(field, kernel, dilation, step, strict=True)]
        step = [s * t for s, t in zip(step, stride, strict=True)]
    elif eqn.primitive.name == "slice" and eqn.params["strides"] and eqn.invars[0].aval.ndim == 4:
        step = [s * t for s, t in zip(step, eqn.params["strides"][1:3], strict=True)]
    return _View((field[0], field[1]), (step[0], step[1]))


def _window(eqn: Any) -> tuple[Pair, Pair, tuple[Pair, Pair], Pair] | None:
    """Kernel, stride, padding and dilation of a convolution or a pool."""
    p = eqn.params
    if eqn.primitive.name == "convolution":
        return eqn.invars[1].aval.shape[:2], p["strides"], p["padding"], p["dilation"]
    if eqn.primitive.name in ("max_pool", "sum_pool"):
        return (p["window"],) * 2, (p["stride"],) * 2, p["padding"], (1, 1)
    if eqn.primitive.name in KINDS and "window_dimensions" in p:
        one = slice(1, 3)  # of (batch, height, width, maps)
        return p["window_dimensions"][one], p["window_strides"][one], p["padding"][one], p["window_dilation"][one]
    return None


def _rows(operations: Sequence[_Operation], params: Mapping[str, Any]) -> dict[str, Layer]:
    """The table: a row for each module with parameters of its own, and for each pool outside of them."""
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
                row = rows[name] = Layer(name, kind, _size(own))
            _complete(row, op, kind, own)
    return rows


def _kind(op: _Operation, own: Mapping[str, Any]) -> str | None:
    """The sort of layer that an operation makes in a module with these parameters; None where it makes none."""
    kind = KINDS.get(op.eqn.primitive.name)
    if kind == "mean of maps" and (own or set(op.eqn.params["axes"]) != {1, 2}):
        kind = None  # a normalisation's
    if own and kind is None:
        kind = "PReLU" if "slope" in own else "normalisation"
    return kind


def _complete(row: Layer, op: _Operation, kind: str | None, own: Mapping[str, Any]) -> None:
    """Enters in a layer's row what one of its operations says."""
    shape = op.eqn.outvars[0].aval.shape
    row.output = tuple(shape[1:])
    row.field, row.step = op.view if isinstance(op.view, _View) else (None, None)
    if found := _window(op.eqn):
        row.kernel, row.stride, row.padding = found[:3]
    if kind in ("convolution", "full connection"):
        row.kind = kind
        # A kernel that is computed from fewer weights multiplies as often as there are weights (LeNet-5's C3).
        weights = own.get("kernel", op.eqn.invars[1].aval)
        row.macs += math.prod(weights.shape) * math.prod(shape[1:-1])


COLUMNS = ("layer", "kind", "output", "kernel", "stride", "padding", "parameters", "MACs", "bytes", "field", "step")


def cells(layer: Layer, scale: int) -> list[str]:
    """A row of the table as text, in the order of COLUMNS; `scale` is bytes per number times images.

    One number stands for both directions, and for both sides of a padding, where they are equal.
    """

    def size(pair: Sequence[Any] | None, between: str = "x") -> str:
        if pair is None:
            return ""
        low, high = (size(one, "+") if isinstance(one, tuple) else str(one) for one in pair)
        return low if low == high else f"{low}{between}{high}"

    output = "x".join(map(str, layer.output))
    numbers = [str(layer.params), str(layer.macs), str(layer.activations * scale)]
    field = size(layer.field) if layer.field else "all"
    windows = [size(layer.kernel), size(layer.stride), size(layer.padding)]
    return [layer.name, layer.kind, output, *windows, *numbers, field, size(layer.step)]


def table(rows: Sequence[Layer], scale: int, title: str) -> Table:
    """The rows for people to read, with a mark where most parameters and most of the memory are."""
    out = Table(title=title, title_justify="left")
    for column in COLUMNS:
        out.add_column(column, justify="left" if column in ("layer", "kind") else "right", no_wrap=True)
    most = {"params": max(row.params for row in rows), "activations": max(row.activations for row in rows)}

    def marked(row: Layer, name: str, scale: int) -> str:
        number = getattr(row, name)
        return f"{number * scale:,}{' *' * (number == most[name])}" if number else ""

    for row in rows:
        shown = dict(zip(COLUMNS, cells(row, scale), strict=True))
        shown |= {"parameters": marked(row, "params", 1), "bytes": marked(row, "activations", scale)}
        out.add_row(*(shown | {"MACs": f"{row.macs:,}" if row.macs else ""}).values())
    return out


def totals(rows: Sequence[Layer], input_shape: tuple[int, int, int], scale: int) -> list[str]:
    """What stands under the table: its sums, by kind of layer and of all, with the images themselves.

    Backward, each activation is kept and has a gradient of its size: twice the memory.
    """
    lines = ["* the most parameters, the most memory. A field is what one position sees, a step what is between two."]
    params = sum(row.params for row in rows)
    for kind in dict.fromkeys(row.kind for row in rows if row.params):
        count = sum(row.params for row in rows if row.kind == kind)
        lines.append(f"  {kind:17} {count:>14,} parameters, {count / params:.1%}")
    activations = sum(row.activations for row in rows) + math.prod(input_shape)
    forward = activations * scale / 2**20
    return [
        *lines,
        f"parameters {params:,}; MACs {sum(row.macs for row in rows):,} an image; "
        f"running statistics {sum(row.stats for row in rows):,}",
        f"activations {activations:,} an image, its own {math.prod(input_shape):,} included: "
        f"{forward:,.1f} MiB forward, {2 * forward:,.1f} MiB with their gradients",
    ]
