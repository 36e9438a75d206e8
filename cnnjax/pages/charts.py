"""Charts of lines: drawn by uPlot, with values under the mouse, or as SVG on paper or without JavaScript.

A folded table of its numbers is below each, for screen readers and for copying. Colors come from the page's style
sheet, so a chart fits light and dark.
"""

import bisect
import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

from markupsafe import Markup, escape

from cnnjax import tables
from cnnjax.errors import visible

MAX_POINTS = 600  # of a line that is drawn; more cannot be told apart
MAX_ROWS = 25  # of the table of numbers
MAX_DOTS = 40  # points of a line that are marked, each by a dot
COLORS = 7  # of lines, in the style sheet; the next lines have the same colors, dashed
WIDTH, HEIGHT = 420, 230  # of the SVG, in its own pixels
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 40  # from there to the axes
Format = Literal["number", "percent", "integer"]


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of a chart: points (x, y), of ascending x. A y of None or NaN is a gap.

    Attributes:
      label: name in the legend.
      x: the x of each point.
      y: the y of each point.
      color: index of the color; None for the place of the line in its chart.
      is_reference: drawn thin, dotted and gray, as the diagonal of a ROC curve.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float | None]
    color: int | None = None
    is_reference: bool = False


@dataclasses.dataclass(frozen=True)
class Chart:
    """Lines over one x axis.

    Attributes:
      title: heading of the chart.
      x_label: name of the x axis, with its unit.
      y_label: name of the y axis, with its unit.
      lines: the lines, at least one with a point.
      x_format: format of x.
      y_format: format of y: 'percent' shows 0.5 as 50%.
      y_range: lowest and highest y of the axis; None for those of the lines.
      note: a sentence below the chart; '' for none.
    """

    title: str
    x_label: str
    y_label: str
    lines: tuple[Line, ...]
    x_format: Format = "integer"
    y_format: Format = "number"
    y_range: tuple[float, float] | None = None
    note: str = ""

    @functools.cached_property
    def points(self) -> tuple[list[float], list[list[float | None]]]:
        """Returns all x in ascending order, and the y of each line there, None where it has no point."""
        drawn = [_thinned(line) for line in self.lines]
        xs = sorted({x for points in drawn for x in points})
        return xs, [[points.get(x) for x in xs] for points in drawn]

    def data(self) -> dict[str, Any]:
        """Returns what page.js draws the chart from, for a JSON element of the page."""
        xs, columns = self.points
        return {
            "x": xs,
            "x_label": visible(self.x_label),
            "y_label": visible(self.y_label),
            "x_format": self.x_format,
            "y_format": self.y_format,
            "y_range": self.y_range,
            "lines": [
                {
                    "label": visible(line.label),
                    "y": column,
                    "color": self.color(i),
                    "dashed": self.is_dashed(i),
                    "reference": line.is_reference,
                    "dots": sum(value is not None for value in column) <= MAX_DOTS,
                }
                for i, (line, column) in enumerate(zip(self.lines, columns, strict=True))
            ],
        }

    def color(self, index: int) -> int:
        """Returns the number of a line's color in the style sheet."""
        color = self.lines[index].color
        return (index if color is None else color) % COLORS

    def is_dashed(self, index: int) -> bool:
        """Returns whether a line is dashed: if an earlier one has its color."""
        color = self.lines[index].color
        return (index if color is None else color) // COLORS % 2 == 1

    def table(self) -> tables.Table:
        """Returns a table of at most MAX_ROWS equally spaced points, if possible of x that all lines have."""
        xs, columns = self.points
        shown = [i for i, line in enumerate(self.lines) if not line.is_reference]
        rows = list(zip(xs, *(columns[i] for i in shown), strict=True))
        whole = [row for row in rows if None not in row]
        rows = whole if len(whole) > 1 else rows
        chosen = [rows[i] for i in _spaced(len(rows), MAX_ROWS)]
        formats: list[Format] = [self.x_format, *(self.y_format for _ in shown)]
        cells = [[_format(value, form) for value, form in zip(row, formats, strict=True)] for row in chosen]
        return tables.Table([self.x_label, *(self.lines[i].label for i in shown)], cells)

    def svg(self) -> Markup:
        """Draws the chart as an SVG element, whose colors are classes of the style sheet."""
        xs, columns = self.points
        values = [y for column in columns for y in column if y is not None]
        x_ticks, y_ticks = _ticks(xs[0], xs[-1]), _ticks(*(self.y_range or (min(values), max(values))))
        x_scale = _scale(xs[0], xs[-1], LEFT, WIDTH - RIGHT)
        y_scale = _scale(min(y_ticks[0], *values), max(y_ticks[-1], *values), HEIGHT - BOTTOM, TOP)
        bottom = HEIGHT - BOTTOM
        parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(self.summary())}">']
        for tick in y_ticks:
            y, text = f"{y_scale(tick):.1f}", _format(tick, self.y_format, short=True)
            parts.append(f'<path class="grid" d="M{LEFT} {y}H{WIDTH - RIGHT}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y}" dy=".35em" text-anchor="end">{text}</text>')
        for tick in x_ticks:
            parts.append(
                f'<text x="{x_scale(tick):.1f}" y="{bottom + 14}" text-anchor="middle">'
                f"{_format(tick, self.x_format, short=True)}</text>"
            )
        middle = (TOP + bottom) / 2
        parts += [
            f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">'
            f"{escape(visible(self.x_label))}</text>",
            f'<text transform="translate(11 {middle}) rotate(-90)" text-anchor="middle">'
            f"{escape(visible(self.y_label))}</text>",
        ]
        for i, column in enumerate(columns):
            places = [(x_scale(x), y_scale(y)) for x, y in zip(xs, column, strict=True) if y is not None]
            path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
            parts.append(f'<path class="line {self.style(i)}" d="M{path}"/>' if path else "")
            if len(places) <= MAX_DOTS and not self.lines[i].is_reference:
                parts += [f'<circle class="{self.style(i)}" cx="{x:.1f}" cy="{y:.1f}" r="2"/>' for x, y in places]
        return Markup("".join(parts) + "</svg>")

    def style(self, index: int) -> str:
        """Returns the classes of a line in the style sheet."""
        if self.lines[index].is_reference:
            return "reference"
        return f"c{self.color(index)}{' dashed' if self.is_dashed(index) else ''}"

    def summary(self) -> str:
        """Returns what the chart shows in words: its axes, and the last value of each line."""
        last = []
        for line, column in zip(self.lines, self.points[1], strict=True):
            if not line.is_reference and (values := [y for y in column if y is not None]):
                last.append(f"{visible(line.label)} ends at {_format(values[-1], self.y_format)}")
        return f"{visible(self.title)}, {visible(self.y_label)} over {visible(self.x_label)}: {'; '.join(last)}."


