"""The parts of a network's drawing: links of the chain, and blocks from inside. Lengths are in inches."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnnjax import style
from cnnjax.colors import BLUE, INK, MUTED
from cnnjax.summarize.graph import INPUT, Node
from cnnjax.summarize.placing import Line, Places, place

LAYER_TINTS = {  # kind of layer -> color of its box
    "convolution": "#cfe6f5", "fully connected": "#fae1b8", "concat": "#d0d0d0",
    "response norm": "#f0dcea", "spatial response norm": "#f0dcea",
}  # fmt: skip
OTHER_TINT = "#e6e6e6"  # pools
TIMES = "\N{MULTIPLICATION SIGN}"
SIGNS = {"add": "+", "scale": TIMES, "maximum": "max"}
SIZE, SMALL = style.SMALL, style.SMALL - 1  # points
LINE, PAD, EDGE = 0.15, 0.06, 0.25  # a line of text, above and below it in a box, an arrow between boxes
INSIDE_PAD, INSIDE_EDGE, LANE_GAP, MIN_WIDTH = 0.035, 0.17, 0.08, 1.5  # of a block from inside
SIDE = 0.13  # between lines beside a block


@dataclasses.dataclass(frozen=True)
class Part:
    """Something with a width and a height that is drawn by paint(axes, x, y).

    (x, y) is the middle of its upper side, or its left end if `anchor` is 0.5.
    """

    width: float
    height: float
    paint: Callable[[Any, float, float], None]
    anchor: float = 0.0


def box(axes: Any, x: float, y: float, width: float, height: float, tint: str) -> None:
    """Draws a box with rounded corners."""
    from matplotlib.patches import FancyBboxPatch

    shape = "round,pad=0,rounding_size=0.04"
    axes.add_patch(FancyBboxPatch((x, y), width, height, shape, facecolor=tint, edgecolor=MUTED, linewidth=0.6))


def text(axes: Any, x: float, y: float, line: str, size: float = SIZE, **options: Any) -> None:
    """Writes a line of text around (x, y)."""
    axes.text(x, y, style.plain_label(line), **{"ha": "center", "va": "center", "fontsize": size, **options})


def arrow(axes: Any, points: Sequence[tuple[float, float]], color: str = INK) -> None:
    """Draws a line through points, with a head at the last."""
    xs, ys = zip(*points, strict=True)
    axes.plot(xs, ys, color=color, linewidth=0.9, solid_capstyle="butt")
    head = {"arrowstyle": "-|>,head_width=0.13,head_length=0.28", "color": color, "linewidth": 0.9}
    axes.annotate("", points[-1], points[-2], arrowprops={**head, "shrinkA": 0, "shrinkB": 0})


def continued() -> Part:
    """Returns the start of a column that continues the one before it: an arrow."""
    return Part(0, EDGE, lambda axes, x, y: arrow(axes, [(x, y), (x, y + EDGE)]))


def start(line: str) -> Part:
    """Returns the start of the chain: a line of text and an arrow."""

    def paint(axes: Any, x: float, y: float) -> None:
        text(axes, x, y + LINE / 2, line, color=MUTED)
        arrow(axes, [(x, y + LINE + 0.02), (x, y + LINE + EDGE)])

    return Part(style.text_width(line, SIZE), LINE + EDGE, paint)


def link(lines: Sequence[str], tint: str, output: str, arcs: int = 0) -> Part:
    """Returns a link of the chain: a box of one line, or of two, and below it an arrow with the shape of its output.

    As many `arcs` pass the box on its left.
    """
    sizes = [SIZE, SMALL]
    width = max(style.text_width(line, size) for line, size in zip(lines, sizes, strict=False)) + 0.2
    height = len(lines) * LINE + 2 * PAD

    def paint(axes: Any, x: float, y: float) -> None:
        for arc in range(arcs):
            beside, above, below = x - width / 2 - SIDE * (1 + arc / 2), y - 0.12, y + height + 0.09
            arrow(axes, [(x, above), (beside, above), (beside, below), (x, below)], BLUE)
        box(axes, x - width / 2, y, width, height, tint)
        for i, line in enumerate(lines):
            text(axes, x, y + PAD + (i + 0.5) * LINE, line, sizes[i], color=MUTED if i else INK)
        arrow(axes, [(x, y + height), (x, y + height + EDGE)])
        text(axes, x + 0.07, y + height + EDGE / 2, output, SMALL, ha="left", color=MUTED)

    beside = 2 * SIDE * (1 + arcs / 2) if arcs else 0
    return Part(max(width + beside, 2 * style.text_width(output, SMALL) + 0.2), height + EDGE, paint)


def inside(block: Sequence[Node], title: str, subtitle: str, labels: Mapping[str, str], tint: str) -> Part:
    """Returns a block from inside: its layers in lanes, and the lines between them.

    `labels` are the texts in the boxes by the nodes' names.
    """
    places = place(block)
    widths = [0.3] * (1 + max(places.lane.values()))
    for node in block:
        lane = places.lane[node.name]
        widths[lane] = max(widths[lane], style.text_width(labels[node.name], SMALL) + 0.12)
    sides = SIDE * max(line.side for line in places.lines)
    inner = sides + sum(widths) + LANE_GAP * (len(widths) - 1)
    width = max(inner + 0.2, style.text_width(title, SIZE, bold=True) + 0.16, MIN_WIDTH)
    left = (width - inner) / 2 + sides
    lefts = [left + sum(widths[:lane]) + LANE_GAP * lane for lane in range(len(widths))]
    small = style.wrap(subtitle, width - 0.16, SMALL).splitlines()
    grid = _Grid(places, lefts, widths, top=(0.8 + len(small)) * LINE)
    height = max(map(grid.bottom, places.row)) + INSIDE_EDGE

    def paint(axes: Any, x: float, y: float) -> None:
        box(axes, x, y, width, height, f"{tint}55")
        text(axes, x + 0.08, y + 0.8 * LINE, title, ha="left", fontweight="bold")
        for i, line in enumerate(small):
            text(axes, x + 0.08, y + (1.75 + 0.9 * i) * LINE, line, SMALL, ha="left", color=MUTED)
        nodes = {node.name: node for node in block}
        for line in places.lines:
            points = [(x + right, y + down) for right, down in grid.points(line, nodes[line.second])]
            arrow(axes, points, BLUE if line.side else INK)
        text(axes, x + grid.middle(INPUT), y + grid.bottom(INPUT) - LINE / 2, "input", SMALL, color=MUTED)
        for node in block:
            from_left, wide = grid.span(node)
            tint_of = "white" if node.kind in SIGNS else LAYER_TINTS.get(node.kind, OTHER_TINT)
            box(axes, x + from_left, y + grid.top_of(node.name), wide, BOX, tint_of)
            text(axes, x + from_left + wide / 2, y + grid.top_of(node.name) + BOX / 2, labels[node.name], SMALL)
        from_left, wide = grid.span(block[-1])
        end = (x + from_left + wide / 2, y + grid.bottom(block[-1].name))
        arrow(axes, [end, (end[0], end[1] + INSIDE_EDGE - 0.02)])

    return Part(width, height, paint, anchor=0.5)


BOX = LINE + 2 * INSIDE_PAD  # height of a box in a block


@dataclasses.dataclass(frozen=True)
class _Grid:
    """The positions of a block's nodes, from its upper left corner: left edge and width of each lane, top of row 0."""

    places: Places
    lefts: Sequence[float]
    widths: Sequence[float]
    top: float

    def top_of(self, name: str) -> float:
        """Returns the upper end of a node."""
        return self.top + self.places.row[name] * (BOX + INSIDE_EDGE)

    def bottom(self, name: str) -> float:
        """Returns the lower end of a node."""
        return self.top_of(name) + BOX

    def middle(self, name: str) -> float:
        """Returns the middle of a node's lane."""
        lane = self.places.lane[name]
        return self.lefts[lane] + self.widths[lane] / 2

    def span(self, node: Node) -> tuple[float, float]:
        """Returns the left end and the width of a node's box: a square for a sign, all its lanes for 'concat'."""
        lane = last = self.places.lane[node.name]
        if node.kind in SIGNS:
            wide = max(BOX, style.text_width(SIGNS[node.kind], SMALL) + 0.08)
            return self.middle(node.name) - wide / 2, wide
        if node.kind == "concat":
            last = max(lane, *(self.places.lane[name] for name in node.inputs))
        return self.lefts[lane], self.lefts[last] + self.widths[last] - self.lefts[lane]

    def points(self, line: Line, target: Node) -> list[tuple[float, float]]:
        """Returns the points of a line between two nodes; its corners are right angles."""
        x, y = self.middle(line.first), self.bottom(line.first)
        end_x, end_y = self.middle(target.name), self.top_of(target.name)
        left, wide = self.span(target)
        level = end_y + BOX / 2
        if line.side:
            beside = self.lefts[0] - SIDE * line.side
            return [(x, y + 0.05), (beside, y + 0.05), (beside, level), (left, level)]
        if x == end_x or target.kind == "concat":
            return [(x, y), (x, end_y)]
        if len(target.inputs) > 1:
            return [(x, y), (x, level), (left + wide, level)]
        return [(x, y), (x, y + 0.06), (end_x, y + 0.06), (end_x, end_y)]
