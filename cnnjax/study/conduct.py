"""Runs the missing runs of a study, and collects their metrics."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Callable
from typing import Any

from cnnjax.config import ALIASES, Config
from cnnjax.errors import InputError
from cnnjax.metrics import format_value
from cnnjax.runs import workdir
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, is_complete, read_metrics, supervise
from cnnjax.study import Study
from cnnjax.training.recipe import parse_recipe

MEASURED = "measured.json"  # in a run's folder: the result of the study's `measure`
FORMER_NAMES = {new: old for old, new in ALIASES.items()}  # of config fields


@dataclasses.dataclass(frozen=True)
class Result:
    """The metrics of a complete run.

    Attributes:
        metrics: the parsed lines of metrics.jsonl.
        measured: the result of the study's `measure`; {} without one.
    """

    metrics: list[dict[str, Any]]
    measured: dict[str, Any]


def check_study(study: Study) -> None:
    """Checks a study before anything runs.

    Raises InputError for fewer than one seed, an invalid config, an arm that starts from one that is not trained from
    scratch, or a comparison of an unknown arm or metric.
    """
    if study.seeds < 1:
        raise InputError(f"a study of {study.seeds} seeds: expected at least 1")
    for arm, config in study.arms.items():
        try:
            parse_recipe(config)
        except InputError as error:
            raise InputError(f"arm {arm!r}: {error}") from error
    for arm, source in study.starts.items():
        if not {arm, source} <= study.arms.keys() - (study.starts.keys() - {arm}):
            raise InputError(f"arm {arm!r} starts from {source!r}: expected an arm that is trained from scratch")
    for comparison in study.comparisons:
        for arm in (comparison.a, comparison.b):
            if arm not in study.arms:
                raise InputError(f"{comparison}: no arm {arm!r}; valid: {', '.join(study.arms)}")
        if comparison.metric not in study.metrics:
            raise InputError(f"{comparison}: no such metric; valid: {', '.join(study.metrics)}")


def run_folder(root: pathlib.Path, arm: str, config: Config) -> pathlib.Path:
    """Returns the folder of a run: `root`/<arm>-<digest>/seed<N>. The digest is that of the config without its seed.

    The digest uses the former names of renamed config fields, so that the runs of earlier versions are found.
    """
    values = {FORMER_NAMES.get(name, name): value for name, value in dataclasses.asdict(config).items()} | {"seed": 0}
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
    return root / f"{arm}-{digest}" / f"seed{config.seed}"


def all_runs(root: pathlib.Path, study: Study, data_dir: str) -> dict[str, list[Run]]:
    """Returns all runs of a study, complete or not: arm -> one run for each seed. Starts nothing.

    For an arm in `study.starts`, config.init is the folder of the other arm's run with the same seed.
    """
    runs: dict[str, list[Run]] = {}
    for arm, arm_config in study.arms.items():
        configs = [dataclasses.replace(arm_config, seed=arm_config.seed + i) for i in range(study.seeds)]
        runs[arm] = [Run(config, run_folder(root, arm, config), data_dir) for config in configs]
    for arm, source in study.starts.items():
        for run, source_run in zip(runs[arm], runs[source], strict=True):
            run.config.init = str(source_run.folder)
    return runs


def conduct(
    runs: dict[str, list[Run]],
    start: Start,
    *,
    workers: int,
    stall_timeout: float,
    log: Callable[[str], None],
) -> list[str]:
    """Runs the incomplete runs of a study, `workers` in parallel. Returns a text for each failed run.

    `runs` is the result of `all_runs`. The first seed of every arm comes first, but runs that start from another run's
    weights come after all others. `start` launches a run's command, as an executor of `cnnjax.runs.executors` returns
    it. A run without output for `stall_timeout` seconds fails. `log` gets a line when a run ends. Raises Interrupted
    after SIGINT or SIGTERM.
    """
    by_seed = [run for runs_of_seed in zip(*runs.values(), strict=True) for run in runs_of_seed]
    missing = [run for run in by_seed if not is_complete(run.folder)]
    failures: list[str] = []
    log(f"{len(missing)} of {len(by_seed)} runs to do, {workers} in parallel")

    def on_end(run: Run, end: End) -> None:
        if end.kind == "complete":
            last = run.metrics[-1] if run.metrics else {}
            values = ", ".join(f"{name} {format_value(name, value)}" for name, value in last.items() if "/" in name)
            log(f"{run.folder}: {values}")
        else:
            failures.append(f"{run.folder}: {end.reason}")
            log(f"{run.folder} failed: {end.reason}")

    for queue in ([r for r in missing if not r.config.init], [r for r in missing if r.config.init]):
        supervise(lambda queue=queue: queue.pop(0) if queue else None, start, workers=workers,
                  stall_timeout=stall_timeout, should_stop=lambda run: False, on_end=on_end)  # fmt: skip
    return failures


def collect(run: Run, study: Study) -> Result:
    """Returns the metrics of a complete run.

    `study.measure` is called only the first time; its result is saved in measured.json.
    """
    path = run.folder / MEASURED
    if study.measure is not None and not path.exists():
        workdir.write_json(path, study.measure(run.folder, run.data_dir))
    return Result(read_metrics(run.folder), workdir.read_json(path) if path.exists() else {})


def last_value(metric: str, result: Result) -> float:
    """Returns the value that the study's `measure` gave a metric or, without one, the last in metrics.jsonl.

    Raises InputError if the run does not have the metric.
    """
    if metric in result.measured:
        return float(result.measured[metric])
    for line in reversed(result.metrics):
        if metric in line:
            return float(line[metric])
    names = sorted({name for line in result.metrics for name in line if "/" in name} | set(result.measured))
    raise InputError(f"the runs have no metric {metric!r}; valid: {', '.join(names)}")
