"""Unpickling that cannot run code: a pickle gets what a table allows, and nothing else is looked up.

`loads` allows arrays, numbers, strings and containers of them; `load` what its caller says.
"""

import inspect
import io
import pickle
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnjax.errors import InputError

Allowed = Mapping[tuple[str, str], Any]  # (module, name) -> what a pickle gets that asks for it


def loads(data: bytes) -> Any:
    """The object in a pickle; what Python 2 wrote as strings comes back as bytes.

    Raises InputError for a pickle that asks for any other object, before that is looked up, and whatever `pickle`
    raises for a damaged one.
    """
    return load(io.BytesIO(data), _ALLOWED, encoding="bytes")


def load(file: io.BytesIO, allowed: Allowed, find: Callable[[Any], Any] | None = None, encoding: str = "utf-8") -> Any:
    """The object in the pickle that begins at the file's position, which is behind it afterwards.

    `find` gives what the pickle's persistent ids stand for; `encoding` is of Python 2's strings. Raises as `loads`.
    """
    begin = file.tell()
    for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        # Python makes room for as many objects as the highest number says: five bytes would take all memory.
        if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > count:
            raise InputError(f"refused to unpickle object {argument} of {count}: the file may be malicious")
    end = file.tell()
    file.seek(begin)
    unpickler = _Unpickler(io.BytesIO(file.read(end - begin)), encoding=encoding)
    unpickler.allowed = allowed
    if find:
        unpickler.persistent_load = find
    return unpickler.load()


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
    allowed: Allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise InputError(f"refused to unpickle {module}.{name}: the file may be malicious")
        value = self.allowed[module, name]
        # A pickle may set attributes of a function that it is given: they are lost with this one.
        return (lambda *args: value(*args)) if inspect.isfunction(value) else value
