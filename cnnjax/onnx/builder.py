"""Building an ONNX graph from arrays in JAX's order of axes.

JAX's images and feature maps are [N, H, W, C]; ONNX's convolutions and pools take and give [N, C, H, W]. A `Value`
remembers the order in which its tensor has the axes, so that axes are moved only where an operation needs another
order: once after the input, and once before fully connected layers.

Broadcasts are not materialized: an axis along which an array is only repeated has size 1, as ONNX's operations
broadcast by themselves.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from cnnjax.onnx.graph import BATCH, IMAGES, Attribute, Graph, Node, Tensor, unique
from cnnjax.summarize.receptive_field import ReceptiveField

NCHW = (0, 3, 1, 2)  # the axis of JAX's [N, H, W, C] at each position
Shape = tuple[Any, ...]  # sizes; the one of the batch is a symbol of jax.export


@dataclasses.dataclass(frozen=True)
class Value:
    """A tensor of the graph.

    Attributes:
      name: its name.
      shape: its sizes in JAX's order of axes; 1 along axes that it is only broadcast along.
      dtype: its dtype.
      order: the axis of JAX's array at each position of the tensor.
    """

    name: str
    shape: Shape
    dtype: np.dtype
    order: tuple[int, ...]

    def position(self, axis: int) -> int:
        """Returns where the tensor has an axis of JAX's array."""
        return self.order.index(axis)


Array = Value | np.ndarray  # a constant is an array

# A row of the table of operations: (builder, operands, equation of the jaxpr) -> result, or a list of several.
Operator = Callable[["Builder", Sequence[Array], Any], Array | list[Array]]


class Unsupported(Exception):
    """Raised for a form of a primitive that has no operation here. The message says which form."""


class Builder:
    """A graph being built.

    `path` is that of the module whose operations are added, `field` the receptive field of what they compute.
    """

    def __init__(self, shape: Shape, dtype: np.dtype) -> None:
        """Begins a graph with images of this shape, [N, H, W, C] with a symbol for N, as its input."""
        self.path: tuple[str, ...] = ()
        self.field: ReceptiveField | None = ReceptiveField((1, 1), (1, 1))
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.tensors: dict[str, Tensor] = {}
        self._arranged: dict[tuple[str, tuple[int, ...]], str] = {}
        self.images = Value(IMAGES, shape, dtype, identity(len(shape)))
        self._declare(self.images)

    def node(
        self, op: str, inputs: Sequence[str | np.ndarray], shape: Shape, dtype: Any, order: Sequence[int] = (),
        **attributes: Attribute,
    ) -> Value:  # fmt: skip
        """Adds an operation with one output, and returns that.

        Args:
          op: ONNX's name.
          inputs: names of tensors, and constants in ONNX's order of axes.
          shape: sizes of the output in JAX's order of axes.
          dtype: that of the output.
          order: as in `Value`; () means JAX's own.
          attributes: the operation's other arguments.
        """
        return self.nodes_outputs(op, inputs, [shape], dtype, order, **attributes)[0]

    def nodes_outputs(
        self, op: str, inputs: Sequence[str | np.ndarray], shapes: Sequence[Shape], dtype: Any,
        order: Sequence[int] = (), **attributes: Attribute,
    ) -> list[Value]:  # fmt: skip
        """Adds an operation as `node` does, with an output for each of `shapes`."""
        names = tuple(self.constant(x) if isinstance(x, np.ndarray) else x for x in inputs)
        values = []
        for shape in shapes:
            name = unique("/".join((*self.path, op)), self.tensors)
            values.append(Value(name, tuple(shape), np.dtype(dtype), tuple(order) or identity(len(shape))))
            self._declare(values[-1])
        self.nodes.append(Node(op, names, tuple(value.name for value in values), attributes))
        return values

    def constant(self, array: np.ndarray, name: str = "constant") -> str:
        """Adds a constant, and returns its name: `name` in the current module."""
        name = unique("/".join((*self.path, name)), self.constants)
        self.constants[name] = array
        return name

    def arranged(self, x: Array, order: Sequence[int]) -> str | np.ndarray:
        """Returns a tensor with the axes of JAX's array in this order; a constant is returned as an array."""
        order = tuple(order)
        if isinstance(x, np.ndarray):
            return x.transpose(order) if x.ndim else x
        if x.order == order:
            return x.name
        if (x.name, order) not in self._arranged:
            moves = tuple(map(x.position, order))
            moved = self.node("Transpose", [x.name], x.shape, x.dtype, order, perm=moves)
            self._arranged[x.name, order] = moved.name
        return self._arranged[x.name, order]

    def in_own_order(self, x: Array) -> str | np.ndarray:
        """Returns a tensor with the axes in JAX's order; a constant is returned as an array."""
        return self.arranged(x, identity(len(x.shape)))

    def value_in_own_order(self, x: Array) -> Value:
        """Returns a value whose tensor has the axes in JAX's order. Raises Unsupported for a constant."""
        x = tensor(x)
        return Value(str(self.in_own_order(x)), x.shape, x.dtype, identity(len(x.shape)))

    def full(self, x: Array, shape: Shape) -> Array:
        """Returns `x` with the sizes `shape`, repeated along axes that it was only broadcast along."""
        if tuple(x.shape) == tuple(shape):
            return x
        if isinstance(x, np.ndarray) and all(map(is_static, shape)):
            return np.broadcast_to(x, shape)
        order = identity(len(shape)) if isinstance(x, np.ndarray) else x.order
        name = self.arranged(x, order)
        wanted = [1 if size == x.shape[axis] else shape[axis] for axis, size in ((a, shape[a]) for a in order)]
        if all(map(is_static, wanted)):  # 1 keeps a size, that of the batch too
            return self.node("Expand", [name, integers(wanted)], shape, x.dtype, order)
        counts = [self._count(size) for size in wanted]
        sizes = self.node("Concat", counts, (len(counts),), np.int64, axis=0)
        return self.node("Expand", [name, sizes.name], shape, x.dtype, order)

    def _count(self, size: Any) -> str | np.ndarray:
        """Returns a size as an array of one integer; that of the batch is read from the images."""
        if is_static(size):
            return integers([size])
        if str(size) != BATCH:
            raise Unsupported(f"an array of {size} rows for {BATCH} images")
        return self.node("Shape", [IMAGES], (1,), np.int64, start=0, end=1).name

    def graph(self, outputs: dict[str, Value]) -> Graph:
        """Returns the graph with these outputs, {name: value}."""
        nodes = tuple(self.nodes)
        names = {value.name: name for name, value in outputs.items()}
        kept = tuple(value.name for value in outputs.values())
        return Graph(nodes, self.constants, self.tensors, kept).needed().renamed(names)

    def _declare(self, value: Value) -> None:
        """Enters shape, dtype and receptive field of a tensor."""
        sizes = tuple(value.shape[axis] for axis in value.order)
        shape = tuple(size if is_static(size) else str(size) for size in sizes)
        self.tensors[value.name] = Tensor(shape, np.dtype(value.dtype), self.field)


