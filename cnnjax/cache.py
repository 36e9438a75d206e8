"""Where what can be made again at any time is kept, for all runs of a user."""

import contextlib
import fcntl
import os
import pathlib
from collections.abc import Callable, Iterator


def folder(name: str) -> pathlib.Path:
    """The folder `name` of the project's cache; it may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cnnjax", name)


@contextlib.contextmanager
def locked(path: pathlib.Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds the lock of a file, which the system takes back from a process that dies. The file itself stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o664)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
