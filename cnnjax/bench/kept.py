"""Measurements kept as CSV, and what has become slower since."""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from cnnjax.bench.rows import Row
from cnnjax.errors import InputError

COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
SAME = ("machine", "cores", "devices", "model", "batch", "input", "dtype", "what")  # what makes two rows comparable
_NUMBERS = ("seconds", "seconds_q1", "seconds_q3", "memory_bytes")

Line = dict[str, str]  # a row of the file, by column


def read(path: pathlib.Path) -> list[Line]:
    """The rows of a file that `append` wrote, in its order.

    Raises InputError when it cannot be read, is not such a file, or has something else where a number should be.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}; expected a file of cnnjax bench --csv=FILE")
            rows = list(reader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of cnnjax bench --csv=FILE") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    for number, row in enumerate(rows, 2):
        if None in row or None in row.values():
            raise InputError(f"{path}, row {number} has not the columns of the first line: it is cut off, or damaged")
        for name in _NUMBERS:
            try:
                float(row[name] or 0)
            except ValueError:
                raise InputError(f"{path}, row {number}: {name} = {row[name]!r}: expected a number") from None
    return rows


def append(path: pathlib.Path, row: Row) -> None:
    """Adds a row to the file; makes it, with its first line, where there is none."""
    new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if new:
            writer.writerow(COLUMNS)
        writer.writerow(["" if value is None else value for value in dataclasses.astuple(row)])


def check_writable(path: pathlib.Path) -> None:
    """Raises InputError where rows cannot be added, before the time to measure them is spent."""
    if path.exists():
        if path.stat().st_size:
            read(path)
    elif not path.parent.is_dir():
        raise InputError(f"--csv={path}: there is no folder {path.parent}")


class Verdict(NamedTuple):
    row: Row
    ratio: float | None  # today's by the newest kept: of seconds, or of bytes where memory alone was asked for
    word: str
    worse: bool  # by more than the tolerance, and outside the spread


def compare(rows: Sequence[Row], lines: Sequence[Line], tolerance: float) -> list[Verdict]:
    """What has become of each row since the newest kept one of the same machine, network, batch and so on.

    A time is 'same' where the quartiles of the two overlap. Raises InputError when nothing kept is comparable.
    """
    verdicts = []
    for row in rows:
        key = tuple(str(getattr(row, name)) for name in SAME)
        found = [line for line in lines if tuple(line[name] for name in SAME) == key]
        verdicts.append(_judge(row, found[-1], tolerance) if found else Verdict(row, None, "not kept", False))
    if all(verdict.ratio is None for verdict in verdicts):
        machines = " | ".join(dict.fromkeys(f"{line['machine']}, {line['cores']} cores" for line in lines)) or "none"
        raise InputError(
            f"nothing kept is comparable to {rows[0].model} {rows[0].what}, batch {rows[0].batch}, on "
            f"{rows[0].machine}, {rows[0].cores} cores; there are {len(lines)} rows, of machines: {machines}"
        )
    return verdicts


def _judge(row: Row, line: Line, tolerance: float) -> Verdict:
    if row.seconds is None or not line["seconds"]:
        ratio = (row.memory_bytes or 0) / max(1.0, float(line["memory_bytes"] or 0))
        word = "same" if abs(ratio - 1) < 0.01 else "larger" if ratio > 1 else "smaller"
        return Verdict(row, ratio, word, ratio > 1 + tolerance)
    seconds, low, high = (float(line[name]) for name in ("seconds", "seconds_q1", "seconds_q3"))
    ratio = row.seconds / seconds
    if (row.seconds_q1 or row.seconds) > high:
        return Verdict(row, ratio, "slower", ratio > 1 + tolerance)
    return Verdict(row, ratio, "faster" if (row.seconds_q3 or row.seconds) < low else "same", False)
