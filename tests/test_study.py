"""Studies: the verdict follows from the numbers, what is there is not run again, and the report says all of it."""

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from cnnjax import cli, config_files
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs.executors import Job
from cnnjax.study import Comparison, Panel, Study, conduct, report
from cnnjax.study.verdict import HELD, OPEN, REFUTED, interval, judge, together

ROOT = pathlib.Path(__file__).resolve().parents[1]
CONFIG = Config(model="mlp(features=(8,))", duration="2 epochs")

# --------------------------------------------------------------------------------------------------------- the verdict


@pytest.mark.parametrize(
    ("a", "b", "sign", "margin", "expected"),
    [
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 0.0, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "lower", 0.0, REFUTED),
        ([1.0, 1.1, 0.9], [3.0, 3.1, 2.9], "lower", 0.0, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 1.5, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 3.0, REFUTED),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 2.0, OPEN),
        ([3.0, 1.0, 2.0], [2.5, 0.5, 1.5], "higher", 0.0, OPEN),
        ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], "lower", -0.5, HELD),  # higher by less than 0.5
        ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], "lower", 0.0, OPEN),
        ([2.0, 2.0], [1.0, 1.0], "higher", 0.0, HELD),  # without any spread
        ([1.0, 1.0], [1.0, 1.0], "higher", 0.0, REFUTED),
        ([0.3, 0.32, 0.31], [0.1, 0.1, 0.1], "higher", 0.1, HELD),  # of one without any, SciPy warns
        ([9.0], [1.0], "higher", 0.0, OPEN),  # of one run no spread is known
    ],
)
def test_a_verdict_is_where_the_interval_lies(a: list, b: list, sign: Any, margin: float, expected: str) -> None:
    found = judge(Comparison("a", sign, "b", "m", margin), {"a": {"m": a}, "b": {"m": b}})
    assert found.verdict == expected
    assert found.difference == pytest.approx(np.mean(a) - np.mean(b))


def test_the_interval_is_welchs() -> None:
    """Against the formulas: degrees of freedom by Welch and Satterthwaite, and the t-distribution by its quantile."""
    a, b = [30.02, 29.99, 30.11, 29.97, 30.01, 29.99], [29.89, 29.93, 29.72, 29.98, 30.02, 29.98]
    difference, low, high = interval(a, b)
    va, vb = np.var(a, ddof=1) / 6, np.var(b, ddof=1) / 6
    freedom = (va + vb) ** 2 / (va**2 / 5 + vb**2 / 5)
    assert freedom == pytest.approx(7.03, abs=0.01)
    quantile = 2.3625  # of Student's t with 7.03 degrees of freedom, at 97.5 %
    assert (high - low) / 2 == pytest.approx(quantile * math.sqrt(va + vb), rel=1e-3)
    assert (high + low) / 2 == pytest.approx(difference) == pytest.approx(0.095, abs=1e-3)


@pytest.mark.parametrize(
    ("parts", "whole"),
    [([HELD, HELD], HELD), ([HELD, OPEN], OPEN), ([OPEN, REFUTED, HELD], REFUTED), ([], OPEN)],
)
def test_a_claim_holds_when_all_of_it_does(parts: list[str], whole: str) -> None:
    values = {"a": {"m": [1.0, 1.0]}, "b": {"m": [0.0, 0.0]}}
    finding = judge(Comparison("a", "higher", "b", "m"), values)
    assert together([finding._replace(verdict=part) for part in parts]) == whole


# ------------------------------------------------------------------------------------------------------------ the runs


def study(**changes: Any) -> Study:
    arms = {"slow": CONFIG, "fast": dataclasses.replace(CONFIG, lr=0.5)}
    plain: dict[str, Any] = {
        "claim": "fast is\nbetter", "source": "a paper", "arms": arms, "seeds": 3,
        "metrics": {"test/accuracy": "accuracy", "depth": "depth"},
        "comparisons": (Comparison("fast", "higher", "slow", "test/accuracy"),),
        "panels": (
            Panel("curve", "val/loss", "loss"),
            Panel("profile", "profile", "profile", ("fast",), log=True, xlabel="layer"),
            Panel("bars", "depth", "depth"),
        ),
        "measure": lambda folder, data_dir: {"depth": len(folder.parts), "profile": [1.0, 0.1, 0.01]},
    }  # fmt: skip
    return Study(**plain | changes)


