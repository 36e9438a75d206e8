"""Sweeps: samplers, pruners, seeds, folds, failures, and resuming, with fake trainings."""

import csv
import dataclasses
import json
import pathlib
from typing import Any

import pytest
from optuna.trial import FrozenTrial, TrialState

from cnnjax.config import ALIASES, Config
from cnnjax.errors import InputError
from cnnjax.runs.supervise import Run
from cnnjax.sweep import record, report, search
from cnnjax.sweep import settings as search_settings
from cnnjax.sweep.record import Sweep
from cnnjax.sweep.samplers import SAMPLERS
from cnnjax.sweep.settings import Settings
from tests.runs.fakes import FakeExecutor, fails, learns, write_metrics, write_result

CONFIG = Config(
    model="mlp(features=(8,))", augment="pad_crop(1)|cutout(2)", train_split="train[:80%]", val_split="train[80%:]"
)


def settings(**changes: Any) -> Settings:
    space = {"lr": "log(1e-3, 1)", "batch_size": [16, 32]}
    return Settings(**{"config": dataclasses.asdict(CONFIG), "source": "x.py", "space": space, "trials": 6} | changes)


def run(folder: pathlib.Path, values: Settings, start: Any = None, workers: int = 2, **options: Any) -> Sweep:
    start = start or FakeExecutor(learns)
    options = {"show": lambda *_: None, "log": lambda line: pytest.fail(line)} | options
    return search.sweep(folder, values, start, workers=workers, stall_timeout=60, **options)


def open_sweep(folder: pathlib.Path, values: Settings) -> Sweep:
    return record.open_sweep(folder, values, log=lambda line: pytest.fail(line))


def states(sweep: Sweep) -> list[str]:
    return sorted(trial.state.name for trial in sweep.study.trials)


