"""Unpickling that cannot run code: a pickle gets the objects of an allow-list, and nothing else is looked up.

`loads` allows arrays, numbers, strings and containers of them; `load` takes the allow-list as an argument.
"""

import inspect
import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnjax.errors import InputError

Allowed = Mapping[tuple[str, str], Any]  # (module, name) -> the object that the pickle gets


def loads(data: bytes) -> Any:
    """Returns the object in a pickle of arrays, numbers, strings and containers of them.

    Strings written by Python 2 come back as bytes. Raises InputError, before anything is imported, for a pickle that
    asks for any other object. A damaged pickle raises whatever `pickle` raises.
    """
    return load(io.BytesIO(data), _ALLOWED, encoding="bytes")


def load(file: io.BytesIO, allowed: Allowed, find: Callable[[Any], Any] | None = None, encoding: str = "utf-8") -> Any:
    """Returns the object in the pickle at the file's position, and moves the position to the end of the pickle.

    `allowed` maps (module, name), as the pickle asks for it, to the object that the pickle gets. `find` maps the
    pickle's persistent ids to objects; None: there are none. `encoding` decodes the strings of Python 2. Raises
    InputError for an object that is not allowed, and whatever `pickle` raises for a damaged pickle.
    """
    start = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        # Python allocates room for the highest memo number: five bytes could take all memory.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise InputError(f"refused to unpickle object {argument} of {count}: the file may be malicious")
    end = file.tell()
    file.seek(start)
    unpickler = _Unpickler(io.BytesIO(file.read(end - start)), encoding=encoding)
    unpickler.allowed = allowed
    if find:
        unpickler.persistent_load = find
    return unpickler.load()


def _latin1(text: str, encoding: str) -> bytes:
    """Encodes a text as Latin-1. Raises InputError for any other `encoding`: a pickle must not choose a codec.

    Stands for `_codecs.encode`, with which Python 3 writes bytes in pickles for Python 2.
    """
    if encoding != "latin1":
        raise InputError(f"refused to unpickle bytes in the encoding {encoding!r}")
    return text.encode("latin1")


_ARRAYS: dict[str, Any] = {
    "ndarray": np.ndarray,
    "dtype": np.dtype,
    # These two have no public name, but an array's reduction contains them.
    "_reconstruct": np.empty(0).__reduce__()[0],
    "_frombuffer": np.empty(0).__reduce_ex__(5)[0],
}
_MODULES = ("numpy", *(f"numpy.{core}.{name}" for core in ("core", "_core") for name in ("multiarray", "numeric")))
_ALLOWED = {(module, name): value for module in _MODULES for name, value in _ARRAYS.items()}
_ALLOWED["_codecs", "encode"] = _latin1


class _Unpickler(pickle.Unpickler):
    """Unpickles with the objects in `allowed`, a dict (module, name) -> object, and no others."""

    allowed: Allowed

    def find_class(self, module: str, name: str) -> Any:
        """Returns the allowed object of this module and name (a function in a wrapper). Else raises InputError."""
        if (module, name) not in self.allowed:
            raise InputError(f"refused to unpickle {module}.{name}: the file may be malicious")
        value = self.allowed[module, name]
        # A pickle may set attributes of a function that it gets, so it gets a new function.
        return (lambda *args: value(*args)) if inspect.isfunction(value) else value
