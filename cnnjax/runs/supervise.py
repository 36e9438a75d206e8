"""Many runs, several at a time: given out, watched through their folders, given out again when they are killed.

A run is `cnnjax train` in its folder, by any of `cnnjax.runs.executors`. All that is known of it is in that folder, so
that this process can be killed as well, and started again.
"""

import dataclasses
import json
import pathlib
import signal
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from cnnjax.config import Config, to_steps
from cnnjax.runs import workdir
from cnnjax.runs.executors import LEAVE, Job, Start
from cnnjax.runs.signals import Interrupted

OUTPUT = "output.txt"  # in a run's folder: what the command said
ATTEMPTS = 3  # starts of a run that something kills
LAST_LINES = 5  # of what a run said that are kept of one that failed


@dataclasses.dataclass
class Run:
    """A training to be run, or that is running."""

    config: Config
    folder: pathlib.Path
    data_dir: str = ""
    lines: list[dict[str, Any]] = dataclasses.field(default_factory=list)  # of metrics.jsonl


class End(NamedTuple):
    """How a run ended."""

    kind: str  # 'complete', 'stopped' (as was asked) or 'failed'
    text: str = ""  # why it failed


@dataclasses.dataclass
class _Active:
    run: Run
    job: Job
    changed: float  # when it last said something
    seen: tuple = ()
    stopping: bool = False
    failure: str = ""


def supervise(
    take: Callable[[], Run | None],
    start: Start,
    *,
    workers: int,
    silence: float,
    watch: Callable[[Run], bool],
    ended: Callable[[Run, End], None],
    show: Callable[[list[Run]], None] = lambda runs: None,
) -> None:
    """Runs what `take` gives, `workers` at a time, until it gives nothing and nothing goes on.

    `watch` sees each run whose metrics grew, and says whether it is to be stopped; `ended` hears how it ended, once. A
    run that a signal ended is started again, where it was, up to ATTEMPTS times. One that says nothing for `silence`
    seconds is killed, and has failed. Raises Interrupted after SIGINT or SIGTERM, once all runs have saved and left:
    these did not end.
    """
    active: list[_Active] = []
    attempts: dict[pathlib.Path, int] = {}
    interrupted: list[int] = []
    old = {
        number: signal.signal(number, lambda n, _: interrupted.append(n)) for number in (signal.SIGINT, signal.SIGTERM)
    }

    def begin(run: Run) -> None:
        attempts[run.folder] = attempts.get(run.folder, 0) + 1
        active.append(_Active(run, _launch(run, start), time.monotonic()))

    try:
        while not interrupted:
            while len(active) < workers and (run := take()):
                begin(run)
            if not active:
                return
            for one in list(active):
                status = one.job.poll()
                if _changed(one) and not one.stopping and watch(one.run):
                    one.stopping = True
                    one.job.stop(False)
                if status is None:
                    if time.monotonic() - one.changed > silence and not one.failure:
                        one.failure = f"it said nothing for {silence:.0f} seconds"
                        one.job.stop(True)
                    continue
                active.remove(one)
                killed = status < 0 or status >= 128
                if killed and not one.stopping and not one.failure and attempts[one.run.folder] < ATTEMPTS:
                    begin(one.run)
                else:
                    ended(one.run, _end(one, status))
            show([one.run for one in active])
            time.sleep(0.05)
        raise Interrupted(interrupted[0], f"stopped; {len(active)} runs have saved and left")
    except BaseException:
        _stop(active)
        raise
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _launch(run: Run, start: Start) -> Job:
    run.folder.mkdir(parents=True, exist_ok=True)
    if not (run.folder / "config.json").exists():
        workdir.write_json(run.folder / "config.json", dataclasses.asdict(run.config))
    if workdir.is_locked(run.folder):  # by a process that an earlier one of us started: it is waited for
        return Job(lambda: _status(run.folder), lambda hard: None)
    command = [sys.executable, "-m", "cnnjax", "train", f"--workdir={run.folder}"]
    return start(command + ([f"--data_dir={run.data_dir}"] if run.data_dir else []), run.folder / OUTPUT)


def _status(folder: pathlib.Path) -> int | None:
    """As the exit status of a process that is not ours: as if a signal had ended it, unless it has its result."""
    if workdir.is_locked(folder):
        return None
    return 0 if is_complete(folder) else -signal.SIGKILL


def _changed(one: _Active) -> bool:
    """Whether it has other metrics than the last time; notes when it last wrote anything."""
    stats = []
    for name in ("metrics.jsonl", OUTPUT):
        try:
            stat = (one.run.folder / name).stat()
            stats.append((stat.st_ino, stat.st_size))
        except OSError:
            stats.append(None)
    if tuple(stats) == one.seen:
        return False
    one.changed = time.monotonic()
    metrics, one.seen = one.seen[:1] != tuple(stats[:1]), tuple(stats)
    if metrics:
        one.run.lines = metric_lines(one.run.folder)
    return metrics and bool(one.run.lines)


def metric_lines(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The whole lines of a run's metrics.jsonl, as they are now."""
    return [json.loads(line) for line in workdir.lines(folder / "metrics.jsonl")]


def is_complete(folder: pathlib.Path) -> bool:
    """Whether a run has ended: then it has its final numbers."""
    return (folder / "result.json").exists()


def is_last(run: Run) -> bool:
    """Whether a run that goes on has taken its last step."""
    last = run.lines[-1]
    return last["step"] >= to_steps(run.config.duration, epoch=last["step"] / max(last["epoch"], 1e-9))


def _end(one: _Active, status: int) -> End:
    if is_complete(one.run.folder) and status == 0:
        return End("complete")
    if one.stopping:
        return End("stopped")
    output = one.run.folder / OUTPUT
    said = output.read_text(errors="replace").strip().splitlines()[-LAST_LINES:] if output.exists() else []
    how = one.failure or (f"signal {-status} ended it" if status < 0 else f"status {status}")
    return End("failed", "\n".join([how, *said]))


def _stop(active: list[_Active]) -> None:
    for one in active:
        one.job.stop(False)
    deadline = time.monotonic() + LEAVE
    while active := [one for one in active if one.job.poll() is None]:
        if time.monotonic() > deadline:
            for one in active:
                one.job.stop(True)
        time.sleep(0.05)
