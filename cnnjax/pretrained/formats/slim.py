"""Reader of TensorFlow checkpoints, versions 1 and 2, alone or in the .tar.gz in which TF-Slim published them.

Needs TensorFlow, of the extra [tf].
"""

import importlib
import os
import pathlib
import shutil
import tarfile
import tempfile
import zlib
from typing import Any

import numpy as np

from cnnjax.errors import InputError

# Raised by TensorFlow for a damaged file, and by tarfile for a damaged archive.
DAMAGED = (OSError, ValueError, LookupError, RuntimeError, EOFError, zlib.error, tarfile.TarError)


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
        if path.is_file() and tarfile.is_tarfile(path):
            with tempfile.TemporaryDirectory() as folder:
                return _arrays(tf, _unpack(path, pathlib.Path(folder)))
        return _arrays(tf, _prefix(path))
    except (*DAMAGED, tf.errors.OpError) as error:
        raise InputError(f"{path}: not a TensorFlow checkpoint, or damaged: {str(error).splitlines()[0]}") from None


def _prefix(path: pathlib.Path) -> pathlib.Path:
    """Returns the common prefix of a checkpoint's files, given one of the files or the prefix itself."""
    return path.with_suffix("") if path.suffix == ".index" or path.suffix.startswith(".data-") else path


def _unpack(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """Extracts the files of the checkpoint in `archive` into `folder`; returns their common prefix.

    Ignores the archive's folders. Raises ValueError unless there is exactly one checkpoint.
    """
    extracted = []
    with tarfile.open(archive) as tar:
        for member in tar:
            name = pathlib.PurePosixPath(member.name).name
            file = tar.extractfile(member) if member.isfile() else None
            if file is None or name.startswith(".") or not (name.endswith((".ckpt", ".index")) or ".data-" in name):
                continue
            extracted.append(folder / name)
            with extracted[-1].open("wb") as out:
                shutil.copyfileobj(file, out)
    prefixes = {_prefix(file) for file in extracted}
    if len(prefixes) != 1:
        raise ValueError(f"expected one checkpoint in it, found {sorted(prefix.name for prefix in prefixes)}")
    return prefixes.pop()


def _arrays(tf: Any, prefix: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads all variables of a checkpoint, sorted by name. `tf` is the module tensorflow."""
    reader = tf.train.load_checkpoint(str(prefix))
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
