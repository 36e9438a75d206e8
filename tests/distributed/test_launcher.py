"""The launcher of several processes on one machine: environment, output, failures and signals, with shell commands."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

PRINT = """echo "$JAX_PROCESS_ID/$JAX_NUM_PROCESSES $JAX_COORDINATOR_ADDRESS" >"$0/$JAX_PROCESS_ID"
echo "heard $JAX_PROCESS_ID" """
FAIL = 'if [ "$JAX_PROCESS_ID" = "$0" ]; then echo "the reason" >&2; exit "$1"; fi; exec sleep 60'
WAIT = """exec 2>/dev/null; trap 'echo caught >"$0/end$JAX_PROCESS_ID"; exit "$1"' TERM INT
: >"$0/ready$JAX_PROCESS_ID"; while :; do sleep 0.02; done"""


def launch(count: int, script: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-P", "-m", "cnnjax.distributed.launcher", str(count), "cpu", "sh", "-c", script]
    return subprocess.Popen(
        [*command, *arguments],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )


def wait_for(*paths: pathlib.Path) -> None:
    deadline = time.monotonic() + 20
    while not all(path.exists() for path in paths):
        assert time.monotonic() < deadline, f"none of these appeared: {paths}"
        time.sleep(0.02)


def test_processes_get_their_index_and_one_address(tmp_path: pathlib.Path) -> None:
    process = launch(3, PRINT, str(tmp_path))
    assert (*process.communicate(timeout=20), process.returncode) == ("heard 0\n", "", 0)
    words = [(tmp_path / str(i)).read_text().split() for i in range(3)]
    assert [index for index, _ in words] == ["0/3", "1/3", "2/3"]
    (address,) = {address for _, address in words}
    assert re.fullmatch(r"localhost:\d+", address)
    assert 1024 <= int(address.partition(":")[2]) < 65536


@pytest.mark.parametrize("index", [0, 2])
def test_one_failure_stops_the_others_and_gives_the_status(index: int) -> None:
    started = time.monotonic()
    process = launch(3, FAIL, str(index), "5")
    _, error = process.communicate(timeout=20)
    assert time.monotonic() - started < 10
    assert process.returncode == 5
    assert error.count("the reason") == 1
    assert (f"launch.sh: output of process {index}:\n" in error) == (index != 0)
    assert f"process {index} of 3 failed with status 5; the others were stopped." in error
    shutil.rmtree(error.split()[-1])


@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("status", [0, 9])
def test_signals_reach_every_process(sent: signal.Signals, status: int, tmp_path: pathlib.Path) -> None:
    process = launch(2, WAIT, str(tmp_path), str(status))
    wait_for(tmp_path / "ready0", tmp_path / "ready1")
    process.send_signal(sent)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == status
    wait_for(tmp_path / "end0", tmp_path / "end1")


def test_the_third_signal_kills(tmp_path: pathlib.Path) -> None:
    script = """trap '' TERM; : >"$0/ready$JAX_PROCESS_ID"; while :; do sleep 0.02; done"""
    process = launch(2, script, str(tmp_path))
    wait_for(tmp_path / "ready0", tmp_path / "ready1")
    for _ in range(3):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
    process.communicate(timeout=20)
    assert process.returncode == 128 + signal.SIGKILL


def test_it_imports_nothing_but_the_standard_library() -> None:
    code = "import sys, cnnjax.distributed.launcher; print(*sorted({'jax', 'numpy', 'flax'} & sys.modules.keys()))"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.stdout == "\n"
