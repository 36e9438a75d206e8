"""Layout of a block's graph: assigns its nodes to rows and lanes (columns), and routes the lines between them."""

import dataclasses
from collections.abc import Sequence

from cnnjax.summarize.graph import INPUT, Node


@dataclasses.dataclass(frozen=True)
class Line:
    """A connection of two nodes.

    Attributes:
        first: name of the node that it starts at, or INPUT.
        second: name of the node that it ends at.
        side: 0 for a line through the lanes; k > 0 for one that passes other nodes k steps beside the first lane.
    """

    first: str
    second: str
    side: int = 0


@dataclasses.dataclass(frozen=True)
class Places:
    """The row and lane of each node by name, counted from 0, and the lines. INPUT is in row 0 and lane 0."""

    row: dict[str, int]
    lane: dict[str, int]
    lines: tuple[Line, ...]


def place(inside: Sequence[Node]) -> Places:
    """Places the nodes of a block, given in the order of execution.

    A node is one row below the lowest of its inputs. Of branches that start together, the first stays in the lane of
    its input, and each of the others gets a new lane. A node that merges branches is in the leftmost of their lanes.
    """
    row, lane = {INPUT: 0}, {INPUT: 0}
    after: dict[str, list[Node]] = {name: [] for name in (INPUT, *(node.name for node in inside))}
    for node in inside:
        row[node.name] = 1 + max(row[name] for name in node.inputs)
        for name in node.inputs:
            after[name].append(node)

    def descend(name: str) -> None:
        """Gives lanes to the branches that start at a node that has a lane."""
        is_first = True
        for node in after[name]:
            if len(node.inputs) == 1:
                lane[node.name] = lane[name] if is_first else 1 + max(lane.values())
                is_first = False
                descend(node.name)

    descend(INPUT)
    for node in inside:
        if node.name not in lane:
            lane[node.name] = min(lane[name] for name in node.inputs)
            descend(node.name)
    lines, sides = [], 0
    for node in sorted(inside, key=lambda node: row[node.name]):
        for name in sorted(node.inputs, key=lambda name: row[name]):
            between = range(row[name] + 1, row[node.name])
            passes = any(lane[other.name] == lane[name] and row[other.name] in between for other in inside)
            sides += passes
            lines.append(Line(name, node.name, sides if passes else 0))
    return Places(row, lane, tuple(lines))
