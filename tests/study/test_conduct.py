"""Studies: which runs are done, what is collected from them, and the report, with fake trainings."""

import dataclasses
import fcntl
import json
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from cnnjax import config_files, sealed
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.runs.executors import Job
from cnnjax.runs.supervise import Run
from cnnjax.study import Claim, Comparison, Panel, Study, conduct
from cnnjax.study.progress import Progress

CONFIG = Config(model="mlp(features=(8,))", duration="2 epochs")


def claim(**changes: Any) -> Claim:
    plain: dict[str, Any] = {
        "name": "fast_is_better", "chapter": "training", "statement": "fast is\nbetter", "source": "a paper",
        "comparisons": (Comparison("fast", "higher", "slow", "test/accuracy"),),
    }  # fmt: skip
    return Claim(**plain | changes)


def study(**changes: Any) -> Study:
    arms = {"slow": CONFIG, "fast": dataclasses.replace(CONFIG, lr=0.5)}
    plain: dict[str, Any] = {
        "arms": arms, "seeds": 3, "claims": (claim(),),
        "metrics": {"test/accuracy": "accuracy", "depth": "depth"},
        "panels": (
            Panel("curve", "val/loss", "loss"),
            Panel("profile", "profile", "profile", ("fast",), log=True, xlabel="layer"),
            Panel("points", "depth", "depth"),
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
        workdir.write_json(log.parent / "result.json", {})
        return Job(lambda: 0, lambda hard: None)


def run(root: pathlib.Path, case: Study, start: Instant, log: Callable[[str], None] = lambda line: None) -> list[str]:
    return conduct.conduct(conduct.all_runs(root, case, ""), start, workers=2, stall_timeout=60, log=log)


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
    assert all(line.endswith("exit status 1, error: it was wrong") for line in failures)
    assert not any("\n" in line for line in failures)
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


def edit(folder: pathlib.Path, **changes: Any) -> None:
    path = folder / "config.json"
    sealed.write_json(path, sealed.read_json(path) | changes)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: edit(folder, lr=0.9), "holds a run with another config: lr = 0.9 there, 0.1 now"),
        (lambda folder: edit(folder, seed=7), "holds a run with another config: seed = 7 there, 0 now"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").write_bytes(b"\xff{}"), "config.json is damaged"),
        (lambda folder: (folder / "config.json").unlink(), "has no config.json, but metrics.jsonl"),
    ],
)
def test_an_arm_takes_no_run_with_another_config(
    change: Callable[[pathlib.Path], Any], said: str, tmp_path: pathlib.Path
) -> None:
    run(tmp_path, study(), start := Instant())
    folder = next(folder for folder in start.folders if "slow" in str(folder) and folder.name == "seed0")
    change(folder)
    lines: list[str] = []
    assert run(tmp_path, study(), again := Instant(), lines.append) == []
    assert again.folders == [folder]
    assert said in lines[0]
    assert lines[0].endswith(f"moved to {folder}-aside")
    assert lines[1] == "1 of 6 runs to do, 2 in parallel"
    assert folder.with_name("seed0-aside").is_dir()


def test_a_run_with_a_damaged_result_is_resumed_in_its_folder(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), start := Instant())
    (start.folders[3] / "result.json").write_text("{")
    lines: list[str] = []
    run(tmp_path, study(), again := Instant(), lines.append)
    assert again.folders == [start.folders[3]]
    assert "result.json is damaged" in lines[0]


def test_a_folder_of_another_config_in_which_a_training_runs_is_left_alone(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), start := Instant())
    edit(start.folders[0], lr=0.9)
    with (start.folders[0] / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"lr = 0.9 there, 0.1 now, and a training is running in it"):
            run(tmp_path, study(), Instant())


def test_an_arm_is_run_again_when_the_arm_that_it_starts_from_has_changed(tmp_path: pathlib.Path) -> None:
    case = study(starts={"slow": "fast"})
    run(tmp_path / "a", case, Instant())
    changed = study(starts={"slow": "fast"}, arms={**case.arms, "fast": dataclasses.replace(CONFIG, lr=0.4)})
    run(tmp_path / "a", changed, again := Instant())
    assert ["fast" in str(folder) for folder in again.folders] == [True] * 3 + [False] * 3
    shutil.move(tmp_path / "a", tmp_path / "b")  # all together
    assert run(tmp_path / "b", changed, moved := Instant()) == []
    assert moved.folders == []


def test_a_run_is_measured_once(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), Instant())
    one = conduct.all_runs(tmp_path, study(), "")["slow"][0]
    first = conduct.collect(one, study(), pytest.fail)
    assert conduct.collect(one, study(measure=lambda *_: pytest.fail("measured again")), pytest.fail) == first


