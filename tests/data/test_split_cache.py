"""The cache of decoded splits: a hit for the same files and operations only, and damage is repaired."""

import os
import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax import spec
from cnnjax.data import build, split_cache, transforms
from cnnjax.data.pipeline import read
from cnnjax.data.store import Split


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The cache folder; computations of any length are cached."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(split_cache, "MIN_SECONDS_TO_CACHE", 0.0)
    return tmp_path / "cnnjax" / "pixels"


def pixels(split: Split, calls: str = "") -> tuple[dict[str, np.ndarray], bool]:
    """Returns the pixels of a split, and whether they were computed anew."""
    reads = []
    rows = np.arange(len(split))

    def compute() -> dict[str, np.ndarray]:
        reads.append(calls)
        return read(split, spec.parse_pipeline(calls), rows, rows, 0)

    return split_cache.cached_arrays(split, spec.parse_pipeline(calls), compute), bool(reads)


def test_pixels_are_kept_for_the_same_split_files_and_operations(
    digits: Split, photographs: Split, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, read = pixels(digits)
    assert read
    again, read = pixels(digits)
    assert not read
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert pixels(digits, "resize(4)")[1]
    assert pixels(build.load("digits", "train[:99]", str(digits._path.parents[1])))[1]
    assert pixels(photographs, "resize((8, 8))")[1]
    for path in photographs._path.iterdir():
        os.utime(path, (1, 1))
    assert pixels(photographs, "resize((8, 8))")[1]
    monkeypatch.setattr(split_cache, "MIN_SECONDS_TO_CACHE", 60.0)
    assert [pixels(digits, "resize(5)")[1] for _ in range(2)] == [True, True]  # fast enough without


def test_pixels_of_operations_of_ones_own_follow_their_code(
    digits: Split, folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, means = tmp_path / "mine.py", []
    for code in ("image // 2", "image // 2", "image // 4"):
        file.write_text(f"def darken(image):\n    return {code}\n")
        names: dict[str, Any] = {}
        exec(compile(file.read_text(), str(file), "exec"), names)
        monkeypatch.setitem(transforms.HOST_OPS, "darken", names["darken"])
        arrays, read = pixels(digits, "darken")
        means.append((arrays["image"].mean(), read))
    assert means[0][0] == means[1][0] > means[2][0]
    assert [read for _, read in means] == [True, False, True]
    file.unlink()  # as in a notebook
    assert [pixels(digits, "darken")[1] for _ in range(2)] == [True, True]


def test_damaged_pixels_are_read_anew(digits: Split, folder: pathlib.Path) -> None:
    first, _ = pixels(digits)
    (path,) = folder.iterdir()
    whole = path.read_bytes()
    for damaged in (b"", whole[:1000], whole[: len(whole) // 2] + b"\xff" + whole[len(whole) // 2 + 1 :]):
        path.write_bytes(damaged)
        again, read = pixels(digits)
        assert read
        assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not pixels(digits)[1]


def test_pixels_that_were_not_used_for_longest_make_room(
    digits: Split, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_cache, "MAX_CACHE_BYTES", 3 * 8000)  # each of these has 6,400 bytes of pixels
    calls = [f"pad(8, value={i})" for i in range(4)]
    for call in calls[:3]:
        assert pixels(digits, call)[1]
    for i, path in enumerate(sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)):
        os.utime(path, (i, i))
    assert not pixels(digits, calls[0])[1]
    assert pixels(digits, calls[3])[1]
    assert [pixels(digits, call)[1] for call in (calls[0], calls[3], calls[2], calls[1])] == [False, False, False, True]


def test_pixels_that_cannot_be_written_are_not_kept(
    digits: Split, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_cache, "MIN_SECONDS_TO_CACHE", 0.0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [pixels(digits)[1] for _ in range(2)] == [True, True]
