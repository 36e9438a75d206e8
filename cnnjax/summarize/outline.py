"""A network at a glance: the chain of its layers and blocks, with repetitions folded."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Hashable, Sequence

from cnnjax.summarize.graph import INPUT, Node

MAX_INLINE = 3  # nodes of a chain that is drawn layer by layer, unless it is repeated
Inside = tuple[Node, ...]


@dataclasses.dataclass(frozen=True)
class Unit:
    """A layer, or a block of several, that a network applies `count` times in a row.

    Attributes:
        names: the modules, one for each time.
        inside: the nodes of the last one. Their inputs are names among them, or INPUT for the input of the block.
        structure: equal for blocks that differ only in channels, stride, and the projection on a shortcut.
        output: shape of the output of the last one, for one image.
        count: number of repetitions.
        has_projection: whether the first one has layers on its shortcut that the last one lacks.
        is_dense: whether each takes the outputs of all before it, concatenated (DenseNet). The last node of `inside`
            then concatenates the block's input and its output.
    """

    names: tuple[str, ...]
    inside: Inside
    structure: Hashable
    output: tuple[int, ...]
    has_projection: bool = False
    is_dense: bool = False

    @property
    def count(self) -> int:
        """Returns the number of repetitions."""
        return len(self.names)

    @property
    def is_layer(self) -> bool:
        """Returns whether this is a single layer."""
        return len(self.inside) == 1 and not self.is_dense

    @property
    def is_chain(self) -> bool:
        """Returns whether each node takes the output of the one before it, without branches."""
        names = [INPUT, *(node.name for node in self.inside)]
        return all(node.inputs == (name,) for node, name in zip(self.inside, names, strict=False))

    @property
    def is_residual(self) -> bool:
        """Returns whether the block adds its input, or a projection of it, to its output."""
        return self.inside[-1].kind == "add"


def outline(nodes: Sequence[Node]) -> list[Unit]:
    """Returns the chain of a network's layers and blocks from the result of `graph`, each module a block.

    Successive blocks of one structure are one unit. Short chains of layers are given layer by layer, unless they are
    repeated.
    """
    top = itertools.groupby(nodes[1:], key=lambda node: node.name.partition("/")[0])
    units = [_unit(name, tuple(inside)) for name, inside in top]
    repeated = Counter(unit.structure for unit in _folded(units) if unit.count > 1)
    parts = []
    for unit in units:
        if unit.is_chain and len(unit.inside) <= MAX_INLINE and not (repeated[unit.structure] or unit.is_dense):
            parts += [_unit(node.name, (node,)) for node in unit.inside]
        else:
            parts.append(unit)
    return _with_concatenation(_folded(_paired(_folded(parts))))


def _paired(units: Sequence[Unit]) -> list[Unit]:
    """Joins two kinds of convolutions that take turns, such as depthwise and 1x1, to blocks of both."""
    single = [unit.is_layer and unit.count == 1 and unit.inside[0].kind == "convolution" for unit in units]
    forms = [unit.structure if is_single else None for unit, is_single in zip(units, single, strict=True)]
    paired: list[Unit] = []
    i = 0
    while i < len(units):
        pair, end = forms[i : i + 2], i + 2
        while forms[end : end + 2] == pair:
            end += 2
        if end == i + 2 or None in pair or pair[0] == pair[1]:
            paired.append(units[i])
            i += 1
            continue
        for first, second in zip(units[i:end:2], units[i + 1 : end : 2], strict=True):
            last = dataclasses.replace(second.inside[0], inputs=(first.inside[0].name,))
            paired.append(_unit(first.names[0], (first.inside[0], last)))
        i = end
    return paired


def _with_concatenation(units: Sequence[Unit]) -> list[Unit]:
    """Joins each dense block with the concatenation that follows it: the block appends its output to its input."""
    joined: list[Unit] = []
    for unit in units:
        if joined and joined[-1].is_dense and unit.inside[-1].kind == "concat":
            before = joined[-1]
            end = dataclasses.replace(unit.inside[-1], inputs=(INPUT, before.inside[-1].name))
            joined[-1] = dataclasses.replace(before, inside=(*before.inside, end), output=unit.output)
        else:
            joined.append(unit)
    return joined


def _unit(name: str, nodes: Sequence[Node]) -> Unit:
    """Returns the unit of the nodes of one module."""
    is_dense = len(nodes) > 1 and nodes[0].kind == "concat"
    nodes = nodes[1:] if is_dense else nodes
    own = {node.name for node in nodes}
    inside = []
    for node in nodes:
        inputs = tuple(dict.fromkeys(source if source in own else INPUT for source in node.inputs))
        inside.append(dataclasses.replace(node, inputs=inputs))
    main = _without_projection(inside)
    index = {INPUT: -1, **{node.name: i for i, node in enumerate(main)}}
    structure = tuple((*_form(node), *(index.get(source, -1) for source in node.inputs)) for node in main)
    return Unit((name,), tuple(inside), structure, nodes[-1].output, len(main) < len(inside), is_dense)


def _form(node: Node) -> tuple[Hashable, ...]:
    """Returns the kind, the window and the groups of a node."""
    groups = "each" if node.is_depthwise else node.groups
    return (node.kind, node.layer.kernel if node.layer else None, groups)


def _without_projection(inside: Sequence[Node]) -> Inside:
    """Returns the nodes of a block without those on the shortcut that it ends with, if there are any."""
    end = inside[-1]
    if end.kind != "add" or INPUT in end.inputs:
        return tuple(inside)
    behind = {name: _ancestors(inside, name) for name in end.inputs}
    shortest = min(end.inputs, key=lambda name: len(behind[name]))
    others = set().union(*(behind[name] for name in end.inputs if name != shortest))
    return tuple(node for node in inside if node.name not in behind[shortest] - others)


def _ancestors(inside: Sequence[Node], name: str) -> set[str]:
    """Returns the names of a node and of all nodes before it."""
    inputs = {node.name: node.inputs for node in inside}
    found, waiting = set(), [name]
    while waiting:
        if (name := waiting.pop()) in inputs and name not in found:
            found.add(name)
            waiting.extend(inputs[name])
    return found


def _folded(units: Sequence[Unit]) -> list[Unit]:
    """Joins successive units that differ in minor details only."""
    folded: list[Unit] = []
    for unit in units:
        if folded and _alike(folded[-1], unit):
            names = (*folded[-1].names, *unit.names)
            projection = folded[-1].has_projection and not unit.has_projection
            folded[-1] = dataclasses.replace(unit, names=names, has_projection=projection)
        else:
            folded.append(unit)
    return folded


def _alike(first: Unit, second: Unit) -> bool:
    """Returns whether two successive units can be one.

    Those that concatenate may have other channels, as long as the size stays.
    """
    if first.structure != second.structure:
        return False
    if second.inside[-1].kind == "concat":
        return first.output[:2] == second.output[:2]
    if second.is_residual or second.is_dense:
        return first.output == second.output
    strides = [[node.layer.stride if node.layer else None for node in unit.inside] for unit in (first, second)]
    return first.output == second.output and strides[0] == strides[1]