@pytest.mark.parametrize("has_checkpoints", [True, False])
@pytest.mark.parametrize("before", ["", "one"])
def test_a_run_is_measured_again_when_the_file_of_the_study_has_changed(
    before: str, has_checkpoints: bool, tmp_path: pathlib.Path
) -> None:
    """Without a digest, the measurement is of an earlier version of cnnjax."""
    run(tmp_path, study(), Instant())
    one, lines = conduct.all_runs(tmp_path, study(), "")["slow"][0], []
    first = conduct.collect(one, study(digest=before), pytest.fail)
    if has_checkpoints:
        (one.folder / "checkpoints" / "2").mkdir(parents=True)
    second = conduct.collect(one, study(digest="two", measure=lambda *_: {"new": 2}), lines.append)
    assert second.measured == ({"new": 2} if has_checkpoints else first.measured)
    words = "the run is measured again" if has_checkpoints else "it stays, as the run has no checkpoints"
    assert [f"measured.json is of another version of the study's file; {words}" in line for line in lines] == [True]
    if has_checkpoints:
        assert conduct.collect(one, study(digest="two"), pytest.fail) == second
    assert conduct.collect(one, study(measure=None), pytest.fail).measured == {}


def test_a_study_has_the_digest_of_its_file(tmp_path: pathlib.Path) -> None:
    text = "from tests.study.test_conduct import study\nSHIFT = 2\ndef get_study(budget): return study()"
    digests = []
    for shift in (2, 3, 2):
        (tmp_path / "mine.py").write_text(text.replace("= 2", f"= {shift}"))
        digests.append(config_files.read_study(str(tmp_path / "mine.py"), "quick").digest)
    assert digests[0] == digests[2] != digests[1]
    assert len(digests[0]) == 16


def test_a_damaged_measurement_is_made_again(tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), Instant())
    one = conduct.all_runs(tmp_path, study(), "")["slow"][0]
    first = conduct.collect(one, study(), pytest.fail)
    (one.folder / "measured.json").write_text("{")
    lines: list[str] = []
    assert conduct.collect(one, study(), lines.append) == first
    assert "measured.json is damaged" in lines[0]
    assert conduct.collect(one, study(), pytest.fail) == first


@pytest.mark.parametrize("result", [{"step": 2, "split": "test"}, {"step": 3}])
def test_a_run_that_lost_its_last_metrics_is_not_reported(result: dict[str, Any], tmp_path: pathlib.Path) -> None:
    run(tmp_path, study(), Instant())
    one = conduct.all_runs(tmp_path, study(), "")["slow"][0]
    lines = (one.folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (one.folder / "metrics.jsonl").write_text("".join(lines[:2]))
    (one.folder / "result.json").write_text(json.dumps(result))
    with pytest.raises(InputError, match=r"metrics.jsonl has lost its last lines"):
        conduct.collect(one, study(), pytest.fail)


def test_the_progress_has_the_time_left() -> None:
    """Two arms of two seeds, with two workers: a run of 'slow' takes 100 seconds, one of 'fast' 20."""
    config = dataclasses.replace(CONFIG, duration="10 epochs")
    runs = {arm: [Run(config, pathlib.Path(arm, str(i))) for i in range(2)] for arm in ("slow", "fast")}
    (slow, last_slow), (fast, last_fast) = runs.values()
    progress = Progress(runs, workers=2, complete=set())
    assert progress.line([slow, fast], 0) == "0 of 4 runs complete"
    slow.metrics, fast.metrics = [{"step": 30, "epoch": 1}], [{"step": 150, "epoch": 5}]
    assert progress.line([slow, fast], 10) == "0 of 4 runs complete, about 2 minutes left"  # (90 + 100 + 10 + 20) / 2
    progress.end(fast, 20)
    slow.metrics = [{"step": 60, "epoch": 2}]
    assert progress.line([slow, last_fast], 20) == "1 of 4 runs complete, about 2 minutes left"
    progress.end(last_fast, 40)
    progress.end(slow, 100)
    last_slow.metrics = [{"step": 75, "epoch": 2.5}]
    assert progress.line([last_slow], 100) == "3 of 4 runs complete, about 75 seconds left"
    last_slow.metrics = [{"step": 285, "epoch": 9.5}]
    assert progress.line([last_slow], 170) == "3 of 4 runs complete, about 5 seconds left"
    progress.end(last_slow, 175)
    assert progress.line([], 175) == "4 of 4 runs complete"


def test_what_a_resumed_run_did_before_does_not_count_as_fast() -> None:
    (done, run), (other,) = runs = [Run(CONFIG, pathlib.Path(name)) for name in "ab"], [Run(CONFIG, pathlib.Path("c"))]
    run.metrics = [{"step": 75, "epoch": 1.5}]  # of two epochs
    progress = Progress({"arm": runs[0], "other": runs[1]}, workers=1, complete={done.folder, other.folder})
    assert progress.line([run], 0) == "2 of 3 runs complete"
    run.metrics = [{"step": 85, "epoch": 1.7}]
    assert progress.line([run], 20) == "2 of 3 runs complete, about 30 seconds left"


def test_a_missing_metric_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=r"no metric 'x'; valid: a/b, y"):
        conduct.last_value("x", conduct.Result([{"step": 1, "a/b": 1.0}], {"y": 2}))


def test_the_folder_of_a_run_is_that_of_earlier_versions(tmp_path: pathlib.Path) -> None:
    """The digest of the config was computed by the version before fields were renamed (accumulate=2)."""
    config = dataclasses.replace(CONFIG, grad_accum_steps=2, seed=3)
    assert conduct.run_folder(tmp_path, "arm", config) == tmp_path / "arm-59636919" / "seed3"
