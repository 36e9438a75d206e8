"""Studies: which runs are done, what is collected from them, and the report, with fake trainings."""

import dataclasses
import json
import pathlib
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs.executors import Job
from cnnjax.study import Comparison, Panel, Study, conduct, report
from cnnjax.study.verdict import HELD

CONFIG = Config(model="mlp(features=(8,))", duration="2 epochs")


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


class Instant:
    """An executor whose runs complete at once, or fail if their path contains `fails`."""

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


def run(root: pathlib.Path, case: Study, start: Instant) -> list[str]:
    return conduct.conduct(conduct.all_runs(root, case, ""), start, workers=2, stall_timeout=60, log=lambda line: None)


def test_complete_runs_are_kept_and_other_configs_are_run(tmp_path: pathlib.Path) -> None:
    start = Instant()
    assert run(tmp_path, study(), start) == []
    assert len(start.folders) == 6
    assert {folder.name for folder in start.folders[:2]} == {"seed0"}  # first one seed of every arm
    assert run(tmp_path, study(), again := Instant()) == []
    assert again.folders == []
    run(tmp_path, study(seeds=4), more := Instant())
    assert [folder.name for folder in more.folders] == ["seed3", "seed3"]
    changed = {**study().arms, "fast": dataclasses.replace(CONFIG, lr=0.4)}
    run(tmp_path, study(arms=changed), other := Instant())
    assert [folder.parent.name.partition("-")[0] for folder in other.folders] == ["fast"] * 3


def test_a_failed_run_is_reported_and_the_others_are_run(tmp_path: pathlib.Path) -> None:
    start = Instant("fast")
    failures = run(tmp_path, study(), start)
    assert len(failures) == 3
    assert all("error: it was wrong" in line for line in failures)
    assert len(start.folders) == 6


def test_an_arm_may_start_from_the_weights_of_another(tmp_path: pathlib.Path) -> None:
    """Its runs come last, each from the run with the same seed; their folders do not depend on the other's path."""
    case, start = study(starts={"slow": "fast"}), Instant()
    assert run(tmp_path / "a", case, start) == []
    assert ["fast" in str(folder) for folder in start.folders] == [True] * 3 + [False] * 3
    for folder in start.folders[3:]:
        config = json.loads((folder / "config.json").read_text())
        assert config["init"] == str(next(first for first in start.folders[:3] if first.name == folder.name))
    run(tmp_path / "b", case, other := Instant())
    names = [{folder.relative_to(tmp_path / root) for folder in played.folders}
             for root, played in (("a", start), ("b", other))]  # fmt: skip
    assert names[0] == names[1]
    assert run(tmp_path / "a", case, Instant()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"starts": {"slow": "fsat"}}, "arm 'slow' starts from 'fsat': expected an arm"),
        ({"starts": {"slow": "fast", "fast": "slow"}}, "expected an arm that is trained from scratch"),
        ({"seeds": 0}, "a study of 0 seeds: expected at least 1"),
        ({"arms": {"a": Config(model="lenet6")}}, "arm 'a': unknown model 'lenet6'"),
        (
            {"comparisons": (Comparison("fats", "higher", "slow", "depth"),)},
            "no arm 'fats'; valid: slow, fast",
        ),
        ({"comparisons": (Comparison("fast", "higher", "slow", "x"),)}, "no such metric; valid: test/acc"),
    ],
)
def test_an_inconsistent_study_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        conduct.check_study(study(**changes))


def test_the_report_has_the_verdict_and_the_numbers(tmp_path: pathlib.Path) -> None:
    case = study(remarks="Something\nelse.")
    run(tmp_path / "runs", case, Instant())
    runs = conduct.all_runs(tmp_path / "runs", case, "")
    results = {arm: [conduct.collect(one, case) for one in arm_runs] for arm, arm_runs in runs.items()}
    verdict, (finding,) = report.write(tmp_path / "out" / "mine-quick", case, results, ["by hand"])
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
        assert any(text.startswith(line) for text in page.splitlines()), line
    rows = (tmp_path / "out" / "mine-quick.csv").read_text().splitlines()
    assert rows[0] == "arm,run,test/accuracy,depth"
    assert len(rows) == 7
    assert (tmp_path / "out" / "mine-quick.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_is_measured_once(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), Instant())
    one = conduct.all_runs(tmp_path, study(), "")["slow"][0]
    first = conduct.collect(one, study())
    assert conduct.collect(one, study(measure=lambda *_: pytest.fail("measured again"))) == first


def test_a_missing_metric_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no metric 'x'; valid: a/b, y"):
        conduct.last_value("x", conduct.Result([{"step": 1, "a/b": 1.0}], {"y": 2}))


def test_the_folder_of_a_run_is_that_of_earlier_versions(tmp_path: pathlib.Path) -> None:
    """The digest of the config was computed by the version before fields were renamed (accumulate=2)."""
    config = dataclasses.replace(CONFIG, grad_accum_steps=2, seed=3)
    assert conduct.run_folder(tmp_path, "arm", config) == tmp_path / "arm-59636919" / "seed3"
