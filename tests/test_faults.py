"""The layer that ends processes at a change of a folder: what counts, what is left, and what is not touched."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests import faults

CHANGES = """
import os, pathlib, sys
folder = pathlib.Path(sys.argv[1])
(folder.parent / "elsewhere").write_text("does not count")
folder.mkdir()
os.chdir(folder)
with open("a.part", "xb") as file:
    file.write(b"half")
os.rename("a.part", "a")
descriptor = os.open(folder, os.O_RDONLY)
os.mkdir("b", dir_fd=descriptor)
os.unlink("a", dir_fd=descriptor)
os.rmdir("b")
(folder / "a").exists()
"""
POINTS = ["open a.part", "write a.part", "half-write a.part", "rename a", "mkdirat b", "unlinkat a", "rmdir b"]
LEFT = [
    {},
    {"a.part": b""},
    {"a.part": b"ha"},
    {"a.part": b"half"},
    {"a": b"half"},
    {"a": b"half", "b": b""},
    {"b": b""},
]


def run(folder: pathlib.Path, log: pathlib.Path, program: str = CHANGES, **options: object) -> int:
    environment = os.environ | faults.watch(folder, log, **options)  # pyright: ignore[reportArgumentType]
    return subprocess.run([sys.executable, "-Sc", program, folder], env=environment).returncode


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: b"" if path.is_dir() else path.read_bytes() for path in folder.iterdir()}


def test_every_change_is_a_point_and_nothing_else_is(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path / "folder", tmp_path / "log") == 0
    assert faults.points(tmp_path / "log") == POINTS
    assert faults.summary(POINTS[:2]) == "2 points: 1 open, 1 write"


@pytest.mark.parametrize("number", range(1, len(POINTS) + 1))
def test_a_process_ends_at_the_point_and_leaves_what_was_done_before(tmp_path: pathlib.Path, number: int) -> None:
    assert run(tmp_path / "folder", tmp_path / "log", at=number) == -9
    assert len(faults.points(tmp_path / "log")) == number
    assert content(tmp_path / "folder") == LEFT[number - 1]


def test_the_copies_are_what_the_ended_processes_leave(tmp_path: pathlib.Path) -> None:
    assert run(tmp_path / "folder", tmp_path / "log", copies=tmp_path / "copies") == 0
    assert [content(copy) for copy in sorted((tmp_path / "copies").iterdir())] == LEFT
    assert len(faults.distinct(tmp_path / "copies")) == len(LEFT)


def test_processes_and_threads_have_one_order(tmp_path: pathlib.Path) -> None:
    program = """
import os, subprocess, sys, threading
def write(name):
    with open(os.path.join(sys.argv[1], name), "wb", buffering=0) as file:
        for _ in range(20): file.write(b"xy")
if len(sys.argv) == 2:
    os.mkdir(sys.argv[1])
    processes = [subprocess.Popen([sys.executable, "-Sc", os.environ["PROGRAM"], sys.argv[1], str(i)]) for i in "12"]
    sys.exit(sum(process.wait() for process in processes))
threads = [threading.Thread(target=write, args=(sys.argv[2] + i,)) for i in "abc"]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
    environment = os.environ | faults.watch(tmp_path / "folder", tmp_path / "log") | {"PROGRAM": program}
    assert subprocess.run([sys.executable, "-Sc", program, tmp_path / "folder"], env=environment).returncode == 0
    assert len(faults.points(tmp_path / "log")) == 2 * 3 * (1 + 20 * 2)
    assert all(len(path.read_bytes()) == 40 for path in (tmp_path / "folder").iterdir())
