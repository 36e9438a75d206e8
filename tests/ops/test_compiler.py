"""Compiled C++ libraries: compiled once, loaded only if intact and out of reach of other users."""

import pathlib
from collections.abc import Callable

import pytest

from cnnjax import cache
from cnnjax.ops import compiler

# Stands for g++: notes each call, and "compiles" to the file after -o.
COMPILER = """#!/bin/sh
echo run >>"{folder}/runs"
while [ "$1" != -o ]; do shift; done
printf 'the library %s' "$*" >"$2"
"""


@pytest.fixture
def runs(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns a function that counts the compilations so far."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = tmp_path / "c++"
    path.write_text(COMPILER.format(folder=tmp_path))
    path.chmod(0o755)
    monkeypatch.setenv("CXX", str(path))
    return lambda: (tmp_path / "runs").read_text().count("run")


def truncate(library: pathlib.Path) -> None:
    library.write_bytes(library.read_bytes()[:9])


def flip_bit(library: pathlib.Path) -> None:
    data = bytearray(library.read_bytes())
    data[5] ^= 4
    library.write_bytes(data)


def exchange(library: pathlib.Path) -> None:
    other = compiler.compile_library("jpeg", ["-lother"])
    library.write_bytes(other.read_bytes())


def lose_digest(library: pathlib.Path) -> None:
    library.with_name(f"{library.name}.sha256").unlink()


@pytest.mark.parametrize("damage", [pathlib.Path.unlink, truncate, flip_bit, exchange, lose_digest])
def test_a_library_is_compiled_once_and_again_when_it_is_damaged(
    damage: Callable[[pathlib.Path], None], runs: Callable[[], int]
) -> None:
    library = compiler.compile_library("jpeg", ["-lx"])
    whole = library.read_bytes()
    assert compiler.compile_library("jpeg", ["-lx"]) == library
    assert runs() == 1
    damage(library)
    before = runs()
    assert compiler.compile_library("jpeg", ["-lx"]) == library
    assert runs() == before + 1
    assert len(library.read_bytes()) == len(whole)
    assert compiler.compile_library("jpeg", ["-lx"]) == library
    assert runs() == before + 1


def test_the_compiler_may_be_called_by_another_program(
    runs: Callable[[], int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", f"env -u NOTHING '{tmp_path / 'c++'}' -DX")
    assert compiler.compile_library("jpeg", ["-lx"]).read_text().startswith("the library -o ")
    assert runs() == 1


@pytest.mark.parametrize("name", ["", "native", "native/library"])
def test_a_library_that_others_can_write_is_not_loaded(name: str, runs: Callable[[], int]) -> None:
    library = compiler.compile_library("jpeg", ["-lx"])
    (library if name == "native/library" else cache.folder(name)).chmod(0o777)
    with pytest.raises(PermissionError, match="not used, as other users can write there"):
        compiler.compile_library("jpeg", ["-lx"])
