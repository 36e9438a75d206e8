"""Measurements saved as CSV, and comparisons of new measurements with them."""

import csv
import dataclasses
import pathlib
from collections.abc import Sequence

from cnnjax.bench.rows import Row
from cnnjax.errors import InputError

COLUMNS = tuple(field.name for field in dataclasses.fields(Row))
# Two rows are comparable if they are equal in these columns.
KEY_COLUMNS = ("machine", "cores", "devices", "model", "batch", "input", "dtype", "what")
NUMBER_COLUMNS = ("seconds", "seconds_q1", "seconds_q3", "memory_bytes")
SAME_MEMORY = 0.01  # relative difference below which two sizes count as the same

Record = dict[str, str]  # a row of the file: column -> text


def read(path: pathlib.Path) -> list[Record]:
    """Reads the rows of a CSV file that `append` wrote: column -> text, in file order.

    Raises InputError when the file cannot be read, lacks a column, or has text where a number is expected.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
            if missing:
                raise InputError(f"{path} has no column {missing[0]!r}; expected a file of cnnjax bench --csv=FILE")
            records = list(reader)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of cnnjax bench --csv=FILE") from error
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not a CSV file: {error}") from error
    for number, record in enumerate(records, 2):
        if None in record or None in record.values():
            raise InputError(f"{path}, row {number} does not have as many columns as the header: truncated or damaged")
        for name in NUMBER_COLUMNS:
            try:
                float(record[name] or 0)
            except ValueError:
                raise InputError(f"{path}, row {number}: {name} = {record[name]!r}: expected a number") from None
    return records


def append(path: pathlib.Path, row: Row) -> None:
    """Appends a row to the CSV file. Creates the file with its header if it is missing or empty."""
    is_new = not path.exists() or not path.stat().st_size
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow(["" if value is None else value for value in dataclasses.astuple(row)])


def check_writable(path: pathlib.Path) -> None:
    """Raises InputError if the file has other contents than `append` writes, or if its folder is missing."""
    if path.exists():
        if path.stat().st_size:
            read(path)
    elif not path.parent.is_dir():
        raise InputError(f"--csv={path}: there is no folder {path.parent}")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A measurement compared with the newest comparable one of the baseline.

    Attributes:
        row: the new measurement.
        ratio: new / baseline, of seconds or, if only memory was measured, of bytes; None without a comparable baseline.
        verdict: 'same', 'faster', 'slower', 'smaller', 'larger' or 'not in baseline'.
        is_regression: whether it is slower or larger by more than the tolerance.
    """

    row: Row
    ratio: float | None
    verdict: str
    is_regression: bool


def compare(rows: Sequence[Row], records: Sequence[Record], tolerance: float) -> list[Comparison]:
    """Compares each row with the newest comparable record: the last with the same values in `KEY_COLUMNS`.

    `records` are the baseline, as `read` returns it. Times are 'slower' or 'faster' only if their quartile ranges do
    not overlap, and memory 'larger' or 'smaller' from a difference of `SAME_MEMORY` on. Such a row is a regression if
    its ratio exceeds 1 + `tolerance`: 0.1 tolerates 10 %. Raises InputError if no row has a comparable record.
    """
    comparisons = []
    for row in rows:
        key = tuple(str(getattr(row, name)) for name in KEY_COLUMNS)
        matching = [record for record in records if tuple(record[name] for name in KEY_COLUMNS) == key]
        comparisons.append(
            _compare(row, matching[-1], tolerance) if matching else Comparison(row, None, "not in baseline", False)
        )
    if all(comparison.ratio is None for comparison in comparisons):
        machines = dict.fromkeys(f"{record['machine']}, {record['cores']} cores" for record in records)
        raise InputError(
            f"the baseline has no row for {rows[0].model} {rows[0].what}, batch {rows[0].batch}, on "
            f"{rows[0].machine}, {rows[0].cores} cores; its {len(records)} rows are of: "
            f"{' | '.join(machines) or 'none'}"
        )
    return comparisons


def _compare(row: Row, record: Record, tolerance: float) -> Comparison:
    """Compares a row with its baseline record: their seconds or, if one of them has none, their memory."""
    if row.seconds is None or not record["seconds"]:
        ratio = (row.memory_bytes or 0) / max(1.0, float(record["memory_bytes"] or 0))
        verdict = "same" if abs(ratio - 1) < SAME_MEMORY else "larger" if ratio > 1 else "smaller"
        return Comparison(row, ratio, verdict, ratio > 1 + tolerance)
    seconds, q1, q3 = (float(record[name]) for name in ("seconds", "seconds_q1", "seconds_q3"))
    ratio = row.seconds / seconds
    if (row.seconds_q1 or row.seconds) > q3:
        return Comparison(row, ratio, "slower", ratio > 1 + tolerance)
    return Comparison(row, ratio, "faster" if (row.seconds_q3 or row.seconds) < q1 else "same", False)