def test_a_sweep_finds_the_best_and_writes_its_report(tmp_path: pathlib.Path) -> None:
    sweep = run(tmp_path / "s", settings(trials=25))
    assert states(sweep) == ["COMPLETE"] * 25
    assert sweep.study.best_value > 0.95
    written = report.write(sweep)
    names = ("history", "importance", "parallel", "curves")
    assert set(written) == {"leaderboard.csv", *(f"{name}.{suffix}" for name in names for suffix in ("png", "svg"))}
    rows = list(csv.DictReader((tmp_path / "s" / "leaderboard.csv").read_text().splitlines()))
    values = [float(row["accuracy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    assert float(rows[0]["lr"]) == pytest.approx(sweep.study.best_params["lr"])
    assert (
        json.loads((pathlib.Path(rows[0]["folder"]) / "config.json").read_text())["lr"] == sweep.study.best_params["lr"]
    )
    assert report.best(sweep).lr == sweep.study.best_params["lr"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_as_many_trials_as_requested(sampler: str, tmp_path: pathlib.Path) -> None:
    sweep = run(
        tmp_path / "s", settings(sampler=sampler, space={"lr": [0.1, 0.2], "batch_size": [16, 32, 64]}, trials=6)
    )
    assert states(sweep) == ["COMPLETE"] * 6
    points = {(trial.params["lr"], trial.params["batch_size"]) for trial in sweep.study.trials}
    assert sampler != "grid" or len(points) == 6


@pytest.mark.parametrize("sampler", ["tpe", "random", "cmaes", "halton"])
def test_every_sampler_stays_in_the_range(sampler: str, tmp_path: pathlib.Path) -> None:
    space = {"lr": "log(1e-3, 1)", "weight_decay": "uniform(0, 0.1)", "batch_size": "integer(8, 64)"}
    sweep = run(tmp_path / "s", settings(sampler=sampler, space=space, trials=12))
    assert all(
        1e-3 <= trial.params["lr"] <= 1 and 8 <= trial.params["batch_size"] <= 64 for trial in sweep.study.trials
    )
    assert len({trial.params["lr"] for trial in sweep.study.trials}) == 12


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

    sweep = run(tmp_path / "s", settings(pruner=pruner, trials=8), FakeExecutor(slowly), workers=1)
    pruned = [trial.number for trial in sweep.study.trials if trial.state == TrialState.PRUNED]
    assert pruned
    assert min(pruned) >= 4
    assert len(sweep.study.trials) == 8


def test_a_trial_of_several_seeds_counts_by_its_mean(tmp_path: pathlib.Path) -> None:
    sweep = run(tmp_path / "s", settings(seeds=3, trials=2))
    for trial in sweep.study.trials:
        best = 1 - abs(trial.params["lr"] - 0.1)
        assert trial.value == pytest.approx(best - 0.01)
    rows = report.rows(sweep)
    assert [row["sd"] for row in rows] == pytest.approx([0.01, 0.01])
    assert sorted(path.name for path in (tmp_path / "s" / "trials" / "0001").iterdir()) == ["seed0", "seed1", "seed2"]


def test_folds_have_a_mean_and_a_spread(tmp_path: pathlib.Path) -> None:
    values = settings(space={"lr": [0.3, 0.1], "fold": ["1/3", "2/3", "3/3"]}, sampler="grid", trials=6)
    values.config |= {"val_split": ""}

    def of_a_fold(folder: pathlib.Path) -> int:
        config = json.loads((folder / "config.json").read_text())
        return write_result(folder, [1 - config["lr"] - 0.01 * int(config["fold"][0])])

    sweep = run(tmp_path / "s", values, FakeExecutor(of_a_fold))
    means = report.over_folds(report.rows(sweep), values)
    assert [(row["lr"], row["folds"]) for row in means] == [(0.1, 3), (0.3, 3)]
    assert [row["accuracy"] for row in means] == pytest.approx([0.88, 0.68])
    assert [row["sd"] for row in means] == pytest.approx([0.01, 0.01])
    assert (report.best(sweep).lr, report.best(sweep).fold) == (0.1, "")
    assert report.over_folds(report.rows(sweep), settings()) == []
    few = run(tmp_path / "few", dataclasses.replace(values, trials=2), FakeExecutor(of_a_fold))
    with pytest.raises(InputError, match="no settings yet with a complete trial for each of the 3 folds"):
        report.best(few)


def test_several_trials_of_one_fold_count_as_one() -> None:
    """Samplers other than a grid repeat combinations: three trials of lr 0.1 are all of the easiest fold."""
    values = settings(space={"lr": [0.1, 0.2], "fold": ["1/3", "2/3", "3/3"]})
    trials = [(0.1, "1/3", 0.9)] * 3 + [(0.2, "1/3", 0.9), (0.2, "1/3", 0.7), (0.2, "2/3", 0.6), (0.2, "3/3", 0.7)]
    table = [{"state": "complete", "lr": lr, "fold": fold, "accuracy": value} for lr, fold, value in trials]
    means = report.over_folds(table, values)
    assert [(row["lr"], row["folds"]) for row in means] == [(0.2, 3), (0.1, 1)]
    assert [row["accuracy"] for row in means] == pytest.approx([0.7, 0.9])
    assert [row["sd"] for row in means] == [pytest.approx(0.1), None]


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(tmp_path: pathlib.Path) -> None:
    sweep = run(tmp_path / "s", settings(), FakeExecutor(learns, fails, learns), workers=1)
    assert states(sweep) == ["COMPLETE"] * 5 + ["FAIL"]
    assert sweep.study.trials[1].user_attrs["failure"].endswith("error: it was wrong")


def test_settings_that_are_invalid_together_fail_without_a_run(tmp_path: pathlib.Path) -> None:
    space = {"batch_size": [16], "grad_accum_steps": "integer(1, 3)"}
    start = FakeExecutor(learns)
    sweep = run(tmp_path / "s", settings(space=space, trials=9, sampler="random"), start)
    failed = [trial for trial in sweep.study.trials if trial.state == TrialState.FAIL]
    assert {trial.params["grad_accum_steps"] for trial in failed} == {3}
    assert "expected a multiple of config.grad_accum_steps = 3" in failed[0].user_attrs["failure"]
    assert len(start.folders) + len(failed) == 9


def test_a_killed_sweep_resumes_its_trials(tmp_path: pathlib.Path) -> None:
    """The exception leaves the folder as SIGKILL would: two trials are in progress, and Optuna has no result."""

    class Killed(Exception):
        pass

    def show(sweep: Sweep, active: list[Run]) -> None:
        if len([trial for trial in sweep.study.trials if trial.state == TrialState.COMPLETE]) >= 2:
            before.extend(sweep.study.get_trials())
            raise Killed

    before: list[FrozenTrial] = []
    with pytest.raises(Killed):
        search.sweep(
            tmp_path / "s", settings(), FakeExecutor(learns), workers=2, stall_timeout=60, show=show, log=print
        )
    running = [trial.params for trial in before if trial.state == TrialState.RUNNING]
    assert running
    sweep = run(tmp_path / "s", settings())
    assert states(sweep) == ["COMPLETE"] * 6
    assert [trial.params for trial in sweep.study.trials][: len(before)] == [trial.params for trial in before]
    (tmp_path / "s").rename(tmp_path / "moved")
    assert states(run(tmp_path / "moved", settings(trials=8))) == ["COMPLETE"] * 8  # more trials may be added
    with pytest.raises(InputError, match="holds another sweep: sampler = 'tpe' there, 'random' now"):
        run(tmp_path / "moved", settings(sampler="random"))


def test_trials_may_be_kept_in_a_database(tmp_path: pathlib.Path) -> None:
    values = settings(storage=f"sqlite:///{tmp_path}/trials.db", trials=3)
    for sweep in (run(tmp_path / "s", values), open_sweep(tmp_path / "s", values)):
        assert states(sweep) == ["COMPLETE"] * 3
        storage: Any = sweep.study._storage
        storage.remove_session()
        storage._backend.engine.dispose()
    assert not (tmp_path / "s" / record.JOURNAL).exists()


@pytest.mark.parametrize("url", ["nonsense", "nosuch://host/name", "sqlite:////nowhere/x.db"])
def test_a_database_that_cannot_be_opened_is_a_one_line_error(url: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=f"--storage={url}: ") as caught:
        run(tmp_path / "s", settings(storage=url))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
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
def test_an_invalid_sweep_is_refused_before_it_starts(
    changes: dict[str, Any], message: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "s", settings(**changes))
    assert not (tmp_path / "s").exists()


def test_a_sweep_of_an_earlier_version_resumes(tmp_path: pathlib.Path) -> None:
    """Its sweep.json has the former names of config fields; so has its space, and with it Optuna's journal."""
    folder, space = tmp_path / "s", {"accumulate": [1, 2], "lr": [0.1, 0.2]}
    run(folder, settings(space=space, sampler="grid", trials=3))
    former = {new: old for old, new in ALIASES.items()}
    stored = json.loads((folder / "sweep.json").read_text())
    stored["config"] = {former.get(name, name): value for name, value in stored["config"].items()}
    assert "accumulate" in stored["config"]
    del stored["seal"]  # it had none
    (folder / "sweep.json").write_text(json.dumps(stored))
    before = open_sweep(folder, search_settings.read(folder)).study.trials
    current = settings(space={"grad_accum_steps": [1, 2], "lr": [0.1, 0.2]}, sampler="grid", trials=4)
    start = FakeExecutor(learns)
    sweep = run(folder, current, start)
    assert states(sweep) == ["COMPLETE"] * 4
    assert len(start.folders) == 1  # the missing trial alone
    assert [trial.params for trial in sweep.study.trials[:3]] == [trial.params for trial in before]
    points = {(row["accumulate"], row["lr"]) for row in report.rows(sweep)}
    assert points == {(1, 0.1), (1, 0.2), (2, 0.1), (2, 0.2)}
    assert search_settings.read(folder).config == dataclasses.asdict(CONFIG)
    with pytest.raises(InputError, match="holds another sweep: space"):
        run(folder, settings(space={"keep_checkpoints": [1, 2], "lr": [0.1, 0.2]}, sampler="grid", trials=4))
