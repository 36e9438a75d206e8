"""The journal of a sweep: Optuna's record of its trials as lines of JSON, each with a checksum.

Optuna identifies trials by counting lines, so that a line lost, repeated or altered gives later trials the results of
others. The checksum of a line therefore covers all bytes before it, too. Lines that belong together are written
together, and count only if all of them are there. What is lost at the end leaves no trace here, but the folders of the
trials tell it (`cnnjax.sweep.record`). Optuna and its dashboard read the file as their own.
"""

import bisect
import contextlib
import io
import json
import os
import pathlib
import re
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend

from cnnjax import sealed
from cnnjax.runs import workdir

MAX_BYTES = 1 << 32
_SEALED = re.compile(rb'(\{.*),"crc":(\d{1,10})\}\n')
_ATTRIBUTES = (2, 3, 8, 9)  # Optuna's op_codes for attributes, which its dashboard writes (notes), without a checksum


class Journal(BaseJournalBackend):
    """A journal in a file, with one writing process; `claim` of a sweep's folder sees to that.

    Attributes:
      damage: text for the user about damaged lines; the journal from the first one on was set aside. '' if there
        were none.
    """

    def __init__(self, path: pathlib.Path, writable: bool) -> None:
        """Reads the journal, if there is one. Unless `writable`, lines are appended in memory only.

        If writable, an incomplete end, left by a kill, is removed, and a damaged journal is renamed and replaced
        by its intact beginning.
        """
        self._path, self._writable = path, writable
        self._unwritten: list[dict[str, Any]] = []
        self._in_transaction = False
        try:
            content = sealed.read(path, MAX_BYTES)
        except FileNotFoundError:
            content = b""
        self._logs, self._size, bad_line = _parse(content)
        self._crc = zlib.crc32(content[: self._size])
        self.damage = f"{path} is damaged in line {bad_line}" if bad_line else ""
        if writable and self._size < len(content):
            if bad_line:
                aside = workdir.unused_path(path.with_name(f"{path.name}.damaged"))
                sealed.write_atomically(aside, content)
                self.damage += f" and was set aside as {aside.name}"
            sealed.write_atomically(path, content[: self._size])

    def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
        """Returns the lines from number `log_number_from` on, parsed, as Optuna asks."""
        return iter(self._logs[log_number_from:])

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends lines to the journal. Within a transaction, they are written to the file when it ends."""
        self._logs += logs
        self._unwritten += logs
        if not self._in_transaction:
            self._write()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """Context manager that writes all lines appended within it at once: after a kill, all of them count or none.

        Transactions can be nested: the outermost one writes.
        """
        is_inner, self._in_transaction = self._in_transaction, True
        try:
            yield
        finally:
            self._in_transaction = is_inner
        if not is_inner:
            self._write()

    def _write(self) -> None:
        """Appends the unwritten lines to the file in one write."""
        if self._writable and self._unwritten:
            with sealed.append(self._path) as file:
                self._skip_added(file.tell())
                data = b""
                for i, log in enumerate(self._unwritten, 1):
                    line = _seal(log | {"left": len(self._unwritten) - i}, zlib.crc32(data, self._crc))
                    data += line
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._size, self._crc = self._size + len(data), zlib.crc32(data, self._crc)
        self._unwritten = []

    def _skip_added(self, size: int) -> None:
        """Counts the lines of other programs, such as notes written in Optuna's dashboard, among the bytes before."""
        if size > self._size:
            with self._path.open("rb") as file:
                file.seek(self._size)
                added = file.read(size - self._size)
            self._size, self._crc = size, zlib.crc32(added, self._crc)


def _seal(log: dict[str, Any], crc: int) -> bytes:
    """Returns a line of the journal: `log` as JSON, with a checksum as its last entry.

    It is the CRC-32 of the line without it and of all bytes before, whose CRC-32 is `crc`. The entry 'left' is the
    number of lines of the same transaction that follow.
    """
    text = json.dumps(log, separators=(",", ":"))
    return f'{text[:-1]},"crc":{zlib.crc32(text.encode(), crc)}}}\n'.encode()


def _parse(content: bytes) -> tuple[list[dict[str, Any]], int, int]:
    """Parses a journal up to its first damaged or incomplete line, without the lines of an incomplete transaction.

    Returns the lines, their size in bytes, and the number of the damaged line, 0 if there is none.
    """
    logs: list[dict[str, Any]] = []
    ends, crc, complete, sealed, bad_line = [0], 0, 0, 0, 0
    for line in io.BytesIO(content):
        if not line.endswith(b"\n"):
            break
        log = _parse_line(line, crc, strict=sealed > 0)
        if log is None:
            bad_line = len(logs) + 1
            break
        logs.append(log)
        ends.append(ends[-1] + len(line))
        crc = zlib.crc32(line, crc)
        sealed += "left" in log
        complete = complete if log.get("left") else len(logs)
    if sealed < complete:  # an earlier version wrote lines without checksums: are they what Optuna expects?
        replayed = bisect.bisect_left(range(complete + 1), True, key=lambda count: not _can_replay(logs[:count])) - 1
        complete, bad_line = (replayed, replayed + 1) if replayed < complete else (complete, bad_line)
    return logs[:complete], ends[complete], bad_line


def _parse_line(line: bytes, crc: int, strict: bool) -> dict[str, Any] | None:
    """Parses a line of the journal, where `crc` is the CRC-32 of all bytes before it. Returns None if it is damaged.

    If `strict`, a line without a checksum counts as damaged unless it sets an attribute, as Optuna's dashboard does.
    """
    match = _SEALED.fullmatch(line)
    text = match[1] + b"}" if match else line
    if match and zlib.crc32(text, crc) != int(match[2]):
        return None
    try:
        log = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(log, dict) or (strict and not match and log.get("op_code") not in _ATTRIBUTES):
        return None
    return log


def _can_replay(logs: list[dict[str, Any]]) -> bool:
    """Returns whether Optuna can replay these lines as trials."""

    class Lines(BaseJournalBackend):
        def read_logs(self, log_number_from: int) -> Iterable[dict[str, Any]]:
            return iter(logs[log_number_from:])

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            raise NotImplementedError

    try:
        JournalStorage(Lines())
    except Exception:  # Optuna checks nothing, so that anything can be raised
        return False
    return True
