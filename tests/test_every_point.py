"""Commands that are ended at every write, rename, unlink and creation in their folder, and then go on.

A command runs once, and its folder is copied at each of these points: the copies are what killed processes leave. In
each copy the command is run again, to the result of one that was never killed. With CNNJAX_PART=K/N only every N-th.
"""

import functools
import json
import os
import pathlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from array_record.python import array_record_module  # pyright: ignore[reportAttributeAccessIssue]

from cnnjax import export, pretrained
from cnnjax.data import build
from cnnjax.evaluation.evaluate import evaluate
from tests import faults, tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def every_point(folder: pathlib.Path, *arguments: str) -> list[pathlib.Path]:
    """Runs a command of cnnjax to its end; returns the distinct copies of `folder`, or this commit's part of them."""
    copies, log = folder.with_name("copies"), folder.with_name("log")
    environment = os.environ | faults.watch(folder, log, copies=copies) | {"JAX_NUM_CPU_DEVICES": "1"}
    command = [sys.executable, "-m", "cnnjax", *arguments]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)
    distinct = faults.distinct(copies)
    part, parts = map(int, os.environ.get("CNNJAX_PART", "0/1").split("/"))
    chosen = distinct[part % parts :: parts]
    print(f"{faults.summary(faults.points(log))}; {len(distinct)} states, {len(chosen)} of them gone on from")
    return chosen


RESUME = """
import json, pathlib, sys
from tests import tiny
settings, data_dir, *folders = sys.argv[1:]
for folder in map(pathlib.Path, folders):
    lines = []
    result = tiny.run(folder, data_dir, lines=lines, **json.loads(settings))
    print(json.dumps([tiny.digest(folder, result["step"]), tiny.metrics_of(folder), tiny.numbers(result), lines]))
"""


