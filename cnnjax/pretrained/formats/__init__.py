"""Files of weights as other libraries write them: their arrays, under the file's own names. None runs code."""

import importlib
import pathlib
from typing import NamedTuple

from cnnjax.errors import InputError
from cnnjax.pretrained.library import Arrays


class Format(NamedTuple):
    """A kind of file. Its module, one of this package, has `read(path) -> Arrays`, which raises InputError."""

    kind: str  # whose names and layouts these are, for `cnnjax.pretrained.convert`
    suffixes: tuple[str, ...]
    begins: tuple[bytes, ...] = ()  # what its files begin with, where they begin alike
    skip: int = 0  # bytes before that


READERS: dict[str, Format] = {
    "torch": Format("torch", (".pth", ".pt", ".th", ".bin", ".tar", ".ckpt"), (b"PK\x03\x04", b"\x80")),
    "safetensors": Format("torch", (".safetensors",), (b"{",), skip=8),  # behind the length of the header
    "keras": Format("keras", (".h5", ".hdf5", ".keras"), (b"\x89HDF", b"PK\x03\x04")),
    "slim": Format("slim", (".gz", ".tgz", ".ckpt", ".index", ".data-00000-of-00001")),
    "caffe": Format("caffe", (".caffemodel",)),
}


def read(path: str | pathlib.Path) -> tuple[str, Arrays]:
    """The kind of names and layouts, and the arrays in the file's order, of a file of weights.

    Raises InputError for a file that is none of `READERS`, is damaged, or holds code.
    """
    path = pathlib.Path(path)
    name = _format(path)
    return READERS[name].kind, importlib.import_module(f"cnnjax.pretrained.formats.{name}").read(path)


def _format(path: pathlib.Path) -> str:
    """The format of a file by its suffix and how it begins, or, for a suffix of no format, by how it begins alone."""
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(16)
    of_suffix = [name for name, row in READERS.items() if path.suffix in row.suffixes]
    of_bytes = [name for name, row in READERS.items() if head[row.skip :].startswith(row.begins)]
    both = [name for name in of_suffix if name in of_bytes or not READERS[name].begins]
    if not (found := both or of_bytes):
        valid = ", ".join(dict.fromkeys(suffix for row in READERS.values() for suffix in row.suffixes))
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) holds no weights in a known format; known: {valid}")
    return found[0]
