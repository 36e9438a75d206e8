"""Supervision of runs: every end is reported once, stalled and stopped runs, restarts, signals."""

import fcntl
import os
import pathlib
import signal
import time
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.runs import supervise
from cnnjax.runs.executors import Job, Start
from cnnjax.runs.signals import Interrupted
from cnnjax.runs.supervise import End, Run
from tests.runs.fakes import FakeExecutor, completes, fails, keeps_running, write_metrics

CONFIG = Config(model="mlp(features=(8,))")


def supervised(runs: list[Run], start: Start, stall_timeout: float = 60, **options: Any) -> list[End]:
    """Runs all of these, two in parallel, and returns their ends."""
    ends: list[End] = []
    options = {"should_stop": lambda run: False, "on_end": lambda run, end: ends.append(end)} | options
    supervise.supervise(lambda: runs.pop() if runs else None, start, workers=2, stall_timeout=stall_timeout, **options)
    return ends


@pytest.mark.parametrize(
    ("trainings", "end", "starts"),
    [
        ([completes], End("complete"), 1),
        ([fails], End("failed", "exit status 1\nc\nd\ne\nf\nerror: it was wrong"), 1),
        ([lambda _: -9, completes], End("complete"), 2),
        ([lambda _: 143, lambda _: -11, completes], End("complete"), 3),
        ([lambda _: -9], End("failed", "killed by signal 9"), supervise.MAX_STARTS),
        ([keeps_running], End("failed", "no output for 0 seconds"), 1),
        ([lambda _: 0], End("failed", "exit status 0"), 1),  # without a result
    ],
)
def test_every_end_of_a_run_is_reported_once(trainings: list, end: End, starts: int, tmp_path: pathlib.Path) -> None:
    start = FakeExecutor(*trainings)
    assert supervised([Run(CONFIG, tmp_path / "run")], start, stall_timeout=0.2) == [end]
    assert len(start.folders) == starts


def test_a_run_is_stopped_on_request(tmp_path: pathlib.Path) -> None:
    accuracies: list[list[float]] = []

    def should_stop(run: Run) -> bool:
        accuracies.append([line["val/accuracy"] for line in run.metrics])
        return True

    def slow(folder: pathlib.Path) -> None:
        write_metrics(folder, [0.1])

    ends = supervised([Run(CONFIG, tmp_path / "run")], FakeExecutor(slow), should_stop=should_stop)
    assert ends == [End("stopped")]
    assert accuracies == [[0.1]]


def test_no_more_runs_than_workers_are_in_progress(tmp_path: pathlib.Path) -> None:
    active: list[int] = []
    polls: dict[pathlib.Path, int] = {}

    def at_the_third_poll(folder: pathlib.Path) -> int | None:
        polls[folder] = polls.get(folder, 0) + 1
        return completes(folder) if polls[folder] == 3 else None

    runs = [Run(CONFIG, tmp_path / str(i)) for i in range(5)]
    ends = supervised(runs, FakeExecutor(at_the_third_poll), show=lambda now: active.append(len(now)))
    assert len(ends) == 5
    assert max(active) == 2


def test_a_signal_stops_all_runs_and_reports_no_end(tmp_path: pathlib.Path) -> None:
    stopped: list[pathlib.Path] = []
    ends: list[End] = []

    def start(command: list[str], log: pathlib.Path) -> Job:
        return Job(lambda: 143 if log in stopped else None, lambda kill: stopped.append(log))

    with pytest.raises(Interrupted, match="interrupted: 2 runs checkpointed") as caught:
        supervised([Run(CONFIG, tmp_path / "a"), Run(CONFIG, tmp_path / "b")], start,
                   on_end=lambda run, end: ends.append(end),
                   show=lambda now: os.kill(os.getpid(), signal.SIGTERM))  # fmt: skip
    assert ends == []
    assert caught.value.signal == signal.SIGTERM
    assert sorted(log.parent.name for log in stopped) == ["a", "b"]
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_run_of_an_earlier_supervisor_is_waited_for(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    polls: list[int] = []

    def start(command: list[str], log: pathlib.Path) -> Job:
        raise AssertionError("a second one was started")

    with (tmp_path / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)

        def show(now: list[Run]) -> None:
            polls.append(len(now))
            if len(polls) == 3:
                completes(tmp_path)
                lock.close()

        assert supervised([Run(CONFIG, tmp_path)], start, show=show) == [End("complete")]


@pytest.mark.parametrize(
    ("silent", "ends", "message"),
    [
        (True, [End("failed", "no output for 0 seconds")], ""),
        (False, [], "interrupted: 1 run checkpointed, 1 that another process started goes on"),
    ],
)
def test_a_run_of_another_process_that_goes_on_is_waited_for_no_longer(
    silent: bool, ends: list[End], message: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is silent for too long, or this process is interrupted; it cannot be stopped from here."""
    theirs, found, pause = tmp_path / "theirs", [], time.sleep
    theirs.mkdir()
    options: dict[str, Any] = {"on_end": lambda run, end: found.append(end)}
    with (theirs / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        naps: list[float] = []

        def sleep(seconds: float) -> None:
            naps.append(seconds)
            pause(0.001)
            if len(naps) == 500:  # rather than for ever
                lock.close()

        monkeypatch.setattr("time.sleep", sleep)
        if silent:
            supervised([Run(CONFIG, theirs)], FakeExecutor(fails), stall_timeout=0.01, **options)
        else:
            runs = [Run(CONFIG, theirs), Run(CONFIG, tmp_path / "ours")]
            with pytest.raises(Interrupted, match=f"^{message}$"):
                supervised(runs, FakeExecutor(keeps_running), show=lambda now: os.kill(os.getpid(), signal.SIGINT),
                           **options)  # fmt: skip
        assert not lock.closed
    assert found == ends


def test_a_run_that_another_supervisor_started_at_the_same_time_is_waited_for(tmp_path: pathlib.Path) -> None:
    """Both found the folder free; ours ends with 'in use', the other's completes."""
    with (tmp_path / "lock").open("w") as lock:

        def start(command: list[str], log: pathlib.Path) -> Job:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return Job(lambda: 1, lambda kill: None)

        def show(now: list[Run]) -> None:
            completes(tmp_path)
            lock.close()

        assert supervised([Run(CONFIG, tmp_path)], start, show=show) == [End("complete")]


def test_the_time_in_which_this_process_was_frozen_is_not_silence_of_its_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour passes between two polls, as in a suspended container; the runs could not write either."""
    hours = iter(range(100))
    monkeypatch.setattr("time.monotonic", lambda: 3600.0 * next(hours))
    polls: list[int] = []

    def slow(folder: pathlib.Path) -> int | None:
        polls.append(len(polls))
        return completes(folder) if len(polls) == 5 else None

    assert supervised([Run(CONFIG, tmp_path)], FakeExecutor(slow), stall_timeout=1800) == [End("complete")]


@pytest.mark.parametrize(("paths", "safe"), [(["/usr/lib"], True), (["", "/usr/lib"], False)])
def test_a_run_imports_nothing_from_the_current_folder_unless_this_process_does(
    paths: list[str], safe: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def start(command: list[str], log: pathlib.Path) -> Job:
        commands.append(command)
        return Job(lambda: completes(log.parent), lambda kill: None)

    monkeypatch.setattr("sys.path", paths)
    supervised([Run(CONFIG, tmp_path)], start)
    assert ("-P" in commands[0]) == safe
