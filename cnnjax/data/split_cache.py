"""On-disk cache of arrays computed from a whole split: decoding 50,000 PNGs takes longer than starting a run."""

import contextlib
import hashlib
import inspect
import json
import os
import pathlib
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnjax import cache, spec
from cnnjax.augment import OPS
from cnnjax.data import corruption_effects, corruptions, image_formats, images, transforms, views
from cnnjax.data.operations import ALL_HOST_OPS
from cnnjax.data.store import Split

MAX_CACHE_BYTES = 4 * 2**30  # of all files; the least recently used are deleted first
KEY = "cache_key"  # name of the array with the key, so that a renamed file is not trusted
MIN_SECONDS_TO_CACHE = 0.5  # faster computations are not cached

Arrays = dict[str, np.ndarray]


def cached_arrays(split: Split, calls: Sequence[spec.Call], compute: Callable[[], Arrays], *key_parts: Any) -> Arrays:
    """Returns the arrays of `compute()`, from the cache on disk if they were computed before.

    The key is the split with its files, the operations `calls` and their code, and `key_parts`: further values that
    JSON can encode. A damaged file is computed again. A failure to write is ignored. Computations of less than
    MIN_SECONDS_TO_CACHE are not cached, nor are those with operations whose source is not found, as in a notebook.
    """
    modules = images, image_formats, transforms, views, corruptions, corruption_effects
    code = [inspect.getsource(module) for module in modules]
    try:
        code += [_source(call) for call in calls]
    except (OSError, TypeError):
        return compute()
    key = hashlib.sha256(json.dumps([split.identity, split.files(), calls, code, *key_parts]).encode()).hexdigest()
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return _read(_path(key), key)
    start = time.monotonic()
    arrays = compute()
    if time.monotonic() - start > MIN_SECONDS_TO_CACHE:
        with contextlib.suppress(OSError):
            _write(_path(key), arrays | {KEY: np.array(key)})
    return arrays


def _source(call: spec.Call) -> str:
    """Returns the content of the file that defines an operation. Raises OSError or TypeError if there is none."""
    function = inspect.unwrap({**OPS, **ALL_HOST_OPS}[call.name])
    return pathlib.Path(inspect.getsourcefile(function) or "").read_text()


def _path(key: str) -> pathlib.Path:
    """Returns the path of a cached file. Raises OSError if the cache cannot be created, or others can write in it."""
    return cache.private_folder("pixels") / f"{key[:32]}.npz"


def _read(path: pathlib.Path, key: str) -> Arrays:
    """Reads cached arrays, whose checksums numpy checks. Raises ValueError if they were written under another key."""
    with path.open("rb") as file:
        arrays = dict(np.load(file))
    if str(arrays.pop(KEY)) != key:
        raise ValueError(f"{path} belongs to another split")
    os.utime(path)
    return arrays


def _write(path: pathlib.Path, arrays: Arrays) -> None:
    """Writes the arrays to `path`, and deletes the least recently used files of its folder beyond MAX_CACHE_BYTES."""
    room = MAX_CACHE_BYTES - sum(array.nbytes for array in arrays.values())
    for old in sorted(path.parent.glob("*.npz"), key=lambda old: old.stat().st_mtime, reverse=True):
        room -= old.stat().st_size
        if room < 0:
            old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # renamed when complete, also with two writers
        partial = pathlib.Path(folder) / path.name
        np.savez(partial, **arrays)  # pyright: ignore[reportArgumentType]
        partial.replace(path)
