"""Supervision of many runs, several in parallel: starts them, follows their folders, restarts killed ones.

A run is `cnnjax train` in its folder, started by one of `cnnjax.runs.executors`. All state is in that folder, so the
supervising process may be killed and restarted, too.
"""

import dataclasses
import json
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, Literal

from cnnjax import register
from cnnjax.config import Config, to_steps
from cnnjax.runs import workdir
from cnnjax.runs.executors import GRACE_SECONDS, Job, Start
from cnnjax.runs.signals import Interrupted

OUTPUT = "output.txt"  # in a run's folder: the stdout and stderr of its command
MAX_STARTS = 3  # of a run that signals kill
OUTPUT_LINES = 5  # of a failed run, in the message
POLL_SECONDS = 0.05


@dataclasses.dataclass
class Run:
    """A training to be started, or one in progress."""

    config: Config
    folder: pathlib.Path
    data_dir: str = ""
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # the lines of metrics.jsonl


@dataclasses.dataclass(frozen=True)
class End:
    """The end of a run: its kind and the reason."""

    kind: Literal["complete", "stopped", "failed"]  # 'stopped': on request
    reason: str = ""  # why it failed


@dataclasses.dataclass
class _Active:
    """A run in progress."""

    run: Run
    job: Job
    last_output: float  # time.monotonic() when its metrics or its output last grew
    file_stats: tuple = ()  # inode and size of both files at that time
    stopping: bool = False
    failure: str = ""


def supervise(
    next_run: Callable[[], Run | None],
    start: Start,
    *,
    workers: int,
    stall_timeout: float,
    should_stop: Callable[[Run], bool],
    on_end: Callable[[Run, End], None],
    show: Callable[[list[Run]], None] = lambda runs: None,
) -> None:
    """Runs trainings from `next_run()`, at most `workers` in parallel, until it returns None and all have ended.

    `should_stop(run)` is called whenever the metrics of a run have grown, `on_end` once when it ends, `show` with the
    runs in progress at every poll. A run killed by a signal is restarted, up to `MAX_STARTS` starts. One without output
    for `stall_timeout` seconds is killed and counts as failed. Raises Interrupted after SIGINT or SIGTERM, once all
    runs have saved a checkpoint and exited; `on_end` is not called for these.
    """
    active: list[_Active] = []
    starts: dict[pathlib.Path, int] = {}
    interrupted: list[int] = []
    previous_handlers = {
        number: signal.signal(number, lambda n, _: interrupted.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def begin(run: Run) -> None:
        starts[run.folder] = starts.get(run.folder, 0) + 1
        active.append(_Active(run, _launch(run, start), time.monotonic()))

    try:
        while not interrupted:
            while len(active) < workers and (run := next_run()):
                begin(run)
            if not active:
                return
            for current in list(active):
                status = current.job.poll()
                if _metrics_grew(current) and not current.stopping and should_stop(current.run):
                    current.stopping = True
                    current.job.stop(False)
                if status is None:
                    _kill_if_stalled(current, stall_timeout)
                    continue
                active.remove(current)
                killed = status < 0 or status >= 128
                restartable = not current.stopping and not current.failure
                if killed and restartable and starts[current.run.folder] < MAX_STARTS:
                    begin(current.run)
                else:
                    on_end(current.run, _end(current, status))
            show([current.run for current in active])
            time.sleep(POLL_SECONDS)
        raise Interrupted(interrupted[0], f"interrupted: {len(active)} runs checkpointed")
    except BaseException:
        _stop_all(active)
        raise
    finally:
        for number, handler in previous_handlers.items():
            signal.signal(number, handler)


def _launch(run: Run, start: Start) -> Job:
    run.folder.mkdir(parents=True, exist_ok=True)
    if not (run.folder / "config.json").exists():
        workdir.write_json(run.folder / "config.json", dataclasses.asdict(run.config))
    if workdir.is_locked(run.folder):  # an earlier supervisor started it, and it is still running: wait for it
        return Job(lambda: _status_from_folder(run.folder), lambda kill: None)
    command = [sys.executable, "-m", "cnnjax", "train", f"--workdir={run.folder}", *register.flags()]
    return start(command + ([f"--data_dir={run.data_dir}"] if run.data_dir else []), run.folder / OUTPUT)


def _status_from_folder(folder: pathlib.Path) -> int | None:
    """Returns the exit status of a run that is not our child: 0 with a result, else as if SIGKILL had ended it."""
    if workdir.is_locked(folder):
        return None
    return 0 if is_complete(folder) else -signal.SIGKILL


def _metrics_grew(active: _Active) -> bool:
    """Reads the metrics of a run if they have grown; returns whether they have. Notes the time of any output."""
    stats = []
    for name in ("metrics.jsonl", OUTPUT):
        try:
            stat = (active.run.folder / name).stat()
            stats.append((stat.st_ino, stat.st_size))
        except OSError:
            stats.append(None)
    if tuple(stats) == active.file_stats:
        return False
    grew = active.file_stats[:1] != tuple(stats[:1])
    active.last_output, active.file_stats = time.monotonic(), tuple(stats)
    if grew:
        active.run.metrics = read_metrics(active.run.folder)
    return grew and bool(active.run.metrics)


def _kill_if_stalled(active: _Active, stall_timeout: float) -> None:
    if time.monotonic() - active.last_output > stall_timeout and not active.failure:
        active.failure = f"no output for {stall_timeout:.0f} seconds"
        active.job.stop(True)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the complete lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in workdir.complete_lines(folder / "metrics.jsonl")]


def is_complete(folder: pathlib.Path) -> bool:
    """Returns whether a run has finished, that is, has written its result.json."""
    return (folder / "result.json").exists()


def is_at_last_step(run: Run) -> bool:
    """Returns whether the last metrics of a run in progress are those of its final step."""
    last = run.metrics[-1]
    return last["step"] >= to_steps(run.config.duration, epoch=last["step"] / max(last["epoch"], 1e-9))


def _end(active: _Active, status: int) -> End:
    if is_complete(active.run.folder) and status == 0:
        return End("complete")
    if active.stopping:
        return End("stopped")
    path = active.run.folder / OUTPUT
    output = path.read_text(errors="replace").strip().splitlines()[-OUTPUT_LINES:] if path.exists() else []
    how = active.failure or (f"killed by signal {-status}" if status < 0 else f"exit status {status}")
    return End("failed", "\n".join([how, *output]))


def _stop_all(active: list[_Active]) -> None:
    for current in active:
        current.job.stop(False)
    deadline = time.monotonic() + GRACE_SECONDS
    while active := [current for current in active if current.job.poll() is None]:
        if time.monotonic() > deadline:
            for current in active:
                current.job.stop(True)
        time.sleep(POLL_SECONDS)
