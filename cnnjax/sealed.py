"""Small files on disk: written atomically, through no link, and read with their seal checked.

A sealed JSON file is an object whose last entry, "seal", is a digest of the others. A file without one is of a version
before seals, and is read as it is, unless versions.json beside it has a seal: then its own was lost. Whoever edits a
file on purpose sets "seal" to "edited".
"""

import contextlib
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import stat
from collections.abc import Iterator, Mapping
from typing import IO, Any

from cnnjax.errors import InputError

SEAL = "seal"  # the last entry of a sealed file
EDITED = "edited"  # in place of the digest: read the file as it is
WITNESS = "versions.json"  # the last file that a new run's folder gets: if it is sealed, so are the others
MAX_BYTES = 1 << 27  # of a JSON file, or one of lines
PART = ".part"  # ends the name of a file or folder that is being written


def seal_of(content: dict[str, Any]) -> str:
    """Returns the digest of a JSON object: 16 hexadecimal digits of a SHA-256."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def write_json(path: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes `content` as a sealed JSON file, as `write_atomically` does."""
    write_plain_json(path, content | {SEAL: seal_of(content)})


def write_plain_json(path: pathlib.Path, content: Any) -> None:
    """Writes `content` as a JSON file without a seal, as `write_atomically` does: for files that are not read back.

    NaN and infinity, which JSON does not have, become null.
    """
    write_atomically(path, (json.dumps(finite(content), indent=2, allow_nan=False) + "\n").encode())


def finite(value: Any) -> Any:
    """Returns a value as JSON has it: None for each number in it that is not finite, and lists for tuples."""
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: pathlib.Path, remedy: str = "") -> Any:
    """Reads a JSON file, and returns its content without the seal.

    `remedy` begins the advice in the message about a damaged file. Raises FileNotFoundError if there is no file, and
    InputError if it is damaged, edited or no regular file.
    """
    content = _parsed(path)
    seal = content.pop(SEAL, None) if isinstance(content, dict) else None
    advice = "; ".join(filter(None, (remedy, f'if it is right as it is, set its "{SEAL}" to "{EDITED}"')))
    if seal is None and (_ends_in_a_seal(content) or (path.name != WITNESS and _is_sealed(path.with_name(WITNESS)))):
        raise InputError(f'{path} is damaged or was edited: it has no "{SEAL}" ({advice})')
    if seal not in (None, EDITED, seal_of(content)):
        raise InputError(f"{path} is damaged or was edited: it does not match its seal ({advice})")
    return content


def _parsed(path: pathlib.Path) -> Any:
    """Parses a JSON file. Raises FileNotFoundError if there is none, and InputError if it is no JSON."""
    try:
        return json.loads(read(path).decode())
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}") from error


def _ends_in_a_seal(content: Any) -> bool:
    """Returns whether the last entry of an object looks like a seal, whose own name may be damaged."""
    last = next(reversed(content.values()), None) if isinstance(content, dict) else None
    return isinstance(last, str) and re.fullmatch("[0-9a-f]{16}", last) is not None


def _is_sealed(path: pathlib.Path) -> bool:
    """Returns whether a JSON file has a seal, right or wrong; False if there is no file.

    Raises InputError if it is damaged.
    """
    try:
        return SEAL in _parsed(path)
    except FileNotFoundError:
        return False


def read(path: pathlib.Path, limit: int = MAX_BYTES) -> bytes:
    """Returns the content of a file of at most `limit` bytes.

    Raises FileNotFoundError if there is none. Raises InputError for a link, for anything else that is no regular file,
    such as a pipe, and for a file that is too large or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path} is not a regular file")
            if status.st_size > limit:
                raise InputError(f"{path} has {status.st_size:,} bytes; expected at most {limit:,}")
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _unusable(path, error, "read") from error


def append(path: pathlib.Path) -> IO[bytes]:
    """Opens a file to append to it, and creates it if needed. Raises InputError for a link."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        return open(os.open(path, flags, 0o666), "ab")
    except OSError as error:
        raise _unusable(path, error, "written") from error


def write_atomically(path: pathlib.Path, content: bytes) -> None:
    """Writes a file so that `path` has the whole content or the earlier one, as `replacing` does."""
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """Context manager that gives a new file, whose name ends in `PART`, and renames it to `path` at the end.

    The content is flushed to the disk first. If the block raises an exception, the new file is deleted and `path` stays
    as it was. Raises InputError if `path` cannot be written, or another process is writing it.
    """
    partial = path.with_name(path.name + PART)
    try:
        _delete_leftover(partial)
        with partial.open("xb") as file:  # a file of ours: no link, and no second name of another file
            _lock(file)
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                partial.replace(path)
            except BaseException:
                partial.unlink(missing_ok=True)
                raise
    except (BlockingIOError, FileExistsError):
        raise InputError(f"{path} cannot be written: another process is writing it") from None
    except OSError as error:
        raise _unusable(path, error, "written") from error


def _delete_leftover(partial: pathlib.Path) -> None:
    """Deletes a partial file that a killed process left, or a link. Raises BlockingIOError if it is being written."""
    with contextlib.suppress(FileNotFoundError):
        if partial.is_file() and not partial.is_symlink():
            with open(os.open(partial, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)) as file:
                _lock(file)
        partial.unlink()


def _lock(file: IO[Any]) -> None:
    """Locks an open file until it is closed. Raises BlockingIOError if another process has locked it.

    Does nothing on a file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        pass


@contextlib.contextmanager
def replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Context manager that gives a new folder, whose name ends in `PART`, and renames it to `path` at the end.

    A folder at `path` is replaced whole. If the block raises an exception, it stays as it was. Waits while another
    process writes a folder beside it. Raises InputError if it cannot be written.
    """
    partial, former = path.with_name(path.name + PART), path.with_name(path.name + ".old")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked_folder(path.parent):
            if former.is_dir() and not path.exists():  # a process was killed between the two renames
                former.rename(path)
            for leftover in (partial, former):
                _delete_tree(leftover)
            partial.mkdir()
            try:
                yield partial
            except BaseException:
                _delete_tree(partial)
                raise
            if os.path.lexists(path):
                path.rename(former)
            partial.rename(path)
            _delete_tree(former)
    except OSError as error:
        raise _unusable(path, error, "written") from error


@contextlib.contextmanager
def _locked_folder(folder: pathlib.Path) -> Iterator[None]:
    """Context manager that holds an exclusive lock on a folder, once no other process has one. Makes no lock file."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _delete_tree(path: pathlib.Path) -> None:
    """Deletes a folder with its content, or a file, or a link but not its target; does nothing if there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def check_no_link(path: pathlib.Path) -> None:
    """Raises InputError if `path` is a link."""
    if path.is_symlink():
        raise InputError(f"{path} is a link to {os.readlink(path)}: a run's folder has to hold its own files")


def _unusable(path: pathlib.Path, error: OSError, verb: str) -> InputError:
    """Returns the error for a file that cannot be 'read' or 'written' (`verb`); the caller raises it."""
    reason = "it is a link" if path.is_symlink() else error.strerror or error
    return InputError(f"{path} cannot be {verb}: {reason}")
