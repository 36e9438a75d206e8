"""Tensors from the inert pickle of a PyTorch file, without PyTorch: see `cnnjax.data.safe_pickle`.

A tensor is a record of a call with a storage, a shape and strides. A storage is a persistent id that names a flat array
of numbers elsewhere in the file.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from cnnjax.data import pickled_arrays
from cnnjax.data.safe_pickle import PERSISTENT_ID, Record
from cnnjax.errors import InputError

DTYPES: dict[str, Any] = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": ml_dtypes.bfloat16, "Long": "int64",
    "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8", "Bool": "bool",
    "ComplexFloat": "complex64", "ComplexDouble": "complex128",
}  # fmt: skip
_UNTYPED = "Untyped"  # storage of bytes; the tensor has the dtype
# Types that only untyped storages have.
_NEW_DTYPES = {
    f"torch.{name}": getattr(ml_dtypes, name)
    for name in ("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu")
} | {f"torch.uint{bits}": f"uint{bits}" for bits in (16, 32, 64)}
_TENSORS = ("torch._utils._rebuild", "torch._tensor._rebuild", "torch.nn.parameter.")  # how their makers' names begin
_MAX_MODULES, _MAX_DEPTH, _MAX_NAME = 100_000, 64, 1000


class Storage(NamedTuple):
    """A flat array of numbers in the file, of which tensors are views.

    Attributes:
      key: name of the array in the file.
      dtype: key of `DTYPES`, such as 'Float', or 'Untyped' for bytes.
      count: number of elements.
      start: index of the first element; not 0 if this storage is a part of a larger one.
    """

    key: str
    dtype: str
    count: int
    start: int

    @property
    def numpy_dtype(self) -> np.dtype:
        """Returns the dtype of the elements."""
        return np.dtype(DTYPES.get(self.dtype, "uint8"))


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A strided view of a storage, of which no numbers are read yet. `offset` and `strides` are in elements."""

    storage: Storage
    dtype: np.dtype
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def read(self, numbers: Callable[[Storage], np.ndarray], max_bytes: int) -> np.ndarray:
        """Returns the tensor as a read-only view of the numbers of its storage.

        Args:
          numbers: returns the flat array of a storage, without the `start`.
          max_bytes: the most bytes that a tensor may have, which strides of 0 would make possible.

        Raises InputError if the tensor exceeds its storage or `max_bytes`.
        """
        _, _, count, start = self.storage
        array = numbers(self.storage)[start : start + count].view(self.dtype)
        last = self.offset + sum((side - 1) * stride for side, stride in zip(self.shape, self.strides, strict=True))
        if 0 not in self.shape and last >= len(array):
            raise InputError(f"refused a tensor of {list(self.shape)}: it is not within its {len(array):,} numbers")
        if math.prod(self.shape) * array.itemsize > max_bytes:
            raise InputError(f"refused a tensor of {list(self.shape)}: it is larger than the file")
        sides = zip(self.shape, self.strides, strict=True)
        strides = tuple(array.itemsize * stride if side > 1 else 0 for side, stride in sides)
        first = 0 if 0 in self.shape else self.offset
        raw = array[first:].view(f"V{array.itemsize}")  # as_strided does not know types of 8 bits
        return np.lib.stride_tricks.as_strided(raw, self.shape, strides, writeable=False).view(self.dtype)


def parse_storage(identity: Any) -> Storage:
    """Parses the persistent id by which a pickle refers to a storage. Raises InputError for anything else."""
    match identity:
        case ("storage", Record(name=name), str(key), _, int(count)):
            start = 0
        case ("storage", Record(name=name), str(key), _, int(), None):
            start, count = 0, identity[4]
        case ("storage", Record(name=name), str(key), _, int(), (_, int(start), int(count))):
            pass
        case _:
            raise InputError("the pickle refers to something other than a storage")
    dtype = name.removeprefix("torch.").removeprefix("storage.").removesuffix("Storage")
    if dtype not in (*DTYPES, _UNTYPED) or not (_is_size(start) and _is_size(count)):
        raise InputError(f"a storage of another type than PyTorch's: {shown(name)}")
    return Storage(key, dtype, count, start)


def is_tensor(value: Any) -> bool:
    """Returns whether a value of a pickle stands for a tensor, of a supported kind or not, or for an array of NumPy."""
    if not isinstance(value, Record) or value.args is None:
        return False
    is_array = pickled_arrays.is_array(value) and not value.name.endswith(".scalar")
    return is_array or value.name.startswith(_TENSORS)


