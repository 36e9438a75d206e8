"""Compiled programs on disk: each is bound to its key, and none that is damaged or moved is run."""

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache.compilation_cache import reset_cache

from cnnjax import cache, compilation_cache


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pathlib.Path]:
    """Makes JAX cache in a folder of this test."""
    names = ("compilation_cache_dir", "persistent_cache_min_compile_time_secs", "persistent_cache_min_entry_size_bytes")
    before = {f"jax_{name}": jax.config.values[f"jax_{name}"] for name in names}
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    reset_cache()
    assert compilation_cache.enable() == ""
    yield cache.folder("xla")
    for name, value in before.items():
        jax.config.update(name, value)
    reset_cache()


def results(*factors: float) -> list[float]:
    """Compiles, or takes from the cache, a program for each factor. Returns 10 times each factor if all is well."""
    jax.clear_caches()

    def program(factor: float) -> float:
        def multiply_by_constant(x: jax.Array) -> jax.Array:
            return x * factor

        return float(jax.jit(multiply_by_constant)(jnp.float32(10)))

    return [program(factor) for factor in factors]


def entries(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(folder.glob("*multiply_by_constant*-cache"))


def test_programs_are_taken_from_the_cache(folder: pathlib.Path) -> None:
    assert results(2, 3) == [20, 30]
    before = {path: path.stat().st_mtime_ns for path in entries(folder)}
    assert len(before) == 2
    assert results(2, 3) == [20, 30]
    assert {path: path.stat().st_mtime_ns for path in entries(folder)} == before


def test_two_entries_that_were_swapped_are_compiled_anew(folder: pathlib.Path) -> None:
    assert results(2, 3) == [20, 30]
    first, second = entries(folder)
    whole = first.read_bytes(), second.read_bytes()
    first.write_bytes(whole[1])
    second.write_bytes(whole[0])
    assert results(2, 3) == [20, 30]
    assert (first.read_bytes(), second.read_bytes()) != (whole[1], whole[0])


@pytest.mark.parametrize("place", [0, 40, -1])
def test_an_entry_with_a_flipped_bit_or_a_missing_end_is_compiled_anew(folder: pathlib.Path, place: int) -> None:
    assert results(5) == [50]
    (path,) = entries(folder)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[place] ^= 1
    for damaged in (bytes(flipped), whole[:place], b""):
        path.write_bytes(damaged)
        assert results(5) == [50]
        assert path.read_bytes() not in (damaged, b"")


def test_a_folder_that_cannot_be_used_is_named_and_nothing_is_cached(
    tmp_path: pathlib.Path, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.folder("xla").chmod(0o777)
    assert str(folder) in compilation_cache.enable()
    assert jax.config.values["jax_compilation_cache_dir"] is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "file"))
    assert "File exists" in compilation_cache.enable()
    reset_cache()
    assert results(7) == [70]
