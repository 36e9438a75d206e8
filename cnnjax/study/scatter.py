"""Scatter plots of a table of results: a dot and a name for each network."""

import math
import pathlib
import statistics
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax import colors, style
from cnnjax.study import Panel, Study
from cnnjax.study.conduct import last_value
from cnnjax.study.sequence import Results
from cnnjax.study.words import is_fraction

MIN_LOG_SPAN = 10  # largest value / smallest value from which on an axis is logarithmic
DISTANCES = (7.0, 13.0, 20.0, 28.0, 38.0, 50.0, 64.0)  # points from a dot to its name, tried in this order
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))
ROUNDS = 3  # in which names find their places
MISLEADING = 150.0  # square points: the cost of a name that may be taken for another's

Box = tuple[float, float, float, float]  # left, bottom, right, top in points


def draw(path: pathlib.Path, study: Study, results: Results) -> list[pathlib.Path]:
    """Draws each scatter panel of a study into a .png and an .svg file, and returns the paths of the .png files.

    Their names are `path`-METRIC by the metric on the x axis. `results` is arm -> one `Result` for each complete run;
    arms without one are left out, and so are panels without arms.
    """
    files = []
    for panel in study.panels:
        if panel.kind == "scatter" and (arms := [arm for arm in panel.arms or study.arms if results[arm]]):
            name = f"{path.name}-{panel.x.rpartition('/')[2]}"
            name += f"-{len(files)}" * any(file.stem == name for file in files)
            files.append(_draw(path.with_name(name), panel, study, arms, results))
    return files


@style.house()
def _draw(path: pathlib.Path, panel: Panel, study: Study, arms: Sequence[str], results: Results) -> pathlib.Path:
    """Draws one panel: a dot at the means of each arm, and a line over the range of its runs."""
    figure = style.new_figure()
    axes = figure.add_subplot()
    xs, points = [], []
    for arm in arms:
        x, y = ([last_value(metric, result) for result in results[arm]] for metric in (panel.x, panel.metric))
        axes.plot([statistics.fmean(x)] * 2, [min(y), max(y)], color=colors.COLORS[0], linewidth=1, alpha=0.6)
        axes.plot(statistics.fmean(x), statistics.fmean(y), "o", color=colors.COLORS[0], markersize=6)
        xs.append(statistics.fmean(x))
        points.append((statistics.fmean(x), statistics.fmean(y)))
    if min(xs) > 0 and max(xs) / min(xs) >= MIN_LOG_SPAN:
        axes.set_xscale("log")
    elif all(float(x).is_integer() for x in xs):  # years
        axes.xaxis.get_major_locator().set_params(integer=True)
    if panel.log:
        axes.set_yscale("log")
    axes.set_xlabel(study.metrics[panel.x])
    axes.set_ylabel(study.metrics[panel.metric])
    axes.grid(axis="both")
    axes.margins(x=0.12, y=0.12)
    if panel.log:
        style.plain_log_ticks(axes.yaxis)
    if is_fraction(panel.metric, study.fractions):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
    seeds = sorted({len(results[arm]) for arm in arms})
    note = f"dots: means of {seeds[0]}{f' to {seeds[-1]}' * (len(seeds) > 1)} runs; lines: their range"
    style.set_title(figure, panel.title, note if seeds[-1] > 1 else "")
    _name_points(axes, [style.plain_label(arm) for arm in arms], points)
    return next(file for file in style.save(figure, path) if file.suffix == ".png")


