"""Ends a process at the n-th change of a folder, or copies the folder before each change: faults.c, preloaded.

A point is the moment before a write, rename, unlink, truncation or creation below the folder, and the middle of each
write. Files elsewhere, such as caches, do not count. There are two ways to use the points:

    status = subprocess.run(command, env=os.environ | faults.watch(folder, log, at=17)).returncode  # -9: ended there

    subprocess.run(command, env=os.environ | faults.watch(folder, log, copies=copies))  # to its end, but slower
    for copy in faults.distinct(copies): ...  # each is what a process that was killed there would have left

The second needs the command only once. Processes that the command starts count with it, and `at` ends the process that
reaches the point.
"""

import collections
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable

import pytest

_RECORD = 256  # bytes, as in faults.c


@functools.cache
def _library() -> str:
    """Compiles faults.c and returns the path of the library. Skips the test where that is not possible."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if not compiler or sys.platform != "linux":
        pytest.skip("needs Linux and a C compiler, to preload a library")
    path = os.path.join(tempfile.mkdtemp(prefix="faults-", dir=os.environ.get("CNNJAX_TEST_HOME")), "faults.so")
    source = pathlib.Path(__file__).with_name("faults.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", path, source, "-ldl"], check=True)
    return path


def watch(
    folder: pathlib.Path, log: pathlib.Path, *, at: int = 0, copies: pathlib.Path | None = None
) -> dict[str, str]:
    """Returns the environment variables for a command whose changes of `folder` are to be counted.

    Args:
      folder: the folder; it need not exist yet.
      log: a file outside `folder`, made by the command. Remove it before the next command.
      at: the point, counted from 1, at which the process is killed; 0 for none.
      copies: takes a copy of `folder` for each point, 00001, 00002, ...
    """
    if copies:
        copies.mkdir(parents=True, exist_ok=True)
    variables = {"FOLDER": folder.parent.resolve() / folder.name, "LOG": log, "AT": at, "COPIES": copies or ""}
    return {"LD_PRELOAD": _library()} | {f"FAULTS_{name}": str(value) for name, value in variables.items()}


def points(log: pathlib.Path) -> list[str]:
    """Returns the points so far, in order, such as 'open config.json.part' or 'half-write metrics.jsonl'."""
    data = log.read_bytes() if log.exists() else b""
    return [data[i : i + _RECORD].decode(errors="replace").rstrip() for i in range(0, len(data), _RECORD)]


def distinct(copies: pathlib.Path) -> list[pathlib.Path]:
    """Returns the copies that differ from the one before, in order: going on from equal ones gives the same."""
    kept: dict[str, pathlib.Path] = {}
    for copy in sorted(copies.iterdir()):
        kept.setdefault(_content(copy), copy)
    return list(kept.values())


def summary(points: Iterable[str]) -> str:
    """Returns the number of points of each kind, such as '120 points: 40 write, 40 half-write, 40 open'."""
    kinds = collections.Counter(point.partition(" ")[0] for point in points)
    return f"{kinds.total()} points: " + ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _content(folder: pathlib.Path) -> str:
    """Returns a digest of the names and contents of all files and folders below `folder`."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        digest.update(repr((str(path.relative_to(folder)), path.is_dir(), path.is_symlink(), content)).encode())
    return digest.hexdigest()
