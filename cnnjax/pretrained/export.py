"""Weights in files for others: safetensors, and state dicts as PyTorch saves them, made without it."""

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

OWN = "own"  # in place of a library: our names and layouts


def named(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """Our variables by path, for images of [height, width, channels], as a state dict of `library`, or "own" as is.

    A network of theirs loads it strictly where it has our layers. That it computes the same, as a resnet50 there does
    of our resnet50_v1_5 and not of our resnet50, takes the pairs that `tests/parity` compares. Raises InputError for a
    library that has no such network, or is not for PyTorch.
    """
    if library not in (valid := [*convert.torch_libraries(model), OWN]):
        raise unknown("library", library, valid)
    return variables if library == OWN else convert.to_theirs(model, shape, variables, library)


def write(path: pathlib.Path, arrays: Arrays) -> None:
    """Writes arrays into a file of the kind that its suffix says: all of it, or nothing.

    Raises InputError for a suffix of no kind, and for a path that cannot be written to.
    """
    if path.suffix not in WRITERS:
        raise unknown("suffix", path.suffix, WRITERS)
    part = path.with_name(path.name + ".part")
    try:
        WRITERS[path.suffix](part, {name: np.asarray(array, order="C") for name, array in arrays.items()})
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {error.strerror or error}") from error


def _write_safetensors(path: pathlib.Path, arrays: Arrays) -> None:
    path.write_bytes(save(arrays, metadata={"format": "pt"}))  # some readers ask for that


_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _write_torch(path: pathlib.Path, arrays: Arrays) -> None:
    """A zip archive, not compressed: a pickle that says what the tensors are, and a file of numbers for each."""
    tensors, numbers = {}, {}
    for key, (name, array) in enumerate(arrays.items()):
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        storage = _Stored(("storage", _Global("torch", _STORAGES[array.dtype.name]), str(key), "cpu", array.size))
        strides = tuple(stride // array.itemsize for stride in array.strides)
        hooks = _Call(_Global("collections", "OrderedDict"), ())
        rebuild = _Global("torch._utils", "_rebuild_tensor_v2")
        tensors[name] = _Call(rebuild, (storage, 0, array.shape, strides, False, hooks))
        numbers[str(key)] = array
    with zipfile.ZipFile(path, "w") as archive:
        folder = path.name.partition(".")[0]
        archive.writestr(f"{folder}/data.pkl", _pickled(tensors))
        archive.writestr(f"{folder}/byteorder", b"little")
        for key, array in numbers.items():
            archive.writestr(f"{folder}/data/{key}", array.tobytes())
        archive.writestr(f"{folder}/version", b"3\n")


class _Global(NamedTuple):
    module: str
    name: str


class _Call(NamedTuple):
    function: _Global
    arguments: tuple[Any, ...]


class _Stored(NamedTuple):
    """What PyTorch's reader is given to find a tensor's numbers with."""

    identity: tuple[Any, ...]


def _pickled(tensors: dict[str, _Call]) -> bytes:
    """A pickle, protocol 2, that names objects of PyTorch, which `pickle` itself would want to import."""
    items = b"".join(_value(name) + _value(tensor) for name, tensor in tensors.items())
    return pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _value(value: Any) -> bytes:
    match value:
        case _Global(module, name):
            return pickle.GLOBAL + f"{module}\n{name}\n".encode()
        case _Call(function, arguments):
            return _value(function) + _value(arguments) + pickle.REDUCE
        case _Stored(identity):
            return _value(identity) + pickle.BINPERSID
        case bool():
            return pickle.NEWTRUE if value else pickle.NEWFALSE
        case int():
            digits = pickle.encode_long(value)
            return pickle.LONG1 + struct.pack("<B", len(digits)) + digits
        case str():
            text = value.encode()
            return pickle.BINUNICODE + struct.pack("<I", len(text)) + text
        case tuple():
            return pickle.MARK + b"".join(map(_value, value)) + pickle.TUPLE
    raise TypeError(value)


WRITERS: dict[str, Callable[[pathlib.Path, Arrays], None]] = {
    ".safetensors": _write_safetensors,
    ".pth": _write_torch,
    ".pt": _write_torch,
}
