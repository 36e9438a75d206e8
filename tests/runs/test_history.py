"""A run's metrics over time: what was written is read, what is damaged is set aside and said, and nothing else is."""

import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import pytest

from cnnjax.runs import history
from tests import faults
from tests.test_sealed import corruptions

ROOT = pathlib.Path(__file__).resolve().parents[2]
STEPS = (10, 20, 30, 40)


def write(folder: pathlib.Path, first: int = 0, test: bool = True, log=pytest.fail) -> None:
    """Writes the metrics of a run that goes on from step `first`, as a training does."""
    with history.MetricsWriter(folder, first, leader=True, log=log) as file:
        for step in STEPS:
            if step > first:
                file.write(step, step / 7, "train", {"loss": 1 / step, "accuracy": step / 100})
                file.write(step, step / 7, "val", {"loss": 2 / step})
        if test:
            file.write(STEPS[-1], STEPS[-1] / 7, "test", {"loss": 0.5})


def texts(folder: pathlib.Path) -> list[str]:
    return [line.text for line in history.read(folder).lines]


@pytest.fixture(autouse=True)
def _no_tensorboard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history.MetricsWriter, "_open_board", lambda *_: mock.Mock())


@pytest.fixture
def run(tmp_path: pathlib.Path) -> pathlib.Path:
    write(tmp_path)
    return tmp_path


def test_the_lines_are_json_and_each_has_its_checksum(run: pathlib.Path) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[0]) == {"step": 10, "epoch": 1.4286, "train/loss": 0.1, "train/accuracy": 0.1}
    assert texts(run) == lines
    assert len((run / "metrics.crc").read_text().splitlines()) == 1 + len(lines)


@pytest.mark.parametrize("first", [0, 20, 40])
def test_a_resumed_run_keeps_the_lines_up_to_its_checkpoint(first: int, run: pathlib.Path) -> None:
    before = (run / "metrics.jsonl").read_text()
    with history.MetricsWriter(run, first, leader=True, log=pytest.fail):
        assert len(texts(run)) == 2 * STEPS.index(first) + 2 if first else not texts(run)
    write(run, first)
    assert (run / "metrics.jsonl").read_text() == before
    assert not (run / "damaged").exists()


@pytest.mark.parametrize("name", ["metrics.jsonl", "metrics.crc"])
def test_a_damaged_line_is_set_aside_and_said_and_never_used(name: str, run: pathlib.Path) -> None:
    whole, data = texts(run), (run / name).read_bytes()
    assert history.read(run).is_whole
    for changed in corruptions(data, 160):
        if changed == data:
            continue
        (run / name).write_bytes(changed)
        found = history.read(run)
        intact = [line.text for line in found.lines]
        assert [text for text in whole if text in intact] == intact
        assert not found.is_whole or intact == whole
        said: list[str] = []
        write(run, 40, log=said.append)
        after = texts(run)
        assert [text for text in whole if text in after] == after
        assert said or after == whole, changed
        for file in (run / "metrics.jsonl", run / "metrics.crc"):
            file.unlink()
        write(run)


def test_a_damaged_line_is_kept_beside_the_run(run: pathlib.Path) -> None:
    path, said = run / "metrics.jsonl", []
    path.write_bytes(path.read_bytes().replace(b'"val/loss": 0.1}', b'"val/loss": 0.7}').replace(b"0.03333", b"\xef"))
    write(run, 40, log=said.append)
    assert said == [f"{path}: 2 lines are damaged or missing; what is left of them is put in damaged/metrics.jsonl"]
    assert len((run / "damaged" / "metrics.jsonl").read_bytes().splitlines()) == 2
    assert len(texts(run)) == 7
    write(run, 40)  # says it once


def test_a_run_of_a_version_without_checksums_goes_on(run: pathlib.Path) -> None:
    before = (run / "metrics.jsonl").read_text()
    (run / "metrics.crc").unlink()
    assert texts(run) == before.splitlines()
    write(run, 20)
    assert (run / "metrics.jsonl").read_text() == before


@pytest.mark.parametrize("checksums", [True, False])
def test_a_process_killed_anywhere_loses_and_suspects_no_line(checksums: bool, run: pathlib.Path) -> None:
    before = (run / "metrics.jsonl").read_text()
    if not checksums:
        (run / "metrics.crc").unlink()
    copies, log = run.parent / "copies", run.parent / "log"
    program = "import sys; from tests.runs.test_history import *; write(pathlib.Path(sys.argv[1]), 20)"
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | faults.watch(run, log, copies=copies)
    subprocess.run([sys.executable, "-c", program, run], env=environment, check=True)
    for copy in faults.distinct(copies):
        write(copy, 20)
        assert (copy / "metrics.jsonl").read_text() == before
        assert not (copy / "damaged").exists()
    print(faults.summary(faults.points(log)))


@pytest.mark.parametrize(
    "line", ["[]", "{}", '{"step": "a"}', '{"step": 1e999}', f'{{"step": {"9" * 400}}}', "[" * 9999]
)
def test_a_line_that_is_not_ours_is_no_metrics(line: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f"{line}\n")
    assert history.read(tmp_path).lines == []
