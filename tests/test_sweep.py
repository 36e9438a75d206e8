"""Sweeps: what they try, what becomes of each trial, and that nothing is lost however they end."""

import csv
import dataclasses
import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from cnnjax import cli, config_files, spec
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs import executors, supervise
from cnnjax.runs.executors import Job
from cnnjax.runs.signals import Interrupted
from cnnjax.runs.supervise import End, Run
from cnnjax.sweep import report, search
from cnnjax.sweep.space import configured, distributions

CONFIG = Config(
    model="mlp(features=(8,))", augment="pad_crop(1)|cutout(2)", train_split="train[:80%]", val_split="train[80%:]"
)

# ----------------------------------------------------------------------------------------------------------- the space


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2.5, 3], CategoricalDistribution([1, 2.5, 3])),
        ("[1, 2]", CategoricalDistribution([1, 2])),
        ("(1, 2)", CategoricalDistribution([1, 2])),
        ("log(1e-3, 1)", FloatDistribution(1e-3, 1, log=True)),
        ("uniform(0, 0.5)", FloatDistribution(0, 0.5)),
        ("uniform(0, high=0.5)", FloatDistribution(0, 0.5)),
    ],
)
def test_a_space_is_choices_or_a_range(values: Any, expected: BaseDistribution) -> None:
    assert distributions({"lr": values}, CONFIG) == {"lr": expected}


