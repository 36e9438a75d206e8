"""Runs what a study is missing, and collects what its runs say."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.metrics import format_value
from cnnjax.runs import workdir
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, is_complete, metric_lines, supervise
from cnnjax.study import Study
from cnnjax.training.recipe import parse_recipe

MEASURED = "measured.json"  # in a run's folder: what the study's own function found

Lines = list[dict[str, Any]]


def check_study(study: Study) -> None:
    """Raises InputError for a study that does not fit together, before anything is run."""
    if study.seeds < 1:
        raise InputError(f"a study of {study.seeds} seeds: expected at least 1")
    for arm, config in study.arms.items():
        try:
            parse_recipe(config)
        except InputError as error:
            raise InputError(f"arm {arm!r}: {error}") from error
    for arm, first in study.starts.items():
        if not {arm, first} <= study.arms.keys() - (study.starts.keys() - {arm}):
            raise InputError(f"arm {arm!r} starts from {first!r}: expected two arms, of which the second starts anew")
    for comparison in study.comparisons:
        for arm in (comparison.a, comparison.b):
            if arm not in study.arms:
                raise InputError(f"{comparison}: there is no arm {arm!r}; valid: {', '.join(study.arms)}")
        if comparison.metric not in study.metrics:
            raise InputError(f"{comparison}: the metric is none of the study's: {', '.join(study.metrics)}")


def run_folder(root: pathlib.Path, arm: str, config: Config) -> pathlib.Path:
    """Where the run of an arm and its seed is: another for other settings, so that what is there is never another's."""
    settings = dataclasses.asdict(config) | {"seed": 0}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:8]
    return root / f"{arm}-{digest}" / f"seed{config.seed}"


def all_runs(root: pathlib.Path, study: Study, data_dir: str) -> dict[str, list[Run]]:
    """The runs of each arm, one for each seed; one that starts from another arm's starts from that one's same seed."""
    found: dict[str, list[Run]] = {}
    for arm, config in study.arms.items():
        configs = [dataclasses.replace(config, seed=config.seed + i) for i in range(study.seeds)]
        found[arm] = [Run(one, run_folder(root, arm, one), data_dir) for one in configs]
    for arm, first in study.starts.items():
        for run, before in zip(found[arm], found[first], strict=True):
            run.config.init = str(before.folder)
    return found


def conduct(
    runs: dict[str, list[Run]],
    start: Start,
    *,
    workers: int,
    silence: float,
    say: Callable[[str], None],
) -> list[str]:
    """Runs what is missing, first one seed of every arm; returns what failed. Raises Interrupted, as `supervise`.

    Those that start from another run come when all others have ended.
    """
    by_seed = [run for several in zip(*runs.values(), strict=True) for run in several]
    missing = [run for run in by_seed if not is_complete(run.folder)]
    failures: list[str] = []
    say(f"{len(by_seed)} runs, {len(missing)} of them missing, {workers} at a time")

    def ended(run: Run, end: End) -> None:
        if end.kind == "complete":
            last = run.lines[-1] if run.lines else {}
            numbers = ", ".join(f"{name} {format_value(name, value)}" for name, value in last.items() if "/" in name)
            say(f"{run.folder}: {numbers}")
        else:
            failures.append(f"{run.folder}: {end.text}")
            say(f"{run.folder} failed: {end.text}")

    for turn in ([r for r in missing if not r.config.init], [r for r in missing if r.config.init]):
        supervise(lambda turn=turn: turn.pop(0) if turn else None, start, workers=workers, silence=silence,
                  watch=lambda run: False, ended=ended)  # fmt: skip
    return failures


def lines_of(run: Run, study: Study) -> tuple[Lines, dict[str, Any]]:
    """A complete run's metrics, and what the study measures of it, which is computed once."""
    path = run.folder / MEASURED
    if study.measure is not None and not path.exists():
        workdir.write_json(path, study.measure(run.folder, run.data_dir))
    return metric_lines(run.folder), workdir.read_json(path) if path.exists() else {}


def value(metric: str, lines: Lines, measured: dict[str, Any]) -> float:
    """The last value of a metric. Raises InputError when the run has none."""
    if metric in measured:
        return float(measured[metric])
    for line in reversed(lines):
        if metric in line:
            return float(line[metric])
    names = sorted({name for line in lines for name in line if "/" in name} | set(measured))
    raise InputError(f"the runs have no metric {metric!r}; they have {', '.join(names)}")
