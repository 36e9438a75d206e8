"""Unpickling that cannot run code: arrays, numbers, strings and containers of them, and nothing else."""

import io
import pickle
from typing import Any

import numpy as np

from cnnjax.errors import InputError


def loads(data: bytes) -> Any:
    """The object in a pickle; what Python 2 wrote as strings comes back as bytes.

    Raises InputError for a pickle that asks for any other object, before that is looked up, and whatever `pickle`
    raises for a damaged one.
    """
    return _Unpickler(io.BytesIO(data), encoding="bytes").load()


def _latin1(text: str, encoding: str) -> bytes:
    """How Python 3 writes bytes for Python 2. Any other codec would be a look-up by a name in the file."""
    if encoding != "latin1":
        raise InputError(f"refused to unpickle bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_ARRAYS: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    # These two have no public name, but every array can tell its own.
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(0).__reduce_ex__(5)[0],
}
_MODULES = ("numpy", *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")))
_ALLOWED = {(module, name): value for module in _MODULES for name, value in _ARRAYS.items()}
_ALLOWED["_codecs", "encode"] = _latin1


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(f"refused to unpickle {module}.{name}: the file may be malicious")
        return _ALLOWED[module, name]
