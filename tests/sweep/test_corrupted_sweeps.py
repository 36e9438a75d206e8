"""Thousands of single corruptions of the files of a sweep: each is harmless or said, none used, none a traceback."""

import json
import pathlib

import pytest

from cnnjax.errors import InputError
from cnnjax.sweep import record, report
from cnnjax.sweep.settings import read
from tests.sweep.test_damage import run, settings
from tests.test_sealed import corruptions

PER_FILE = {"journal.log": 600, "sweep.json": 300, "config.json": 60, "metrics.jsonl": 60, "result.json": 40}


def shown(folder: pathlib.Path, log: list[str]) -> str:
    """Returns what `cnnjax sweep show` and `best` show, or the error."""
    try:
        sweep = record.open_sweep(folder, read(folder), log.append)
        table = [row | {"seconds": None} for row in report.rows(sweep)]
        return json.dumps([table, report.best(sweep).lr])
    except InputError as error:
        log.append(str(error))
        return ""


@pytest.mark.slow
def test_no_corruption_of_a_sweep_is_used(tmp_path: pathlib.Path) -> None:
    run(tmp_path / "s", settings())
    clean = shown(tmp_path / "s", nothing := [])
    assert nothing == []
    total = said = 0
    for path in sorted(path for path in (tmp_path / "s").rglob("*") if path.name in PER_FILE):
        data = path.read_bytes()
        for number, changed in enumerate(corruptions(data, PER_FILE[path.name])):
            path.write_bytes(changed)
            log: list[str] = []
            assert shown(tmp_path / "s", log) == clean or log, f"{path.name}, corruption {number}: {changed!r}"
            total, said = total + 1, said + bool(log)
        path.write_bytes(data)
    print(f"{total} corruptions, {said} said, 0 used")
    assert said > total // 3