def resumed(folders: list[pathlib.Path], digits_dir: str, changes: dict[str, Any]) -> list[list[Any]]:
    """Resumes runs in one process; returns of each the checkpoint's digest, metrics, result and lines of output."""
    command = [sys.executable, "-c", RESUME, json.dumps(changes), digits_dir, *map(str, folders)]
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[")]


@pytest.mark.parametrize("finished", [False, True], ids=["new", "resumed"])
def test_a_run_ended_at_any_point_ends_bit_for_bit_like_one_never_ended(
    finished: bool, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    changes = tiny.EVERYTHING | {"duration": "8 steps", "checkpoint_every": "4 steps", "keep_checkpoints": 1}
    config, folder = tmp_path / "config.json", tmp_path / "run"
    config.write_text(json.dumps(tiny.CONFIG | changes))
    if finished:
        tiny.interrupt(folder, digits_dir, 6, **changes)  # where a line is due: it averages the steps since the last
    copies = every_point(folder, "train", f"--config={config}", f"--workdir={folder}", f"--data_dir={digits_dir}")
    (expected,) = resumed([tmp_path / "whole"], digits_dir, changes)
    for copy, found in zip(copies, resumed(copies, digits_dir, changes), strict=True):
        assert found[:3] == expected[:3], copy
        assert not any("damaged" in line for line in found[3]), copy
        assert not (copy / "damaged").exists()
        assert not list(copy.glob("*.part"))
        assert not list(copy.glob("checkpoints/*tmp*"))


def files_of(data_dir: pathlib.Path) -> list[tuple[str, Any]]:
    """Returns the path and content of each file of the digits below `data_dir`.

    Of files of examples the bytes of each, sorted: protobuf writes the features of an example in any order.
    """
    path = data_dir / "digits"
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    return [(str(file.relative_to(path)), records(file) or file.read_bytes()) for file in files]


def records(path: pathlib.Path) -> list[bytes]:
    """Returns the sorted bytes of each record of an array_record file; [] for any other file."""
    if ".array_record" not in path.name:
        return []
    reader = array_record_module.ArrayRecordReader(str(path))
    try:
        return [bytes(sorted(record)) for record in reader.read_all()]
    finally:
        reader.close()


@pytest.mark.parametrize("overwrite", [False, True], ids=["new", "overwritten"])
def test_a_data_set_whose_build_is_ended_at_any_point_is_built(overwrite: bool, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "data"
    if overwrite:
        build.build("digits", data_dir=str(folder), log=lambda line: None)
    flags = [f"--data_dir={folder}", *(["--overwrite"] if overwrite else [])]
    for copy in every_point(folder, "data", "build", "digits", *flags):
        build.build("digits", data_dir=str(copy), log=lambda line: None)
        assert files_of(copy) == files_of(folder), copy


def test_a_data_set_whose_removal_is_ended_at_any_point_is_whole_or_gone(tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "data"
    build.build("digits", data_dir=str(folder), log=lambda line: None)
    whole = files_of(folder)
    for copy in every_point(folder, "data", "remove", "digits", f"--data_dir={folder}", "--yes"):
        assert files_of(copy) in (whole, []), copy
        build.build("digits", data_dir=str(copy), log=lambda line: None)
        assert files_of(copy) == whole, copy
    assert files_of(folder) == []


def content(folder: pathlib.Path, skip: str = "") -> dict[str, Any]:
    """Returns the files in a folder by name.

    Archives as their members, because they have the time; programs as what they compute, because their bytes differ
    from process to process; pictures as their ends, because matplotlib's settings differ; JSON files without the
    entry `skip`.
    """
    files = {}
    for path in sorted(folder.rglob("*")):
        data: Any = path.read_bytes() if path.is_file() else b""
        if path.suffix == ".json":
            data = {name: value for name, value in json.loads(data).items() if name != skip}
        if path.suffix == ".png":
            data = data[:8], data[-8:]
        if path.suffix == ".pth":
            with zipfile.ZipFile(path) as archive:
                data = {name: archive.read(name) for name in archive.namelist()}
        if path.suffix == ".stablehlo":
            images = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8, 1)
            data = np.asarray(jax.export.deserialize(bytearray(data)).call(images)).tolist()
        files[str(path.relative_to(folder))] = data
    return files


def again(copies: list[pathlib.Path], expected: dict[str, Any], run: Callable[[pathlib.Path], dict[str, Any]]) -> None:
    """Asserts that `run` leaves in each copy what the command left."""
    for copy in copies:
        assert run(copy) == expected, copy


@pytest.mark.filterwarnings("ignore:Creating legend with loc:UserWarning")  # on a busy machine
def test_an_evaluation_ended_at_any_point_has_a_whole_report_or_none(digits_dir: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    tiny.run(folder, digits_dir, duration="2 steps")
    evaluate(folder, data_dir=digits_dir, mesh=tiny.mesh())
    expected = content(folder / "evaluations", skip="folder")
    copies = every_point(folder, "evaluate", f"--workdir={folder}", f"--data_dir={digits_dir}")
    names = {name.partition("/")[0] for name in expected}
    for copy in copies:
        present = content(copy / "evaluations", skip="folder")
        report = {name: value for name, value in present.items() if name.partition("/")[0] in names}
        assert not report or report == expected, copy

    def run(copy: pathlib.Path) -> dict[str, Any]:
        evaluate(copy, data_dir=digits_dir, mesh=tiny.mesh())
        return content(copy / "evaluations", skip="folder")

    again(copies, expected, run)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".stablehlo", ".onnx", ".html"])
def test_an_export_ended_at_any_point_is_a_whole_file_or_none(
    suffix: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    run, folder = tmp_path / "run", tmp_path / "exported"
    tiny.run(run, digits_dir, duration="2 steps")
    folder.mkdir()
    name = f"network{suffix}"
    write = functools.partial(export.write, pretrained.load(run), log=lambda line: None)
    write(folder / name)
    expected = content(folder)
    copies = every_point(folder, "export", f"--workdir={run}", f"--to={folder / name}")
    for copy in copies:
        assert content(copy)[name] == expected[name], copy

    def export_again(copy: pathlib.Path) -> dict[str, Any]:
        write(copy / name)
        return content(copy)

    again(copies, expected, export_again)
