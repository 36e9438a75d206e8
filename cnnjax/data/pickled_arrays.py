"""Converts inert records of a pickle to NumPy arrays and numbers, without NumPy's own unpickling.

An array is made of three things that are checked: a dtype out of a fixed list, a shape, and bytes of exactly the
length that these two need.
"""

import math
from typing import Any

import numpy as np

from cnnjax.data.safe_pickle import Record
from cnnjax.errors import InputError

DTYPES = ("b1", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
MAX_DIMENSIONS, MAX_SIDE = 32, 2**48
_MODULES = ("numpy", *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray", "numeric")))
_FUNCTIONS = {
    f"{module}.{name}": name for module in _MODULES for name in ("_reconstruct", "_frombuffer", "scalar", "dtype")
}


def is_array(value: Any) -> bool:
    """Returns whether a value of `safe_pickle` stands for an array or a number of NumPy."""
    return isinstance(value, Record) and value.args is not None and _FUNCTIONS.get(value.name, "dtype") != "dtype"


def to_array(value: Any) -> np.ndarray:
    """Converts the record of an array, or of a number (shape []), to a read-only array.

    Raises InputError if the record is none of these, has a dtype that is not numeric, or a number of bytes other than
    what its shape and dtype need.
    """
    try:
        match _FUNCTIONS[value.name], value.args, value.state:
            case "_reconstruct", (Record(name=kind), _, _), (_, shape, dtype, fortran, data):
                if kind not in [f"{module}.ndarray" for module in _MODULES]:
                    raise TypeError
                order = "F" if fortran else "C"
            case "_frombuffer", (data, dtype, shape, order), _:
                pass
            case "scalar", (dtype, data), _:
                shape, order = (), "C"
            case _:
                raise TypeError
        data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
        return _array(data, _dtype(dtype), shape, order)
    except (AttributeError, LookupError, TypeError, ValueError):  # InputErrors, too
        raise InputError("the pickle has an object that is not a valid array of numbers") from None


def _dtype(value: Any) -> np.dtype:
    """Converts the record of a dtype, with its byte order. Raises one of many errors if it is not one of `DTYPES`."""
    name = value.args[0]
    if _FUNCTIONS[value.name] != "dtype" or not isinstance(name, str) or name not in DTYPES:
        raise TypeError
    return np.dtype(name).newbyteorder(">" if value.state and value.state[1] == ">" else "<")


def _array(data: Any, dtype: np.dtype, shape: Any, order: Any) -> np.ndarray:
    """Returns the array of these bytes. Raises TypeError if their number does not fit the shape."""
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise TypeError
    if not all(type(side) is int and 0 <= side < MAX_SIDE for side in shape) or order not in ("C", "F"):
        raise TypeError
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise TypeError
    array = np.frombuffer(data, dtype).reshape(shape, order=order)
    array.flags.writeable = False
    return array.astype(dtype.newbyteorder("="), copy=False)
