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
DISTANCES = (7.0, 13.0, 20.0, 28.0, 38.0)  # points from a dot to its name, tried in this order
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (0.7, 0.7), (-0.7, 0.7), (0.7, -0.7), (-0.7, -0.7))

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
    if is_fraction(panel.metric):
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")
    seeds = sorted({len(results[arm]) for arm in arms})
    note = f"dots: means of {seeds[0]}{f' to {seeds[-1]}' * (len(seeds) > 1)} runs; lines: their range"
    style.set_title(figure, panel.title, note if seeds[-1] > 1 else "")
    _name_points(axes, [style.plain_label(arm) for arm in arms], points)
    return next(file for file in style.save(figure, path) if file.suffix == ".png")


def _name_points(axes: Any, names: Sequence[str], points: Sequence[tuple[float, float]]) -> None:
    """Writes a name beside each point, where it covers no other name and no point; with a line where it is far off."""
    figure = axes.figure
    figure.draw_without_rendering()  # gives the axes their limits and size
    scale = 72 / figure.dpi
    places = axes.transData.transform(np.array(points)) * scale
    window = axes.get_window_extent()
    inside = (window.x0 * scale, window.y0 * scale, window.x1 * scale, window.y1 * scale)
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    for index in np.argsort(-places[:, 1]):  # from the top
        (x, y), width, height = places[index], 72 * style.text_width(names[index], style.SMALL), 1.15 * style.SMALL
        boxes = [
            _box(x + distance * dx, y + distance * dy, width, height, dx, dy)
            for distance in DISTANCES
            for dx, dy in DIRECTIONS
        ]
        others = [box for i, box in enumerate(taken) if i != index]
        costs = [sum(_overlap(box, other) for other in others) + _outside(box, inside) for box in boxes]
        best = int(np.argmin(np.array(costs) + 1e-6 * np.arange(len(costs))))
        taken.append(boxes[best])
        left, bottom, right, top = boxes[best]
        far = best >= len(DIRECTIONS)
        thin = {"arrowstyle": "-", "color": colors.MUTED, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 3}
        axes.annotate(
            names[index], points[index], ((left + right) / 2 - x, (bottom + top) / 2 - y), textcoords="offset points",
            ha="center", va="center", fontsize=style.SMALL, annotation_clip=False, arrowprops=thin if far else None,
        )  # fmt: skip


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
