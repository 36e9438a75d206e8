"""Parallel coordinates as SVG: a line for each trial through its settings, with a title that a mouse shows."""

import dataclasses
import math
from collections.abc import Sequence

from markupsafe import Markup, escape

from cnnjax.errors import visible

COLUMN, HEIGHT = 132, 300  # of an axis with its labels, and of the whole, in pixels of the SVG
LEFT, TOP, BOTTOM = 14, 44, 14
HEADING_LETTERS = 19  # in a line of an axis' name
LABEL_LETTERS = 16
MAX_TICKS = 12  # on an axis of choices


@dataclasses.dataclass(frozen=True)
class Axis:
    """An axis.

    Attributes:
      name: what it shows.
      places: the place of each line on it, from 0 (below) to 1; NaN for a line that does not cross it.
      ticks: places and their texts.
    """

    name: str
    places: Sequence[float]
    ticks: Sequence[tuple[float, str]]


@dataclasses.dataclass(frozen=True)
class ParallelLines:
    """Lines over parallel axes, the best line first.

    Attributes:
      axes: the axes, at least two; the last one is what the lines are ranked by.
      titles: for each line, the text that the mouse shows.
      summary: alternative text of the picture.
    """

    axes: tuple[Axis, ...]
    titles: tuple[str, ...]
    summary: str

    @property
    def width(self) -> int:
        """Returns the width in pixels of the SVG."""
        return COLUMN * len(self.axes)

    def svg(self) -> Markup:
        """Draws the lines. Colors are classes of the style sheet; the best line has its own, and lies on top."""
        bottom = HEIGHT - BOTTOM
        ranks = self.axes[-1].places

        def point(axis: int, place: float) -> str:
            return f"{LEFT + axis * COLUMN} {bottom - place * (bottom - TOP):.1f}"

        parts = [
            f'<svg class="parallel" viewBox="0 0 {self.width} {HEIGHT}" role="img" '
            f'aria-label="{escape(visible(self.summary))}">'
        ]
        for row in reversed(range(len(self.titles))):
            places = [(i, float(axis.places[row])) for i, axis in enumerate(self.axes)]
            path = "L".join(point(i, place) for i, place in places if math.isfinite(place))
            shade = f'style="--f:{0.25 + 0.6 * float(ranks[row]):.2f}"'
            look = 'class="best"' if row == 0 else shade
            parts.append(f'<path {look} d="M{path}"><title>{escape(visible(self.titles[row]))}</title></path>')
        for i, axis in enumerate(self.axes):
            x = LEFT + i * COLUMN
            parts.append(f'<path class="axis" d="M{x} {TOP}V{bottom}"/>')
            for number, line in enumerate(_heading(axis.name)):
                parts.append(f'<text class="name" x="{x - 6}" y="{14 + 13 * number}">{escape(visible(line))}</text>')
            for place, text in list(axis.ticks)[:MAX_TICKS]:
                y = bottom - place * (bottom - TOP)
                shown = text if len(text) <= LABEL_LETTERS else f"{text[: LABEL_LETTERS - 1]}…"
                parts.append(f'<text x="{x + 5}" y="{y:.1f}" dy=".35em">{escape(visible(shown))}</text>')
        return Markup("".join(parts) + "</svg>")


def _heading(name: str) -> list[str]:
    """Breaks the name of an axis into at most two lines, at a space or a dot."""
    if len(name) <= HEADING_LETTERS:
        return [name]
    cut = max(name.rfind(sign, 0, HEADING_LETTERS) for sign in " ._") + 1 or HEADING_LETTERS
    rest = name[cut:]
    return [name[:cut], rest if len(rest) <= HEADING_LETTERS else f"{rest[: HEADING_LETTERS - 1]}…"]
