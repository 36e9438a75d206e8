"""Digest of a checkpoint: the dtype, shape and CRC-32 of every array, by which a damaged array is detected."""

import json
import pathlib
import zlib
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from cnnjax.errors import InputError
from cnnjax.state import Tree, path_name


class DamagedError(Exception):
    """Raised for a checkpoint whose content differs from what was saved. The message says which array or file."""


def to_host(leaf: jax.Array) -> np.ndarray:
    """Returns a global array as numpy. If it is sharded across processes, every process has to call this function."""
    if not (leaf.is_fully_replicated or leaf.is_fully_addressable):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf.addressable_data(0) if leaf.is_fully_replicated else leaf)


def array_records(tree: Tree) -> dict[str, list]:
    """Returns {path: [dtype, shape, CRC-32]} of every array in `tree`, as in {'conv1/bias': ['float32', [6], 123]}.

    The arrays are numpy arrays. `tree` may hold ShapeDtypeStructs instead, whose CRC-32 is given as 0.
    """
    return {
        path_name(path): [str(leaf.dtype), list(leaf.shape), _crc(leaf)]
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _crc(leaf: Any) -> int:
    """Returns the CRC-32 of the bytes of a numpy array; 0 for an empty array or a ShapeDtypeStruct."""
    if isinstance(leaf, jax.ShapeDtypeStruct):
        return 0
    return zlib.crc32(np.ascontiguousarray(leaf).view(np.uint8).data) if leaf.size else 0


def with_crc(name: str, content: Any) -> dict[str, Any]:
    """Returns {name: content, 'crc': CRC-32 of the JSON text of `content`}, one section of a digest file."""
    return {name: content, "crc": zlib.crc32(json.dumps(content).encode())}


def read_section(folder: pathlib.Path, section: str, name: str) -> Any:
    """Returns the content of a section of the digest in a checkpoint's folder, after checking the section's own CRC-32.

    The sections 'model' and 'optimizer' have their content under `name` = 'arrays', the section 'metrics' under
    'values'. Raises DamagedError if the digest cannot be read or the CRC-32 differs.
    """
    try:
        content = json.loads((folder / "digest" / "metadata").read_text())[section]
        if content == with_crc(name, content[name]):
            return content[name]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedError(f"its digest cannot be read ({type(error).__name__})") from error
    raise DamagedError("its digest has a wrong checksum")


def check_same_network(folder: pathlib.Path, saved: dict[str, list], expected: dict[str, list]) -> None:
    """Raises InputError if the saved arrays differ from the expected ones in path, dtype or shape.

    Both are {path: [dtype, shape, CRC-32]}. CRCs are not compared.
    """
    for path in sorted(saved.keys() | expected.keys()):
        there, here = (records[path][:2] if path in records else None for records in (saved, expected))
        if there != here:
            raise InputError(
                f"{folder} is a checkpoint of another network or optimizer: {path} is "
                f"{_describe(there)} there, {_describe(here)} in this config"
            )


def _describe(record: list | None) -> str:
    """Returns dtype and shape as text, such as 'float32[3, 3, 64, 64]'; 'missing' for None."""
    return f"{record[0]}{record[1]}" if record else "missing"
