"""Runs a command that ends when its starting process dies, even by SIGKILL, which cannot be forwarded.

`python -IS guard.py PARENT CORES COMMAND [ARGUMENT ...]`

PARENT is the process id of the starting process, CORES the CPU cores to use, such as '0,1', or '' for all. The command
takes the place of this process, and gets SIGTERM when the parent dies: a training then saves a checkpoint. On Linux the
kernel sends it; elsewhere a small process watches. Standard library only.
"""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Sequence

WATCH_SECONDS = 0.5
_PR_SET_PDEATHSIG = 1  # it outlives exec


def guarded(command: Sequence[str], cores: Sequence[int] = ()) -> list[str]:
    """Wraps a command line: the command runs on these CPU cores, () for all, and ends when this process dies."""
    return [sys.executable, "-IS", __file__, str(os.getpid()), ",".join(map(str, cores)), *command]


def _kernel_watches() -> bool:
    """Asks the kernel for SIGTERM when the parent dies; returns whether it will send it."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import ctypes

        return ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM) == 0
    return False


def _watch(parent: int) -> None:
    """Starts a process that sends SIGTERM to this one when the process `parent` has died, and ends with this one."""
    watched = os.getpid()
    if os.fork():
        return
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # they go to the whole group, and the command may go on for a while
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(null, descriptor)  # or whoever reads the command's output would wait for this process
    while os.getppid() == watched:
        try:
            os.kill(parent, 0)
        except ProcessLookupError:
            os.kill(watched, signal.SIGTERM)
            break
        time.sleep(WATCH_SECONDS)
    os._exit(0)


def main(argv: Sequence[str]) -> None:
    """Replaces this process by the command, as described above."""
    parent, cores, command = int(argv[0]), argv[1], list(argv[2:])
    if not _kernel_watches():
        _watch(parent)
    if os.getppid() != parent:  # it died before
        sys.exit(128 + signal.SIGTERM)
    if cores:
        os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.exit(f"error: {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
