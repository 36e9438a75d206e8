"""The per-user cache folder. Anything in it can be deleted: it is made again when it is needed."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator

# Name of a folder in the cache -> what it holds.
CACHES = {
    "xla": "programs compiled by XLA",
    "pixels": "decoded splits of data sets",
    "weights": "downloaded weights",
    "native": "compiled C++ libraries",
}
LOCK_FILE = "lock"  # of a folder in which one process at a time writes
SECONDS_IN_USE = 3600.0  # a younger temporary folder may belong to a running process


@dataclasses.dataclass(frozen=True)
class Usage:
    """A number of files, and their size in bytes."""

    files: int = 0
    bytes: int = 0


def folder(name: str) -> pathlib.Path:
    """Returns the path of the cache's folder `name`, which may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cnnjax", name)


@contextlib.contextmanager
def locked(path: pathlib.Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Holds an exclusive lock on the file `path`, which is created if missing and stays afterwards.

    Calls `waiting` once if another process holds the lock. The system releases the lock of a process that dies.
    """
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


def usage(name: str) -> Usage:
    """Counts the files of a cache, without lock files. Follows no links."""
    sizes = []
    for _, _, files, descriptor in _walk(name):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(file, dir_fd=descriptor, follow_symlinks=False).st_size)
    return Usage(len(sizes), sum(sizes))


def clear(name: str) -> Usage:
    """Deletes the files of a cache, and returns how many and how large they were.

    Follows no links. Leaves lock files, folders whose lock another process holds, and recent temporary folders.
    """
    sizes = []
    for path, subfolders, files, descriptor in _walk(name):
        with contextlib.ExitStack() as stack:
            try:
                lock = os.open(LOCK_FILE, os.O_RDWR | os.O_NOFOLLOW, dir_fd=descriptor)
                stack.callback(os.close, lock)
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except FileNotFoundError:
                pass
            except OSError:  # another process holds the lock
                continue
            if _in_use(path, os.fstat(descriptor)):
                continue
            for file in files:
                with contextlib.suppress(FileNotFoundError):
                    size = os.stat(file, dir_fd=descriptor, follow_symlinks=False).st_size
                    os.unlink(file, dir_fd=descriptor)
                    sizes.append(size)
            for subfolder in subfolders:
                with contextlib.suppress(OSError):  # not empty, or a link
                    if not _in_use(subfolder, os.stat(subfolder, dir_fd=descriptor, follow_symlinks=False)):
                        os.rmdir(subfolder, dir_fd=descriptor)
    return Usage(len(sizes), sum(sizes))


def _walk(name: str) -> Iterator[tuple[str, list[str], list[str], int]]:
    """Yields (path, subfolders, files without locks, file descriptor) of each folder of a cache, inner ones first.

    Files are meant to be opened relative to the descriptor: then a folder that is replaced by a link leads nowhere.
    """
    top = folder(name)
    if not top.is_dir() or top.parent.is_symlink():
        return
    for path, subfolders, files, descriptor in os.fwalk(top, topdown=False):
        yield path, subfolders, [file for file in files if file != LOCK_FILE], descriptor


def _in_use(path: str, info: os.stat_result) -> bool:
    """Returns whether a folder is a temporary one that a running process may have made."""
    is_temporary = os.path.basename(path).startswith(tempfile.gettempprefix())
    return is_temporary and time.time() - info.st_mtime < SECONDS_IN_USE
