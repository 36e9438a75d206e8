"""Runs the missing runs of a study, and collects their metrics."""

import contextlib
import dataclasses
import hashlib
import itertools
import json
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

from cnnjax import config as configs
from cnnjax.config import ALIASES, FIELDS, Config
from cnnjax.errors import InputError
from cnnjax.metrics import format_value
from cnnjax.runs import workdir
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, complete_metrics, has_result, summarize, supervise
from cnnjax.study import Study
from cnnjax.study.progress import Progress

VERSIONS = ("processor", "devices", "python", "jax", "cnnjax")  # of a run, in a table of results
RUN_COLUMNS = (*VERSIONS, "hours", "config")  # of its CSV file
MEASURED = "measured.json"  # in a run's folder: the result of the study's `measure`
MEASURED_BY = "study_digest"  # its entry with the `Study.digest` of that time
NEW_FIELDS = ("init_match", "matmul_precision")  # config fields that earlier versions do not have
FORMER_NAMES = {new: old for old, new in ALIASES.items()}  # of config fields


@dataclasses.dataclass(frozen=True)
class Result:
    """The metrics of a complete run.

    Attributes:
        metrics: the parsed lines of metrics.jsonl.
        measured: the result of the study's `measure`; {} without one.
        versions: the entries of versions.json in `VERSIONS`; {} for a run without that file.
        hours: time of the training.
        config: digest of the config (`config_digest`).
    """

    metrics: list[dict[str, Any]]
    measured: dict[str, Any]
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    hours: float = 0.0
    config: str = ""

    def column(self, name: str) -> str:
        """Returns the cell of the run in one of `RUN_COLUMNS`, '' for one that it lacks."""
        return self.versions.get(name, "") if name in VERSIONS else str(getattr(self, name) or "")


def config_digest(config: Config) -> str:
    """Returns a digest of 8 hexadecimal digits of a config without its seed.

    Uses the former names of renamed config fields, and leaves out new ones at their defaults, so that the runs of
    earlier versions are found.
    """
    values = {FORMER_NAMES.get(name, name): value for name, value in dataclasses.asdict(config).items()} | {"seed": 0}
    values = {name: value for name, value in values.items() if name not in NEW_FIELDS or value != FIELDS[name].default}
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def run_folder(root: pathlib.Path, arm: str, config: Config) -> pathlib.Path:
    """Returns the folder of a run: `root`/<arm>-<digest>/seed<N>."""
    return root / f"{arm}-{config_digest(config)}" / f"seed{config.seed}"


def all_runs(
    root: pathlib.Path, study: Study, data_dir: str, seeds: Mapping[str, int] | None = None
) -> dict[str, list[Run]]:
    """Returns all runs of a study, complete or not: arm -> one run for each seed. Starts nothing.

    `seeds` is the number of seeds of each arm; None for those before the first verdicts. For an arm in `study.starts`,
    config.init is the folder of the other arm's run with the same seed; that arm needs as many seeds.
    """
    runs: dict[str, list[Run]] = {}
    for arm, arm_config in study.arms.items():
        count = (seeds or study.first_seeds())[arm]
        configs = [dataclasses.replace(arm_config, seed=arm_config.seed + i) for i in range(count)]
        runs[arm] = [Run(config, run_folder(root, arm, config), data_dir) for config in configs]
    for arm, source in study.starts.items():
        for run, source_run in zip(runs[arm], runs[source][: len(runs[arm])], strict=True):
            run.config.init = str(source_run.folder)
    return runs


def is_finished(run: Run, log: Callable[[str], None]) -> bool:
    """Returns whether a run is complete, as `has_result`, which moves a run with another config out of the way.

    A run that starts from another run's weights (config.init) may have been moved together with it.
    """
    resumable, path = configs.RESUMABLE, run.folder / "config.json"
    if run.config.init and path.exists():
        with contextlib.suppress(InputError):  # of a damaged file, which `has_result` handles
            if pathlib.Path(configs.load(path).init).parts[-2:] == pathlib.Path(run.config.init).parts[-2:]:
                resumable += ("init",)
    return has_result(run, log, resumable)


