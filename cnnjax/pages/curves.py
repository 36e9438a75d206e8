"""The charts of a training: loss, accuracy, learning rate and speed, from the lines of metrics.jsonl."""

from collections.abc import Sequence
from typing import Any

from cnnjax.metrics import METRICS
from cnnjax.pages.charts import Chart, Format, Line

SPLITS = {"train": "training", "val": "validation"}
SPEED = {"lr": ("Learning rate", "learning rate"), "images_per_second": ("Speed", "images per second")}


def charts(lines: Sequence[dict[str, Any]]) -> tuple[Chart, ...]:
    """Returns the charts of a run, from lines such as {"step": 20, "epoch": 1.5, "train/loss": 0.5}; () for none."""
    found = []
    for name, row in METRICS.items():
        if row.in_progress:
            form: Format = "percent" if "%" in row.format_spec else "number"
            heading = row.heading[:1].upper() + row.heading[1:]
            curves = [line(lines, f"{group}/{name}", label, i) for i, (group, label) in enumerate(SPLITS.items())]
            found.append(Chart(heading, "epoch", row.heading, present(curves), y_format=form, note=""))
    for name, (title, label) in SPEED.items():
        found.append(Chart(title, "epoch", label, present([line(lines, f"train/{name}", label, 0)])))
    return tuple(chart for chart in found if chart.lines)


def line(lines: Sequence[dict[str, Any]], name: str, label: str, color: int) -> Line:
    """Returns the curve of the metric `name`, as in 'val/loss', over the epochs."""
    values = [values for values in lines if name in values]
    return Line(label, [each["epoch"] for each in values], [each[name] for each in values], color)


def present(curves: Sequence[Line]) -> tuple[Line, ...]:
    """Returns the curves that have a point."""
    return tuple(curve for curve in curves if any(y is not None and y == y for y in curve.y))
