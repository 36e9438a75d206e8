"""Executors: run commands as processes of this machine, on a Ray cluster, or as Slurm jobs.

An executor is a function of `workers`, the number of runs in parallel, that returns `start(command, log) -> Job`. The
command's stdout and stderr are appended to the file `log`.
"""

import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Annotated, NamedTuple

from cnnjax import extras, sealed
from cnnjax.distributed.devices import divide, visible_cores, visible_gpus
from cnnjax.distributed.guard import guarded
from cnnjax.spec import Count, NonNegative, Positive, Range


class Job(NamedTuple):
    """A started command, as functions to poll and to stop it.

    Attributes:
      poll: returns the exit status, -n if signal n killed the command, or None while it runs.
      stop: stop(False) asks the command to save a checkpoint and exit; stop(True) kills it.
      is_followed: whether another process has started the command, so that `stop` does nothing.
    """

    poll: Callable[[], int | None]
    stop: Callable[[bool], None]
    is_followed: bool = False


Cores = Annotated[int, Range(0, 1_000_000)]  # or GPUs
Start = Callable[[list[str], pathlib.Path], Job]
GRACE_SECONDS = 60.0  # from the request to stop until a run is killed


def _popen(
    command: list[str], log: pathlib.Path, cores: Sequence[int] = (), folder: str | None = None, **environment: str
) -> subprocess.Popen:
    """Starts a command, with its output appended to `log`, and returns without waiting for it.

    The command gets SIGTERM when this process dies: the runs of a killed sweep would go on otherwise.

    `cores` are the CPU cores that it may use, () for all; `folder` is the one that it starts in, None for this
    process's; `environment` are variables to set besides this process's.
    """
    with sealed.append(log) as file:
        return subprocess.Popen(
            guarded(command, cores), stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            cwd=folder, env=os.environ | environment, start_new_session=True,
        )  # fmt: skip


class Resources(NamedTuple):
    """The CPU cores and GPUs of this machine that one worker may use.

    Attributes:
      cores: indices of the CPU cores; [] for all.
      environment: environment variables that select the GPUs; {} without GPUs.
    """

    cores: list[int]
    environment: dict[str, str]


def local(workers: int) -> Start:
    """Returns a function start(command, log) that runs commands on this machine, up to `workers` at a time.

    The CPU cores and GPUs are divided among the workers, and each command gets those of one worker.
    """
    available = divide_machine(workers)

    def start(command: list[str], log: pathlib.Path) -> Job:
        """Starts a command with the resources of a free worker."""
        resources = available.pop(0)
        process = _popen(command, log, resources.cores, **resources.environment)
        released = False

        def poll() -> int | None:
            """Returns the exit status; None while the command runs. At its end, frees the worker's resources."""
            nonlocal released
            status = process.poll()
            if status is not None and not released:
                released = True
                available.append(resources)
            return status

        return Job(poll, lambda kill: process.send_signal(signal.SIGKILL if kill else signal.SIGTERM))

    return start


def divide_machine(workers: int) -> list[Resources]:
    """Divides the CPU cores and GPUs of this machine among `workers`; returns the resources of each worker.

    With fewer GPUs than workers, several workers share a GPU, and JAX is told not to preallocate its memory.
    """
    cores, gpus = visible_cores(), visible_gpus()
    resources = []
    for i in range(workers):
        environment = {"CUDA_VISIBLE_DEVICES": ",".join(divide(gpus, i, workers))} if gpus else {}
        if 0 < len(gpus) < workers:  # several runs on one GPU, so none may preallocate its memory
            environment["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
        resources.append(Resources(divide(cores, i, workers), environment))
    return resources


# ------------------------------------------------------------------------------------------------------ other machines


def execute(command: list[str], log: str, folder: str) -> int:
    """Runs a command to its end in `folder`, with its output appended to the file `log`; returns its exit status.

    If this process is interrupted, the command gets SIGTERM and, `GRACE_SECONDS` later, SIGKILL.
    """
    process = _popen(command, pathlib.Path(log), folder=folder)
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


def ray(workers: int, address: str = "", cpus: Cores = 0, gpus: NonNegative = 0.0) -> Start:
    """Returns a function start(command, log) that runs a command as a task on a Ray cluster.

    The machines of the cluster have to share the runs' folder and the current one, in which the command runs.

    Args:
      workers: number of runs in parallel.
      address: of the cluster, as in 'ray://host:10001' or 'auto'; '' starts Ray on this machine.
      cpus: cores per run; 0 divides the cores of the cluster among the workers.
      gpus: GPUs per run; 0.5 lets two runs share a GPU.
    """
    library = extras.load("ray")
    if not library.is_initialized():
        library.init(address=address or None, log_to_driver=False, include_dashboard=False, logging_level="ERROR")
    cores = cpus or max(1, int(library.cluster_resources().get("CPU", 1)) // workers)
    remote = library.remote(max_retries=0, num_cpus=cores, num_gpus=gpus)(execute)

    def start(command: list[str], log: pathlib.Path) -> Job:
        """Submits a command as a Ray task."""
        task = remote.remote(command, str(log.resolve()), os.getcwd())

        def poll() -> int | None:
            """Returns the exit status; None while the task runs, -9 if its worker died or the task was canceled."""
            if not library.wait([task], timeout=0)[0]:
                return None
            try:
                return library.get(task)
            except library.exceptions.RayError:  # its worker died, or it was canceled
                return -signal.SIGKILL

        return Job(poll, lambda kill: library.cancel(task, force=kill))

    return start


def slurm(
    workers: int, cluster: str = "slurm", partition: str = "", hours: Positive = 24.0, cpus: Count = 4, gpus: Cores = 1
) -> Start:
    """Returns a function start(command, log) that submits a command as a Slurm job, with submitit.

    Args:
      workers: not used; the caller limits the number of jobs.
      cluster: 'slurm', or 'local' to run the jobs as processes on this machine, without Slurm.
      partition: Slurm partition; '' for the default one.
      hours: time limit of a job.
      cpus: cores per job.
      gpus: GPUs per job.
    """
    submitit = extras.load("submitit", "slurm")

    def start(command: list[str], log: pathlib.Path) -> Job:
        """Submits a command as a Slurm job."""
        executor = submitit.AutoExecutor(log.resolve().parent / "slurm", cluster=cluster)
        executor.update_parameters(
            name="cnnjax", timeout_min=int(hours * 60), cpus_per_task=cpus, gpus_per_node=gpus, tasks_per_node=1,
            **({"slurm_partition": partition} if partition else {}),
        )  # fmt: skip
        job = executor.submit(execute, command, str(log.resolve()), os.getcwd())

        def poll() -> int | None:
            """Returns the exit status; None while the job waits or runs, -9 if the job died or was canceled."""
            if not job.done():
                return None
            try:
                return job.result()
            except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
                return -signal.SIGKILL

        return Job(poll, lambda kill: job.cancel())

    return start


EXECUTORS = {"local": local, "ray": ray, "slurm": slurm}
