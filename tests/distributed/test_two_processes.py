"""Runs of two processes: the numbers of one, and their end when one of them fails."""

import json
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest

from cnnjax.config import Config
from cnnjax.runs import checkpoint
from tests import tiny

BATCHNORM = {"model": "cifar_resnet20(depth=8)"}


def several(
    config: Config,
    folder: pathlib.Path,
    digits_dir: str,
    devices: int = 1,
    before: Sequence[tuple[str, ...]] = ((), ()),
    flags: tuple[str, ...] = (),
) -> list[subprocess.Popen]:
    """Starts two processes of one run, without a launcher."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    env: dict[str, Any] = {"JAX_COORDINATOR_ADDRESS": f"localhost:{port}", "JAX_NUM_PROCESSES": "2"}
    return [
        tiny.start(config, folder, digits_dir, devices, before[i], flags, **env, JAX_PROCESS_ID=str(i))
        for i in range(2)
    ]


def first(code: str) -> tuple[str, ...]:
    """What comes before a command of ours, so that its Python runs this code first."""
    rest = "sys.argv = sys.argv[3:]; runpy.run_module('cnnjax', run_name='__main__', alter_sys=True)"
    return (sys.executable, "-c", f"import os, runpy, sys; {code}; {rest}")


def signal_itself(step: int, number: int) -> str:
    """Code for `first`: the process sends itself the signal, once, after `step` or the next one it looks at."""
    sent = f"(step >= {step} and due and os.kill(os.getpid(), due.pop()), should_stop(self, step))[1]"
    return (
        f"from cnnjax.runs.signals import Signals; should_stop, due = Signals.should_stop, [{int(number)}]; "
        f"Signals.should_stop = lambda self, step: {sent}"
    )


# What jaxlib's Gloo prints, piece by piece: the threads of several devices may mix the pieces of their lines.
GLOO = re.compile(
    r"(\[Gloo\] Rank |\d| is connected to | peer ranks\. |Expected number of connected peer ranks is : )*"
)


def said(out: str) -> list[str]:
    return [line for line in out.splitlines() if not GLOO.fullmatch(line)]


def test_lines_of_gloo_are_not_ours() -> None:
    rest = " is connected to 7 peer ranks. Expected number of connected peer ranks is : 7"
    ours = ["trained 7 steps", f"[Gloo] Rank 5{rest} trained"]
    assert said("\n".join([f"[Gloo] Rank 5{rest}", "[Gloo] Rank [Gloo] Rank 5", f"6{rest}", rest, "", *ours])) == ours


def wait_for_checkpoint(folder: pathlib.Path, processes: list[subprocess.Popen]) -> None:
    while not checkpoint.steps(folder):
        assert all(process.poll() is None for process in processes), [tiny.wait(process) for process in processes]
        time.sleep(0.1)


SLOWLY = {"lr": 0.001}  # at which batch normalisation lets a rounding grow to 1e-6 in 50 steps, not to 1e-2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "places", "tolerance"),
    [
        (tiny.EVERYTHING, {}, 1e-5),
        (tiny.EVERYTHING, {"mesh": "data=8", "zero_1": True}, 1e-5),
        (tiny.EVERYTHING, {"mesh": "data=1,model=8"}, 1e-5),
        (BATCHNORM | SLOWLY, {}, 1e-4),
    ],
    ids=["mlp", "zero", "model", "batchnorm"],
)
def test_two_processes_give_what_one_gives(
    changes: dict[str, Any], places: dict[str, Any], tolerance: float, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    changes = changes | {"duration": "50 steps", "log_every": "1 steps"}
    changes |= {"eval_every": "25 steps", "checkpoint_every": "25 steps"}
    tiny.run(tmp_path / "1", digits_dir, 1, **changes)
    tiny.run(tmp_path / "8", digits_dir, 8, **changes)
    two, changes = tmp_path / "two", changes | places
    results = [tiny.wait(process) for process in several(tiny.config(**changes), two, digits_dir, devices=4)]
    assert [(status, err) for status, _, err in results] == [(0, "")] * 2
    assert "50 steps of 16 on 8 cpu device(s)" in results[0][1]
    assert said(results[1][1]) == []  # one process speaks for both
    assert json.loads((two / "versions.json").read_text())["processes"] == 2
    assert json.loads((two / "result.json").read_text())["step"] == 50
    assert checkpoint.steps(two) == [25, 50]
    for folder in (tmp_path / "8", two):
        tiny.assert_close(tiny.variables(folder), tiny.variables(tmp_path / "1"), tolerance)
        for line, other in zip(tiny.metrics_of(tmp_path / "1"), tiny.metrics_of(folder), strict=True):
            assert other == pytest.approx(line, rel=10 * tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("signaled", [(0,), (1,), (0, 1)], ids=str)
def test_two_processes_stop_together_and_one_goes_on(
    signaled: tuple[int, ...], digits_dir: str, tmp_path: pathlib.Path
) -> None:
    """They agree at every tenth step."""
    config = tiny.config(**tiny.EVERYTHING, duration="120 steps", eval_every="40 steps", checkpoint_every="20 steps")
    before = [first(signal_itself(45, signal.SIGTERM)) if index in signaled else () for index in range(2)]
    results = [tiny.wait(process) for process in several(config, tmp_path / "run", digits_dir, before=before)]
    assert [(status, err) for status, _, err in results] == [(128 + signal.SIGTERM, "")] * 2
    assert checkpoint.steps(tmp_path / "run")[-1] == 50
    assert "stopped after step 50; the state is saved" in results[0][1]
    assert said(results[1][1]) == []
    status, out, err = tiny.wait(tiny.start(config, tmp_path / "run", digits_dir, devices=2))
    assert status == 0, err
    assert "resuming from step 50" in out
    assert checkpoint.steps(tmp_path / "run")[-1] == 120


@pytest.mark.slow
@pytest.mark.parametrize(
    ("victim", "number"), [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)]
)
def test_without_one_of_its_processes_a_run_ends_and_can_go_on(
    victim: int, number: int, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    """Killed, a process closes its connections; stopped, it leaves them open and is silent, as a host that is gone."""
    config = tiny.config(val_split="", duration="400 steps", checkpoint_every="20 steps", log_every="20 steps")
    quick = "from cnnjax.distributed import processes; processes.HEARTBEAT_SECONDS = 10"
    before = [first(quick), first(quick)]
    before[victim] = first(f"{quick}; {signal_itself(45, number)}")
    processes = several(config, tmp_path, digits_dir, before=before)
    wait_for_checkpoint(tmp_path, processes)
    begun = time.monotonic()
    status, _, err = tiny.wait(processes[1 - victim], seconds=60)
    assert time.monotonic() - begun < 30
    assert status != 0
    last = [line for line in err.splitlines() if line.startswith("error: ")][-1]  # JAX's own lines may follow
    assert re.fullmatch(
        rf"error: .*(process {1 - victim} of 2, on .*)?another process .* Restart all processes to resume the run", last
    ), err
    processes[victim].kill()
    tiny.wait(processes[victim])
    status, out, err = tiny.wait(tiny.start(config, tmp_path, digits_dir))
    assert (status, err) == (0, "")
    assert "resuming from step " in out


@pytest.mark.slow
def test_two_processes_write_one_page_while_they_train(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = tiny.config(val_split="", duration="60 steps", checkpoint_every="20 steps", log_every="20 steps")
    quick = "from cnnjax.distributed import processes; processes.HEARTBEAT_SECONDS = 10"
    live = f"{quick}; from cnnjax.pages import run; run.LIVE_SECONDS = 0"
    page, flags = tmp_path / "run" / "report.html", ("--report",)
    killed = first(f"{live}; {signal_itself(50, signal.SIGKILL)}")
    for process in several(config, tmp_path / "run", digits_dir, before=(killed, first(live)), flags=flags):
        tiny.wait(process)
    assert '<meta http-equiv="refresh"' in page.read_text()  # written after step 40, in the middle of the run
    assert "step 40 of 60" in page.read_text()
    results = [tiny.wait(process) for process in several(config, tmp_path / "run", digits_dir, flags=flags)]
    assert [(status, err) for status, _, err in results] == [(0, "")] * 2
    assert f"the page is {page}" in results[0][1].replace("\n", " ")
    assert said(results[1][1]) == []
    assert '<meta http-equiv="refresh"' not in page.read_text()


@pytest.mark.slow
def test_a_process_that_fails_alone_ends_the_run(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Each host with a disk of its own: process 1 sees another folder, and process 0 must not wait for it."""
    quick = "from cnnjax.distributed import processes; processes.HEARTBEAT_SECONDS = 10"
    quick += "; from cnnjax.runs import workdir; workdir.SYNC_SECONDS = 1"
    before = []
    for disk in (tmp_path / "0", tmp_path / "1"):
        disk.mkdir()
        before.append(first(f"{quick}; os.chdir({str(disk)!r}); sys.argv.append('--workdir=run')"))
    begun = time.monotonic()
    config = tiny.config(val_split="", duration="2000 steps")
    zero, one = [tiny.wait(process) for process in several(config, tmp_path / "run", digits_dir, before=before)]
    assert time.monotonic() - begun < 60
    assert (one[0], said(one[1])) == (1, [])
    assert re.fullmatch(r"error: process 1, on .*, does not see .*/1/run as process 0 does: the processes .*\n", one[2])
    assert zero[0] != 0


@pytest.mark.slow
def test_a_process_to_which_no_others_come_says_so(digits_dir: str, tmp_path: pathlib.Path) -> None:
    before = first("from cnnjax.distributed import processes; processes.JOIN_SECONDS = 3")
    zero, one = several(tiny.config(), tmp_path / "run", digits_dir, before=((), before))
    zero.kill()
    tiny.wait(zero)
    status, _, err = tiny.wait(one, seconds=60)
    assert status != 0
    expected = r"error: process 1 of 2, on .*, could not join the others at localhost:\d+ within 3 s, or was killed"
    assert re.fullmatch(expected, err.splitlines()[-1])
    assert not (tmp_path / "run").exists()
