"""Readers of other libraries' weight files, which return arrays under the file's own names and never run its code."""

import dataclasses
import importlib
import pathlib

from cnnjax.errors import InputError
from cnnjax.pretrained.formats import state_dicts
from cnnjax.pretrained.library import Arrays


@dataclasses.dataclass(frozen=True)
class Format:
    """A file format. The module of its name in this package has `read(path) -> Arrays`, which raises InputError.

    Attributes:
      framework: framework whose names and layouts the arrays have, as in `Library.framework`.
      suffixes: usual suffixes of the files.
      magic: bytes with which the files begin, one of these; () if they have none in common.
      magic_offset: number of bytes before the magic.
      has_sets: whether a file may hold several sets of weights; then `read(path, choose) -> Arrays`.
    """

    framework: str
    suffixes: tuple[str, ...]
    magic: tuple[bytes, ...] = ()
    magic_offset: int = 0
    has_sets: bool = False


READERS: dict[str, Format] = {
    "torch": Format("torch", (".pth", ".pt", ".th", ".bin", ".tar", ".ckpt"), (b"PK\x03\x04", b"\x80"), has_sets=True),
    "safetensors": Format("torch", (".safetensors",), (b"{",), magic_offset=8),  # after the length of the header
    "keras": Format("keras", (".h5", ".hdf5", ".keras"), (b"\x89HDF", b"PK\x03\x04")),
    "slim": Format("slim", (".gz", ".tgz", ".ckpt", ".index", ".data-00000-of-00001")),
    "caffe": Format("caffe", (".caffemodel",)),
}


OTHER_FILES = {  # beginnings of files that people take for weights
    b"version https://": "a pointer of Git LFS to them: `git lfs pull` gets the file itself",
    b"<": "a web page, such as one that asks whether to download: download the file itself",
}
MAX_NAME = 500


def read(path: str | pathlib.Path, choose: state_dicts.Choice = state_dicts.choose) -> tuple[str, Arrays]:
    """Reads a weight file; returns its framework, such as 'torch', and its arrays by name, in the file's order.

    Runs no code from the file. `choose` returns which of several sets of weights in the file is read, by default the
    most usual one; most formats hold one set, ''. Raises InputError for an unknown format, for a damaged or malicious
    file, and if it is not clear which set is meant.
    """
    path = pathlib.Path(path)
    name = format_name(path)
    module = importlib.import_module(f"cnnjax.pretrained.formats.{name}")
    if READERS[name].has_sets:
        arrays = module.read(path, choose)
    else:
        try:
            choose([""])
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        arrays = module.read(path)
    _check(path, arrays)
    return READERS[name].framework, arrays


def _check(path: pathlib.Path, arrays: Arrays) -> None:
    """Raises InputError for arrays of complex numbers, and for names that cannot be shown."""
    for name, array in arrays.items():
        if len(name) > MAX_NAME or not name.isprintable():
            raise InputError(f"{path}: {name[:40]!a} is not an array name: it has {len(name):,} characters")
        if array.dtype.kind == "c":
            raise InputError(f"{path}: {name!r} has complex numbers; the weights of networks here are real")


def format_name(path: pathlib.Path) -> str:
    """Returns the key in `READERS` of a file's format, by suffix and first bytes; by the first bytes if these disagree.

    Raises InputError if there is no such file or its format is unknown.
    """
    if not path.is_file():
        raise InputError(f"there is no file {str(path)!r}")
    with path.open("rb") as file:
        head = file.read(16)
    by_suffix = [name for name, row in READERS.items() if path.suffix in row.suffixes]
    by_magic = [name for name, row in READERS.items() if head[row.magic_offset :].startswith(row.magic)]
    both = [name for name in by_suffix if name in by_magic or not READERS[name].magic]
    for beginning, kind in OTHER_FILES.items():
        if head.startswith(beginning):
            raise InputError(f"{path} holds no weights, but {kind}")
    if not (formats := both or by_magic):
        valid = ", ".join(dict.fromkeys(suffix for row in READERS.values() for suffix in row.suffixes))
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) holds no weights in a known format; known: {valid}")
    return formats[0]
