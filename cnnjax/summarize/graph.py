"""A network as a graph: its layers, where their outputs are added or concatenated, and what flows into what."""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from cnnjax.summarize.trace import IMAGE, Flow, Layer, Operation

INPUT = "image"  # the node of the images
MERGES = {"add": "add", "add_any": "add", "concatenate": "concat", "mul": "scale", "max": "maximum"}
INVISIBLE = frozenset(("normalization", "PReLU"))  # kinds of layers that a graph leaves out, like activations


@dataclasses.dataclass(frozen=True)
class Node:
    """A layer, or the place where outputs of several are merged.

    Attributes:
        name: path of the module, as in `Layer.name`; INPUT for the images.
        kind: that of the layer, 'add', 'concat', 'scale' (by a gate), 'maximum', or INPUT.
        output: shape for one image.
        inputs: names of the nodes before it, in the order of the operands.
        layer: the row of the table; None for merges and for the images.
        groups: of a convolution; 1 otherwise.
    """

    name: str
    kind: str
    output: tuple[int, ...]
    inputs: tuple[str, ...] = ()
    layer: Layer | None = None
    groups: int = 1

    @property
    def is_depthwise(self) -> bool:
        """Returns whether this is a convolution of each channel by itself."""
        return 1 < self.groups == self.output[-1]


def graph(network: Flow, input_shape: tuple[int, int, int]) -> tuple[Node, ...]:
    """Returns the nodes of a network in the order of execution, the image first and the output last.

    Normalizations and activations are left out: what takes their output takes that of the layer before them.
    """
    nodes = {INPUT: Node(INPUT, INPUT, input_shape)}
    sources: list[tuple[str, ...]] = []  # of each operation: the nodes whose outputs its result consists of
    layers = {layer.name: layer for layer in network.layers}
    for operation, name in zip(network.operations, network.layer_of, strict=True):
        before = _unique(source for index in operation.inputs for source in _sources(sources, index))
        layer = layers[name] if name else None
        if layer is not None and layer.kind not in INVISIBLE:
            outside = tuple(source for source in before if source != layer.name)
            inputs = nodes[layer.name].inputs if layer.name in nodes else outside
            channels = sum(nodes[source].output[-1] for source in inputs)
            nodes[layer.name] = Node(layer.name, layer.kind, layer.output, inputs, layer, _groups(layer, channels))
            sources.append((layer.name,))
        elif layer is None and len(before) > 1 and operation.eqn.primitive.name in MERGES:
            node = _merge(operation, before, nodes)
            nodes[node.name] = node
            sources.append((node.name,))
        else:
            sources.append(before)
    return _reachable(nodes, _sources(sources, len(sources) - 1))


def _groups(layer: Layer, channels: int) -> int:
    """Returns the number of groups of a convolution with this number of `channels`."""
    if layer.kind != "convolution" or layer.kernel is None or not layer.macs:
        return 1
    groups, rest = divmod(math.prod(layer.kernel) * channels * math.prod(layer.output), layer.macs)
    return groups if not rest else 1  # LeNet-5's C3 has a table of connections


def _sources(sources: Sequence[tuple[str, ...]], operation: int) -> tuple[str, ...]:
    """Returns the nodes that the result of an operation consists of."""
    return (INPUT,) if operation == IMAGE else sources[operation]


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    """Returns the names without repetitions, in order of first occurrence."""
    return tuple(dict.fromkeys(names))


def _merge(operation: Operation, inputs: tuple[str, ...], nodes: dict[str, Node]) -> Node:
    """Returns the node of an operation that merges the outputs of several nodes, with a name that is not in `nodes`."""
    kind = MERGES[operation.eqn.primitive.name]
    base = "/".join((*operation.path, kind))
    name, count = base, 1
    while name in nodes:
        count += 1
        name = f"{base}_{count}"
    return Node(name, kind, tuple(operation.eqn.outvars[0].aval.shape[1:]), inputs)


def _reachable(nodes: dict[str, Node], ends: Iterable[str]) -> tuple[Node, ...]:
    """Returns the nodes that the output depends on."""
    needed, waiting = set(), list(ends)
    while waiting:
        if (name := waiting.pop()) not in needed:
            needed.add(name)
            waiting.extend(nodes[name].inputs)
    return tuple(node for name, node in nodes.items() if name in needed)
