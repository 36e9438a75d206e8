"""The per-user cache folder. Anything in it can be deleted: it is recreated when needed."""

import contextlib
import dataclasses
import errno
import fcntl
import grp
import os
import pathlib
import pwd
import stat
import tempfile
import time
from collections.abc import Callable, Iterator

# Name of a folder in the cache -> what it holds.
CACHES = {
    "xla": "programs compiled by XLA",
    "pixels": "decoded splits of data sets",
    "weights": "downloaded weights",
    "native": "compiled C++ libraries",
    "tracebacks": "unexpected errors, for a report of them",
}
LOCK_FILE = "lock"  # of a folder in which one process at a time writes
SECONDS_IN_USE = 3600.0  # a younger temporary folder may belong to a running process


@dataclasses.dataclass(frozen=True)
class Usage:
    """The contents of a cache: the number of its files, and their total size in bytes."""

    files: int = 0
    bytes: int = 0


def folder(name: str) -> pathlib.Path:
    """Returns the path of a cache's folder, such as ~/.cache/cnnjax/weights. Does not create it.

    `name` is a key of `CACHES`. For a user without a home, the cache is in the temporary folder.
    """
    root = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    if root.startswith("~"):
        root = os.path.join(tempfile.gettempdir(), f"cnnjax-{os.geteuid()}")
    return pathlib.Path(root, "cnnjax", name)


def private_folder(name: str) -> pathlib.Path:
    """Returns a cache's folder as `folder` does, and creates it, for files that are run or trusted when read.

    Raises PermissionError if another user can write in it, and OSError if it cannot be created.
    """
    path = folder(name)
    path.parent.parent.mkdir(parents=True, exist_ok=True)
    for each in (path.parent, path):
        each.mkdir(mode=0o700, exist_ok=True)
        check_private(each)
    return path


def check_private(path: pathlib.Path) -> None:
    """Raises PermissionError if another user than this one and root can write to a file or a folder."""
    info = path.stat()
    by_group = info.st_mode & stat.S_IWGRP and not _is_own_group(info.st_gid)
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & stat.S_IWOTH or by_group:
        raise PermissionError(errno.EPERM, "not used, as other users can write there; chmod go-w it", str(path))


def _is_own_group(number: int) -> bool:
    """Returns whether a group is the user's private group: it has the user's name and no other members."""
    try:
        user, group = pwd.getpwuid(os.geteuid()).pw_name, grp.getgrgid(number)
    except KeyError:
        return False
    return group.gr_name == user and set(group.gr_mem) <= {user}


@contextlib.contextmanager
def locked(path: pathlib.Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Context manager that holds an exclusive lock on the file `path`. Creates the file if missing, and leaves it.

    Calls `waiting` once if another process holds the lock, then waits. The lock of a process that dies is released.
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
    """Returns the number and size of the files in a cache, not counting lock files. `name` is a key of `CACHES`."""
    sizes = []
    for _, _, files, descriptor in _walk(name):
        for file in files:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.stat(file, dir_fd=descriptor, follow_symlinks=False).st_size)
    return Usage(len(sizes), sum(sizes))


def clear(name: str) -> Usage:
    """Deletes the files of a cache; returns how many it deleted and their size. `name` is a key of `CACHES`.

    Leaves lock files, folders that another process has locked, and recent temporary folders. Follows no links.
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
    """Yields (path, subfolders, files, descriptor) of each folder of a cache, inner folders first. Omits lock files.

    Files have to be opened relative to the open file descriptor of their folder: if a folder is meanwhile replaced by a
    link, nothing outside the cache is reached.
    """
    top = folder(name)
    if not top.is_dir() or top.parent.is_symlink():
        return
    for path, subfolders, files, descriptor in os.fwalk(top, topdown=False):
        yield path, subfolders, [file for file in files if file != LOCK_FILE], descriptor


def _in_use(path: str, info: os.stat_result) -> bool:
    """Returns whether a folder may belong to a running process: a temporary folder changed in the last hour."""
    is_temporary = os.path.basename(path).startswith(tempfile.gettempprefix())
    return is_temporary and time.time() - info.st_mtime < SECONDS_IN_USE
