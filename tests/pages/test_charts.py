"""Charts: the same numbers in the data of the script, in the SVG and in the table."""

import math
import re

import pytest

from cnnjax.pages import charts, curves
from cnnjax.pages.charts import Chart, Line

LOSS = Chart(
    "Loss", "epoch", "loss",
    (Line("training", (1, 2, 3), (3.0, 2.0, 1.0)), Line("validation", (2, 3), (2.5, math.nan))),
)  # fmt: skip


def test_lines_share_their_x_and_gaps_are_empty() -> None:
    data = LOSS.data()
    assert data["x"] == [1, 2, 3]
    assert [line["y"] for line in data["lines"]] == [[3.0, 2.0, 1.0], [None, 2.5, None]]
    assert [line["color"] for line in data["lines"]] == [0, 1]


def test_the_table_has_the_numbers_where_all_lines_have_one_or_else_all() -> None:
    assert LOSS.table().rows == [["1", "3", ""], ["2", "2", "2.5"], ["3", "1", ""]]
    both = Chart("", "epoch", "", (Line("a", range(9), range(9)), Line("b", (2, 4, 6), (0, 0, 0))))
    assert [row[0] for row in both.table().rows] == ["2", "4", "6"]


def test_the_svg_draws_each_line_once_inside_its_frame() -> None:
    svg = LOSS.svg()
    assert len(re.findall('<path class="line', svg)) == 2
    assert len(re.findall("<circle", svg)) == 4
    places = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", svg)]
    assert all(0 <= x <= charts.WIDTH and 0 <= y <= charts.HEIGHT for x, y in places)
    assert LOSS.summary() == "Loss, loss over epoch: training ends at 1; validation ends at 2.5."


def test_a_long_line_is_thinned_and_keeps_its_ends() -> None:
    chart = Chart("", "step", "", (Line("a", range(100_000), range(100_000)),))
    xs, (ys,) = chart.points
    assert len(xs) == charts.MAX_POINTS
    assert (xs[0], ys[-1]) == (0, 99_999)
    assert len(chart.table().rows) == charts.MAX_ROWS
    assert chart.table().rows[-1] == ["99,999", "1e+05"]


@pytest.mark.parametrize("ys", [[0.5], [0.5, 0.5], [0.0, 0.0], [1e-9, 2e-9], [-3, 1e12]])
def test_flat_single_tiny_and_huge_lines_are_drawn(ys: list[float]) -> None:
    svg = Chart("", "x", "y", (Line("a", range(len(ys)), ys),)).svg()
    assert "nan" not in svg
    assert "inf" not in svg


def test_more_lines_than_colors_are_dashed() -> None:
    chart = Chart("", "x", "y", tuple(Line(str(i), (0,), (i,)) for i in range(charts.COLORS + 1)))
    assert [chart.style(0), chart.style(charts.COLORS)] == ["c0", "c0 dashed"]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 15, [0, 5, 10, 15]),
        (0.93, 0.97, [0.93, 0.94, 0.95, 0.96, 0.97]),
        (3, 3, [3]),
    ],
)
def test_ticks_are_round(low: float, high: float, ticks: list[float]) -> None:
    assert charts._ticks(low, high) == pytest.approx(ticks)


def test_the_curves_of_a_run_are_those_of_its_lines() -> None:
    lines = [
        {
            "step": 2,
            "epoch": 0.5,
            "train/loss": 2.0,
            "train/accuracy": 0.5,
            "train/lr": 0.1,
            "train/images_per_second": 9,
        },
        {"step": 4, "epoch": 1.0, "val/loss": 1.5, "val/accuracy": 0.6},
    ]
    found = {chart.title: chart for chart in curves.charts(lines)}
    assert list(found) == ["Loss", "Accuracy", "Learning rate", "Speed"]
    assert [(line.label, [*line.x], [*line.y]) for line in found["Loss"].lines] == [
        ("training", [0.5], [2.0]), ("validation", [1.0], [1.5]),
    ]  # fmt: skip
    assert found["Accuracy"].y_format == "percent"
    assert curves.charts([]) == ()
    assert [chart.title for chart in curves.charts(lines[1:])] == ["Loss", "Accuracy"]
