"""A network as a drawing for a slide: its layers and blocks in a chain, and each kind of block from inside."""

import dataclasses
import string
from collections.abc import Sequence
from typing import Any

import flax.linen as nn

from cnnjax import spec, style
from cnnjax.colors import MUTED
from cnnjax.errors import InputError
from cnnjax.models import MODELS, create_model
from cnnjax.summarize import Summary, parts
from cnnjax.summarize.graph import INPUT, Node, graph
from cnnjax.summarize.outline import Unit, outline
from cnnjax.summarize.parts import TIMES, Part
from cnnjax.summarize.trace import flow

BLOCK_TINTS = ("#bfe5da", "#f6cfae", "#e9cddd", "#c9c5ea", "#d8e2a8", "#f3c1c1")  # of kinds of blocks, in turn
GAP = 0.35  # inches between columns
TITLE, FOOT = 0.4, 0.12  # inches above the columns, and below them
RATIO = style.FULL_WIDTH / (style.SLIDE_HEIGHT - 0.6)  # of what is between title and note, on a slide
LEGEND = (
    f"Blue boxes are convolutions: window, channels, /stride; {TIMES} 2: two in a row. "
    "Normalizations and activations are left out."
)


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A network to be drawn.

    Attributes:
        summary: its table.
        nodes: its layers and merges, as `graph` returns them.
        units: the chain of its layers and blocks, with repetitions folded.
    """

    summary: Summary
    nodes: tuple[Node, ...]
    units: tuple[Unit, ...]

    @property
    def blocks(self) -> list[Unit]:
        """Returns the first unit of each structure of blocks."""
        first: dict[Any, Unit] = {}
        for unit in self.units:
            if not unit.is_layer:
                first.setdefault(unit.structure, unit)
        return list(first.values())

    @property
    def note(self) -> str:
        """Returns the network's size in one line."""
        return f"{self.summary.params:,} parameters, {self.summary.macs:,} multiply-accumulates per image"

    @style.house()
    def figure(self) -> Any:
        """Draws the chain in columns and, beside it, each kind of block from inside, in about the format of a slide."""
        names = {block.structure: f"{_letter(i)}: {_kind(block)}" for i, block in enumerate(self.blocks)}
        tints = {block.structure: BLOCK_TINTS[i % len(BLOCK_TINTS)] for i, block in enumerate(self.blocks)}
        chain = [parts.start(f"image {_size(self.summary.input_shape)}")]
        for unit in self.units:
            chain.append(_layer_link(unit) if unit.is_layer else _block_link(unit, names, tints))
        insides = []
        for block in self.blocks:
            labels = {node.name: _label(node).replace(" conv,", ",") for node in block.inside}
            key = block.structure
            insides.append(parts.inside(block.inside, names[key], self._as_in(block), labels, tints[key]))
        return _figure(self.summary.title, f"{self.note}. {LEGEND}", chain, insides)

    def _as_in(self, block: Unit) -> str:
        """Returns which block of this structure is shown from inside, and how others differ."""
        projected = [unit.names[0] for unit in self.units if unit.structure == block.structure and unit.has_projection]
        is_identity = INPUT in block.inside[-1].inputs
        projection = f"; in {_short(projected[0])}, a layer is on the shortcut" if projected and is_identity else ""
        return f"as in {_short(block.names[-1])}{projection}"


def drawing(model: nn.Module | str, input_shape: tuple[int, int, int] | None = None, num_classes: int = 0) -> Drawing:
    """Returns the drawing of a network; its `figure()` is for a slide. Arguments and errors are those of `summary`."""
    title = model if isinstance(model, str) else type(model).__name__
    if isinstance(model, str):
        name, model = spec.parse(model).name, create_model(model, num_classes)
        input_shape = input_shape or MODELS[name].input_shape
    if input_shape is None:
        raise InputError("input_shape = None: expected (height, width, channels); a module has no image size")
    network = flow(model, input_shape)
    nodes = graph(network, input_shape)
    return Drawing(Summary(title, network.layers, input_shape), nodes, tuple(outline(nodes)))


