"""Multi-process runs: this process's index, the coordinator's address, joining and exiting.

JAX detects them under Slurm, Open MPI 4, on TPU slices and in indexed Jobs of Kubernetes; elsewhere the environment
variables `VARIABLES` define them. Without either, a process runs alone and contacts nobody.
"""

import atexit
import dataclasses
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from typing import NoReturn

import jax
from jax._src.clusters import ClusterEnv  # as in jax.distributed.initialize(), whose result no public API returns

from cnnjax.errors import InputError

VARIABLES = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# A variable that each launcher sets in every process: the number of processes or, in an indexed Job, the index.
LAUNCHERS = {
    "Open MPI": "OMPI_COMM_WORLD_SIZE",
    "Slurm": "SLURM_STEP_NUM_TASKS",  # not SLURM_NTASKS, which in a shell of salloc is that of the allocation
    "Kubernetes": "JOB_COMPLETION_INDEX",
}
TPU = "the TPU's metadata"  # no variable announces it

JOIN_SECONDS = 300  # until all processes have joined; some may still be installing
HEARTBEAT_SECONDS = 60  # without a heartbeat a process counts as dead, and the others exit
LINGER_SECONDS = 2  # process 0 exits this much later: JAX aborts the others, which may still print their error
SHOWN_PREFIXES = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES")  # of variables, in a dry run
RESTART = "Restart all processes to resume the run"
ADVICE = "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or JAX_NUM_PROCESSES=1 to run alone"


@dataclasses.dataclass(frozen=True)
class Process:
    """This process's place in a multi-process run.

    Attributes:
      coordinator: 'HOST:PORT', at which process 0 listens.
      count: number of processes.
      index: index of this process, from 0.
      devices: indices of the GPUs of this host that this process uses; None for all.
      source: where this comes from: a launcher, such as 'Slurm', or an environment variable.
    """

    coordinator: str
    count: int
    index: int
    devices: list[int] | None
    source: str


def detect() -> Process | None:
    """Detects this process's index, the number of processes and the coordinator; None if this process runs alone.

    The variables `VARIABLES` come first, then the launchers that JAX knows. JAX_NUM_PROCESSES=1 means alone under any
    launcher. Does not contact the other processes. Raises InputError if the environment says that there are others, but
    not the index or the coordinator.
    """
    devices = _devices()
    if any(name in os.environ for name in VARIABLES):
        return _from_variables(devices)
    launcher, name = next((item for item in LAUNCHERS.items() if item[1] in os.environ), (None, ""))
    if launcher in ("Open MPI", "Slurm") and os.environ[name] == "1":
        return None
    if launcher is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return None  # JAX would query the cluster, which a single pod may not be allowed to
    try:
        with warnings.catch_warnings(action="ignore"):
            detected = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, devices, None, JOIN_SECONDS)
    except Exception as error:  # each cluster's library, and the network, have their own
        source = launcher or TPU
        raise InputError(f"cannot query {source} for the other processes: {_first_line(error)}; {ADVICE}") from error
    coordinator, count, index, devices = detected
    if coordinator is None and launcher:
        raise InputError(f"{name} is set by {launcher}, but JAX cannot find the other processes; {ADVICE}")
    if coordinator is None or count is None or index is None or count == 1:
        return None
    return Process(coordinator, count, index, list(devices) if devices else None, launcher or TPU)


def _devices() -> list[int] | None:
    """Returns the device indices in JAX_LOCAL_DEVICE_IDS, such as '0,1'; None if it is not set."""
    text = os.environ.get("JAX_LOCAL_DEVICE_IDS", "")
    try:
        return [int(word) for word in text.split(",")] if text else None
    except ValueError:
        raise InputError(f"JAX_LOCAL_DEVICE_IDS={text}: expected device indices, as in 0,1") from None


