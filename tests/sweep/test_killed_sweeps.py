"""A sweep that is killed at any write, rename or unlink, and resumed, has the same rows as one that is not."""

import dataclasses
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.runs import supervise
from cnnjax.sweep import report, search
from cnnjax.sweep.settings import Settings
from tests import faults
from tests.runs.fakes import FakeExecutor, learns, write_metrics, write_result

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = Config(model="mlp(features=(8,))", train_split="train[:80%]", val_split="train[80%:]")
CASES: dict[str, dict[str, Any]] = {
    "random": {"sampler": "random"},
    "tpe": {"sampler": "tpe(startup=2)", "trials": 4},
    "cmaes": {"sampler": "cmaes", "space": {"lr": "log(1e-3, 1)", "weight_decay": "uniform(0, 1)"}},
    "grid": {"sampler": "grid", "space": {"lr": [0.1, 0.2], "model.activation": ["relu", "tanh"]}, "trials": 4},
    "seeds": {"sampler": "random", "seeds": 2, "trials": 2},
    "pruner": {"sampler": "random", "pruner": "median(startup=1)", "trials": 4},
    "invalid": {"sampler": "grid", "space": {"batch_size": [15, 16], "grad_accum_steps": [1, 2]}, "trials": 4},
}


def settings(case: str) -> Settings:
    space = {"lr": "log(1e-3, 1)", "model.activation": ["relu", "tanh"]}
    plain = {"config": dataclasses.asdict(CONFIG), "source": "x.py", "space": space, "trials": 3}
    return Settings(**plain | CASES[case])


def learns_slowly(folder: pathlib.Path) -> int | None:
    """Trains for four epochs, one at each poll, and saves after each, as a real run does."""
    done = (folder / "metrics.jsonl").read_text().count("\n") if (folder / "metrics.jsonl").exists() else 0
    accuracies = [1 / (2 + int(folder.name))] * min(done + 1, 4)
    if done < 3:
        write_metrics(folder, accuracies)
        return None
    return write_result(folder, accuracies)


def run(folder: pathlib.Path, case: str, log: list[str]) -> list[dict[str, Any]]:
    """Runs or resumes a sweep, writes its report, and returns the leaderboard without times."""
    start = FakeExecutor(learns_slowly if case == "pruner" else learns)
    sweep = search.sweep(folder, settings(case), start, workers=1, stall_timeout=60,
                         show=lambda *_: None, log=log.append)  # fmt: skip
    report.write(sweep)
    return [row | {"seconds": None, "folder": row["folder"].removeprefix(str(folder))} for row in report.rows(sweep)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_a_sweep_ended_at_every_change_of_its_folder_has_the_same_rows(
    case: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(
        report.figures, "draw", lambda *_: {}
    )  # they take most of the time; the sweep that is killed draws them
    folder, copies, record = tmp_path / "s", tmp_path / "copies", tmp_path / "points"
    code = """if True:
        import pathlib, sys
        from tests.sweep.test_killed_sweeps import run
        run(pathlib.Path(sys.argv[1]), sys.argv[2], [])"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | faults.watch(folder, record, copies=copies)
    subprocess.run([sys.executable, "-c", code, folder, case], env=environment, check=True)
    expected = run(folder, case, [])
    assert len(expected) == settings(case).trials
    for copy in faults.distinct(copies):
        log: list[str] = []
        rows = run(copy, case, log)
        assert (rows, log) == (expected, []), (
            f"killed at point {copy.name}, {faults.points(record)[int(copy.name) - 1]}"
        )
    print(f"{case}: {faults.summary(faults.points(record))}; {len(faults.distinct(copies))} distinct")
