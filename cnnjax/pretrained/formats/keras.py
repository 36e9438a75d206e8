"""Reader of Keras's weight files: HDF5 of Keras 1 and 2, .weights.h5 and .keras of Keras 3.

Arrays are named '<layer>/<variable>' with Keras's names such as 'kernel', although older files have 'kernel:0' or
'conv1_W_1:0' and newer ones '0'. Optimizer variables are left out. Needs h5py, of the extra [keras].

HDF5 is read by keras_worker.py in a process of its own, since its library can crash or loop on a damaged file.
"""

import importlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import zipfile
import zlib
from typing import Any

import numpy as np

from cnnjax import limits
from cnnjax.data import archives
from cnnjax.errors import InputError
from cnnjax.pretrained.formats import safetensors

_WORKER = pathlib.Path(__file__).with_name("keras_worker.py")
_SECONDS, _BYTES_PER_SECOND = 5, 20 << 20  # of CPU time: to start, and to read
_MEMORY = 1 << 30  # of address space, besides the file and its arrays
_MAX_CONFIG_BYTES = 1 << 25
_CHUNK = 1 << 20
_NO_END = (-signal.SIGXCPU, -signal.SIGKILL)  # return codes of a process that took too much time


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a Keras file, by '<layer>/<variable>', in the order of the layers.

    Compressed files may unpack to at most `limits.max_unpacked()`. Raises InputError if h5py is missing, and for a file
    that is too large, damaged or not Keras's, or has parts in other files.
    """
    try:
        importlib.import_module("h5py")
    except ImportError:
        raise InputError(
            f"{path}: reading it needs h5py, which is not installed: pip install 'cnnjax[keras]'"
        ) from None
    try:
        if not zipfile.is_zipfile(path):
            return _read_hdf5(path, {})
        with (
            path.open("rb") as zipped,
            archives.open_zip(zipped) as archive,
            tempfile.NamedTemporaryFile(suffix=".h5") as file,
        ):
            with _open(archive, "config.json", _MAX_CONFIG_BYTES) as member:
                config = json.loads(member.read(_MAX_CONFIG_BYTES))
            with _open(archive, "model.weights.h5", limits.max_unpacked()) as member:
                while chunk := member.read(_CHUNK):  # no more than the size it claims
                    file.write(chunk)
            file.flush()
            return _without_offsets(_read_hdf5(pathlib.Path(file.name), _names(config)), config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, LookupError, ValueError, TypeError, RuntimeError, AttributeError, zlib.error) as error:
        reason = f"{type(error).__name__}: {str(error)[:200]}".splitlines()[0]
        raise InputError(f"{path}: not a file of Keras's weights, or damaged: {reason}") from None
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a file of Keras's weights, or damaged: {error}") from None


def _open(archive: zipfile.ZipFile, name: str, max_bytes: int) -> Any:
    """Opens a file of an archive to read it. Raises InputError if there is none, or it claims more than `max_bytes`."""
    if name not in archive.namelist():
        raise InputError(f"not a file of Keras's weights, or damaged: no {name} in it")
    limits.check_size(name, archive.getinfo(name).file_size, max_bytes)
    return archive.open(name)


def _read_hdf5(path: pathlib.Path, names: dict[str, str]) -> dict[str, np.ndarray]:
    """Reads the arrays of an HDF5 file in another process. `names` is as in `keras_worker`."""
    size = path.stat().st_size
    max_bytes = max(size, limits.max_unpacked())
    environment = os.environ | {"HDF5_PLUGIN_PRELOAD": "::", "OPENBLAS_NUM_THREADS": "1"}  # '::' loads no plugins
    request = json.dumps([max_bytes, _SECONDS + size // _BYTES_PER_SECOND, _MEMORY + max_bytes, names])
    with tempfile.TemporaryFile() as out:
        process = subprocess.run(
            [sys.executable, "-P", str(_WORKER), str(path)],
            input=request.encode(),
            stdout=out,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
        )
        reason = process.stderr.decode(errors="replace").strip()
        if process.returncode == 1 and len(reason.splitlines()) == 1:
            raise InputError(reason)
        if process.returncode:
            ended = "did not finish" if process.returncode in _NO_END else f"crashed ({process.returncode})"
            raise InputError(f"not a file of Keras's weights, or damaged: HDF5 {ended}")
        out.seek(0)
        return safetensors.parse(out, "what HDF5 read")


def _names(config: dict[str, Any]) -> dict[str, str]:
    """Returns {group of the weights: layer's own name} from the config of a .keras file.

    The group 'conv2d_1', for example, has the weights of the second Conv2D.
    """
    counts: dict[str, int] = {}
    names = {}
    for layer in config["config"]["layers"]:
        class_name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", layer["class_name"]).lower()
        count = counts[class_name] = counts.get(class_name, -1) + 1
        names[f"{class_name}_{count}" if count else class_name] = layer["config"]["name"]
    return names


def _without_offsets(arrays: dict[str, np.ndarray], config: dict[str, Any]) -> dict[str, np.ndarray]:
    """Returns the arrays of a .keras file with the right names where its config says center=False.

    There the first of three vectors of a normalization is gamma, which the worker takes for beta.
    """
    layers = {layer["config"]["name"] for layer in config["config"]["layers"] if layer["config"].get("center") is False}
    renamed = {f"{layer}/beta": f"{layer}/gamma" for layer in layers if f"{layer}/gamma" not in arrays}
    return {renamed.get(name, name): array for name, array in arrays.items()}
