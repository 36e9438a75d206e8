"""This process among those of its run: which one it is, where they all meet, and how they end together.

JAX finds that out by itself under Slurm, Open MPI 4, on TPU slices and in indexed Jobs of Kubernetes; anywhere else
the variables of `GIVEN` say it. Nobody is looked for where nothing says that there are others.
"""

import atexit
import os
import re
import shlex
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from typing import NamedTuple, NoReturn

import jax
from jax._src.clusters import ClusterEnv  # what jax.distributed.initialize() asks; nothing public says what it found

from cnnjax.errors import InputError

GIVEN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")

# What launchers set in every process that they start: how many they are or, in an indexed Job, which one this is.
LAUNCHERS = {
    "Open MPI": "OMPI_COMM_WORLD_SIZE",
    "Slurm": "SLURM_STEP_NUM_TASKS",  # in this step: SLURM_NTASKS, which JAX reads, is the allocation's in salloc's own
    "Kubernetes": "JOB_COMPLETION_INDEX",
}
TPU = "the TPU's metadata"  # which no variable tells of

JOIN_SECONDS = 300  # for all to come, for some may still be installing
SILENT_SECONDS = 60  # without a sign of life, until a process is taken for dead and the others end
LINGER_SECONDS = 2  # process 0 leaves so much later: the others end with it, and may be about to say why
SHOWN = ("JAX_", "XLA_", "LIBTPU_", "NCCL_", "CUDA_VISIBLE_DEVICES")  # of the environment, in a dry run
AGAIN = "Start all of them again, and the run goes on"
ADVICE = "set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID, or JAX_NUM_PROCESSES=1 for a run alone"


class Process(NamedTuple):
    """One of the processes of a run."""

    coordinator: str  # 'HOST:PORT', where process 0 listens
    count: int  # of them all
    number: int  # of this one, from 0
    devices: list[int] | None  # which of this host's GPUs it uses; None for all
    found_by: str  # who said so


def find() -> Process | None:
    """This process among the others of its run; None where it runs alone.

    JAX_NUM_PROCESSES=1 means alone, whatever a launcher says. Raises InputError where the environment says that there
    are others, and not who this is or where they meet.
    """
    devices = _devices()
    if any(name in os.environ for name in GIVEN):
        return _given(devices)
    launcher, name = next(((who, name) for who, name in LAUNCHERS.items() if name in os.environ), (None, ""))
    if launcher in ("Open MPI", "Slurm") and os.environ[name] == "1":
        return None
    if launcher is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        return None  # JAX would ask the cluster, which a pod by itself need not be allowed to
    try:
        with warnings.catch_warnings(action="ignore"):
            found = ClusterEnv.auto_detect_unset_distributed_params(None, None, None, devices, None, JOIN_SECONDS)
    except Exception as error:  # each cluster's library, and the network, have their own
        raise InputError(f"cannot ask {launcher or TPU} for the other processes: {_line(error)}; {ADVICE}") from error
    coordinator, count, number, devices = found
    if coordinator is None and launcher:
        raise InputError(f"{name} is {launcher}'s, and JAX does not find the other processes by it; {ADVICE}")
    if coordinator is None or count is None or number is None or count == 1:
        return None
    return Process(coordinator, count, number, list(devices) if devices else None, launcher or TPU)


def _devices() -> list[int] | None:
    text = os.environ.get("JAX_LOCAL_DEVICE_IDS", "")
    try:
        return [int(word) for word in text.split(",")] if text else None
    except ValueError:
        raise InputError(f"JAX_LOCAL_DEVICE_IDS={text}: expected numbers of devices, as in 0,1") from None


def _given(devices: list[int] | None) -> Process | None:
    if os.environ.get(GIVEN[1]) == "1":
        return None
    given = {name: os.environ.get(name) for name in GIVEN}
    if missing := [name for name in GIVEN if not given[name]]:
        found = next(name for name in GIVEN if name in os.environ)
        raise InputError(f"{found} is set, and {missing[0]} is not: {', '.join(GIVEN)} go together")
    address, count, number = map(str, given.values())
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()):
        raise InputError(f"{GIVEN[0]}={address}: expected the HOST:PORT of process 0, as in host0:1234")
    if not count.isdecimal() or count == "0":
        raise InputError(f"{GIVEN[1]}={count}: expected a whole number, at least 1")
    if not (number.isdecimal() and int(number) < int(count)):
        raise InputError(f"{GIVEN[2]}={number}: expected 0 to {int(count) - 1}, as {GIVEN[1]}={count}")
    return Process(address, int(count), int(number), devices, GIVEN[0])


def _line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(command: Sequence[str]) -> str:
    """One line about what this process would be in its run: the host, the number, the meeting place, the command.

    Raises InputError as `find` does. Nothing is started, and nobody joined.
    """
    process, devices = find(), "all devices"
    who = "one process, alone"
    if process:
        who = f"process {process.number} of {process.count}, by {process.found_by}, coordinator {process.coordinator}"
        devices = f"devices {','.join(map(str, process.devices))}" if process.devices else devices
    shown = [f"{name}={shlex.quote(value)}" for name, value in sorted(os.environ.items()) if name.startswith(SHOWN)]
    return f"{socket.gethostname()}: {who}, {devices}: {' '.join([*shown, shlex.join(command)])}"


def initialize() -> None:
    """Joins the other processes of this run, where there are others. Comes before anything asks JAX for devices.

    When they do not come within `JOIN_SECONDS`, or later when one of them was silent for `SILENT_SECONDS`, JAX aborts
    this one; then the last line of stderr says so. Raises InputError as `find` does.
    """
    process = find()
    if process is None:
        return
    name = f"process {process.number} of {process.count}, on {socket.gethostname()},"
    atexit.register(_dismiss)
    _guard(f"{name} did not meet the others at {process.coordinator} within {JOIN_SECONDS} s, or was killed")
    jax.distributed.initialize(
        process.coordinator,
        process.count,
        process.number,
        process.devices,
        cluster_detection_method="deactivate",
        initialization_timeout=JOIN_SECONDS,
        heartbeat_timeout_seconds=SILENT_SECONDS,
    )
    _dismiss()
    _guard(f"{name} was killed, or ended because another process or its host is gone. {AGAIN}")


_guards: list[subprocess.Popen[bytes]] = []  # one, in a process that has others or waits for them


def _guard(text: str) -> None:
    """Has a shell say this when this process is killed or aborted: its input then ends, and there was no line in it.

    For JAX aborts with a page of its own, and lets nothing of Python run before.
    """
    command = ["sh", "-c", 'read -r _ || echo "error: $0" >&2', text]
    _guards.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))


def _dismiss() -> None:
    while _guards:
        _guards.pop().communicate(b"\n")


def several() -> bool:
    """Whether this process has joined others."""
    return jax.distributed.is_initialized()


def reason(error: Exception) -> str | None:
    """What to say of an error that JAX has for whatever goes wrong between processes; None for any other."""
    if not re.match(r"(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED): ", str(error)):
        return None
    return f"{_line(error)}: most likely another process has ended, or cannot be reached. {AGAIN}"


def leave(status: int) -> NoReturn:
    """Ends this process at once: on the usual way out JAX waits for the others, which wait for this one's part."""
    if jax.process_index() == 0:
        time.sleep(LINGER_SECONDS)
    _dismiss()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
