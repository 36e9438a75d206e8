"""Reader of PyTorch's state dicts, without PyTorch and without running code that a pickle asks for.

A file is a pickle that describes the tensors, and storages with their numbers: since PyTorch 1.6 in a zip archive,
before that one after the other in a stream. Names are left as they are; `cnnjax.pretrained.convert` removes
DataParallel's 'module.'.
"""

import io
import math
import pathlib
import sys
import zipfile
from collections import OrderedDict
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cnnjax.data import safe_pickle
from cnnjax.errors import InputError
from cnnjax.pretrained.formats import Arrays

WRAPPERS = ("state_dict", "model_state_dict", "model", "net")  # keys under which training scripts save a state dict

_LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # magic number and version of a stream

_DTYPES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": ml_dtypes.bfloat16, "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
}  # fmt: skip


class _Storage(NamedTuple):
    """A flat array of numbers in the file, of which tensors are views.

    Attributes:
      key: name of the array in the file.
      dtype: key of `_DTYPES`, such as 'Float'.
      count: number of elements.
      start: index of the first element; not 0 if this storage is a part of a larger one.
    """

    key: str
    dtype: str
    count: int
    start: int


class _Tensor(NamedTuple):
    """A strided view of a storage. `offset` and `strides` are in elements, not bytes."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __setstate__(self, state: object) -> None:
        """Drops what a pickled parameter has besides its tensor, such as hooks."""


def _tensor(storage: _Storage, offset: int, shape: Any, strides: Any, *_: Any) -> _Tensor:
    """Stands in for torch._utils._rebuild_tensor when unpickling.

    `strides` and `offset` are in elements; further arguments are ignored. Raises ValueError for arguments that describe
    no tensor.
    """
    if type(storage) is not _Storage or len(shape) != len(strides):
        raise ValueError("a tensor without a storage")
    for number in (offset, *shape, *strides):
        if type(number) is not int or number < 0:
            raise ValueError(f"a tensor of {number!r}")
    return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _same(tensor: Any, *_: Any) -> Any:
    """Stands in for the construction of a parameter when unpickling: returns its tensor."""
    return tensor


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _same,
    ("torch.nn.parameter", "Parameter"): _same,
    **{("torch", f"{name}Storage"): name for name in _DTYPES},
}


def _storage(identity: Any) -> _Storage:
    """Parses the persistent id by which a pickle refers to a storage. Raises ValueError for anything else."""
    kind, dtype, key, _, count, *view = identity
    _, start, count = view[0] if view and view[0] else (key, 0, count)
    if kind != "storage" or dtype not in _DTYPES or type(key) is not str or min(start, count) < 0:
        raise ValueError(f"no storage: {str(identity)[:80]}")
    return _Storage(key, dtype, count, start)


def read(path: pathlib.Path) -> Arrays:
    """Reads the state dict in a PyTorch file as read-only arrays. Runs no code from the file.

    The state dict may be the whole content or under a key of `WRAPPERS`. Tensors that share a storage share memory.
    Raises InputError for a file that is damaged, has no state dict, or asks for anything but tensors.
    """
    try:
        data = path.read_bytes()
        content, storages = (_read_zip if data.startswith(b"PK") else _read_stream)(data)
        return {name: _array(tensor, storages, len(data)) for name, tensor in _state_dict(content).items()}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        size = path.stat().st_size
        raise InputError(f"{path} ({size:,} bytes) is truncated or no PyTorch state dict: {error!r}") from error


def _read_zip(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads a zip archive of PyTorch 1.6 or later; returns the unpickled content and the storages by key."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = archive.namelist()
        pickled = next(name for name in names if name.count("/") == 1 and name.endswith("/data.pkl"))
        folder = pickled.removesuffix("data.pkl")
        little = f"{folder}byteorder" not in names or archive.read(f"{folder}byteorder") == b"little"
        described: dict[str, tuple[str, int]] = {}

        def persistent_load(identity: Any) -> _Storage:
            """Returns the storage of a persistent id, and notes its dtype and size."""
            storage = _storage(identity)
            described[storage.key] = storage.dtype, storage.count
            return storage

        content = safe_pickle.load(io.BytesIO(_member(archive, pickled)), _ALLOWED, persistent_load)
        total = 0
        storages = {}
        for key, (dtype, count) in described.items():
            numbers = _member(archive, f"{folder}data/{key}")
            if (total := total + len(numbers)) > len(data):
                raise InputError("refused to read its members: they overlap")
            storages[key] = _numbers(numbers, 0, dtype, count, little)
    return content, storages


def _member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Reads a file of an archive. Refuses a compressed one: PyTorch writes none, and it might expand without limit."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise InputError(f"refused to unpack {name}: PyTorch does not compress it")
    return archive.read(name)


def _read_stream(data: bytes) -> tuple[Any, dict[str, np.ndarray]]:
    """Reads the stream that PyTorch wrote before version 1.6; returns the unpickled content and the storages by key."""
    file, dtypes = io.BytesIO(data), {}

    def persistent_load(identity: Any) -> _Storage:
        """Returns the storage of a persistent id, and notes its dtype."""
        storage = _storage(identity)
        dtypes[storage.key] = storage.dtype
        return storage

    header = tuple(safe_pickle.load(file, _ALLOWED) for _ in range(2))
    if header != _LEGACY:
        raise InputError("is a pickle, but no state dict that PyTorch saved")
    little = safe_pickle.load(file, _ALLOWED)["little_endian"]
    content = safe_pickle.load(file, _ALLOWED, persistent_load)
    storages = {}
    for key in safe_pickle.load(file, _ALLOWED):
        at = file.tell()
        count = int.from_bytes(data[at : at + 8], "little" if little else "big")
        storages[key] = _numbers(data, at + 8, dtypes[key], count, little)
        file.seek(at + 8 + storages[key].nbytes)
    return content, storages


def _numbers(data: bytes, at: int, dtype: str, count: int, little: bool) -> np.ndarray:
    """Returns `count` elements that start at byte `at` of `data`. `little` says whether they are little-endian."""
    numbers = np.frombuffer(data, _DTYPES[dtype], count, at)
    return numbers if little == (sys.byteorder == "little") else numbers.byteswap()


def _state_dict(content: Any) -> dict[str, _Tensor]:
    """Finds the state dict in an unpickled content, by `WRAPPERS`.

    Raises InputError if there is none, or if it holds anything but tensors.
    """
    if isinstance(content, dict):
        content = next((content[name] for name in WRAPPERS if isinstance(content.get(name), dict)), content)
    if not isinstance(content, dict) or not any(isinstance(value, _Tensor) for value in content.values()):
        what = f"a dict of {', '.join(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise InputError(f"holds no state dict, but {what[:200]}; expected tensors by name, or under {WRAPPERS}")
    for name, value in content.items():
        if not isinstance(value, _Tensor):
            raise InputError(f"holds {name!r}, a {type(value).__name__}, among its tensors")
    return content


def _array(tensor: _Tensor, storages: dict[str, np.ndarray], max_bytes: int) -> np.ndarray:
    """Returns a tensor as a read-only view of its storage.

    Raises InputError if the tensor exceeds its storage, or exceeds `max_bytes`, as strides of 0 make possible.
    """
    key, dtype, count, start = tensor.storage
    storage = storages[key][start : start + count]
    last = tensor.offset + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.strides, strict=True))
    if storage.dtype != _DTYPES[dtype] or (0 not in tensor.shape and last >= len(storage)):
        raise InputError(f"refused a tensor of {tensor.shape}: it is not within its {len(storage):,} numbers")
    if math.prod(tensor.shape) * storage.itemsize > max_bytes:
        raise InputError(f"refused a tensor of {tensor.shape}: it is larger than the file")
    strides = tuple(storage.itemsize * stride for stride in tensor.strides)
    return np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
