"""Where runs are executed: in processes of this machine, on a Ray cluster, or by Slurm. All start the same command.

An executor is a function of `workers`, how many runs go on at once, that returns `start`: (command, log file) -> Job.
"""

import importlib
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnnjax.errors import InputError


class Job(NamedTuple):
    """A command that was started."""

    poll: Callable[[], int | None]  # its exit status, -n when signal n ended it; None while it goes on
    stop: Callable[[bool], None]  # asks it to save and leave or, given True, ends it


Start = Callable[[list[str], pathlib.Path], Job]
LEAVE = 60.0  # seconds that a run has to save and leave

# Starts a command that is told to end when the process that started it is gone: else a killed sweep's runs would go on.
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


def _begin(command: list[str], log: pathlib.Path, cores: Sequence[int] = (), **environment: str) -> subprocess.Popen:
    with log.open("ab") as file:
        return subprocess.Popen(
            _guarded(command, cores), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=os.environ | environment, start_new_session=True,
        )  # fmt: skip


def local(workers: int) -> Start:
    """Processes of this machine, among which its cores and GPUs are divided."""
    free = _shares(workers)

    def start(command: list[str], log: pathlib.Path) -> Job:
        share = free.pop(0)
        process = _begin(command, log, share[0], **share[1])

        def poll() -> int | None:
            status = process.poll()
            if status is not None and share not in free:
                free.append(share)
            return status

        return Job(poll, lambda hard: process.send_signal(signal.SIGKILL if hard else signal.SIGTERM))

    return start


def _shares(workers: int) -> list[Any]:
    """For each worker its cores, where the system can say which, and the variables that give it its GPUs."""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    gpus = _gpus()
    shares = []
    for i in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(_share(gpus, i, workers))} if gpus else {}
        if 0 < len(gpus) < workers:  # several on one, none of which may take all of its memory
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        shares.append((_share(cores, i, workers), environment))
    return shares


def _share(things: list, i: int, workers: int) -> list:
    """What worker i has of them: a part of its own or, where there are fewer than workers, one with others."""
    count = len(things)
    if count >= workers:
        return things[i * count // workers : (i + 1) * count // workers]
    return [things[i % count]] if things else []


def _gpus() -> list[str]:
    """The names of the NVIDIA GPUs that a process of ours may use."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if seen is not None or not shutil.which("nvidia-smi"):
        return [name for name in (seen or "").split(",") if name]
    lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(len([line for line in lines if line.startswith("GPU ")]))]


# ------------------------------------------------------------------------------------------------------ other machines


def execute(command: list[str], log: str) -> int:
    """Runs a command to its end and returns its status; told to end before, asks it to save and leave."""
    process = _begin(command, pathlib.Path(log))
    try:
        while process.poll() is None:
            time.sleep(0.1)  # not in one wait, from which Ray cannot call a task away
        return process.returncode
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(LEAVE)
            except subprocess.TimeoutExpired:
                process.kill()


def ray(workers: int, address: str = "", cpus: int = 0, gpus: float = 0.0) -> Start:
    """Tasks of the Ray cluster at `address`, as in 'ray://host:10001' or 'auto', or of one started on this machine.

    Each run has `cpus` cores (0: the cluster's, divided among the workers) and `gpus` GPUs, where a part is a share of
    one. The machines share the folder of the runs.
    """
    library = _needed("ray", "ray")
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

        return Job(poll, lambda hard: library.cancel(task, force=hard))

    return start


def slurm(
    workers: int, cluster: str = "slurm", partition: str = "", hours: float = 24.0, cpus: int = 4, gpus: int = 1
) -> Start:
    """Jobs of Slurm, each with that time, cores and GPUs. cluster='local' tries it out without Slurm."""
    submitit = _needed("submitit", "slurm")

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

        return Job(poll, lambda hard: job.cancel())

    return start


def _needed(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise InputError(f"{module} is not installed; pip install 'cnnjax[{extra}]' in this environment") from None


EXECUTORS = {"local": local, "ray": ray, "slurm": slurm}