def conduct(
    runs: dict[str, list[Run]],
    start: Start,
    *,
    workers: int,
    stall_timeout: float,
    log: Callable[[str], None],
    show: Callable[[list[Run], str], None] = lambda active, progress: None,
) -> list[str]:
    """Runs the incomplete runs of a study, `workers` in parallel. Returns a line for each failed run.

    `runs` is the result of `all_runs`. The first seed of every arm comes first, but runs that start from another run's
    weights come after all others. `start` launches a run's command, as an executor of `cnnjax.runs.executors` returns
    it. A run without output for `stall_timeout` seconds fails. `log` gets a line when a run ends, and `show` at every
    poll the runs in progress and a line about the progress of all. Raises Interrupted after SIGINT or SIGTERM.
    """
    by_seed = [run for runs_of_seed in itertools.zip_longest(*runs.values()) for run in runs_of_seed if run is not None]
    missing = [run for run in by_seed if not is_finished(run, log)]
    failures: list[str] = []
    folders = {run.folder for run in missing}
    progress = Progress(runs, workers, complete={run.folder for run in by_seed if run.folder not in folders})
    active: list[Run] = []
    log(f"{len(missing)} of {len(by_seed)} runs to do, {workers} in parallel")

    def on_end(run: Run, end: End) -> None:
        progress.end(run, time.monotonic())
        status = progress.line([other for other in active if other is not run], time.monotonic())
        if end.kind == "complete":
            last = run.metrics[-1] if run.metrics else {}
            values = ", ".join(f"{name} {format_value(name, value)}" for name, value in last.items() if "/" in name)
            log(f"{run.folder}: {values} ({status})")
        else:
            failures.append(f"{run.folder}: {summarize(end.reason)}")
            log(f"{run.folder} failed ({status}): {end.reason}")

    def on_poll(now_active: list[Run]) -> None:
        active[:] = now_active
        show(active, progress.line(active, time.monotonic()))

    for queue in ([r for r in missing if not r.config.init], [r for r in missing if r.config.init]):
        supervise(lambda queue=queue: queue.pop(0) if queue else None, start, workers=workers,
                  stall_timeout=stall_timeout, should_stop=lambda run: False, on_end=on_end, show=on_poll)  # fmt: skip
    return failures


def collect(run: Run, study: Study, log: Callable[[str], None]) -> Result:
    """Returns the metrics of a complete run. Raises InputError if some are lost."""
    measured = _measure(run, study, log)
    versions = run.folder / "versions.json"
    content = workdir.read_json(versions) if versions.exists() else {}
    kept = {name: str(content[name]) for name in VERSIONS if name in content}
    hours = round(workdir.read_json(run.folder / "result.json").get("seconds", 0.0) / 3600, 4)
    return Result(complete_metrics(run.folder), measured, kept, hours, config_digest(run.config))


def _measure(run: Run, study: Study, log: Callable[[str], None]) -> dict[str, Any]:
    """Returns the result of the study's `measure` for a complete run; {} without one.

    It is called only the first time; its result is saved in measured.json. The run is measured again, and `log` gets a
    line, if that file is damaged, or if the study's file has changed since and the run still has checkpoints.
    """
    if study.measure is None:
        return {}
    path = run.folder / MEASURED
    measured: dict[str, Any] = {}
    try:
        measured = workdir.read_json(path) if path.exists() else {}
    except InputError as error:
        log(f"{error}; the run is measured again")
    if measured and measured.pop(MEASURED_BY, "") != study.digest:
        again = any((run.folder / "checkpoints").glob("*"))
        done = "the run is measured again" if again else "it stays, as the run has no checkpoints to be measured again"
        log(f"{path} is of another version of the study's file; {done}")
        measured = {} if again else measured
    if not measured:
        measured = study.measure(run.folder, run.data_dir)
        workdir.write_json(path, measured | {MEASURED_BY: study.digest})
    return measured


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