def parse_tensor(value: Record) -> Tensor | np.ndarray:
    """Converts the record of a tensor or a parameter, or of an array of NumPy.

    Raises InputError if it is damaged or of an unsupported kind, such as a quantized one.
    """
    for _ in range(_MAX_DEPTH):
        if pickled_arrays.is_array(value):
            return pickled_arrays.to_array(value)
        match value.name.removeprefix("torch._utils."), value.args:
            case (("_rebuild_tensor" | "_rebuild_tensor_v2"), (storage, offset, shape, strides, *_)):
                return _tensor(storage, offset, shape, strides, None)
            case "_rebuild_tensor_v3", (storage, offset, shape, strides, _, _, Record(name=dtype), *_):
                return _tensor(storage, offset, shape, strides, dtype)
            case (
                (
                    "_rebuild_parameter"
                    | "_rebuild_parameter_with_state"
                    | "_rebuild_device_tensor_from_numpy"
                    | "torch.nn.parameter.Parameter"
                    | "torch.nn.parameter.Buffer"
                ),
                (Record() as inner, *_),
            ):
                value = inner
            case "torch._tensor._rebuild_from_type_v2", (Record(name=name), _, tuple(args), *_):
                value = Record(name, args)
            case _:
                break
    raise InputError(f"a tensor of an unsupported kind: {shown(value.name)}")


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, dtype: str | None) -> Tensor:
    """Returns the tensor of these arguments of PyTorch's constructors. Raises InputError if they describe none."""
    if getattr(shape, "name", "") == "torch.Size" and shape.args:
        shape = shape.args[0]
    valid = isinstance(storage, Record) and storage.name == PERSISTENT_ID and _is_size(offset)
    for sides in (shape, strides):
        valid = valid and isinstance(sides, tuple | list) and all(map(_is_size, sides))
    if not valid or not len(shape) == len(strides) <= pickled_arrays.MAX_DIMENSIONS:
        raise InputError("a tensor without a valid storage, shape or strides")
    parsed = parse_storage(storage.args[0])
    numpy_dtype = np.dtype(_NEW_DTYPES[dtype]) if dtype in _NEW_DTYPES else parsed.numpy_dtype
    if (parsed.dtype == _UNTYPED) != (dtype in _NEW_DTYPES):
        raise InputError(f"a tensor of an unsupported type: {shown(dtype or parsed.dtype)}")
    return Tensor(parsed, numpy_dtype, offset, tuple(shape), tuple(strides))


def _is_size(value: Any) -> bool:
    """Returns whether a value is an integer from 0 to 2^48."""
    return type(value) is int and 0 <= value <= pickled_arrays.MAX_SIDE


def entries(value: Any) -> dict[Any, Any]:
    """Returns the items of a dict, or of an object of a subclass of dict; {} for any other value."""
    if isinstance(value, Record):
        return value.entries or {}
    return value if isinstance(value, dict) else {}


class ModuleReader:
    """Finds the tensors of whole pickled networks, in a limited number of modules."""

    def __init__(self) -> None:
        self._left = _MAX_MODULES

    def tensors(self, module: Any) -> dict[str, Record]:
        """Returns the tensors of a network by name, as its state dict would have them; {} for other values.

        Reads modules of PyTorch, and those of TorchScript, whose attributes are all in one dict. Returns {} once there
        were more modules than any network has, as in objects that contain each other. Leaves out modules that are more
        than `_MAX_DEPTH` deep.
        """
        tensors: dict[str, Record] = {}
        waiting: list[tuple[str, Record, int]] = [("", module, 0)] if isinstance(module, Record) else []
        while waiting:
            prefix, module, depth = waiting.pop()
            if not isinstance(state := module.state, dict) or is_tensor(module):
                continue
            is_plain = "_modules" in state
            own = entries(state.get("_parameters")) | entries(state.get("_buffers")) if is_plain else state
            children = entries(state["_modules"]) if is_plain else state
            self._left -= 1 + len(own) + len(children)  # a module that is in many others counts each time
            if self._left < 0:
                return {}
            tensors |= {f"{prefix}{name}": value for name, value in own.items() if is_tensor(value)}
            nested = [(str(name)[:_MAX_NAME], child) for name, child in children.items() if isinstance(child, Record)]
            if depth < _MAX_DEPTH and len(prefix) < _MAX_NAME:
                waiting += [(f"{prefix}{name}.", child, depth + 1) for name, child in reversed(nested)]
        return tensors


def shown(name: str) -> str:
    """Returns a name from a file for a message: short, and without characters that control a terminal."""
    return ascii(name[:80])[1:-1]