class Played:
    """An executor whose runs are there at once; it counts them."""

    def __init__(self, fails: str = "") -> None:
        self.folders: list[pathlib.Path] = []
        self.fails = fails

    def __call__(self, command: list[str], log: pathlib.Path) -> Job:
        self.folders.append(log.parent)
        if self.fails and self.fails in str(log):
            log.write_text("error: it was wrong\n")
            return Job(lambda: 1, lambda hard: None)
        config = json.loads((log.parent / "config.json").read_text())
        accuracy = config["lr"] + config["seed"] / 100
        lines = [{"step": i, "epoch": i, "val/loss": 1 / i} for i in (1, 2)]
        lines.append({"step": 2, "epoch": 2, "test/accuracy": accuracy})
        (log.parent / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        (log.parent / "result.json").write_text("{}")
        return Job(lambda: 0, lambda hard: None)


def run(root: pathlib.Path, of: Study, start: Played) -> list[str]:
    return conduct.conduct(conduct.all_runs(root, of, ""), start, workers=2, silence=60, say=lambda line: None)


def test_what_is_there_is_not_run_again_and_other_settings_are(tmp_path: pathlib.Path) -> None:
    start = Played()
    assert run(tmp_path, study(), start) == []
    assert len(start.folders) == 6
    assert {folder.name for folder in start.folders[:2]} == {"seed0"}  # first one seed of every arm
    assert run(tmp_path, study(), again := Played()) == []
    assert again.folders == []
    run(tmp_path, study(seeds=4), more := Played())
    assert [folder.name for folder in more.folders] == ["seed3", "seed3"]
    changed = {**study().arms, "fast": dataclasses.replace(CONFIG, lr=0.4)}
    run(tmp_path, study(arms=changed), other := Played())
    assert [folder.parent.name.partition("-")[0] for folder in other.folders] == ["fast"] * 3


def test_a_run_that_fails_is_said_and_the_others_are_run(tmp_path: pathlib.Path) -> None:
    start = Played("fast")
    failures = run(tmp_path, study(), start)
    assert len(failures) == 3
    assert all("error: it was wrong" in line for line in failures)
    assert len(start.folders) == 6


def test_an_arm_may_start_from_anothers_weights(tmp_path: pathlib.Path) -> None:
    """Then its runs come last, each from that arm's same seed, and its folder does not depend on where that one is."""
    of, start = study(starts={"slow": "fast"}), Played()
    assert run(tmp_path / "a", of, start) == []
    assert ["fast" in str(folder) for folder in start.folders] == [True] * 3 + [False] * 3
    for folder in start.folders[3:]:
        config = json.loads((folder / "config.json").read_text())
        assert config["init"] == str(next(first for first in start.folders[:3] if first.name == folder.name))
    run(tmp_path / "b", of, other := Played())
    names = [{folder.relative_to(tmp_path / root) for folder in played.folders}
             for root, played in (("a", start), ("b", other))]  # fmt: skip
    assert names[0] == names[1]
    assert run(tmp_path / "a", of, Played()) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"starts": {"slow": "fsat"}}, "arm 'slow' starts from 'fsat': expected two arms"),
        ({"starts": {"slow": "fast", "fast": "slow"}}, "of which the second starts anew"),
        ({"seeds": 0}, "a study of 0 seeds: expected at least 1"),
        ({"arms": {"a": Config(model="lenet6")}}, "arm 'a': unknown model 'lenet6'"),
        (
            {"comparisons": (Comparison("fats", "higher", "slow", "depth"),)},
            "there is no arm 'fats'; valid: slow, fast",
        ),
        ({"comparisons": (Comparison("fast", "higher", "slow", "x"),)}, "the metric is none of the study's: test/acc"),
    ],
)
def test_a_study_that_does_not_fit_is_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        conduct.check_study(study(**changes))


# ---------------------------------------------------------------------------------------------------------- the report


def test_the_report_says_what_was_found(tmp_path: pathlib.Path) -> None:
    of = study(remarks="Something\nelse.")
    run(tmp_path / "runs", of, Played())
    runs = conduct.all_runs(tmp_path / "runs", of, "")
    found = {arm: [conduct.lines_of(one, of) for one in several] for arm, several in runs.items()}
    verdict, (finding,) = report.write(tmp_path / "out" / "mine-quick", of, found, ["by hand"])
    assert (verdict, finding.verdict) == (HELD, HELD)
    assert finding.difference == pytest.approx(0.4)
    page = (tmp_path / "out" / "mine-quick.md").read_text()
    for line in (
        "# mine-quick: held",
        "**Claim.** fast is better",
        "| fast higher than slow | accuracy | +0.4 | +0.377 to +0.423 | held |",
        "| slow | 0.110 ± 0.010 | ",
        "| fast | 0.510 ± 0.010 | ",
        "![mine-quick](mine-quick.png)",
        "Something else.",
        "- by hand",
    ):
        assert any(found.startswith(line) for found in page.splitlines()), line
    rows = (tmp_path / "out" / "mine-quick.csv").read_text().splitlines()
    assert rows[0] == "arm,run,test/accuracy,depth"
    assert len(rows) == 7
    assert (tmp_path / "out" / "mine-quick.png").read_bytes()[:4] == b"\x89PNG"


