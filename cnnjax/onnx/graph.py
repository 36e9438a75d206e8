"""ONNX graphs in memory: nodes, constants, and the shapes of all tensors."""

import dataclasses
import itertools
from collections.abc import Iterable, Mapping

import numpy as np

from cnnjax.summarize.receptive_field import ReceptiveField

Attribute = int | float | str | tuple[int, ...]
Shape = tuple[int | str, ...]  # a text names a size that the file leaves open

IMAGES, BATCH = "images", "b"  # the input, and its number of images


@dataclasses.dataclass(frozen=True)
class Node:
    """An operation of a graph.

    Attributes:
      op: ONNX's name, such as 'Conv'.
      inputs: names of the tensors and constants that it takes.
      outputs: names of the tensors that it computes; the first is the name of the node, too.
      attributes: its other arguments.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = dataclasses.field(default_factory=dict)

    @property
    def output(self) -> str:
        """Returns the name of the first output."""
        return self.outputs[0]


@dataclasses.dataclass(frozen=True)
class Tensor:
    """Shape and dtype of a tensor, and the receptive field of its elements; None for the whole image."""

    shape: Shape
    dtype: np.dtype
    field: ReceptiveField | None = None


@dataclasses.dataclass(frozen=True)
class Graph:
    """A network as an ONNX graph.

    Attributes:
      nodes: the operations, each after those whose outputs it takes.
      constants: weights and other arrays by name.
      tensors: the input and the outputs of all nodes, by name.
      outputs: names of the results.
    """

    nodes: tuple[Node, ...]
    constants: Mapping[str, np.ndarray]
    tensors: Mapping[str, Tensor]
    outputs: tuple[str, ...]

    def needed(self) -> "Graph":
        """Returns the graph without the nodes, constants and tensors on which no result depends."""
        names, nodes = set(self.outputs), []
        for node in reversed(self.nodes):
            if names.intersection(node.outputs):
                names.update(node.inputs)
                nodes.append(node)
        names.update(name for node in nodes for name in node.outputs)
        constants = {name: array for name, array in self.constants.items() if name in names}
        tensors = {name: tensor for name, tensor in self.tensors.items() if name in names or name == IMAGES}
        return Graph(tuple(reversed(nodes)), constants, tensors, self.outputs)

    def renamed(self, names: Mapping[str, str]) -> "Graph":
        """Returns the graph with other names for some tensors; `names` is {old: new}."""

        def new(old: Iterable[str]) -> tuple[str, ...]:
            return tuple(names.get(name, name) for name in old)

        nodes = tuple(
            dataclasses.replace(node, inputs=new(node.inputs), outputs=new(node.outputs)) for node in self.nodes
        )
        tensors = dict(zip(new(self.tensors), self.tensors.values(), strict=True))
        return Graph(nodes, self.constants, tensors, new(self.outputs))


def unique(name: str, taken: Iterable[str]) -> str:
    """Returns `name`, or `name` with the first number from 2 on that makes it differ from those in `taken`."""
    return next(text for i in itertools.count(1) if (text := name if i == 1 else f"{name}_{i}") not in taken)
