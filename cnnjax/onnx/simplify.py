"""Simplifies a graph: folds the scale and shift of a convolution's output into its weights, and so on.

Each rule of `RULES` replaces two operations of which the second is the only user of the first's output. Sums are
computed in float64 and rounded once.
"""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnjax.onnx.graph import Graph, Node, unique

WEIGHT_CHANNELS = {"Conv": 0, "Gemm": 1}  # the axis of the weights that numbers the output's channels
AFFINE = ("Add", "Sub", "Mul", "Div")  # y = x + c, x - c, x * c, x / c
SCALES = ("Mul", "Div")


def simplify(graph: Graph) -> Graph:
    """Returns a graph that computes the same by fewer operations."""
    while (smaller := _simplified_once(graph)) is not graph:
        graph = smaller
    names: dict[str, str] = {}
    for node in graph.nodes:  # of some the operation has changed
        for output in node.outputs:
            path = output.rpartition("/")[0]
            name = unique(f"{path}/{node.op}".lstrip("/"), names.values())
            names[output] = output if output in graph.outputs else name
    return graph.renamed(names)


def _simplified_once(graph: Graph) -> Graph:
    """Applies the rules once, in the order of the operations. Returns the graph itself if none fits."""
    uses = Counter(name for node in graph.nodes for name in node.inputs) + Counter(graph.outputs)
    edit = _Edit({}, dict(graph.constants), graph)
    for old in graph.nodes:
        node = dataclasses.replace(old, inputs=tuple(edit.same.get(name, name) for name in old.inputs))
        if (kept := _without_effect(edit, node)) and node.output not in graph.outputs:
            edit.same[node.output] = kept
            continue
        before = next((edit.made[name] for name in old.inputs if name in edit.made), None)
        rule = RULES.get((before.op, node.op)) if before and uses[before.output] == 1 else None
        same_shape = before is not None and edit.shape(before.output) == edit.shape(node.output)
        merged = rule(edit, before, node) if rule and before and same_shape else None
        if before and merged:
            del edit.made[before.output]
            if node.output not in graph.outputs:  # the name is that of the layer, not of its normalization
                merged = dataclasses.replace(merged, outputs=before.outputs)
                edit.same[node.output] = before.output
        made = merged or node
        edit.made[made.output] = made
    if not edit.same and len(edit.made) == len(graph.nodes):
        return graph
    return dataclasses.replace(graph, nodes=tuple(edit.made.values()), constants=edit.constants).needed()


@dataclasses.dataclass
class _Edit:
    """A graph that is being simplified.

    Attributes:
      made: the operations so far, by their first output.
      constants: constants by name, old and new.
      graph: the graph before.
      same: tensors that were removed, and what takes their place.
    """

    made: dict[str, Node]
    constants: dict[str, np.ndarray]
    graph: Graph
    same: dict[str, str] = dataclasses.field(default_factory=dict)

    def constant(self, node: Node, name: str, array: np.ndarray) -> str:
        """Adds a constant of an operation, in the dtype of its output, and returns its name."""
        name = unique(f"{node.output.rpartition('/')[0]}/{name}".lstrip("/"), self.constants)
        self.constants[name] = np.asarray(array, self.graph.tensors[node.output].dtype)
        return name

    def operand(self, node: Node) -> np.ndarray | None:
        """Returns the constant c of an operation x + c, c + x, x - c, x * c, c * x or x / c, in float64; else None."""
        if node.op not in AFFINE:
            return None
        first, second = node.inputs
        name = second if second in self.constants else first if node.op in ("Add", "Mul") else ""
        array = self.constants.get(name)
        return None if array is None or array.dtype.kind != "f" else array.astype(np.float64)

    def shape(self, name: str) -> tuple[Any, ...]:
        """Returns the shape of a tensor."""
        return self.graph.tensors[name].shape


def _without_effect(edit: _Edit, node: Node) -> str:
    """Returns the tensor that an operation returns unchanged, as x * 1 does; '' if it changes something."""
    if (c := edit.operand(node)) is None or not np.all(c == (1 if node.op in SCALES else 0)):
        return ""
    x = next((name for name in node.inputs if name not in edit.constants), "")
    return x if x and edit.shape(x) == edit.shape(node.output) else ""


def _into_weights(edit: _Edit, layer: Node, node: Node) -> Node | None:
    """Scales or shifts the output of a convolution or a fully connected layer by its weights and bias."""
    c = edit.operand(node)
    rank, axis = len(edit.shape(layer.output)), WEIGHT_CHANNELS[layer.op]
    x, name, *biases = layer.inputs
    weights = edit.constants.get(name)
    if c is None or weights is None:
        return None
    channels = weights.shape[axis]
    one_per_channel = [channels if i == 1 else 1 for i in range(rank)]  # the second axis of what both give
    if c.size > 1 and [*(1,) * (rank - c.ndim), *c.shape] != one_per_channel:
        return None
    c, w = np.broadcast_to(c.ravel(), (channels,)), weights.astype(np.float64)
    bias = edit.constants[biases[0]].astype(np.float64) if biases else np.zeros(channels)
    if node.op in SCALES:
        factor = c if node.op == "Mul" else 1 / c
        w, bias = w * factor.reshape([-1 if i == axis else 1 for i in range(w.ndim)]), bias * factor
        name = edit.constant(node, "weight", w)
    else:
        bias = bias + (c if node.op == "Add" else -c)
    inputs = (x, name, edit.constant(node, "bias", bias))
    return dataclasses.replace(layer, inputs=inputs, outputs=node.outputs)


def _one_scale(edit: _Edit, first: Node, second: Node) -> Node | None:
    """Multiplies by one constant instead of two."""
    a, b = edit.operand(first), edit.operand(second)
    x = next((name for name in first.inputs if name not in edit.constants), "")
    if a is None or b is None or not x:
        return None
    factor = (a if first.op == "Mul" else 1 / a) * (b if second.op == "Mul" else 1 / b)
    return Node("Mul", (x, edit.constant(second, "factor", factor)), second.outputs)


def _mean(edit: _Edit, total: Node, node: Node) -> Node | None:
    """Averages instead of dividing a sum by the number of its terms."""
    c, x = edit.operand(node), edit.shape(total.inputs[0])
    axes = edit.constants[total.inputs[1]]
    sizes = [x[axis] for axis in axes]
    if c is None or c.size != 1 or not all(isinstance(size, int) for size in sizes) or node.op != "Div":
        return None
    return dataclasses.replace(total, op="ReduceMean", outputs=node.outputs) if c == np.prod(sizes) else None


Rule = Callable[[_Edit, Node, Node], Node | None]
RULES: Mapping[tuple[str, str], Rule] = {
    **{(layer, op): _into_weights for layer in WEIGHT_CHANNELS for op in AFFINE},
    **{(first, second): _one_scale for first in SCALES for second in SCALES},
    ("ReduceSum", "Div"): _mean,
}