def test_what_was_measured_is_not_measured_again(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), Played())
    one = conduct.all_runs(tmp_path, study(), "")["slow"][0]
    first = conduct.lines_of(one, study())
    assert conduct.lines_of(one, study(measure=lambda *_: pytest.fail("measured again"))) == first


def test_a_metric_that_no_run_has_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no metric 'x'; they have a/b, y"):
        conduct.value("x", [{"step": 1, "a/b": 1.0}], {"y": 2})


# ----------------------------------------------------------------------------------------------- the project's studies


@pytest.mark.parametrize("budget", ["quick", "full"])
@pytest.mark.parametrize("path", sorted((ROOT / "experiments").glob("*.py")), ids=lambda path: path.stem)
def test_every_study_fits_together(path: pathlib.Path, budget: str) -> None:
    found = config_files.read_study(str(path), budget)
    conduct.check_study(found)
    assert {arm for panel in found.panels for arm in panel.arms} <= set(found.arms)
    assert path.stem in (path.read_text().split('"""')[1])  # its command


@pytest.mark.parametrize("path", sorted((ROOT / "experiments" / "reports").glob("*.csv")), ids=lambda path: path.stem)
def test_every_report_is_of_its_study_as_it_is(path: pathlib.Path) -> None:
    """The verdict of the page follows from the numbers that are kept beside it."""
    name, _, budget = path.stem.rpartition("-")
    found = config_files.read_study(str(ROOT / "experiments" / f"{name}.py"), budget)
    header, *rows = [line.rsplit(",", len(found.metrics) + 1) for line in path.read_text().splitlines()]
    assert header == ["arm", "run", *found.metrics]
    values: dict[str, dict[str, list[float]]] = {}
    for arm, _, *numbers in rows:
        for metric, number in zip(found.metrics, numbers, strict=True):
            values.setdefault(arm.strip('"'), {}).setdefault(metric, []).append(float(number))
    assert list(values) == list(found.arms)
    assert all(len(numbers) == found.seeds for of in values.values() for numbers in of.values())
    verdict = together([judge(comparison, values) for comparison in found.comparisons])
    assert path.with_suffix(".md").read_text().startswith(f"# {path.stem}: {verdict}\n")
    assert path.with_suffix(".png").exists()


FILE = """
from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

def measure(folder, data_dir):
    from cnnjax.study import measure
    shifted = measure.accuracy(folder, data_dir, "shift(1, 0)")
    return measure.flow(folder, data_dir) | {"parameters": measure.parameters(folder), "shifted": shifted}

def get_study(budget):
    arms = {f"deep {name}": Config(model=f"mlp(features=(16, 16, 16), activation='{name}')", duration="2 epochs")
            for name in ("sigmoid", "relu")}
    return Study(claim="It learns.", source="Nobody.", arms=arms, seeds=1, measure=measure,
                 metrics={"log_ratio_start": "ratio", "dead_end": "dead", "parameters": "n", "shifted": "shifted"},
                 comparisons=(Comparison("deep relu", "higher", "deep sigmoid", "log_ratio_start"),),
                 panels=(Panel("profile", "gradient_end", "gradient"),))
"""


@pytest.mark.slow
def test_a_study_from_the_command_line(digits_dir: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    command = [sys.executable, "-m", "cnnjax", "study", "mine.py", "--workers=2", f"--data_dir={digits_dir}"]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    for missing in (2, 0):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"2 runs, {missing} of them missing, 2 at a time" in done.stdout
        assert "the report is reports/mine-quick.md" in done.stdout
    measured = json.loads(next(tmp_path.glob("runs/studies/mine/deep sigmoid-*/seed0/measured.json")).read_text())
    assert measured["parameters"] == 64 * 16 + 16 + 2 * (16 * 16 + 16) + 16 * 10 + 10
    assert len(measured["gradient_start"]) == 4
    assert measured["log_ratio_start"] == pytest.approx(
        math.log10(measured["gradient_start"][0] / measured["gradient_start"][-1])
    )
    assert 0 <= measured["dead_end"] <= 1


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "the following arguments are required: FILE"),
        (["experiments/degradatoin.py"], 1, "did you mean 'experiments/degradation.py'?"),
        (["configs/digits_lenet5.py"], 1, "configs/digits_lenet5.py gives no study: it has no get_study(budget)"),
        (["experiments/degradation.py", "--budget=quik"], 1, "--budget=quik: did you mean 'quick'?"),
        (["experiments/degradation.py", "--workers=0"], 1, "--workers=0: expected at least 1"),
        (["experiments/degradation.py", "--seeds=3"], 2, "unknown flag '--seeds=3'"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], status: int, says: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    try:
        found = cli.main(["study", *words])
    except SystemExit as left:
        found = left.code
    said = capsys.readouterr().err
    assert (found, said.count("\n")) == (status, 1)
    assert says in said
