"""Tables of results, studies without claims: rows, pictures, the CSV file, and rows that are trained alone."""

import csv
import dataclasses
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest

from cnnjax import cli, style
from cnnjax.errors import InputError
from cnnjax.runs.executors import EXECUTORS
from cnnjax.study import Panel, Study, conduct, report, results_table, scatter, sequence
from cnnjax.study.check import check_study
from cnnjax.study.conduct import Result
from cnnjax.study.measure import table_row
from tests import tiny
from tests.study.test_conduct import CONFIG, Instant, run, study
from tests.study.test_sequence import Tabled
from tests.study.test_study_report import empty

METRICS = {"test_error": "test error", "macs": "multiplications", "year": "year"}
NUMBERS = {  # of a run, by its learning rate
    0.1: {"test_error": 0.2, "macs": 5e6, "year": 1998},
    0.2: {"test_error": 0.1, "macs": 7e3, "year": 2012},
}


def table(**changes: Any) -> Study:
    arms = {"poor": CONFIG, "good": dataclasses.replace(CONFIG, lr=0.2), "missing": dataclasses.replace(CONFIG, lr=0.3)}
    plain: dict[str, Any] = {
        "arms": arms, "claims": (), "metrics": METRICS, "seeds": 1, "seeds_of": {"good": 2},
        "measure": lambda folder, data_dir: NUMBERS[0.1 if "poor" in str(folder) else 0.2],
        "panels": (
            Panel("points", "test_error", "test error"),
            *(Panel("scatter", "test_error", f"error by {x}", log=True, x=x) for x in ("macs", "year")),
        ),
    }  # fmt: skip
    return study(**plain | changes)