def identity(rank: int) -> tuple[int, ...]:
    """Returns JAX's own order of `rank` axes."""
    return tuple(range(rank))


def is_static(size: Any) -> bool:
    """Returns whether a size is a number, not a symbol."""
    return not jax.export.is_symbolic_dim(size)


def is_empty(variable: Any) -> bool:
    """Returns whether a variable of a jaxpr has no elements."""
    return any(is_static(size) and size == 0 for size in variable.aval.shape)


def integers(values: Sequence[int]) -> np.ndarray:
    """Returns an int64 array, as ONNX's operations take sizes and axes."""
    return np.array([int(value) for value in values], np.int64)


def common_order(values: Sequence[Array]) -> tuple[int, ...]:
    """Returns the order of axes to compute in: that of feature maps if one of the values has it, else the first's."""
    orders = [x.order for x in values if isinstance(x, Value) and x.shape]
    rank = max((len(x.shape) for x in values), default=0)
    return NCHW if NCHW in orders else next(iter(orders), identity(rank))


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """Returns the shape of the arrays' broadcast: of each axis the size that is not 1."""
    rank = max(map(len, shapes), default=0)
    full = [shape for shape in shapes if len(shape) == rank]
    return tuple(
        next((size for size in sizes if not is_static(size) or size != 1), 1) for sizes in zip(*full, strict=True)
    )


def without(axes: Sequence[int], x: Value) -> tuple[Shape, tuple[int, ...]]:
    """Returns the shape of `x` and the order of its tensor without these axes."""
    left = [axis for axis in range(len(x.shape)) if axis not in axes]
    order = tuple(left.index(axis) for axis in x.order if axis in left)
    return tuple(x.shape[axis] for axis in left), order


def tensor(x: Array) -> Value:
    """Returns a value that is not constant. Raises Unsupported for a constant, whose size depends on the batch."""
    if isinstance(x, np.ndarray):
        raise Unsupported("a constant for each image")
    return x
