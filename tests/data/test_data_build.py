"""Builds of data sets: killed, failed, repeated or concurrent, they leave whole data sets or nothing."""

import pathlib
import shutil
import subprocess
import sys
import threading
import time

import pytest

from cnnjax.data import build as build_module
from cnnjax.data import readers
from cnnjax.data.available import available
from cnnjax.data.build import build, load
from cnnjax.errors import InputError
from tests.data.original_files import assert_holds, silent, write_idx


def test_an_existing_data_set_is_left_alone_unless_told(tmp_path):
    write_idx(tmp_path)
    path = build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    before = (path / "dataset_info.json").stat().st_mtime_ns
    lines = []
    assert build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append) == path
    assert "already" in lines[0]
    assert (path / "dataset_info.json").stat().st_mtime_ns == before
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent, overwrite=True)
    assert (path / "dataset_info.json").stat().st_mtime_ns > before
    assert_nothing_left(tmp_path / "data", "mnist")


def assert_nothing_left(root: pathlib.Path, name: str) -> None:
    assert [path.name for path in (root / "downloads" / "cnnjax" / name).iterdir()] == ["lock"]
    assert [path.name for path in (root / name).iterdir()] == ["1.0.0"]


def test_building_prints_nothing_of_its_own(tmp_path, capfd):
    write_idx(tmp_path)
    lines = []
    build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append)
    assert capfd.readouterr() == ("", "")
    assert len(lines) == 2


def test_a_failed_build_is_not_read_and_is_built_again(tmp_path):
    truth = write_idx(tmp_path)
    whole = (tmp_path / "t10k-images-idx3-ubyte").read_bytes()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole[:-1])  # the training split is fine and comes first
    with pytest.raises(InputError, match="truncated"):
        build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert not (tmp_path / "data" / "mnist").exists()
    assert [row for row in available(str(tmp_path / "data")) if row.path] == []
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole)
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert_holds(tmp_path / "data", "mnist", truth)
    assert_nothing_left(tmp_path / "data", "mnist")


KILLED = """
import os, signal, sys
from cnnjax.data import build, readers
def dying(folder, entry, whole=readers.READERS["digits"]):
    def examples(split):
        for i, example in enumerate(whole(folder, entry)[1][split]):
            if split == "test" and i == 100:
                os.kill(os.getpid(), signal.SIGKILL)
            yield example
    return entry, {split: examples(split) for split in ("train", "test")}
readers.READERS["digits"] = dying
build.build("digits", data_dir=sys.argv[1])
"""


def test_a_killed_build_is_not_read_and_is_cleared_away(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    left = [path for path in tmp_path.rglob("*.array_record*") if "staging" in path.parts]
    assert left  # it died in the midst of writing
    assert [row for row in available(str(tmp_path)) if row.path] == []
    assert len(load("digits", "train", str(tmp_path), silent)) == 1438
    assert_nothing_left(tmp_path, "digits")


def test_what_a_killed_build_left_is_not_taken_over(made, tmp_path):
    truth = write_idx(tmp_path)
    left = tmp_path / "data/downloads/cnnjax/mnist/staging/mnist/1.0.0"
    shutil.copytree(made / "digits" / "1.0.0", left)  # complete, but who knows of what
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert_holds(tmp_path / "data", "mnist", truth)


def test_two_builds_at_once_make_one_data_set(tmp_path, monkeypatch):
    truth = write_idx(tmp_path)
    calls, lines, paths = [], [], []

    def slow(folder, entry, idx=readers.idx):
        calls.append(folder)
        time.sleep(0.5)
        return idx(folder, entry)

    monkeypatch.setitem(readers.READERS, "idx", slow)
    threads = [
        threading.Thread(
            target=lambda: paths.append(build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append))
        )
        for _ in range(2)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (len(calls), paths) == (1, [tmp_path / "data" / "mnist" / "1.0.0"] * 2)
    assert any("waiting" in line for line in lines)
    assert any("already" in line for line in lines)
    assert_holds(tmp_path / "data", "mnist", truth)


def test_the_report_comes_now_and_then(monkeypatch):
    lines = []
    monkeypatch.setattr(build_module, "_REPORT_SECONDS", 0)
    report = build_module._progress_logger("x train", "images", lines.append)
    time.sleep(0.01)
    report(1200, 5000)
    assert lines == ["x train: 1,200 of 5,000 images"]