def test_a_table_has_a_row_for_each_arm_with_runs(tmp_path: pathlib.Path) -> None:
    case = table()
    check_study(case)
    run(tmp_path / "runs", dataclasses.replace(case, arms={a: case.arms[a] for a in ("poor", "good")}), Instant())
    runs = sequence.complete_runs(tmp_path / "runs", case, "")
    assert {arm: len(arm_runs) for arm, arm_runs in runs.items()} == {"poor": 1, "good": 2, "missing": 0}
    results = {arm: [conduct.collect(one, case, pytest.fail) for one in arm_runs] for arm, arm_runs in runs.items()}
    results["poor"] = [dataclasses.replace(results["poor"][0], versions={"processor": "a processor", "jax": "1.0"})]
    report.write(tmp_path / "out" / "mine-quick", case, results, empty(case), "the command")
    lines = (tmp_path / "out" / "mine-quick.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("| ")][2:4]
    assert rows == ["| good | 10 % | 7,000 | 2012 | 2 |", "| poor | 20.00 % | 5 M | 1998 | 1 |"]
    assert "Not run yet: missing." in lines
    assert "- a processor; jax 1.0" in lines
    assert not any("Claim" in line or "t-test" in line for line in lines)
    for name in ("", "-macs", "-year"):
        assert f"![mine-quick{name}.png](mine-quick{name}.png)" in lines
        assert (tmp_path / "out" / f"mine-quick{name}.png").read_bytes()[:4] == b"\x89PNG"
    with (tmp_path / "out" / "mine-quick.csv").open(newline="") as file:
        first, *_ = rows = list(csv.DictReader(file))
    assert [row["arm"] for row in rows] == ["poor", "good", "good"]
    assert (first["processor"], first["jax"], first["test_error"]) == ("a processor", "1.0", "0.2")
    values = report.read_values(tmp_path / "out" / "mine-quick.csv", case)
    assert values == sequence.values_of(case, results)


def test_accuracies_are_sorted_from_the_highest_and_errors_from_the_lowest() -> None:
    arms = table().arms
    for metric, order in (("test/accuracy", ["good", "missing", "poor"]), ("test_error", ["poor", "missing", "good"])):
        values = {"poor": {metric: [0.1]}, "good": {metric: [0.8, 1.0]}, "missing": {metric: [0.5]}}
        case = table(arms=arms, metrics={metric: "x"})
        assert [*results_table.sorted_by_result(case, values).arms] == order


def test_names_of_points_cover_no_other_name_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    points = [(float(x), float(y)) for x, y in rng.normal(size=(25, 2))]
    with style.house():
        figure = style.new_figure()
        axes = figure.add_subplot()
        axes.plot(*zip(*points, strict=True), "o")
        axes.margins(0.12)
        scatter._name_points(axes, [f"network {i}" for i in range(25)], points)
        figure.draw_without_rendering()
        boxes = [text.get_window_extent() for text in axes.texts]
        window = axes.get_window_extent()
    overlaps = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    assert overlaps == []
    assert all(window.x0 <= box.x0 and box.x1 <= window.x1 for box in boxes)


def test_a_name_is_not_taken_for_that_of_another_dot() -> None:
    """No name without a line is nearer to another dot, and no line passes another name."""
    dots = np.random.default_rng(3).uniform((100, 60), (190, 110), (9, 2))
    placed = scatter._place(dots, [(60.0, 12.0)] * len(dots), (0, 0, 400, 200))
    for i, (box, far) in enumerate(placed):
        others = [other for j, (other, _) in enumerate(placed) if j != i]
        if far:
            assert not any(scatter._crosses(scatter._line(box, dots[i]), other) for other in others)
        else:
            near = np.clip(dots, box[:2], box[2:])
            assert np.argmin(np.hypot(*(near - dots).T)) == i


def test_the_numbers_of_a_row(tmp_path: pathlib.Path, digits_dir: str) -> None:
    result = tiny.run(tmp_path / "run", digits_dir)
    corrupted: Any = {"corruptions": ("brightness", "contrast"), "severities": (1, 5), "corrupted_split": "test[:16]"}
    row = table_row(tmp_path / "run", digits_dir, **corrupted)
    assert (row["parameters"], row["macs"], row["year"]) == (64 * 16 + 16 + 16 * 10 + 10, 64 * 16 + 16 * 10, 1998)
    assert row["test_error"] == pytest.approx(1 - result["accuracy"])
    assert 0 <= row["ece"] <= 1
    assert 0 <= row["corruption_error"] <= 1
    assert row["minutes"] == pytest.approx(8 * 16 / row["images_per_second"] / 60)
    assert "corruption_error" not in table_row(tmp_path / "run", digits_dir)


FILE = """
from cnnjax.config import Config
from cnnjax.study import Panel, Study

RATES = {"small": 0.1, "small too": 0.2, "x": 0.3}

def get_study(budget):
    arms = {name: Config(model="mlp(features=(8,))", lr=lr) for name, lr in RATES.items()}
    return Study(arms=arms, metrics={"test/accuracy": "accuracy"}, claims=(), seeds=1,
                 panels=(Panel("points", "test/accuracy", "accuracy"),))
"""


def test_rows_are_brought_up_to_date_one_by_one(tmp_path: pathlib.Path, monkeypatch: Any, capsys: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: Tabled())
    words = ["study", str(file), f"--workdir={tmp_path}/runs"]
    assert cli.main([*words, "--arms=small*"]) == 0
    page = (tmp_path / "reports" / "mine-quick.md").read_text()
    assert "Not run yet: x." in page
    assert cli.main([*words, "--arms=x"]) == 0
    assert "Not run yet" not in (tmp_path / "reports" / "mine-quick.md").read_text()
    csv_file = tmp_path / "reports" / "mine-quick.csv"
    rows = csv_file.read_text()
    shutil.rmtree(tmp_path / "runs")  # another machine has the table, and not the runs
    assert cli.main([*words, "--report_only"]) == 0
    assert csv_file.read_text() == rows
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: lambda *args: pytest.fail("nothing is missing"))
    assert cli.main(words) == 0
    csv_file.write_text(rows.replace(rows.splitlines()[1].split(",")[2], "many"))
    assert cli.main([*words, "--report_only"]) == 1
    assert "mine-quick.csv is damaged: in a row of " in capsys.readouterr().err
    csv_file.write_text(rows)
    file.write_text(FILE.replace("return", "arms['x'].batch_size = 7; return"))
    assert cli.main([*words, "--report_only"]) == 0
    assert "Not run yet: x." in (tmp_path / "reports" / "mine-quick.md").read_text()
    monkeypatch.setitem(EXECUTORS, "local", lambda workers: Tabled())
    assert cli.main(words) == 0
    assert len(list((tmp_path / "runs").glob("*-*"))) == 1
    assert csv_file.read_text().splitlines()[:3] == rows.splitlines()[:3]
    assert cli.main([*words, "--arms=small too"]) == 0
    assert len(list((tmp_path / "runs").glob("*-*"))) == 2
    capsys.readouterr()
    for flags, message in (
        (["--arms=smal"], None),
        (["--arms=big"], "error: unknown arm 'big'; valid: small, small too, x"),
        (["--arms=x", "--report_only"], "error: --arms starts training, --report_only does not train"),
    ):
        assert cli.main([*words, *flags]) == int(message is not None)
        assert (message or "") in capsys.readouterr().err


def test_arms_of_claims_cannot_be_chosen(capsys: Any) -> None:
    assert cli.main(["study", "kernel_size", "--arms=3x3"]) == 1
    assert "--arms is for a table of results" in capsys.readouterr().err


def test_a_run_without_versions_has_empty_cells(tmp_path: pathlib.Path) -> None:
    case = table()
    results = {arm: [Result([], NUMBERS[0.1])] if arm == "poor" else [] for arm in case.arms}
    report.write_values(tmp_path / "x.csv", case, sequence.values_of(case, results), results)
    assert (tmp_path / "x.csv").read_text().splitlines()[1] == "poor,0,0.2,5000000.0,1998.0,,,,,,,"
    with pytest.raises(InputError, match="belongs to another study"):
        report.read_values(tmp_path / "x.csv", table(metrics={"test/accuracy": "accuracy"}))
