"""Readers of other libraries' weight files, which return arrays under the file's own names and never run its code."""

import dataclasses
import importlib
import pathlib

from cnnjax.errors import InputError
from cnnjax.pretrained.library import Arrays


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format. Its module in this package has `read(path) -> Arrays`, which raises InputError."""

    framework: str  # whose names and layouts the arrays have, see `Library.framework`
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()  # first bytes of its files; () if they have none in common
    magic_offset: int = 0  # bytes before the magic


READERS: dict[str, Format] = {
    "torch": Format("torch", (".pth", ".pt", ".th", ".bin", ".tar", ".ckpt"), (b"PK\x03\x04", b"\x80")),
    "safetensors": Format("torch", (".safetensors",), (b"{",), magic_offset=8),  # behind the length of the header
    "keras": Format("keras", (".h5", ".hdf5", ".keras"), (b"\x89HDF", b"PK\x03\x04")),
    "slim": Format("slim", (".gz", ".tgz", ".ckpt", ".index", ".data-00000-of-00001")),
    "caffe": Format("caffe", (".caffemodel",)),
}


def read(path: str | pathlib.Path) -> tuple[str, Arrays]:
    """Reads a weight file; returns its framework, such as "torch", and its arrays in the file's order.

    Raises InputError for a file in no format of `READERS`, that is damaged, or that asks to run code.
    """
    path = pathlib.Path(path)
    name = _format(path)
    return READERS[name].framework, importlib.import_module(f"cnnjax.pretrained.formats.{name}").read(path)


def _format(path: pathlib.Path) -> str:
    """Returns the name of a format by suffix and first bytes, or by the first bytes alone for an unknown suffix."""
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(16)
    by_suffix = [name for name, row in READERS.items() if path.suffix in row.suffixes]
    by_magic = [name for name, row in READERS.items() if head[row.magic_offset :].startswith(row.magic)]
    both = [name for name in by_suffix if name in by_magic or not READERS[name].magic]
    if not (formats := both or by_magic):
        valid = ", ".join(dict.fromkeys(suffix for row in READERS.values() for suffix in row.suffixes))
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) holds no weights in a known format; known: {valid}")
    return formats[0]