def test_a_range_may_be_of_whole_numbers() -> None:
    space = {"batch_size": "integer(16, 64, step=16)", "grad_accum_steps": "integer(1, 8, log=True)"}
    expected = [IntDistribution(16, 64, step=16), IntDistribution(1, 8, log=True)]
    assert list(distributions(space, CONFIG).values()) == expected


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({}, "the sweep has no space; give --space.FIELD="),
        ({"rate": [1]}, "unknown config field 'rate'"),
        ({"lr": "lag(1e-3, 1)"}, "unknown space 'lag'; did you mean 'log'?"),
        ({"lr": "log(1)"}, r"space 'log': .*expected log\(low: float, high: float\)"),
        ({"lr": "log(0, 1)"}, r"space.lr = 'log\(0, 1\)': "),
        ({"lr": "log(2, 1)"}, r"space.lr = 'log\(2, 1\)': "),
        ({"lr": 0.1}, "space.lr = 0.1: expected a list of choices, or a range such as"),
        ({"lr": []}, "expected a list of choices"),
        ({"lr": "[[1], [2]]"}, "expected a list of choices"),
        ({"lr": ["fast"]}, "config.lr = 'fast': expected float"),
        ({"lr.x": [1]}, "'lr.x': config.lr = 0.1 is not a call string"),
        ({"augment.pad": [1]}, "'pad' is not one argument in"),
        ({"augment.crop.pad": [1]}, "'crop.pad' is not one argument in .*valid: cutout.NAME, pad_crop.NAME"),
    ],
)
def test_a_space_that_does_not_fit_is_one_line(space: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        distributions(space, CONFIG)
    assert "\n" not in str(caught.value)


def test_a_setting_may_be_inside_of_a_call_string() -> None:
    found = configured(CONFIG, {"lr": 0.5, "optimizer.momentum": 0.8, "augment.cutout.size": 4, "model.dropout": 0.1})
    assert found.lr == 0.5
    assert found.optimizer == "sgd(momentum=0.8)"
    assert found.augment == "pad_crop(1)|cutout(2, size=4)"  # given twice, which `spec.find` refuses
    assert found.model == "mlp(features=(8,), dropout=0.1)"
    assert CONFIG.optimizer == "sgd(momentum=0.9)"


# ------------------------------------------------------------------------------------------------------- watching runs


def played(*acts: Callable[[pathlib.Path], int]) -> Callable[[list[str], pathlib.Path], Job]:
    """An executor whose commands are played: the n-th start of any run is the n-th act, later ones the last."""
    starts: list[pathlib.Path] = []

    def start(command: list[str], log: pathlib.Path) -> Job:
        starts.append(log)
        act = acts[min(len(starts), len(acts)) - 1]
        asked: list[int] = []

        def poll() -> int | None:
            return asked[0] if asked else act(log.parent)

        return Job(poll, lambda hard: asked.append(-9 if hard else 143))

    start.starts = starts  # type: ignore[attr-defined]
    return start


def write_metrics(folder: pathlib.Path, values: list[float]) -> None:
    lines = [{"step": i, "epoch": i, "val/accuracy": value, "val/loss": 1 - value} for i, value in enumerate(values, 1)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def ends_well(folder: pathlib.Path) -> int:
    write_metrics(folder, [0.5, 0.6])
    (folder / "result.json").write_text("{}")
    return 0


def goes_on(folder: pathlib.Path) -> Any:
    return None


def fails(folder: pathlib.Path) -> int:
    (folder / supervise.OUTPUT).write_text("a\nb\nc\nd\ne\nf\nerror: it was wrong\n")
    return 1


@pytest.mark.parametrize(
    ("acts", "kind", "text", "starts"),
    [
        ([ends_well], "complete", "", 1),
        ([fails], "failed", "status 1\nc\nd\ne\nf\nerror: it was wrong", 1),
        ([lambda _: -9, ends_well], "complete", "", 2),
        ([lambda _: 143, lambda _: -11, ends_well], "complete", "", 3),
        ([lambda _: -9], "failed", "signal 9 ended it", supervise.ATTEMPTS),
        ([goes_on], "failed", "it said nothing for 0 seconds", 1),
        ([lambda _: 0], "failed", "status 0", 1),  # without a result
    ],
)
def test_every_end_of_a_run_is_told_once(acts: list, kind: str, text: str, starts: int, tmp_path: pathlib.Path) -> None:
    runs, ends = [Run(CONFIG, tmp_path / "run")], []
    start = played(*acts)
    supervise.supervise(lambda: runs.pop() if runs else None, start, workers=2, silence=0.2, watch=lambda run: False,
                        ended=lambda run, end: ends.append(end))  # fmt: skip
    assert ends == [End(kind, text)]
    assert len(start.starts) == starts  # type: ignore[attr-defined]


def test_a_run_is_stopped_when_its_watcher_says_so(tmp_path: pathlib.Path) -> None:
    runs, ends, seen = [Run(CONFIG, tmp_path / "run")], [], []

    def watch(run: Run) -> bool:
        seen.append([line["val/accuracy"] for line in run.lines])
        return True

    def slowly(folder: pathlib.Path) -> Any:
        write_metrics(folder, [0.1])

    supervise.supervise(lambda: runs.pop() if runs else None, played(slowly), workers=1, silence=60, watch=watch,
                        ended=lambda run, end: ends.append(end))  # fmt: skip
    assert ends == [End("stopped")]
    assert seen == [[0.1]]


def test_no_more_runs_than_workers_go_on(tmp_path: pathlib.Path) -> None:
    runs = [Run(CONFIG, tmp_path / str(i)) for i in range(5)]
    active: list[int] = []
    polls: dict[pathlib.Path, int] = {}

    def third_time(folder: pathlib.Path) -> Any:
        polls[folder] = polls.get(folder, 0) + 1
        return ends_well(folder) if polls[folder] == 3 else None

    ended: list[Run] = []
    supervise.supervise(lambda: runs.pop() if runs else None, played(third_time), workers=2, silence=60,
                        watch=lambda run: False, ended=lambda run, end: ended.append(run),
                        show=lambda now: active.append(len(now)))  # fmt: skip
    assert len(ended) == 5
    assert max(active) == 2


def test_a_signal_stops_all_runs_and_none_has_ended(tmp_path: pathlib.Path) -> None:
    runs, stopped = [Run(CONFIG, tmp_path / "a"), Run(CONFIG, tmp_path / "b")], []

    def start(command: list[str], log: pathlib.Path) -> Job:
        return Job(lambda: 143 if log in stopped else None, lambda hard: stopped.append(log))

    def show(now: list[Run]) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    ended: list[End] = []
    with pytest.raises(Interrupted, match="stopped; 2 runs have saved and left") as caught:
        supervise.supervise(lambda: runs.pop() if runs else None, start, workers=2, silence=60,
                            watch=lambda run: False, ended=lambda run, end: ended.append(end), show=show)  # fmt: skip
    assert ended == []
    assert caught.value.signal == signal.SIGTERM
    assert sorted(log.parent.name for log in stopped) == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_of_before_that_still_goes_on_is_waited_for(tmp_path: pathlib.Path) -> None:
    import fcntl

    runs, ends = [Run(CONFIG, tmp_path)], []
    (tmp_path / "config.json").write_text("{}")
    lock = (tmp_path / "lock").open("w")
    fcntl.flock(lock, fcntl.LOCK_EX)
    shown: list[int] = []

    def show(now: list[Run]) -> None:
        shown.append(len(now))
        if len(shown) == 3:
            ends_well(tmp_path)
            lock.close()

    def start(command: list[str], log: pathlib.Path) -> Job:
        raise AssertionError("a second one was started")

    supervise.supervise(lambda: runs.pop() if runs else None, start, workers=1, silence=60, watch=lambda run: False,
                        ended=lambda run, end: ends.append(end), show=show)  # fmt: skip
    assert ends == [End("complete")]


# ------------------------------------------------------------------------------------------------------------- a sweep


def settings(**changes: Any) -> search.Settings:
    space = {"lr": "log(1e-3, 1)", "batch_size": [16, 32]}
    return search.Settings(
        **{"config": dataclasses.asdict(CONFIG), "source": "x.py", "space": space, "trials": 6} | changes
    )


def learns(folder: pathlib.Path) -> int:
    """A training whose accuracy follows from its settings: the rate is best at 0.1."""
    config = json.loads((folder / "config.json").read_text())
    best = 1 - abs(config["lr"] - 0.1) - config["seed"] / 100
    write_metrics(folder, [best / 2, best])
    (folder / "result.json").write_text("{}")
    return 0


def run(folder: pathlib.Path, asked: search.Settings, start: Any = None, workers: int = 2) -> optuna.Study:
    return search.sweep(folder, asked, start or played(learns), workers=workers, silence=60, show=lambda *_: None)


def states(study: optuna.Study) -> list[str]:
    return sorted(trial.state.name for trial in study.trials)


def test_a_sweep_finds_what_is_best_and_writes_it_down(tmp_path: pathlib.Path) -> None:
    study = run(tmp_path / "s", settings(trials=25))
    assert states(study) == ["COMPLETE"] * 25
    assert study.best_value > 0.95
    written = report.write(tmp_path / "s", study, settings())
    assert set(written) == {"leaderboard.csv", *report.PICTURES}
    rows = list(csv.DictReader((tmp_path / "s" / "leaderboard.csv").read_text().splitlines()))
    values = [float(row["accuracy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert float(rows[0]["lr"]) == pytest.approx(study.best_params["lr"])
    assert json.loads((pathlib.Path(rows[0]["folder"]) / "config.json").read_text())["lr"] == study.best_params["lr"]
    assert report.best(tmp_path / "s", study, settings()).lr == study.best_params["lr"]


@pytest.mark.parametrize("sampler", search.SAMPLERS)
def test_every_sampler_gives_as_many_trials_as_asked(sampler: str, tmp_path: pathlib.Path) -> None:
    study = run(
        tmp_path / "s", settings(sampler=sampler, space={"lr": [0.1, 0.2], "batch_size": [16, 32, 64]}, trials=6)
    )
    assert states(study) == ["COMPLETE"] * 6
    points = {(trial.params["lr"], trial.params["batch_size"]) for trial in study.trials}
    assert sampler != "grid" or len(points) == 6


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "halton"])
def test_every_sampler_stays_in_the_range(sampler: str, tmp_path: pathlib.Path) -> None:
    space = {"lr": "log(1e-3, 1)", "weight_decay": "uniform(0, 0.1)", "batch_size": "integer(8, 64)"}
    study = run(tmp_path / "s", settings(sampler=sampler, space=space, trials=12))
    assert all(1e-3 <= trial.params["lr"] <= 1 and 8 <= trial.params["batch_size"] <= 64 for trial in study.trials)
    assert len({trial.params["lr"] for trial in study.trials}) == 12


@pytest.mark.parametrize("pruner", ["median(startup=2)", "hyperband(least=1, factor=2)"])
def test_a_pruner_stops_the_bad_ones(pruner: str, tmp_path: pathlib.Path) -> None:
    turn: dict[pathlib.Path, int] = {}

    def slowly(folder: pathlib.Path) -> Any:
        turn[folder] = at = turn.get(folder, 0) + 1
        value = 0.9 if int(folder.name) < 4 else 0.1
        write_metrics(folder, [value] * min(at, 9))
        if at < 10:
            return None
        (folder / "result.json").write_text("{}")
        return 0

    study = run(tmp_path / "s", settings(pruner=pruner, trials=8), played(slowly), workers=1)
    pruned = [trial.number for trial in study.trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert min(pruned) >= 4
    assert len(study.trials) == 8


def test_a_trial_of_several_seeds_counts_by_its_mean(tmp_path: pathlib.Path) -> None:
    study = run(tmp_path / "s", settings(seeds=3, trials=2))
    for trial in study.trials:
        best = 1 - abs(trial.params["lr"] - 0.1)
        assert trial.value == pytest.approx(best - 0.01)
    rows = report.rows(tmp_path / "s", study, settings(seeds=3))
    assert [row["sd"] for row in rows] == pytest.approx([0.01, 0.01])
    assert sorted(path.name for path in (tmp_path / "s" / "trials" / "0001").iterdir()) == ["seed0", "seed1", "seed2"]


def test_folds_have_a_mean_and_a_spread(tmp_path: pathlib.Path) -> None:
    asked = settings(space={"lr": [0.3, 0.1], "fold": ["1/3", "2/3", "3/3"]}, sampler="grid", trials=6)
    asked.config |= {"val_split": ""}

    def of_a_fold(folder: pathlib.Path) -> int:
        config = json.loads((folder / "config.json").read_text())
        write_metrics(folder, [1 - config["lr"] - 0.01 * int(config["fold"][0])])
        (folder / "result.json").write_text("{}")
        return 0

    study = run(tmp_path / "s", asked, played(of_a_fold))
    found = report.over_folds(report.rows(tmp_path / "s", study, asked), asked)
    assert [(row["lr"], row["folds"]) for row in found] == [(0.1, 3), (0.3, 3)]
    assert [row["accuracy"] for row in found] == pytest.approx([0.88, 0.68])
    assert [row["sd"] for row in found] == pytest.approx([0.01, 0.01])
    assert report.over_folds(report.rows(tmp_path / "s", study, settings()), settings()) == []


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path: pathlib.Path) -> None:
    study = run(tmp_path / "s", settings(), played(learns, fails, learns), workers=1)
    assert states(study) == ["COMPLETE"] * 5 + ["FAIL"]
    assert study.trials[1].user_attrs["failure"].endswith("error: it was wrong")


def test_settings_that_do_not_fit_together_fail_without_a_run(tmp_path: pathlib.Path) -> None:
    space = {"batch_size": [16], "grad_accum_steps": "integer(1, 3)"}
    start = played(learns)
    study = run(tmp_path / "s", settings(space=space, trials=9, sampler="random"), start)
    failed = [trial for trial in study.trials if trial.state == TrialState.FAIL]
    assert {trial.params["accumulate"] for trial in failed} == {3}
    assert "expected a multiple of config.grad_accum_steps = 3" in failed[0].user_attrs["failure"]
    assert len(start.starts) + len(failed) == 9  # type: ignore[attr-defined]


def test_a_sweep_that_was_lost_goes_on_with_the_trials_it_had(tmp_path: pathlib.Path) -> None:
    """It is left as a kill would leave it: two trials run, and nothing was told of them."""

    class Killed(Exception):
        pass

    def show(study: optuna.Study, active: list[Run]) -> None:
        if len([trial for trial in study.trials if trial.state == TrialState.COMPLETE]) >= 2:
            raise Killed

    with pytest.raises(Killed):
        search.sweep(tmp_path / "s", settings(), played(learns), workers=2, silence=60, show=show)
    before = search.open_study(tmp_path / "s", settings()).trials
    running = [trial.params for trial in before if trial.state == TrialState.RUNNING]
    assert running
    study = run(tmp_path / "s", settings())
    assert states(study) == ["COMPLETE"] * 6
    assert [trial.params for trial in study.trials][: len(before)] == [trial.params for trial in before]
    (tmp_path / "s").rename(tmp_path / "moved")
    assert states(run(tmp_path / "moved", settings(trials=8))) == ["COMPLETE"] * 8  # more may be asked for
    with pytest.raises(InputError, match="is another sweep: sampler = 'tpe' there, 'random' now"):
        run(tmp_path / "moved", settings(sampler="random"))


def test_trials_may_be_kept_in_a_database(tmp_path: pathlib.Path) -> None:
    asked = settings(storage=f"sqlite:///{tmp_path}/trials.db", trials=3)
    for study in (run(tmp_path / "s", asked), search.open_study(tmp_path / "s", asked)):
        assert states(study) == ["COMPLETE"] * 3
        storage: Any = study._storage
        storage.remove_session()
        storage._backend.engine.dispose()
    assert not (tmp_path / "s" / search.JOURNAL).exists()


@pytest.mark.parametrize("url", ["nonsense", "nosuch://host/name", "sqlite:////nowhere/x.db"])
def test_a_database_that_does_not_answer_is_one_line(url: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=f"--storage={url}: ") as caught:
        run(tmp_path / "s", settings(storage=url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"config": dataclasses.asdict(Config())},
            "config.val_split = '': a sweep compares trials on a validation split",
        ),
        ({"metric": "acuracy"}, "unknown metric 'acuracy'; did you mean 'accuracy'?"),
        ({"trials": 0}, "--trials=0: expected at least 1"),
        ({"seeds": -1}, "--seeds=-1: expected at least 1"),
        ({"seeds": 2, "space": {"seed": [0, 1]}}, "leave 'seed' out of the space"),
        ({"sampler": "tpa"}, "unknown sampler 'tpa'; did you mean 'tpe'?"),
        ({"sampler": "grid"}, r"space.lr = 'log\(1e-3, 1\)': a grid needs a list of choices"),
        ({"pruner": "medium"}, "unknown pruner 'medium'; did you mean 'median'?"),
        ({"space": {"model": ["lenet5", "lenet6"]}}, "unknown model 'lenet6'; did you mean 'lenet5'?"),
        ({"space": {"model.drop": [0.1]}}, "'mlp' has no argument 'drop'; did you mean 'dropout'?"),
        ({"space": {"augment.cutout.size": [4]}}, "argument 'size' is given twice"),
    ],
)
def test_a_sweep_that_does_not_fit_is_refused_before_it_begins(
    changes: dict[str, Any], says: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=says):
        run(tmp_path / "s", settings(**changes))
    assert not (tmp_path / "s").exists()


# ----------------------------------------------------------------------------------------------------------- executors

SLEEP = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(300)"
EXECUTORS = [
    "local",
    pytest.param("slurm(cluster='local', gpus=0)", marks=pytest.mark.slow),
    pytest.param("ray", marks=pytest.mark.slow),
]


def finish(job: Job, seconds: float = 240) -> int:
    deadline = time.monotonic() + seconds
    while (status := job.poll()) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return status


@pytest.fixture
def executor(request: pytest.FixtureRequest) -> executors.Start:
    pytest.importorskip({"slurm": "submitit"}.get(spec.parse(request.param).name, spec.parse(request.param).name)
                        if request.param != "local" else "sys")  # fmt: skip
    return spec.build("executor", request.param, executors.EXECUTORS, workers=2)


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_an_executor_tells_the_status_and_keeps_what_was_said(
    executor: executors.Start, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "log"
    for status in (0, 3):
        assert finish(executor([sys.executable, "-c", f"print('said'); raise SystemExit({status})"], log)) == status
    assert log.read_text() == "said\nsaid\n"


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_an_executor_stops_a_command(executor: executors.Start, tmp_path: pathlib.Path) -> None:
    for hard in (False, True):
        log = tmp_path / f"log{hard}"
        job = executor([sys.executable, "-c", SLEEP], log)
        while not log.exists() or "up" not in log.read_text():
            assert job.poll() is None
            time.sleep(0.02)
        job.stop(hard)
        status = finish(job)
        assert status < 0 or status == 7


def test_workers_share_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 5}, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,4,7")
    assert [cores for cores, _ in executors._shares(2)] == [[0, 1], [2, 3, 5]]
    assert [gpus["CUDA_VISIBLE_DEVICES"] for _, gpus in executors._shares(2)] == ["0,1", "4,7"]
    assert [cores for cores, _ in executors._shares(7)] == [[0], [1], [2], [3], [5], [0], [1]]
    assert [gpus["CUDA_VISIBLE_DEVICES"] for _, gpus in executors._shares(5)] == ["0", "1", "4", "7", "0"]
    assert all(gpus["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" for _, gpus in executors._shares(5))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent is gone")
def test_a_command_is_told_to_leave_when_its_starter_is_killed(tmp_path: pathlib.Path) -> None:
    tells = SLEEP.replace("sys.exit(7)", f"open({str(tmp_path / 'told')!r}, 'w')")
    code = f"""if True:
        import pathlib, sys, time
        from cnnjax.runs import executors
        executors.local(1)([sys.executable, "-c", {tells!r}], pathlib.Path({str(tmp_path / "log")!r}))
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", code])
    for path, act in ((tmp_path / "log", process.kill), (tmp_path / "told", process.wait)):
        deadline = time.monotonic() + 30
        while not path.exists() or (path.name == "log" and "up" not in path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        act()


# --------------------------------------------------------------------------------------------------------- the command

FILE = """
from cnnjax.config import Config

def get_config():
    return Config(model="mlp(features=(8,))", train_split="train[:80%]", val_split="train[80%:]", duration="2 epochs",
                  batch_size=64)

def sweep():
    return {"lr": "log(1e-3, 1)", "model.activation": ["relu", "tanh"]}
"""


@pytest.fixture
def file(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "mine.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)
    return "mine.py"


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        ([], 2, "--config=FILE is missing"),
        (["--workdir=nowhere"], 2, "--config=FILE is missing, and nowhere is not a sweep's folder"),
        (["bets"], 1, "cnnjax sweep 'bets': did you mean 'best'?"),
        (["best"], 2, "--workdir=DIR is missing"),
        (["best", "--workdir=nowhere"], 1, "nowhere is not a sweep's folder: it has no sweep.json"),
        (["show", "--workdir=x", "--config=mine.py"], 1, "takes --workdir=DIR alone, not --config=mine.py"),
        (["--config=mine.py", "--workers=0"], 1, "--workers=0: expected at least 1"),
        (["--config=mine.py", "--trials=x"], 2, "argument --trials: invalid int value: 'x'"),
        (["--config=mine.py", "--space.lr"], 1, "'--space.lr': expected --space.FIELD=VALUES"),
        (["--config=mine.py", "--space.lrr=[1]"], 1, "config has no field 'lrr'; did you mean 'lr'?"),
        (["--config=mine.py", "--workrs=2"], 1, "unknown flag '--workrs=2'; did you mean 'workers'?"),
        (["--config=mine.py", "--executor=slrum"], 1, "unknown executor 'slrum'; did you mean 'slurm'?"),
        (["--config=mine.py", "--config.val_split="], 1, "config.val_split = '': a sweep compares"),
        (["--config=other.py"], 1, "there is no config file 'other.py'; did you mean 'mine.py'?"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], status: int, says: str, file: str, capsys: pytest.CaptureFixture
) -> None:
    try:
        found = cli.main(["sweep", *words])
    except SystemExit as left:
        found = left.code
    said = capsys.readouterr().err
    assert (found, said.count("\n")) == (status, 1)
    if "other.py" not in says:
        assert says in said


@pytest.mark.slow
def test_a_sweep_from_the_command_line(file: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    def cnnjax(*words: str) -> str:
        command = [sys.executable, "-m", "cnnjax", "sweep", *words]
        environment = os.environ | {
            "JAX_NUM_CPU_DEVICES": "1",
            "PYTHONPATH": str(pathlib.Path(cli.__file__).parents[1]),
        }
        return subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout

    said = cnnjax(f"--config={file}", "--trials=3", "--workers=2", "--workdir=s", f"--data_dir={digits_dir}")
    assert "3 trials: 3 complete" in said
    assert re.search(r"trial 2: accuracy \d+\.\d\d%", said)
    assert "3 trials: 3 complete" in cnnjax("show", "--workdir=s")
    best = cnnjax("best", "--workdir=s")
    assert best.startswith("cnnjax train --config=mine.py")
    config = config_files.read_config("mine.py", shlex.split(best)[3:])
    assert config.lr in [json.loads(path.read_text())["lr"] for path in tmp_path.glob("s/trials/*/config.json")]
    assert config.model in [f"mlp(features=(8,), activation='{name}')" for name in ("relu", "tanh")]
    assert "4 trials: 4 complete" in cnnjax("--workdir=s", "--trials=4")
