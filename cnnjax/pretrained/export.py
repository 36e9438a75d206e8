"""Weight files for other libraries: safetensors, and PyTorch's state dicts, written without PyTorch."""

import json
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn
from safetensors.numpy import save

from cnnjax import sealed
from cnnjax.errors import unknown
from cnnjax.pretrained import convert, description
from cnnjax.pretrained.library import Arrays, Shape

OWN = "own"  # stands for our names and layouts, in place of a library


def to_state_dict(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """Converts our variables to a state dict of a PyTorch library.

    A network of that library with the same layers loads the result with strict=True. Equal layers do not mean equal
    outputs: torchvision's resnet50 is our resnet50_v1_5, not our resnet50. `tests/parity` has the pairs that compute
    the same.

    Args:
      model: our network.
      shape: [height, width, channels] of its images.
      variables: arrays by path, such as 'params/conv1/kernel'.
      library: a key of `LIBRARIES`, or "own" to return `variables` unchanged.

    Raises:
      InputError: the library is not for PyTorch or has no such network.
    """
    if library not in (valid := [*convert.torch_libraries(model), OWN]):
        raise unknown("library", library, valid)
    return variables if library == OWN else convert.export_variables(model, shape, variables, library)


def write(path: pathlib.Path, arrays: Arrays, described: str = "") -> None:
    """Writes arrays by name to a .safetensors, .pth or .pt file, atomically. The suffix gives the format.

    `described` is a text of `description.Description.to_json`, which tells us the network when we read the file;
    other programs ignore it. Raises InputError for another suffix, or a path that cannot be written.
    """
    if path.suffix not in WRITERS:
        raise unknown("suffix", path.suffix, WRITERS)
    with sealed.replacing(path) as file:
        whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
        WRITERS[path.suffix](pathlib.Path(file.name), whole, described)


def _write_safetensors(path: pathlib.Path, arrays: Arrays, described: str) -> None:
    """Writes arrays by name as a safetensors file, with `described` in its metadata (see `write`).

    The same arrays and description give the same bytes.
    """
    metadata = {"format": "pt"}  # transformers refuses files without it
    content = save(arrays, metadata=metadata | ({description.KEY: described} if described else {}))
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))  # the library's order is random
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # the numbers after it stay aligned
    path.write_bytes(len(text).to_bytes(8, "little") + text + content[end:])


_STORAGES = {"float32": "FloatStorage", "float16": "HalfStorage", "float64": "DoubleStorage", "int64": "LongStorage"}


def _write_torch(path: pathlib.Path, arrays: Arrays, described: str) -> None:
    """Writes arrays by name in the format of torch.save, an uncompressed zip archive, with the description as a member.

    The archive has a pickle that describes the tensors, and a file with the numbers of each tensor.
    """
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
        if described:
            archive.writestr(f"{folder}/{description.MEMBER}", described)


class _Global(NamedTuple):
    """A function or class to be pickled by name, as in _Global('collections', 'OrderedDict')."""

    module: str
    name: str


class _Call(NamedTuple):
    """A function call to be pickled, which is made when the pickle is loaded."""

    function: _Global
    arguments: tuple[Any, ...]


class _PersistentId(NamedTuple):
    """A persistent id to be pickled: the tuple by which PyTorch's reader finds the storage of a tensor."""

    identity: tuple[Any, ...]


def _pickle(tensors: dict[str, _Call]) -> bytes:
    """Returns a pickle, protocol 2, of a dict of tensors. Unlike `pickle.dumps`, it does not import PyTorch."""
    items = b"".join(_opcodes(name) + _opcodes(tensor) for name, tensor in tensors.items())
    return pickle.PROTO + b"\2" + pickle.EMPTY_DICT + pickle.MARK + items + pickle.SETITEMS + pickle.STOP


def _opcodes(value: Any) -> bytes:
    """Returns the pickle opcodes that push `value` on the stack. Raises TypeError for a type not needed here."""
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


WRITERS: dict[str, Callable[[pathlib.Path, Arrays, str], None]] = {
    ".safetensors": _write_safetensors,
    ".pth": _write_torch,
    ".pt": _write_torch,
}