def _thinned(line: Line) -> dict[float, float]:
    """Returns at most MAX_POINTS points of a line as {x: y}, equally spaced, without those that are not finite."""
    points = [(x, y) for x, y in zip(line.x, line.y, strict=True) if y is not None and math.isfinite(y)]
    return {points[i][0]: points[i][1] for i in _spaced(len(points), MAX_POINTS)}


def _spaced(count: int, most: int) -> list[int]:
    """Returns at most `most` of the indices 0 to count - 1, equally spaced, with the first and the last."""
    if count <= most:
        return list(range(count))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def _scale(low: float, high: float, start: float, end: float) -> Any:
    """Returns the linear function from [low, high] to [start, end]; if low == high, it always returns the middle."""
    if high == low:
        return lambda value: (start + end) / 2
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _ticks(low: float, high: float) -> list[float]:
    """Returns about five round numbers from `low` to `high`; `low` alone if they agree."""
    if high <= low:
        return [low]
    exponent = math.floor(math.log10((high - low) / 4))
    steps = [factor * 10.0**exponent for factor in (1, 2, 2.5, 5, 10)]
    step = steps[min(bisect.bisect_left(steps, (high - low) / 5), len(steps) - 1)]
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [i * step for i in range(first, last + 1)]


def _format(value: float | None, form: Format, short: bool = False) -> str:
    """Formats a number; `short` for an axis. None gives ''."""
    if value is None:
        return ""
    if form == "percent":
        return f"{100 * value:.4g}%" if short else f"{value:.2%}"
    if form == "integer":
        return f"{value:,.0f}" if float(value).is_integer() else f"{value:,g}"
    return f"{value:.4g}"
