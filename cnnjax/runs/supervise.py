"""Supervision of many runs, several in parallel: starts them, follows their folders, restarts killed ones.

A run is `cnnjax train` in its folder, started by one of `cnnjax.runs.executors`. All state is in that folder, so the
supervising process may be killed and restarted, too.
"""

import dataclasses
import os
import pathlib
import signal
import sys
import time
from collections.abc import Callable, Container
from typing import Any, Literal

from cnnjax import register
from cnnjax.config import RESUMABLE, Config, to_steps
from cnnjax.errors import InputError
from cnnjax.runs import history, workdir
from cnnjax.runs.executors import GRACE_SECONDS, Job, Start
from cnnjax.runs.signals import Interrupted, handle_signals, restore_handlers

OUTPUT = "output.txt"  # in a run's folder: the stdout and stderr of its command
MAX_STARTS = 3  # of a run that signals kill
OUTPUT_LINES = 5  # of a failed run, in the message
POLL_SECONDS = 0.05
MAX_GAP = 60.0  # seconds between two polls; a longer gap means that this process was suspended
NEW = {OUTPUT, workdir.LOCK, "config.json.part", "slurm"}  # in the folder of a run that has not started


@dataclasses.dataclass
class Run:
    """A training to be started, or one in progress.

    Attributes:
      config: the settings of the training.
      folder: the run's folder.
      data_dir: folder of the data sets, the flag --data_dir of `cnnjax train`; '' for the default.
      metrics: the lines of metrics.jsonl so far, such as {"step": 100, "epoch": 1.0, "train/loss": 0.5}.
    """

    config: Config
    folder: pathlib.Path
    data_dir: str = ""
    metrics: list[dict[str, Any]] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class End:
    """The way in which a run ended.

    Attributes:
      kind: 'complete', 'stopped' because `should_stop` asked for it, or 'failed'.
      reason: for 'failed', the exit status or signal and the last lines of output; else ''.
    """

    kind: Literal["complete", "stopped", "failed"]
    reason: str = ""


@dataclasses.dataclass
class _Active:
    """A run in progress.

    Attributes:
      run: the run.
      job: its process.
      polled: time.monotonic() of the last look at metrics.jsonl and the output file.
      silent: seconds since one of them changed. A gap between two looks counts as `MAX_GAP` at most: this process was
        suspended meanwhile, and the run perhaps, too.
      file_stats: (inode, size) of metrics.jsonl and of the output file at that time, None for a missing one.
      stopping: whether the run was asked to stop.
      failure: why the supervisor killed the run, or no longer follows it; '' if neither.
    """

    run: Run
    job: Job
    polled: float
    silent: float = 0.0
    file_stats: tuple = ()
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
    """Runs trainings, several in parallel, until `next_run()` returns None and all have ended.

    A run that is killed by a signal, though not by this function, is started again, at most `MAX_STARTS` times in all.
    So is one that failed because another process began to train in its folder: it then waits for that process.

    Args:
      next_run: returns the next run to start, or None if there is none at present.
      start: starts a command, as the functions in `cnnjax.runs.executors` return it.
      workers: the largest number of runs in parallel.
      stall_timeout: seconds without output after which a run counts as failed, and is killed if it was started here.
      should_stop: called with a run whenever its metrics have grown; if it returns True, the run is stopped.
      on_end: called once for each run that has ended, with the run and how it ended.
      show: called at every poll with the runs in progress, to display them.

    Raises Interrupted after SIGINT or SIGTERM, once all runs have saved a checkpoint and exited, except those that
    another process has started, which go on; `on_end` is not called for these runs.
    """
    active: list[_Active] = []
    starts: dict[pathlib.Path, int] = {}
    interrupted: list[int] = []
    previous_handlers = handle_signals(lambda number, _: interrupted.append(number))

    def begin(run: Run) -> None:
        """Starts a run, or starts it again."""
        starts[run.folder] = starts.get(run.folder, 0) + 1
        active.append(_Active(run, _launch(run, start), time.monotonic()))

    try:
        while not interrupted:
            while len(active) < workers and (run := next_run()):
                begin(run)
            if not active:
                return
            for current in list(active):
                if (status := _poll(current, stall_timeout, should_stop)) is None:
                    continue
                active.remove(current)
                if _is_restartable(current, status) and starts[current.run.folder] < MAX_STARTS:
                    begin(current.run)
                else:
                    on_end(current.run, _end(current, status))
            show([current.run for current in active])
            time.sleep(POLL_SECONDS)
        raise Interrupted(interrupted[0], _interruption(active))
    except BaseException:
        _stop_all(active)
        raise
    finally:
        restore_handlers(previous_handlers)


