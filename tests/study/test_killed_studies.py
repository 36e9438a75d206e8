"""A study that is killed at any write, rename or unlink, and resumed, has the same rows as one that is not."""

import os
import pathlib
import subprocess
import sys

import pytest

from cnnjax.runs import supervise
from cnnjax.study import Panel, conduct, report
from tests import faults
from tests.study.test_conduct import Instant, study
from tests.study.test_study_report import empty

ROOT = pathlib.Path(__file__).resolve().parents[2]
CASE = study(starts={"slow": "fast"}, seeds=2, panels=(Panel("points", "depth", "depth"),),
             measure=lambda folder, data_dir: {"depth": len(folder.name)})  # fmt: skip


def run(folder: pathlib.Path, log: list[str]) -> str:
    """Runs or resumes the study with its runs and report in `folder`, and returns the rows of the report."""
    runs = conduct.all_runs(folder / "runs", CASE, "")
    conduct.conduct(runs, Instant(), workers=1, stall_timeout=60, log=log.append)
    results = {arm: [conduct.collect(one, CASE, log.append) for one in arm_runs] for arm, arm_runs in runs.items()}
    report.write(folder / "mine", CASE, results, empty(CASE), "the command")
    return (folder / "mine.csv").read_text()


@pytest.mark.slow
def test_a_study_ended_at_every_change_of_its_folder_has_the_same_rows(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, copies, record = tmp_path / "s", tmp_path / "copies", tmp_path / "points"
    code = "import pathlib, sys; from tests.study.test_killed_studies import run; run(pathlib.Path(sys.argv[1]), [])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | faults.watch(folder, record, copies=copies)
    subprocess.run([sys.executable, "-c", code, folder], env=environment, check=True)
    monkeypatch.setattr(supervise, "POLL_SECONDS", 0.001)
    monkeypatch.setattr(report, "draw", lambda *_: None)  # takes most of the time; the study that is killed draws
    expected = run(folder, [])
    assert expected.count("\n") == 5
    for copy in faults.distinct(copies):
        log: list[str] = []
        rows = run(copy, log)
        complete = [line for line in log if "runs to do" not in line and "runs complete" not in line]
        assert (rows, complete) == (expected, []), f"killed before {faults.points(record)[int(copy.name) - 1]}"
    print(f"study: {faults.summary(faults.points(record))}; {len(faults.distinct(copies))} distinct")
