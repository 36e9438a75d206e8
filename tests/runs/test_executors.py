"""Executors: exit status, output, stopping, and what happens when the starter is killed."""

import contextlib
import functools
import pathlib
import subprocess
import sys
import time
import types
from typing import Any

import pytest

from cnnjax import extras, spec
from cnnjax.runs import executors
from cnnjax.runs.executors import Job

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
def test_an_executor_returns_the_status_and_logs_the_output(executor: executors.Start, tmp_path: pathlib.Path) -> None:
    log = tmp_path / "log"
    for status in (0, 3):
        assert finish(executor([sys.executable, "-c", f"print('output'); raise SystemExit({status})"], log)) == status
    assert log.read_text() == "output\noutput\n"


class Elsewhere:
    """Stands in for Ray and submitit: calls what is submitted at once, as a worker in another folder."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder

    def __getattr__(self, name: str) -> Any:  # is_initialized, cluster_resources, AutoExecutor, update_parameters
        return lambda *_, **__: self if name == "AutoExecutor" else {}

    def remote(self, **_: Any) -> Any:
        return lambda function: types.SimpleNamespace(remote=functools.partial(self.submit, function))

    def submit(self, function: Any, *arguments: Any) -> None:
        with contextlib.chdir(self.folder):
            assert function(*arguments) == 0


@pytest.mark.parametrize("name", ["ray", "slurm"])
def test_a_command_runs_in_the_current_folder_of_its_starter(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its --workdir and --data_dir may be relative."""
    (tmp_path / "worker").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(extras, "load", lambda *_: Elsewhere(tmp_path / "worker"))
    start = spec.build("executor", name, executors.EXECUTORS, workers=1)
    start([sys.executable, "-c", "import os; print(os.getcwd())"], pathlib.Path("log"))
    assert (tmp_path / "log").read_text() == f"{tmp_path.resolve()}\n"


@pytest.mark.parametrize("executor", EXECUTORS, indirect=True)
def test_an_executor_stops_a_command(executor: executors.Start, tmp_path: pathlib.Path) -> None:
    for kill in (False, True):
        log = tmp_path / f"log{kill}"
        job = executor([sys.executable, "-c", SLEEP], log)
        while not log.exists() or "up" not in log.read_text():
            assert job.poll() is None
            time.sleep(0.02)
        job.stop(kill)
        status = finish(job)
        assert status < 0 or status == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux signals the death of a parent")
def test_a_command_is_terminated_when_its_starter_is_killed(tmp_path: pathlib.Path) -> None:
    records = SLEEP.replace("sys.exit(7)", f"open({str(tmp_path / 'terminated')!r}, 'w')")
    code = f"""if True:
        import pathlib, sys, time
        from cnnjax.runs import executors
        executors.local(1)([sys.executable, "-c", {records!r}], pathlib.Path({str(tmp_path / "log")!r}))
        time.sleep(60)
    """
    process = subprocess.Popen([sys.executable, "-c", code])
    for path, act in ((tmp_path / "log", process.kill), (tmp_path / "terminated", process.wait)):
        deadline = time.monotonic() + 30
        while not path.exists() or (path.name == "log" and "up" not in path.read_text()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        act()