def _letter(index: int) -> str:
    """Returns A, B, ..., Z, A1, B1, ..."""
    return string.ascii_uppercase[index % 26] + (str(index // 26) if index >= 26 else "")


def _size(shape: Sequence[int]) -> str:
    """Formats a shape with signs of multiplication."""
    return TIMES.join(f"{length}" for length in shape)


def _short(name: str) -> str:
    """Returns the name of the network's own module that a module is part of."""
    return name.partition("/")[0]


def _label(node: Node) -> str:
    """Returns the text in the box of a node."""
    layer = node.layer
    if layer is None:
        return parts.SIGNS.get(node.kind, node.kind)
    if node.kind == "fully connected":
        return f"fully connected, {node.output[-1]:,}"
    if node.kind == "response norm":
        return "local response norm"
    if layer.kernel is None or layer.stride is None:
        return node.kind
    stride = "" if layer.stride == (1, 1) else f", /{layer.stride[0]}"
    if node.kind != "convolution":
        return f"{_size(layer.kernel)} {node.kind}{stride}"
    kind = "depthwise conv" if node.is_depthwise else "conv"
    groups = f", {node.groups} groups" if node.groups > 1 and not node.is_depthwise else ""
    return f"{_size(layer.kernel)} {kind}, {node.output[-1]:,}{stride}{groups}"


def _kind(unit: Unit) -> str:
    """Returns what a block is called on the drawing."""
    if unit.is_dense:
        return "dense layer"
    gate = "SE " if any(node.kind == "scale" for node in unit.inside) else ""  # squeeze-and-excitation
    if unit.is_residual:
        return f"{gate}residual block"
    if unit.is_chain:
        return "separable conv" if unit.inside[0].is_depthwise else "block"
    return f"{gate}parallel branches"


def _layer_link(unit: Unit) -> Part:
    """Returns the link of a layer that is applied `unit.count` times."""
    (node,) = unit.inside
    line = f"[{_label(node)}] {TIMES} {unit.count}" if unit.count > 1 else _label(node)
    return parts.link([line], parts.LAYER_TINTS.get(node.kind, parts.OTHER_TINT), _size(unit.output))


def _block_link(unit: Unit, names: dict[Any, str], tints: dict[Any, str]) -> Part:
    """Returns the link of a block, with an arc beside it for a shortcut, and three for dense connections."""
    first, last = _short(unit.names[0]), _short(unit.names[-1])
    times = f" {TIMES} {unit.count}" if unit.count > 1 else ""
    lines = [f"{names[unit.structure]}{times}", first if first == last else f"{first} … {last}"]
    arcs = 1 if unit.is_residual else 3 if unit.is_dense else 0
    return parts.link(lines, tints[unit.structure], _size(unit.output), arcs)


def _figure(title: str, note: str, chain: Sequence[Part], insides: Sequence[Part]) -> Any:
    """Draws the chain in columns, and the blocks in rows beside it, so that all is as large as possible on a slide."""
    lowest, widest = max(part.height for part in chain) + parts.EDGE, max((part.width for part in insides), default=0)
    chains = [_columns(chain, lowest + 0.2 * i, parts.continued()) for i in range(40)]
    besides = [[[_rows(insides, widest + 0.2 * i)]] for i in range(60)] if insides else [[]]
    pages = [columns + beside for columns in chains for beside in besides]
    columns = min(pages, key=lambda page: (max(_width(page) / RATIO, _height(page)), len(page)))
    width = max(_width(columns), style.text_width(title, style.FONT + 1, bold=True) + 0.3, 3.2)
    foot = style.wrap(note, width - 0.2, parts.SMALL).splitlines()
    height = TITLE + _height(columns) + FOOT + parts.LINE * len(foot)
    figure = style.new_figure(width, height, layout=None)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, width), ylim=(height, 0))
    axes.set_axis_off()
    parts.text(axes, 0.1, TITLE / 2, title, style.FONT + 1, ha="left", fontweight="bold")
    for i, line in enumerate(foot):
        y = height - parts.LINE * (len(foot) - i - 0.2)
        parts.text(axes, 0.1, y, line, parts.SMALL, ha="left", color=MUTED)
    x = GAP / 2
    for column in columns:
        wide, y = max(part.width for part in column), TITLE
        for part in column:
            part.paint(axes, x + wide / 2 - part.anchor * part.width, y)
            y += part.height
        x += wide + GAP
    return figure


def _columns(chain: Sequence[Part], height: float, start: Part) -> list[list[Part]]:
    """Breaks a chain into columns of at most `height` inches; all but the first begin with `start`."""
    columns: list[list[Part]] = []
    for part in chain:
        if not columns or _height([[*columns[-1], part]]) > height + 1e-9:
            columns.append([start] if columns else [])
        columns[-1].append(part)
    return columns


def _rows(blocks: Sequence[Part], width: float) -> Part:
    """Arranges blocks in rows of at most `width` inches: returns one part."""
    rows: list[list[Part]] = []
    for part in blocks:
        if not rows or _row_width([*rows[-1], part]) > width + 1e-9:
            rows.append([])
        rows[-1].append(part)

    def paint(axes: Any, x: float, y: float) -> None:
        for row in rows:
            left = x
            for part in row:
                part.paint(axes, left, y)
                left += part.width + GAP / 2
            y += max(part.height for part in row) + GAP / 3

    height = sum(max(part.height for part in row) + GAP / 3 for row in rows)
    return Part(max(map(_row_width, rows)), height, paint, anchor=0.5)


def _row_width(row: Sequence[Part]) -> float:
    """Returns the width of blocks side by side, gaps included."""
    return sum(part.width for part in row) + GAP / 2 * (len(row) - 1)


def _width(columns: Sequence[Sequence[Part]]) -> float:
    """Returns the width of columns side by side, gaps included."""
    return sum(max(part.width for part in column) + GAP for column in columns)


def _height(columns: Sequence[Sequence[Part]]) -> float:
    """Returns the height of the highest column."""
    return max(sum(part.height for part in column) for column in columns)
