"""Commands that end when the process that started them is killed, as kernels tell them or a watching process."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from cnnjax.distributed import guard

# Ends by SIGTERM after a note, as a training does, and tells that it has started.
COMMAND = """trap 'echo saved >"$0/saved"; exit 0' TERM; echo $$ >"$0/started"; while :; do sleep 0.02; done"""
SUPERVISOR = """
import subprocess, sys
from cnnjax.distributed import guard
process = subprocess.Popen(guard.guarded(["sh", "-c", *sys.argv[1:]]), start_new_session=True)
sys.exit(process.wait())
"""


def wait_for(path: pathlib.Path) -> str:
    deadline = time.monotonic() + 60
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.02)
    return path.read_text().strip()


def has_ended(process: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kernel", [True, False], ids=["kernel", "watcher"])
def test_a_command_ends_when_its_supervisor_is_killed(
    kernel: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = SUPERVISOR
    if not kernel:  # as on macOS
        copy = tmp_path / "guard.py"
        copy.write_text(pathlib.Path(guard.__file__).read_text().replace("prctl(_PR", "no_such_call(_PR"))
        program = SUPERVISOR.replace("process =", f"guard.__file__ = {str(copy)!r}; process =")
    supervisor = subprocess.Popen([sys.executable, "-c", program, COMMAND, tmp_path])
    command = int(wait_for(tmp_path / "started"))
    supervisor.kill()
    supervisor.wait()
    assert wait_for(tmp_path / "saved") == "saved"
    deadline = time.monotonic() + 60
    while not has_ended(command):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_guarded_command_is_the_process_that_was_started(tmp_path: pathlib.Path) -> None:
    process = subprocess.Popen(guard.guarded(["sh", "-c", "echo $$; exit 7"]), stdout=subprocess.PIPE, text=True)
    output, _ = process.communicate(timeout=60)
    assert (int(output), process.returncode) == (process.pid, 7)
    process = subprocess.Popen(guard.guarded([COMMAND.split()[0] + "-none"]), stderr=subprocess.PIPE, text=True)
    assert process.communicate(timeout=60)[1] == "error: trap-none: No such file or directory\n"


def test_a_command_whose_parent_has_died_already_does_not_start() -> None:
    command = guard.guarded(["true"])
    command[3] = "1"
    assert os.getppid() != 1
    assert subprocess.run(command).returncode == 128 + signal.SIGTERM