def _launch(run: Run, start: Start) -> Job:
    """Starts `cnnjax train` in the run's folder, after writing config.json if it is missing.

    If another process is already training in the folder, starts nothing and returns a job that follows the folder.
    """
    if workdir.is_locked(run.folder):  # an earlier supervisor started it, and it is still running: wait for it
        return Job(lambda: _status_from_folder(run.folder), lambda kill: None, is_followed=True)
    run.folder.mkdir(parents=True, exist_ok=True)
    if not (run.folder / "config.json").exists():
        workdir.write_json(run.folder / "config.json", dataclasses.asdict(run.config))
    # Without -P, a file random.py in the current folder would be executed.
    safe = [] if {"", os.getcwd()} & set(sys.path) else ["-P"]
    command = [sys.executable, *safe, "-m", "cnnjax", "train", f"--workdir={run.folder}", *register.flags()]
    return start(command + ([f"--data_dir={run.data_dir}"] if run.data_dir else []), run.folder / OUTPUT)


def _poll(active: _Active, stall_timeout: float, should_stop: Callable[[Run], bool]) -> int | None:
    """Returns the exit status of a run, None while it goes on; asks it to stop if `should_stop` says so.

    A run without output for `stall_timeout` seconds is killed. One that another process has started cannot be: it goes
    on, and its status is as if it had been.
    """
    status = active.job.poll()
    if _metrics_grew(active) and not active.stopping and should_stop(active.run):
        active.stopping = True
        active.job.stop(False)
    if status is None and active.silent > stall_timeout and not active.failure:
        active.failure = f"no output for {stall_timeout:.0f} seconds"
        active.job.stop(True)
        if active.job.is_followed:
            return -signal.SIGKILL
    return status


def _is_restartable(active: _Active, status: int) -> bool:
    """Returns whether a run that ended with an exit status was killed, or found its folder in use, through no fault."""
    killed = status < 0 or status >= 128 or (status != 0 and workdir.is_locked(active.run.folder))
    return killed and not active.stopping and not active.failure


def _interruption(active: list[_Active]) -> str:
    """Returns the message of an interruption: how many runs save a checkpoint, and how many go on."""
    followed = sum(current.job.is_followed for current in active)
    own = len(active) - followed
    text = f"interrupted: {own} run{'s' * (own != 1)} checkpointed"
    return text + f", {followed} that another process started go{'es' * (followed == 1)} on" * bool(followed)


def _status_from_folder(folder: pathlib.Path) -> int | None:
    """Returns the exit status of a run that this process did not start; None while the run's folder is locked.

    The status is 0 if the run has written its result, else -9, as if SIGKILL had ended it.
    """
    if workdir.is_locked(folder):
        return None
    return 0 if is_complete(folder) else -signal.SIGKILL


def _metrics_grew(active: _Active) -> bool:
    """Reads metrics.jsonl into `run.metrics` if it has changed since the last call.

    Returns True if it has changed and has a line. Also counts the seconds in which neither it nor the output changed.
    """
    now, stats = time.monotonic(), []
    active.silent, active.polled = active.silent + min(now - active.polled, MAX_GAP), now
    for name in ("metrics.jsonl", OUTPUT):
        try:
            stat = (active.run.folder / name).stat()
            stats.append((stat.st_ino, stat.st_size))
        except OSError:
            stats.append(None)
    if tuple(stats) == active.file_stats:
        return False
    grew = active.file_stats[:1] != tuple(stats[:1])
    active.silent, active.file_stats = 0.0, tuple(stats)
    if grew:
        active.run.metrics = read_metrics(active.run.folder)
    return grew and bool(active.run.metrics)


