"""`cnnjax compare`: evaluates what is not evaluated yet, once, and prints the comparison as text, CSV and Markdown."""

import csv
import pathlib
import shutil

import pytest

from cnnjax import cli, sealed
from cnnjax.evaluation import comparison_tables, image_scores, report


def test_runs_without_an_evaluation_are_evaluated_once(
    finished_run: pathlib.Path,
    tmp_path: pathlib.Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr(report, "save_figures", lambda *_: None)  # a second each
    runs = [tmp_path / "a", tmp_path / "b"]
    for run, lr in zip(runs, (0.05, 0.5), strict=True):
        shutil.copytree(finished_run, run, ignore=shutil.ignore_patterns("evaluations"))
        sealed.write_json(run / "config.json", sealed.read_json(run / "config.json") | {"lr": lr})
    command = ["compare", *map(str, runs)]

    assert cli.main([*command, "--no_evaluate"]) == 0
    out, err = capsys.readouterr()
    assert ("No paired tests with A, B" in out, err, "%" in out) == (True, "", True)  # accuracies of the training
    assert not (runs[0] / "evaluations").exists()

    assert cli.main([*command, "--step=2"]) == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"evaluating A: {runs[0]}", f"evaluating B: {runs[1]}"]
    assert " 0.05  0.5" in out
    assert "digits test (A step 2, B step 2)" in out
    assert "A and B classify the same " in out
    assert comparison_tables.CAVEAT in out
    (evaluation,) = (runs[0] / "evaluations").iterdir()
    accuracy = image_scores.read(evaluation).is_correct.mean()

    assert cli.main([*command, "--step=2", "--csv"]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(out.splitlines()))
    assert err == ""  # nothing is evaluated again
    assert [row["config.lr"] for row in rows] == ["0.05", "0.5"]
    assert float(rows[0]["accuracy"]) == accuracy
    assert [(row["p"], row["only_this_right"]) for row in rows] == [("", ""), ("1.0", "0")]
    assert cli.main([*command, "--step=2", "--markdown"]) == 0
    assert "| lr | 0.05 | 0.5 |" in capsys.readouterr().out
