"""Weight files for other libraries: safetensors, and PyTorch's state dicts, written without PyTorch."""

import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from safetensors.numpy import save

from cnnjax.errors import InputError, unknown
from cnnjax.pretrained import convert
from cnnjax.pretrained.library import Arrays, Shape

OWN = "own"  # stands for our names and layouts, in place of a library


def to_state_dict(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """Returns our variables, by path, under the names and in the layouts of a PyTorch library's state dict.

    A network of the library with the same layers loads it with strict=True. Equal layers do not mean equal outputs:
    torchvision's resnet50 is our resnet50_v1_5, not our resnet50. `tests/parity` has the pairs that compute the same.

    Args:
      model: our network.
      shape: [height, width, channels] of its images.
      variables: arrays by path, such as 'params/conv1/kernel'.
      library: a key of `LIBRARIES`, or "own" for `variables` unchanged.

    Raises:
      InputError: a library that is not for PyTorch or has no such network.
    """
    if library not in (valid := [*convert.torch_libraries(model), OWN]):
        raise unknown("library", library, valid)
    return variables if library == OWN else convert.export_variables(model, shape, variables, library)


def write(path: pathlib.Path, arrays: Arrays) -> None:
    """Writes arrays to a file in the format of its suffix, atomically.

    Raises InputError for an unknown suffix, or a path that cannot be written.
    """
    if path.suffix not in WRITERS:
        raise unknown("suffix", path.suffix, WRITERS)
    partial = path.with_name(path.name + ".part")
    try:
        WRITERS[path.suffix](partial, {name: np.asarray(array, order="C") for name, array in arrays.items()})
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_safetensors(path: pathlib.Path, arrays: Arrays) -> None:
    path.write_bytes(save(arrays, metadata={"format": "pt"}))  # transformers refuses files without it


_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _write_torch(path: pathlib.Path, arrays: Arrays) -> None:
    """Writes an uncompressed zip archive: a pickle that describes the tensors, and a file of numbers for each."""
    tensors, storages = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        storage = _PersistentId(("storage", _Global("torch", _STORAGES[array.dtype.name]), str(key), "cpu", array.size))
        strides = tuple(stride // array.itemsize for stride in array.strides)
        hooks = _Call(_Global("collections", "OrderedDict"), ())
        rebuild = _Global("torch._utils", "_rebuild_tensor_v2")
        tensors[name] = _Call(rebuild, (storage, 0, array.shape, strides, False, hooks))
        storages[str(key)] = array
    with zipfile.ZipFile(path, "w") as archive:
        folder = path.name.partition(".")[0]
        archive.writestr(f"{folder}/data.pkl", _pickle(tensors))
        archive.writestr(f"{folder}/byteorder", b"little")
        for key, array in storages.items():
            archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", b"3\n")


class _Global(NamedTuple):
    """A function or class, by name."""

    module: str
    name: str


class _Call(NamedTuple):
    """A call that the reader makes."""

    function: _Global
    arguments: tuple[Any, ...]


class _PersistentId(NamedTuple):
    """The tuple by which PyTorch's reader finds a tensor's storage."""

    identity: tuple[Any, ...]


def _pickle(tensors: dict[str, _Call]) -> bytes:
    """Returns a pickle of protocol 2. `pickle.dumps` would have to import the PyTorch objects that it names."""
    items = b"".join(_opcodes(name) + _opcodes(tensor) for name, tensor in tensors.items())
    return pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _opcodes(value: Any) -> bytes:
    """Returns the opcodes that push a value on the pickle machine's stack."""
    match value:
        case _Global(module, name):
            return pickle.GLOBAL + f"{module}\n{name}\n".encode()
        case _Call(function, arguments):
            return _opcodes(function) + _opcodes(arguments) + pickle.REDUCE
        case _PersistentId(identity):
            return _opcodes(identity) + pickle.BINPERSID
        case bool():
            return pickle.NEWTRUE if value else pickle.NEWFALSE
        case int():
            digits = pickle.encode_long(value)
            return pickle.LONG1 + struct.pack("<B", len(digits)) + digits
        case str():
            text = value.encode()
            return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case tuple():
            return pickle.MARK + b"".join(map(_opcodes, value)) + pickle.TUPLE
    raise TypeError(value)


WRITERS: dict[str, Callable[[pathlib.Path, Arrays], None]] = {
    ".safetensors": _write_safetensors,
    ".pth": _write_torch,
    ".pt": _write_torch,
}