def read_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the complete and intact lines of a run's metrics.jsonl, parsed; [] if there is no file."""
    return [line.values for line in history.read(folder).lines]


def is_complete(folder: pathlib.Path) -> bool:
    """Returns whether a run has finished: its folder contains result.json."""
    return (folder / "result.json").exists()


def has_result(run: Run, log: Callable[[str], None], resumable: Container[str] = RESUMABLE) -> bool:
    """Returns whether a run is complete, after moving a folder that does not hold this run out of the way.

    A folder belongs to the run if its config.json agrees with `run.config` in all fields but the `resumable` ones.
    Another is renamed, and `log` gets a line. Raises InputError if a training is running in such a folder.
    """
    if (run.folder / "config.json").exists():
        try:
            changes = workdir.changed_settings(run.folder, run.config, resumable)
            other = changes and f"holds a run with another config: {changes}"
        except InputError as error:  # damaged
            other = f"cannot be compared with the config of this run: {error}"
    else:
        names = {path.name for path in run.folder.glob("*")}
        other = f"has no config.json, but {min(names - NEW)}" if names - NEW else ""
    if not other:
        return is_complete(run.folder) and _is_intact(run.folder / "result.json", log)
    if workdir.is_locked(run.folder):
        raise InputError(f"{run.folder} {other}, and a training is running in it")
    aside = run.folder.rename(workdir.unused_path(run.folder.with_name(f"{run.folder.name}-aside")))
    log(f"{run.folder} {other}; moved to {aside}")
    return False


def _is_intact(path: pathlib.Path, log: Callable[[str], None]) -> bool:
    """Returns whether a run's result.json can be read. If not, `log` gets a line: the run, resumed, writes it again."""
    try:
        workdir.read_json(path)
    except InputError as error:
        log(f"{error}; the run is resumed and rewrites it")
        return False
    return True


def complete_metrics(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of a complete run's metrics.jsonl. Raises InputError if any are damaged or lost."""
    if not history.read(folder).is_whole:
        raise InputError(f"{folder / history.FILE} has damaged or missing lines")
    lines, result = read_metrics(folder), workdir.read_json(folder / "result.json")
    last = lines[-1] if lines else {}
    is_scored = "split" not in result or any(name.startswith("test/") for name in last)
    if result.get("step", last.get("step")) != last.get("step") or not is_scored:
        raise InputError(f"{folder / 'metrics.jsonl'} has lost its last lines")
    return lines


def is_at_last_step(run: Run) -> bool:
    """Returns whether the last line of a run's metrics is from the final training step. There has to be a line."""
    last = run.metrics[-1]
    return last["step"] >= to_steps(run.config.duration, epoch=last["step"] / max(last["epoch"], 1e-9))


def _end(active: _Active, status: int) -> End:
    """Returns how a run ended, given the exit status of its process. A failure has the last lines of the output."""
    if is_complete(active.run.folder) and status == 0:
        return End("complete")
    if active.stopping:
        return End("stopped")
    path = active.run.folder / OUTPUT
    output = path.read_text(errors="replace").strip().splitlines()[-OUTPUT_LINES:] if path.exists() else []
    how = active.failure or (f"killed by signal {-status}" if status < 0 else f"exit status {status}")
    return End("failed", "\n".join([how, *output]))


def summarize(reason: str) -> str:
    """Returns the `End.reason` of a failed run as one line: how it ended, and the last line of its output."""
    how, *output = reason.splitlines()
    return f"{how}, {output[-1].strip()}" if output else how


def _stop_all(active: list[_Active]) -> None:
    """Asks all runs to stop and waits until they have exited; kills those left after `GRACE_SECONDS`.

    Leaves runs that another process has started alone.
    """
    active = [current for current in active if not current.job.is_followed]
    for current in active:
        current.job.stop(False)
    deadline = time.monotonic() + GRACE_SECONDS
    while active := [current for current in active if current.job.poll() is None]:
        if time.monotonic() > deadline:
            for current in active:
                current.job.stop(True)
        time.sleep(POLL_SECONDS)
