"""Executors: run commands as processes of this machine, on a Ray cluster, or as Slurm jobs.

An executor is a function of `workers`, the number of runs in parallel, that returns `start(command, log) -> Job`. The
command's stdout and stderr are appended to the file `log`.
"""

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnjax.distributed.devices import divide, visible_cores, visible_gpus
from cnnjax.errors import InputError


class Job(NamedTuple):
    """A started command."""

    poll: Callable[[], int | None]  # its exit status, -n if signal n killed it; None while it runs
    stop: Callable[[bool], None]  # False: asks it to checkpoint and exit; True: kills it


Start = Callable[[list[str], pathlib.Path], Job]
GRACE_SECONDS = 60.0  # from the request to stop until a run is killed

# Executes a command that receives SIGTERM when its parent dies: the runs of a killed sweep would go on otherwise.
_GUARD = """
import ctypes, os, signal, sys
parent, cores, *command = sys.argv[1:]
try:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG; it outlives exec
except (AttributeError, OSError):
    pass  # not Linux
if os.getppid() != int(parent):
    sys.exit(128 + signal.SIGTERM)
if cores:
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
os.execvp(command[0], command)
"""


def _guarded(command: list[str], cores: Sequence[int]) -> list[str]:
    return [sys.executable, "-ISc", _GUARD, str(os.getpid()), ",".join(map(str, cores)), *command]


def _popen(command: list[str], log: pathlib.Path, cores: Sequence[int] = (), **environment: str) -> subprocess.Popen:
    with log.open("ab") as file:
        return subprocess.Popen(
            _guarded(command, cores), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip


class Resources(NamedTuple):
    """Cores and GPUs of this machine that one worker may use."""

    cores: list[int]  # [] for all
    environment: dict[str, str]  # selects its GPUs


def local(workers: int) -> Start:
    """Starts processes on this machine, whose cores and GPUs are divided among the workers."""
    available = divide_machine(workers)

    def start(command: list[str], log: pathlib.Path) -> Job:
        resources = available.pop(0)
        process = _popen(command, log, resources.cores, **resources.environment)
        released = False

        def poll() -> int | None:
            nonlocal released
            status = process.poll()
            if status is not None and not released:
                released = True
                available.append(resources)
            return status

        return Job(poll, lambda kill: process.send_signal(signal.SIGKILL if kill else signal.SIGTERM))

    return start


def divide_machine(workers: int) -> list[Resources]:
    """Returns the cores and the GPUs of each worker."""
    cores, gpus = visible_cores(), visible_gpus()
    resources = []
    for i in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(divide(gpus, i, workers))} if gpus else {}
        if 0 < len(gpus) < workers:  # several runs on one GPU, so none may preallocate its memory
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        resources.append(Resources(divide(cores, i, workers), environment))
    return resources


# ------------------------------------------------------------------------------------------------------ other machines


def execute(command: list[str], log: str) -> int:
    """Runs a command and returns its exit status. When interrupted itself, it stops the command first."""
    process = _popen(command, pathlib.Path(log))
    try:
        while process.poll() is None:
            time.sleep(0.1)  # rather than one wait(), which Ray cannot cancel
        return process.returncode
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def ray(workers: int, address: str = "", cpus: int = 0, gpus: float = 0.0) -> Start:
    """Starts tasks on the Ray cluster at `address`, as in 'ray://host:10001' or 'auto'; '' starts one on this machine.

    Each run gets `cpus` cores (0: the cluster's, divided among the workers) and `gpus` GPUs, where 0.5 is half of one.
    The machines have to share the runs' folder.
    """
    library = _import("ray", "ray")
    if not library.is_initialized():
        library.init(address=address or None, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    cores = cpus or max(1, int(library.cluster_resources().get("CPU", 1)) // workers)
    remote = library.remote(max_retries=0, num_cpus=cores, num_gpus=gpus)(execute)

    def start(command: list[str], log: pathlib.Path) -> Job:
        task = remote.remote(command, str(log.resolve()))

        def poll() -> int | None:
            if not library.wait([task], timeout=0)[0]:
                return None
            try:
                return library.get(task)
            except library.exceptions.RayError:  # its worker died, or it was cancelled
                return -signal.SIGKILL

        return Job(poll, lambda kill: library.cancel(task, force=kill))

    return start


def slurm(
    workers: int, cluster: str = "slurm", partition: str = "", hours: float = 24.0, cpus: int = 4, gpus: int = 1
) -> Start:
    """Submits Slurm jobs, each with these hours, cores and GPUs. cluster='local' runs them here, without Slurm."""
    submitit = _import("submitit", "slurm")

    def start(command: list[str], log: pathlib.Path) -> Job:
        executor = submitit.AutoExecutor(log.resolve().parent / "slurm", cluster=cluster)
        executor.update_parameters(
            name="cnnjax", timeout_min=int(hours * 60), cpus_per_task=cpus, gpus_per_node=gpus, tasks_per_node=1,
            **({"slurm_partition": partition} if partition else {}),
        )  # fmt: skip
        job = executor.submit(execute, command, str(log.resolve()))

        def poll() -> int | None:
            if not job.done():
                return None
            try:
                return job.result()
            except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
                return -signal.SIGKILL

        return Job(poll, lambda kill: job.cancel())

    return start


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{module} is not installed; pip install 'cnnjax[{extra}]' in this environment") from None


EXECUTORS = {"local": local, "ray": ray, "slurm": slurm}