def _name_points(axes: Any, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Writes a name beside each point, with a line to it where it is far off."""
    figure = axes.figure
    figure.draw_without_rendering()  # gives the axes their limits and size
    scale = 72 / figure.dpi
    places = axes.transData.transform(np.array(points)) * scale
    window = axes.get_window_extent()
    inside = (window.x0 * scale, window.y0 * scale, window.x1 * scale, window.y1 * scale)
    sizes = [(72 * style.text_width(name, style.SMALL), 1.15 * style.SMALL) for name in names]
    for name, point, (x, y), (box, far) in zip(names, points, places, _place(places, sizes, inside), strict=True):
        thin = {"arrowstyle": "-", "color": colors.MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            name, point, (_middle(box)[0] - x, _middle(box)[1] - y), textcoords="offset points",
            ha="center", va="center", fontsize=style.SMALL, annotation_clip=False, arrowprops=thin if far else None,
        )  # fmt: skip


def _place(dots: np.ndarray, sizes: Sequence[tuple[float, float]], inside: Box) -> list[tuple[Box, bool]]:
    """Returns a box for the name of each dot, and whether it needs a line to the dot.

    Each name takes the place that costs least (`_cost`), given those of the others, from the top; then again, until
    all have seen where the others are. `dots` has x and y, `sizes` the width and height of the names, in points.
    """
    marks = [(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    order, placed = np.argsort(-dots[:, 1]), dict[int, tuple[Box, bool]]()
    for _ in range(ROUNDS):
        for i in order:
            (x, y), (width, height) = dots[i], sizes[i]
            options = [
                (_box(x + distance * dx, y + distance * dy, width, height, dx, dy), distance > DISTANCES[0])
                for distance in DISTANCES
                for dx, dy in DIRECTIONS
            ]
            placed.pop(i, None)
            others = [mark for j, mark in enumerate(marks) if j != i] + [box for box, _ in placed.values()]
            lines = [_line(box, dots[j]) for j, (box, far) in placed.items() if far]
            costs = [_cost(box, far, i, dots, others, lines) + _outside(box, inside) for box, far in options]
            placed[i] = options[int(np.argmin(np.array(costs) + 1e-6 * np.arange(len(costs))))]
    return [placed[i] for i in range(len(dots))]


def _cost(
    box: Box, far: bool, index: int, dots: np.ndarray, others: Sequence[Box], lines: Sequence[np.ndarray]
) -> float:
    """Returns the cost, as an area, of placing the name of dot `index` in `box`.

    It is the area that the name covers, and a penalty for each way in which it misleads: it is nearer to another dot
    than to its own, it lies on another's line, or its own line crosses another name or dot. `far` is whether it has
    such a line. `others` are the other dots and names, `lines` their lines.
    """
    cost = sum(_overlap(box, other) for other in others) + MISLEADING * sum(_crosses(line, box) for line in lines)
    if far:
        return cost + MISLEADING * sum(_crosses(_line(box, dots[index]), other) for other in others)
    gaps = np.hypot(
        np.maximum(0, np.maximum(box[0] - dots[:, 0], dots[:, 0] - box[2])),
        np.maximum(0, np.maximum(box[1] - dots[:, 1], dots[:, 1] - box[3])),
    )
    return cost + MISLEADING * int((np.delete(gaps, index) < gaps[index] + 3).sum())


def _line(box: Box, dot: np.ndarray) -> np.ndarray:
    """Returns points of the line from a name to its dot, float [20, 2]."""
    return np.linspace(_middle(box), dot, 20)


def _crosses(line: np.ndarray, box: Box) -> bool:
    """Returns whether a line passes through a box."""
    return bool(((line >= box[:2]) & (line <= box[2:])).all(axis=1).any())


def _middle(box: Box) -> tuple[float, float]:
    """Returns the middle of a box."""
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _box(x: float, y: float, width: float, height: float, dx: float, dy: float) -> Box:
    """Returns the box of a text whose side or corner that faces away from the direction (dx, dy) is at (x, y)."""
    left = x - width / 2 + math.copysign(width / 2, dx) * bool(dx)
    bottom = y - height / 2 + math.copysign(height / 2, dy) * bool(dy)
    return left, bottom, left + width, bottom + height


def _overlap(a: Box, b: Box) -> float:
    """Returns the area that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)


def _outside(box: Box, frame: Box) -> float:
    """Returns the area of a box that lies outside of a frame."""
    return (box[2] - box[0]) * (box[3] - box[1]) - _overlap(box, frame)
