"""Reader of safetensors files: the length of a header, 8 bytes; the header, JSON; and the numbers of the arrays.

https://github.com/huggingface/safetensors#format. The library of that name cannot return dtypes that NumPy does
not have, such as 8-bit floating-point numbers.
"""

import json
import math
import os
import pathlib
import sys
from typing import IO, Any

import ml_dtypes
import numpy as np

from cnnjax import limits
from cnnjax.errors import InputError
from cnnjax.pretrained.formats import Arrays

DTYPES: dict[str, Any] = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": ml_dtypes.bfloat16,
    "F8_E4M3": ml_dtypes.float8_e4m3fn, "F8_E5M2": ml_dtypes.float8_e5m2, "F8_E8M0": ml_dtypes.float8_e8m0fnu,
    "F8_E4M3FNUZ": ml_dtypes.float8_e4m3fnuz, "F8_E5M2FNUZ": ml_dtypes.float8_e5m2fnuz,
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "BOOL": "bool",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "C64": "complex64",
}  # fmt: skip
METADATA = "__metadata__"  # key of the header under which there are no arrays
_MAX_HEADER_BYTES = 25_000_000  # of JSON, whose Python objects take up to twenty times as much
_MAX_DIMENSIONS = 32


def read(path: pathlib.Path) -> Arrays:
    """Reads the arrays of a .safetensors file, in the order of their data. Raises InputError for a damaged file."""
    with path.open("rb") as file:
        return parse(file, str(path))


def read_metadata(path: pathlib.Path) -> dict[str, str]:
    """Returns the texts that a .safetensors file has beside its arrays. Raises InputError for a damaged file."""
    with path.open("rb") as file:
        metadata = _read_header(file, str(path))[0].get(METADATA, {})
    return {key: text for key, text in metadata.items() if isinstance(text, str)} if isinstance(metadata, dict) else {}


def parse(file: IO[bytes], where: str) -> Arrays:
    """Reads the arrays of an open file in the order of their data, as read-only views of its bytes.

    `where` begins the errors. Raises InputError for a damaged file.
    """
    header, size = _read_header(file, where)
    rows = []
    for name, row in header.items():
        if name != METADATA:
            rows.append((*_parse_row(where, name, row), name))
    rows.sort(key=lambda row: row[:2])
    ends = [0, *(end for _, end, _, _, _ in rows)]
    if [start for start, *_ in rows] != ends[:-1] or ends[-1] != size:
        raise InputError(f"{where} is truncated or damaged: its arrays are not the {size:,} bytes after the header")
    data = file.read(size)
    return {
        name: np.frombuffer(data, dtype, math.prod(shape), start).reshape(shape)
        for start, _, dtype, shape, name in rows
    }


def _read_header(file: IO[bytes], where: str) -> tuple[dict[str, Any], int]:
    """Reads the header; returns it and the number of bytes after it. Raises InputError if it is damaged."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise InputError(f"{where} ({size:,} bytes) is damaged: its header claims {length:,} bytes")
    limits.check_size(f"the header of {where}", length, _MAX_HEADER_BYTES)
    try:
        header = json.loads(file.read(length).decode())
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise InputError(f"{where} ({size:,} bytes) is damaged: its header is not a JSON object")
    return header, size - 8 - length


def _parse_row(where: str, name: str, row: Any) -> tuple[int, int, np.dtype, tuple[int, ...]]:
    """Returns the first byte, the last byte + 1, dtype and shape of an array. Raises InputError unless they agree."""
    match row:
        case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [int(start), int(end)]} if len(row) == 3:
            pass
        case _:
            raise InputError(f"{where} is damaged: its header has no valid {name[:80]!r}")
    if dtype not in DTYPES:
        raise InputError(f"{where}: {name[:80]!r} is of the type {dtype[:20]!r}; valid: {', '.join(DTYPES)}")
    numbers = [*shape, start, end]
    if not all(type(number) is int and 0 <= number < sys.maxsize for number in numbers) or len(shape) > _MAX_DIMENSIONS:
        raise InputError(f"{where} is damaged: {name[:80]!r} has no valid shape")
    numpy_dtype = np.dtype(DTYPES[dtype])
    if end - start != math.prod(shape) * numpy_dtype.itemsize:
        raise InputError(f"{where} is damaged: {name[:80]!r} has {end - start:,} bytes, which do not fit its shape")
    return start, end, numpy_dtype.newbyteorder("<") if numpy_dtype.isbuiltin == 1 else numpy_dtype, tuple(shape)
