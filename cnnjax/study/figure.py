"""The figure of a study: a grid of its panels, as large as a slide or, with more than two rows, higher."""

import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import colors, style
from cnnjax.study import Panel, Study
from cnnjax.study.conduct import Result, last_value
from cnnjax.study.sequence import Results
from cnnjax.study.words import is_fraction

PANEL_WIDTH, PANEL_HEIGHT = style.FULL_WIDTH / 2, 2.6  # inches; the height is that in several rows


@style.house()
def draw(path: pathlib.Path, study: Study, results: Results, title: str = "") -> None:
    """Draws the study's figure into `path`.png and `path`.svg: a grid of its panels, with one color per arm.

    `results` is arm -> one `Result` for each complete run; arms without one are left out, and so are scatter plots: see
    `cnnjax.study.scatter`. `title` stands above the panels.
    """
    from matplotlib.ticker import MaxNLocator

    shown = [arm for arm in study.arms if results[arm]]
    panels = [panel for panel in study.panels if panel.kind != "scatter"]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    figure = style.new_figure(style.FULL_WIDTH, max(style.SLIDE_HEIGHT, PANEL_HEIGHT * rows))
    colors_of = {arm: style.line_style(i) for i, arm in enumerate(study.arms)}
    lines = []
    for i, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, i)
        axes.set_title(style.wrap(panel.title, PANEL_WIDTH - 0.8, style.FONT, bold=True))
        arms = [arm for arm in shown if not panel.arms or arm in panel.arms]
        for position, arm in enumerate(arms):
            _plot(axes, panel, arm, position, colors_of[arm], results[arm])
        if panel.log:
            axes.set_yscale("log")
            style.plain_log_ticks(axes.yaxis)
        values = axes.xaxis if panel.kind == "points" else axes.yaxis
        if is_fraction(panel.metric, study.fractions):
            values.set_major_formatter(lambda value, _: f"{100 * value:.6g}%")  # PercentFormatter writes 83.00%
        if panel.kind == "points":
            axes.set_yticks(range(len(arms)), map(style.plain_label, arms))
            axes.set_ylim(len(arms) - 0.5, -0.5)  # the first arm on top
            axes.margins(x=0.08)
            values.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))  # more labels would touch
            axes.grid(axis="both")
        else:
            axes.set_xlabel(panel.xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.margins(x=0)
            axes.grid(axis="y")
            lines.append(axes)
    counts = sorted({len(results[arm]) for arm in shown})
    note = ""
    if counts[-1] > 1:
        points = [panel.kind == "points" for panel in panels]
        count = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else f"{counts[0]}"
        bands, dots = "; bands: their range" * (not all(points)), "; small dots: single runs" * any(points)
        note = f"mean of {count} runs{bands}{dots}"
    style.set_title(figure, title, note)
    for axes in lines:  # when all panels are there, and have their sizes
        style.label_lines(axes, style.SMALL)
    style.save(figure, path)


def _plot(axes: Any, panel: Panel, arm: str, position: int, line: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Plots one arm in a panel: the mean over its runs, and their range or a dot for each run.

    `position` is the row of an arm's dots, and `line` the color and dashes of the arm.
    """
    if panel.kind == "points":
        values = [last_value(panel.metric, result) for result in results]
        axes.plot(statistics.fmean(values), position, "o", color=line["color"], markersize=9, alpha=0.7)
        axes.plot(values, [position] * len(values), "o", color=colors.INK, markersize=2.5)
        return
    if panel.kind == "curve":
        x = [row["epoch"] for row in results[0].metrics if panel.metric in row]
        rows = [[row[panel.metric] for row in result.metrics if panel.metric in row] for result in results]
    else:
        rows = [result.measured[panel.metric] for result in results]
        x = list(range(1, len(rows[0]) + 1))
    table = np.array(rows, float)
    axes.plot(x, table.mean(axis=0), label=style.plain_label(arm), **line)
    axes.fill_between(x, table.min(axis=0), table.max(axis=0), color=line["color"], alpha=0.15, linewidth=0)
