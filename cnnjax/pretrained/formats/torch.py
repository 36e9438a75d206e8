"""Reader of PyTorch's files, without PyTorch and without running code that a pickle asks for.

A file is a pickle that describes the tensors, and storages with their numbers: since PyTorch 1.6 in a zip archive,
before that one after the other in a stream. Names are left as they are.
"""

import io
import pathlib
import sys
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnjax import limits
from cnnjax.data import archives, safe_pickle
from cnnjax.data.safe_pickle import Record
from cnnjax.errors import InputError
from cnnjax.pretrained.formats import Arrays, state_dicts, torch_pickles
from cnnjax.pretrained.formats.torch_pickles import Storage, Tensor, entries, is_tensor, shown

_LEGACY = (0x1950A86A20F9469CFC6C, 1001)  # magic number and version of a stream
_MAX_KEYS_SHOWN = 8

Numbers = Callable[[Storage], np.ndarray]  # returns the flat array of a storage


def read(path: pathlib.Path, choose: state_dicts.Choice = state_dicts.choose) -> Arrays:
    """Reads a state dict in a PyTorch file as read-only arrays. Runs no code from the file.

    A state dict may be the whole content or under a key, and its values tensors or arrays of NumPy. It may also be that
    of a whole pickled or scripted network. Whatever is beside it, such as an optimizer or options of any class, is
    passed over. Tensors that share a storage share memory.

    Args:
      path: the file.
      choose: returns the state dict to read, given the names that `state_dicts.find` returns.

    Raises InputError for a file that is damaged or has no state dict, and what `choose` raises.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            content, numbers = (_read_zip if file.read(2) == b"PK" else _read_stream)(file, size)
            sets = _state_dicts(content)
            chosen = sets[choose(list(sets))]
            tensors = {name: torch_pickles.parse_tensor(value) for name, value in chosen.items()}
            _check_storages(tensors)
            return {
                name: tensor if isinstance(tensor, np.ndarray) else tensor.read(numbers, size)
                for name, tensor in tensors.items()
            }
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except Exception as error:  # a damaged archive can raise nearly anything
        reason = f"{type(error).__name__}: {str(error)[:200]}"
        raise InputError(f"{path} ({size:,} bytes) is truncated or not a PyTorch state dict: {reason}") from error


def _read_zip(file: io.BufferedReader, size: int) -> tuple[Any, Numbers]:
    """Reads a zip archive of PyTorch 1.6 or later; returns the unpickled content and the numbers of its storages."""
    archive = archives.open_zip(file)
    names = archive.namelist()
    pickled = next((name for name in names if name.count("/") == 1 and name.endswith("/data.pkl")), None)
    if pickled is None:
        raise InputError("is a zip archive, but not one of PyTorch: no data.pkl in it")
    folder = pickled.removesuffix("data.pkl")
    little = f"{folder}byteorder" not in names or _member(archive, f"{folder}byteorder", size) == b"little"
    content = safe_pickle.load(io.BytesIO(_member(archive, pickled, size)))
    storages: dict[str, bytes] = {}
    left = size  # members may not overlap

    def numbers(storage: Storage) -> np.ndarray:
        """Returns the flat array of a storage, which is read once."""
        nonlocal left
        if storage.key not in storages:
            storages[storage.key] = _member(archive, f"{folder}data/{storage.key}", left)
            left -= len(storages[storage.key])
        return _numbers(storages[storage.key], storage, little)

    return content, numbers


def _member(archive: zipfile.ZipFile, name: str, max_bytes: int) -> bytes:
    """Reads a file of an archive. Refuses a compressed one: PyTorch writes none, and it might expand without limit."""
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise InputError(f"is truncated or damaged: no {shown(name)} in it") from None
    if member.compress_type != zipfile.ZIP_STORED:
        raise InputError(f"refused to unpack {shown(name)}: PyTorch does not compress it")
    limits.check_size(shown(name), member.file_size, max_bytes)
    return archive.read(member)


def _read_stream(file: io.BufferedReader, size: int) -> tuple[Any, Numbers]:
    """Reads the stream that PyTorch wrote before version 1.6, as `_read_zip` does."""
    file.seek(0)
    saved = file.read(size)
    stream = io.BytesIO(saved)
    try:
        header = tuple(safe_pickle.load(stream) for _ in range(2))
    except InputError:
        header = ()
    if header != _LEGACY:
        raise InputError("is a pickle, but not a PyTorch state dict")
    little = entries(safe_pickle.load(stream)).get("little_endian") is True
    identities: list[Any] = []
    content = safe_pickle.load(stream, identities)
    dtypes = {storage.key: storage.numpy_dtype for storage in map(torch_pickles.parse_storage, identities)}
    # A view of the bytes, not of the stream: Python 3.13 warns of a stream that is deleted before a view of it.
    keys, data, at = safe_pickle.load(stream), memoryview(saved), stream.tell()
    storages: dict[str, memoryview] = {}
    for key in keys:
        if not isinstance(key, str) or key not in dtypes:
            raise InputError("lists a storage that it does not describe")
        start = at + 8
        at = start + int.from_bytes(data[at:start], "little" if little else "big") * dtypes[key].itemsize
        storages[key] = data[start:at]
    return content, lambda storage: _numbers(storages[storage.key], storage, little)


def _numbers(data: bytes | memoryview, storage: Storage, little: bool) -> np.ndarray:
    """Returns the whole elements of `data`. `little` says whether they are little-endian."""
    dtype = storage.numpy_dtype
    numbers = np.frombuffer(data, dtype, len(data) // dtype.itemsize)
    return numbers if little == (sys.byteorder == "little") else numbers.byteswap()


def _state_dicts(content: Any) -> dict[str, dict[str, Record]]:
    """Finds the state dicts in an unpickled content: see `state_dicts.find`. Raises InputError if there are none."""
    modules = torch_pickles.ModuleReader()

    def tensors(value: Any) -> dict[str, Record]:
        """Returns the tensors by name that a dict has as values, or a whole network; {} for any other value."""
        own = {name: item for name, item in entries(value).items() if isinstance(name, str) and is_tensor(item)}
        return own or modules.tensors(value)

    if sets := state_dicts.find(content, tensors, entries, _is_kernel):
        return sets
    raise InputError(f"holds no state dict, but {_kind(content)}; expected tensors by name, or under 'state_dict'")


def _is_kernel(value: Record) -> bool:
    """Returns whether the record of a tensor has two dimensions or more."""
    try:
        return len(torch_pickles.parse_tensor(value).shape) > 1
    except InputError:
        return False


def _check_storages(tensors: dict[str, Tensor | np.ndarray]) -> None:
    """Raises InputError if two tensors say that one storage has numbers of different types."""
    dtypes: dict[str, str] = {}
    for name, tensor in tensors.items():
        if (
            isinstance(tensor, Tensor)
            and dtypes.setdefault(tensor.storage.key, tensor.storage.dtype) != tensor.storage.dtype
        ):
            raise InputError(f"refused the tensor {shown(name)}: another tensor reads its storage as another type")


def _kind(content: Any) -> str:
    """Describes an unpickled content in a message."""
    if isinstance(content, Record):
        return "a tensor" if is_tensor(content) else f"an object of {shown(content.name)}"
    if not isinstance(content, dict):
        return type(content).__name__
    if not content:
        return "an empty dict"
    keys = [shown(key) if isinstance(key, str) else type(key).__name__ for key in list(content)[:_MAX_KEYS_SHOWN]]
    return f"a dict of {', '.join(keys)}{', ...' if len(content) > len(keys) else ''}"
