"""TensorFlow's checkpoints, of versions 1 and 2, as TF-Slim published them: also inside of the .tar.gz they come in.

TensorFlow itself reads them; it is in the extra [tf].
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

# What TensorFlow raises for a damaged file is of any of the first kinds, and a damaged archive of the others.
DAMAGED = (OSError, ValueError, LookupError, RuntimeError, EOFError, zlib.error, tarfile.TarError)


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a checkpoint by their variables' names, sorted: it has no order.

    `path` is a .tar.gz with one checkpoint, version 1's only file, one of version 2's, or their common beginning.
    Raises InputError for one that is damaged, or not of TensorFlow.
    """
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")  # else it says at length, each time, that it has these kernels
    try:
        tf: Any = importlib.import_module("tensorflow")
    except ImportError:
        raise InputError(f"{path}: TensorFlow reads it, which is not installed: pip install 'cnnjax[tf]'") from None
    try:
        if path.is_file() and tarfile.is_tarfile(path):
            with tempfile.TemporaryDirectory() as folder:
                return _arrays(tf, _unpacked(path, pathlib.Path(folder)))
        return _arrays(tf, _beginning(path))
    except (*DAMAGED, tf.errors.OpError) as error:
        raise InputError(f"{path}: not a TensorFlow checkpoint, or damaged: {str(error).splitlines()[0]}") from None


def _beginning(path: pathlib.Path) -> pathlib.Path:
    return path.with_suffix("") if path.suffix == ".index" or path.suffix.startswith(".data-") else path


def _unpacked(archive: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    """The checkpoint's files out of an archive, whatever folders it has them in, and their common beginning."""
    found = []
    with tarfile.open(archive) as tar:
        for member in tar:
            name = pathlib.PurePosixPath(member.name).name
            file = tar.extractfile(member) if member.isfile() else None
            if file is None or name.startswith(".") or not (name.endswith((".ckpt", ".index")) or ".data-" in name):
                continue
            found.append(folder / name)
            with found[-1].open("wb") as out:
                shutil.copyfileobj(file, out)
    beginnings = {_beginning(one) for one in found}
    if len(beginnings) != 1:
        raise ValueError(f"expected one checkpoint in it, found {sorted(one.name for one in beginnings)}")
    return beginnings.pop()


def _arrays(tf: Any, beginning: pathlib.Path) -> dict[str, np.ndarray]:
    reader = tf.train.load_checkpoint(str(beginning))
    return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
