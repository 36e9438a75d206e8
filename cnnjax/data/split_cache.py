"""What was made of a whole split, kept in the cache: 50,000 PNGs are decoded for longer than a network starts."""

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
from cnnjax.data import images, views
from cnnjax.data.store import Split

MOST = 4 * 2**30  # bytes in all; what was not used for longest goes first
WORTH = 0.5  # seconds: what is made faster is not kept

Arrays = dict[str, np.ndarray]


def arrays(split: Split, calls: Sequence[spec.Call], make: Callable[[], Arrays], *of: Any) -> Arrays:
    """What `make` gives for the split after these operations, from the cache where it was kept before.

    It is kept for the same files, the same code of the operations and the same rest `of` what it is made of, alone.
    A damaged file is made anew; what cannot be written is not kept.
    """
    code = [inspect.getsource(module) for module in (images, views)]
    key = json.dumps([split.identity, split.files(), calls, code, *of])
    path = cache.folder("pixels") / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.npz"
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), path.open("rb") as file:
        found = dict(np.load(file))  # checks their checksums
        os.utime(path)
        return found
    begun = time.monotonic()
    made = make()
    if time.monotonic() - begun > WORTH:
        with contextlib.suppress(OSError):
            _keep(path, made)
    return made


def _keep(path: pathlib.Path, arrays: Arrays) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    room = MOST - sum(array.nbytes for array in arrays.values())
    for old in sorted(path.parent.glob("*.npz"), key=lambda old: old.stat().st_mtime, reverse=True):
        room -= old.stat().st_size
        if room < 0:
            old.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # whole or not at all, also for two at once
        part = pathlib.Path(folder) / path.name
        np.savez(part, **arrays)  # pyright: ignore[reportArgumentType]
        part.replace(path)
