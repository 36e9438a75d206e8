"""Measurements saved as CSV, and comparisons with them."""

import dataclasses
import pathlib
from typing import Any

import pytest

from cnnjax.bench import baseline, rows
from cnnjax.errors import InputError


def row(seconds: float | None = 1.0, spread: float = 0.1, **changes: Any) -> rows.Row:
    values = {field.name: "" for field in dataclasses.fields(rows.Row) if field.default is dataclasses.MISSING}
    values |= {"machine": "Abacus", "cores": 2, "devices": 1, "model": "lenet5", "batch": 8, "what": "train"}
    times = (
        {} if seconds is None else {"seconds": seconds, "seconds_q1": seconds - spread, "seconds_q3": seconds + spread}
    )
    return rows.Row(**values | times | changes)  # pyright: ignore[reportArgumentType]


def saved(path: pathlib.Path, *added: rows.Row) -> list[baseline.Record]:
    for new_row in added:
        baseline.append(path, new_row)
    return baseline.read(path)


def test_rows_are_read_as_they_were_appended(tmp_path: pathlib.Path) -> None:
    model = 'lenet5(activation="tanh", pool="max")'
    records = saved(tmp_path / "kept.csv", row(model=model), row(seconds=None, memory_bytes=7))
    assert [record["model"] for record in records] == [model, "lenet5"]
    assert [record["seconds"] for record in records] == ["1.0", ""]
    assert records[1]["memory_bytes"] == "7"
    path = tmp_path / "kept.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")  # as Excel saves it
    assert baseline.read(path) == records


# Baseline, new row, verdict, and whether it is a regression with a tolerance of 10 %.
CHANGES = {
    "the same": (row(), row(), "same", False),
    "slower within the spread": (row(1.0, 0.2), row(1.3, 0.2), "same", False),
    "slower within the tolerance": (row(1.0, 0.01), row(1.05, 0.01), "slower", False),
    "slower": (row(1.0, 0.01), row(1.2, 0.01), "slower", True),
    "faster": (row(1.0, 0.01), row(0.8, 0.01), "faster", False),
    "larger": (row(None, memory_bytes=100), row(None, memory_bytes=120), "larger", True),
    "smaller": (row(None, memory_bytes=100), row(None, memory_bytes=80), "smaller", False),
    "as large": (row(None, memory_bytes=1000), row(None, memory_bytes=1001), "same", False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_has_become_slower(case: str, tmp_path: pathlib.Path) -> None:
    before, now, verdict, is_regression = CHANGES[case]
    (comparison,) = baseline.compare([now], saved(tmp_path / "kept.csv", row(9.0, machine="other"), before), 0.1)
    assert (comparison.verdict, comparison.is_regression) == (verdict, is_regression)


def test_the_newest_row_counts_and_a_missing_one_is_named(tmp_path: pathlib.Path) -> None:
    records = saved(tmp_path / "kept.csv", row(5.0), row(1.0))
    first, second = baseline.compare([row(2.0), row(2.0, model="vgg16")], records, 0.1)
    assert first.ratio == 2.0
    assert second == baseline.Comparison(row(2.0, model="vgg16"), None, "not in baseline", False)


@pytest.mark.parametrize("column", ["machine", "cores", "devices", "model", "batch", "input", "dtype", "what"])
def test_only_the_same_is_compared(column: str, tmp_path: pathlib.Path) -> None:
    records = saved(tmp_path / "kept.csv", row(**{column: 77}))
    with pytest.raises(InputError, match="the baseline has no row for lenet5 train, batch 8, on Abacus, 2 cores"):
        baseline.compare([row()], records, 0.1)


DAMAGED = {
    "empty": (lambda text: "", "has no column 'date'"),
    "another file": (lambda text: "a,b\n1,2\n", "has no column 'date'"),
    "a column is gone": (lambda text: text.replace("seconds_q3", "q3", 1), "has no column 'seconds_q3'"),
    "no number": (lambda text: text.replace(",1.0,", ",fast,"), "row 2: seconds = 'fast': expected a number"),
    "cut off": (lambda text: text[: text.index(",1.0,")], "row 2 does not have as many columns as the header"),
    "no text": (lambda text: "\0\xff", "is not a CSV file"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_named_with_its_fault(case: str, tmp_path: pathlib.Path) -> None:
    damage, message = DAMAGED[case]
    path = tmp_path / "kept.csv"
    saved(path, row())
    path.write_text(damage(path.read_text()), encoding="latin-1")
    with pytest.raises(InputError, match=r"kept\.csv") as error:
        baseline.read(path)
    assert message in str(error.value)
