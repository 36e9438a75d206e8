"""Starts one command as several processes of one distributed program: `./launch.sh --processes=N`.

`python -m cnnjax.distributed.launcher N FLAVOR COMMAND [ARGUMENT ...]`

FLAVOR is cpu, cuda or tpu; with cpu each process gets its own cores, with cuda its own GPUs. Process 0 writes to the
terminal; the output of the others is shown only if they fail. Signals are forwarded to all processes. When one fails,
the others are stopped and the launcher exits with its status. Standard library only: it starts in milliseconds,
without JAX.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from cnnjax.distributed.devices import divide, visible_cores, visible_gpus
from cnnjax.distributed.guard import guarded

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
KILL_AFTER_SIGNALS = 3  # the third signal kills
SAVE_SECONDS = 60  # after a signal, the time to checkpoint before the rest are killed
STOP_SECONDS = 10  # after a failure, the time to exit before the rest are killed
LOG_LINES = 100  # of a failed process, shown on stderr


def free_port() -> int:
    """Returns a TCP port of this machine that is not in use."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def environments(count: int, flavor: str) -> list[dict[str, str]]:
    """Returns the environment of each of `count` processes: this process's, with the variables of `jax.distributed`.

    With `flavor` 'cuda', all processes get equally many GPUs. With fewer GPUs than processes, or another flavor, no
    GPUs are assigned. A value of JAX_LOCAL_DEVICE_IDS that is already set stays.
    """
    address = f"localhost:{free_port()}"
    gpus = len(visible_gpus()) // count * count if flavor == "cuda" else 0
    result = []
    for i in range(count):
        variables = {
            "JAX_COORDINATOR_ADDRESS": address,
            "JAX_NUM_PROCESSES": str(count),
            "JAX_PROCESS_ID": str(i),
        }
        local_devices = {"JAX_LOCAL_DEVICE_IDS": ",".join(map(str, divide(range(gpus), i, count)))} if gpus else {}
        result.append(local_devices | os.environ | variables)
    return result


class ProcessGroup:
    """Starts, signals and awaits the processes of one distributed program.

    Attributes:
      command: the command line that every process runs.
      environments: the environment variables of each process.
      cores: the CPU cores that the processes divide; [] if each may use all.
      logs: temporary folder with the output of each process but the first.
      processes: the processes started so far.
      signals: the signals received so far.
      first_failed: index of the process that failed first; None so far.
      starting: whether some processes are yet to be started.
    """

    def __init__(self, command: Sequence[str], count: int, flavor: str) -> None:
        self.command, self.environments = command, environments(count, flavor)
        self.cores = visible_cores() if flavor == "cpu" else []
        self.logs = pathlib.Path(tempfile.mkdtemp(prefix="cnnjax-"))
        self.processes: list[subprocess.Popen[Any]] = []
        self.signals: list[int] = []  # received so far
        self.first_failed: int | None = None
        self.starting = True

    def start(self) -> None:
        """Starts all processes, and forwards SIGINT, SIGTERM and SIGHUP to them from now on.

        Each process gets a session of its own, so that Ctrl-C in the terminal reaches it only through this launcher.
        """
        for number in SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._forward)
        for i, environment in enumerate(self.environments):
            self.processes.append(self._start_process(i, environment))
        self.starting = False
        if self.signals:  # only now, so that each process gets it once: a second one would end it at once
            self.send(self.signals[-1])

    def _start_process(self, i: int, environment: dict[str, str]) -> subprocess.Popen[Any]:
        """Starts process `i`. Process 0 and dry runs write to the terminal, other processes to their logs."""
        with self._log(i).open("wb") as log:
            to_terminal = i == 0 or "--dry-run" in self.command[1:2]
            output: dict[str, Any] = {} if to_terminal else {"stdout": log, "stderr": log}
            # Guarded, or it would outlive a launcher that is killed; more threads than cores would wait for each other.
            command = guarded(self.command, divide(self.cores, i, len(self.environments)))
            return subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True, **output
            )

    def _log(self, i: int) -> pathlib.Path:
        """Returns the path of the log of process `i`."""
        return self.logs / f"{i}.txt"

    def _forward(self, number: int, frame: object) -> None:
        """Signal handler: forwards the signal to all processes. The third signal kills them."""
        self.signals.append(number)
        if not self.starting:
            self.send(number if len(self.signals) < KILL_AFTER_SIGNALS else signal.SIGKILL)

    def send(self, number: int) -> None:
        """Sends a signal to every process that is alive and to its children."""
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, number)

    def wait(self) -> int:
        """Waits for all processes and returns the exit status of the one that failed first; 0 if none failed.

        When a process fails, the others are asked to stop, and killed if they do not. A process killed by signal n
        counts as status 128 + n.
        """
        deadline = None
        while None in [process.poll() for process in self.processes]:
            if deadline is None and (failed := self._failed()):
                self.first_failed = failed[0]
                deadline = time.monotonic() + (SAVE_SECONDS if self.signals else STOP_SECONDS)
                if not self.signals:
                    self.send(signal.SIGTERM)
            elif deadline is not None and time.monotonic() > deadline:
                self.send(signal.SIGKILL)
            time.sleep(0.05)
        if self.first_failed is None:
            self.first_failed = next(iter(self._failed()), None)
        status = 0 if self.first_failed is None else self.processes[self.first_failed].returncode
        return 128 - status if status < 0 else status

    def _failed(self) -> list[int]:
        """Returns the indices of the processes that have ended with a status other than 0."""
        return [i for i, process in enumerate(self.processes) if process.returncode]

    def report(self, status: int) -> None:
        """Prints which process failed and the output of the failed processes, and keeps the logs.

        Prints nothing, and deletes the logs, if `status` is 0 or a signal was received.
        """
        if not status or self.signals:
            shutil.rmtree(self.logs, ignore_errors=True)
            return
        for i in self._failed():
            if i and (i == self.first_failed or self.processes[i].returncode > 0):
                print(f"launch.sh: output of process {i}:", file=sys.stderr)
                with self._log(i).open(errors="replace") as log:
                    sys.stderr.writelines(log.readlines()[-LOG_LINES:])
        how = f"failed with status {status}" if status < 128 else f"was killed by signal {status - 128}"
        print(
            f"launch.sh: process {self.first_failed} of {len(self.processes)} {how}; the others were stopped. "
            f"Their output is in {self.logs}",
            file=sys.stderr,
        )


def main(argv: Sequence[str]) -> int:
    """Runs a command as several processes of one program; returns the exit status.

    `argv` is [number of processes, 'cpu', 'cuda' or 'tpu', *command].
    """
    group = ProcessGroup(argv[2:], int(argv[0]), argv[1])
    group.start()
    status = group.wait()
    group.report(status)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
