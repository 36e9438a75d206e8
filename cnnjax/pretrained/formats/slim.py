"""Reader of TensorFlow checkpoints, versions 1 and 2, alone or in the .tar.gz in which TF-Slim published them.

Needs TensorFlow, of the extra [tf].
"""

import gzip
import importlib
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from cnnjax import limits
from cnnjax.data import archives
from cnnjax.errors import InputError

DAMAGED = (*archives.DAMAGED, LookupError, RuntimeError)  # the others are raised by TensorFlow
_GZIP = b"\x1f\x8b"  # first bytes
_CHUNK = 1 << 20


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a TensorFlow checkpoint by variable name, sorted by name.

    `path` is a .tar.gz with one checkpoint, the single file of a checkpoint of version 1, or for version 2 one of its
    files or their common prefix. Raises InputError if TensorFlow is missing, or the file is damaged or not
    TensorFlow's.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # silences a warning at import
    try:
        tf: Any = importlib.import_module("tensorflow")
    except ImportError:
        raise InputError(
            f"{path}: reading it needs TensorFlow, which is not installed: pip install 'cnnjax[tf]'"
        ) from None
    try:
        if _is_archive(path):
            with tempfile.TemporaryDirectory() as folder:
                return _arrays(tf, _unpack(path, pathlib.Path(folder)))
        return _arrays(tf, _prefix(path))
    except (*DAMAGED, tf.errors.OpError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"{path}: not a TensorFlow checkpoint, or damaged: {reason}") from None


def _is_archive(path: pathlib.Path) -> bool:
    """Returns whether a file is gzip-compressed; no checkpoint is."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_GZIP)) == _GZIP


def _prefix(path: pathlib.Path) -> pathlib.Path:
    """Returns the common prefix of a checkpoint's files, given one of the files or the prefix itself."""
    return path.with_suffix("") if path.suffix == ".index" or path.suffix.startswith(".data-") else path


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Extracts the files of the checkpoint in `archive` into `folder`; returns their common prefix.

    Ignores the archive's folders. Raises ValueError unless there is exactly one checkpoint, and the archive unpacks to
    at most `limits.max_unpacked()`.
    """
    extracted = []
    with gzip.open(archive) as file:
        for member in archives.members(file, 0, limits.max_unpacked()):
            name = pathlib.PurePosixPath(member.name).name
            if name.startswith(".") or not (name.endswith((".ckpt", ".index")) or ".data-" in name):
                continue
            extracted.append(folder / name)
            with extracted[-1].open("wb") as out:
                file.seek(member.start)
                for start in range(0, member.size, _CHUNK):
                    chunk = file.read(min(_CHUNK, member.size - start))
                    out.write(chunk)
            if extracted[-1].stat().st_size < member.size:
                raise EOFError(f"{name} is cut")
    prefixes = {_prefix(file) for file in extracted}
    if len(prefixes) != 1:
        raise ValueError(f"expected one checkpoint in it, found {sorted(prefix.name for prefix in prefixes)}")
    return prefixes.pop()


def _arrays(tf: Any, prefix: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all variables of a checkpoint, sorted by name. `tf` is the module tensorflow."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
