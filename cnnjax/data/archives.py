"""Reads untrusted tar and zip archives without unpacking them to disk.

Only the names, offsets and sizes of regular files are read from a tar. Python's tarfile would read a header of
any size into memory, and searches headers in ways that can take for ever.
"""

import contextlib
import dataclasses
import gzip
import os
import pathlib
import zipfile
import zlib
from collections.abc import Iterator
from io import BufferedIOBase

from cnnjax import limits
from cnnjax.errors import InputError

_BLOCK = 512
_MAX_NAME_BYTES = 8 * _BLOCK
_MAX_EXTENSIONS = 1000  # an archive never has more headers in a row that only name a file
_MAX_DIRECTORY_BYTES = 4 << 20  # of a zip archive: about 60,000 files, which take half a second
DAMAGED = (OSError, EOFError, ValueError, zlib.error)  # what a damaged archive raises


@dataclasses.dataclass(frozen=True)
class Member:
    """A regular file in an archive.

    Attributes:
      name: its path in the archive.
      start: position of its first byte in the file that holds the archive.
      size: number of its bytes.
    """

    name: str
    start: int
    size: int


def members(file: BufferedIOBase, start: int, end: int) -> Iterator[Member]:
    """Yields the regular files of the tar archive at `start` of a file, in order, until a block of zeros or the end.

    The archive must end before `end`. Raises ValueError for a damaged archive.
    """
    name, extensions = "", 0
    while header := _read(file, start, _BLOCK):
        if len(header) < _BLOCK:
            raise ValueError("it ends within a header")
        if not any(header):
            return
        size, kind = _number(header[124:136]), header[156:157]
        if sum(header[:148]) + 8 * ord(" ") + sum(header[156:]) != _number(header[148:156]):
            raise ValueError("expected a tar header")
        start += _BLOCK
        if start + size > end:
            raise ValueError(f"a file of {size:,} bytes, where at most {max(end - start, 0):,} are left")
        if kind in (b"L", b"x") and (extensions := extensions + 1) <= _MAX_EXTENSIONS:
            name = _long_name(kind, _read(file, start, min(size, _MAX_NAME_BYTES))) or name
        else:
            if kind in (b"0", b"\0", b"7"):
                yield Member(name or _name(header), start, size)
            name, extensions = "", 0
        start += -(-size // _BLOCK) * _BLOCK


def _read(file: BufferedIOBase, start: int, size: int) -> bytes:
    file.seek(start)
    return file.read(size)


def _number(field: bytes) -> int:
    """Returns an octal number of a header. Raises ValueError for another form, such as that of sizes above 8 GB."""
    digits = field.strip(b" \0")
    if not digits.isdigit():
        raise ValueError("a tar header with an invalid number")
    return int(digits, 8)


def _name(header: bytes) -> str:
    """Returns the path in a header: its name, after its prefix if it has one."""
    name, prefix = (field.partition(b"\0")[0] for field in (header[:100], header[345:500]))
    has_prefix = header[257:263] == b"ustar\0" and prefix
    return (prefix + b"/" + name if has_prefix else name).decode(errors="replace")


def _long_name(kind: bytes, data: bytes) -> str:
    """Returns the path of the next file in the data of a header of GNU (b'L') or POSIX (b'x'); '' if it has none."""
    if kind == b"L":
        return data.partition(b"\0")[0].decode(errors="replace")
    paths = [line.partition(b" path=")[2] for line in data.split(b"\n") if b" path=" in line[:16]]
    return paths[0].decode(errors="replace") if paths else ""


@dataclasses.dataclass(frozen=True)
class Tar:
    """An open, uncompressed archive.

    Attributes:
      where: path of the archive, with the path inside it if nested; begins its errors.
      file: the open file that holds it.
      members: its regular files, in order.
    """

    where: pathlib.Path
    file: BufferedIOBase
    members: tuple[Member, ...]

    def read(self, member: Member) -> bytes:
        """Returns the bytes of a file in the archive."""
        return _read(self.file, member.start, member.size)

    def nested(self, member: Member) -> "Tar":
        """Opens a tar that is a file in this one. Raises InputError if it is damaged or not a tar."""
        return _index(self.where / member.name, self.file, member.start, member.start + member.size)


@contextlib.contextmanager
def open_tar(path: pathlib.Path) -> Iterator[Tar]:
    """Opens an uncompressed tar archive. Raises InputError if it is not an intact tar."""
    with path.open("rb") as file:
        yield _index(path, file, 0, path.stat().st_size)


def _index(where: pathlib.Path, file: BufferedIOBase, start: int, end: int) -> Tar:
    """Returns the archive from `start` to `end` of a file."""
    try:
        return Tar(where, file, tuple(members(file, start, end)))
    except DAMAGED as error:
        raise InputError(f"{where} is truncated or not a tar: {error}") from error


def read_tar_gz(path: pathlib.Path, sizes: dict[str, int]) -> dict[str, bytes]:
    """Reads files of a .tar.gz, by their names without folders, in one pass.

    Args:
      path: the archive.
      sizes: {name of a file: the most bytes that it may have}. The whole archive may have twice their sum.

    Raises InputError for an archive that is damaged, too large, or lacks one of the files.
    """
    contents: dict[str, bytes] = {}
    most = 2 * sum(sizes.values())
    try:
        with gzip.open(path) as file:
            for member in members(file, 0, most):
                name = os.path.basename(member.name)
                if name in sizes:
                    limits.check_size(f"{path}: {name}", member.size, sizes[name])
                    contents[name] = _read(file, member.start, member.size)
                    if len(contents[name]) < member.size:
                        raise ValueError(f"{name} is cut")
    except InputError:
        raise
    except DAMAGED as error:
        size = f"{path.stat().st_size:,} bytes, of which at most {most:,} are unpacked"
        raise InputError(f"{path} ({size}) is truncated or not a tar.gz: {error}") from error
    for name in sizes:
        if name not in contents:
            raise InputError(f"{path} has no {name}; expected {', '.join(sizes)}")
    return contents


class _LimitedReads:
    """A file for `zipfile.ZipFile`, of which one read may get at most `limit` bytes. None means no limit."""

    def __init__(self, file: BufferedIOBase, limit: int | None) -> None:
        self.limit, self._file = limit, file
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Reads `size` bytes, or all. Raises BadZipFile if `size` is above the limit."""
        if self.limit is not None and size > self.limit:
            raise zipfile.BadZipFile(f"its directory has {size:,} bytes, more than the limit of {self.limit:,}")
        return self._file.read(size)


def open_zip(file: BufferedIOBase) -> zipfile.ZipFile:
    """Opens a zip archive to read it. The archive does not close the file.

    Raises BadZipFile, or one of `DAMAGED`, for a damaged archive and one with too many files.
    """
    limited = _LimitedReads(file, _MAX_DIRECTORY_BYTES)
    archive = zipfile.ZipFile(limited)  # type: ignore[call-overload] - has what ZipFile needs
    limited.limit = None
    return archive