def _from_variables(devices: list[int] | None) -> Process | None:
    """Returns the Process that `VARIABLES` define; None for JAX_NUM_PROCESSES=1.

    Raises InputError if a variable is missing or invalid.
    """
    if os.environ.get(VARIABLES[1]) == "1":
        return None
    values = {name: os.environ.get(name) for name in VARIABLES}
    if missing := [name for name in VARIABLES if not values[name]]:
        present = next(name for name in VARIABLES if name in os.environ)
        raise InputError(f"{present} is set, but {missing[0]} is not: set all of {', '.join(VARIABLES)}")
    address, count, index = map(str, values.values())
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f"{VARIABLES[0]}={address}: expected the HOST:PORT of process 0, as in host0:1234")
    if not count.isdecimal() or count == "0":
        raise InputError(f"{VARIABLES[1]}={count}: expected a whole number, at least 1")
    if not (index.isdecimal() and int(index) < int(count)):
        raise InputError(f"{VARIABLES[2]}={index}: expected 0 to {int(count) - 1}, as {VARIABLES[1]}={count}")
    return Process(address, int(count), int(index), devices, VARIABLES[0])


def _first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or the error's type if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(command: Sequence[str]) -> str:
    """Describes a dry run in one line: this process's host, index, coordinator, devices and environment, and `command`.

    Raises the errors of `detect`.
    """
    process, devices = detect(), "all devices"
    role = "one process, alone"
    if process:
        role = f"process {process.index} of {process.count}, by {process.source}, coordinator {process.coordinator}"
        devices = f"devices {','.join(map(str, process.devices))}" if process.devices else devices
    shown = sorted(name for name in os.environ if name.startswith(SHOWN_PREFIXES))
    variables = [f"{name}={shlex.quote(os.environ[name])}" for name in shown]
    return f"{socket.gethostname()}: {role}, {devices}: {' '.join([*variables, shlex.join(command)])}"


def initialize() -> None:
    """Joins the other processes of this run with `jax.distributed`, if there are any. Must precede any use of devices.

    JAX aborts this process if the others do not join within `JOIN_SECONDS`, or later if a process sends no heartbeat
    for `HEARTBEAT_SECONDS`. The last line of stderr then says so. Raises the errors of `detect`.
    """
    process = detect()
    if process is None:
        return
    name = f"process {process.index} of {process.count}, on {socket.gethostname()},"
    atexit.register(_dismiss)
    _guard(f"{name} could not join the others at {process.coordinator} within {JOIN_SECONDS} s, or was killed")
    jax.distributed.initialize(
        process.coordinator,
        process.count,
        process.index,
        process.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=JOIN_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
    )
    _dismiss()
    _guard(f"{name} was killed, or exited because another process or its host is gone. {RESTART}")


_guards: list[subprocess.Popen[bytes]] = []  # at most one, in a multi-process run


def _guard(text: str) -> None:
    """Starts a shell that prints `text` to stderr if this process is killed or aborted before `_dismiss` is called.

    This takes another process because JAX aborts without running any Python. The shell notices that its stdin is
    closed.
    """
    command = ["sh", "-c", 'read -r _ || echo "error: $0" >&2', text]
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def _dismiss() -> None:
    """Ends the shell that `_guard` started, without its message. Does nothing if there is none."""
    while _guards:
        _guards.pop().communicate(b"\n")


def is_distributed() -> bool:
    """Returns whether this process has joined others."""
    return jax.distributed.is_initialized()


def peer_failure(error: Exception) -> str | None:
    """Returns a message for the user if `error` looks like a failed communication between processes, else None."""
    if not re.match(r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED): ", str(error)):
        return None
    return f"{_first_line(error)}: most likely another process has exited or is unreachable. {RESTART}"


def exit_now(status: int) -> NoReturn:
    """Exits at once, without JAX's shutdown, which would wait for other processes that wait for this one."""
    if jax.process_index() == 0:
        time.sleep(LINGER_SECONDS)
    _dismiss()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
