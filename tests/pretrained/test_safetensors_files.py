"""The reader of safetensors files: every type that the format has, and headers that lie."""

import json
import pathlib
import struct
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cnnjax.errors import InputError
from cnnjax.pretrained import export
from cnnjax.pretrained.formats import safetensors as reader


def written(header: Any, data: bytes = bytes(8)) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


@pytest.mark.parametrize("name", reader.DTYPES)
def test_every_type_of_numbers_comes_back(name: str, tmp_path: pathlib.Path) -> None:
    array = np.array([[0.5, 1, 2], [4, 1, 8]]).astype(reader.DTYPES[name])
    row = {"dtype": name, "shape": array.shape, "data_offsets": [0, array.nbytes]}
    (tmp_path / "x").write_bytes(written({"w": row}, array.tobytes()))
    found = reader.read(tmp_path / "x")["w"]
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found.astype(np.complex64), array.astype(np.complex64))


def test_what_the_library_writes_is_read_as_it_reads_it(tmp_path: pathlib.Path) -> None:
    arrays = {
        "scalar": np.array(2.5),
        "empty": np.zeros((0, 3), np.int64),
        "größe": np.arange(6, dtype=np.float16).reshape(2, 3),
        "bf16": np.ones(2, ml_dtypes.bfloat16),
        "flags": np.array([True, False]),
    }
    safetensors.numpy.save_file(arrays, tmp_path / "x", {"format": "pt", "epoch": "3"})
    found, theirs = reader.read(tmp_path / "x"), safetensors.numpy.load_file(tmp_path / "x")
    assert found.keys() == theirs.keys()
    for name, array in theirs.items():
        assert (found[name].dtype, found[name].shape) == (array.dtype, array.shape)
        np.testing.assert_array_equal(found[name], array)
    assert reader.read_metadata(tmp_path / "x") == {"format": "pt", "epoch": "3"}


ROW = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
LIES = {
    "a longer header": (struct.pack("<Q", 2**40) + b"{}", "damaged: its header claims 1,099,511,627,776 bytes"),
    "no header": (b"1234", "damaged: its header "),
    "a list": (written([ROW]), "its header is not a JSON object"),
    "lists in lists": (written(b"[" * 10**5), "its header is not a JSON object"),
    "a huge shape": (written({"w": ROW | {"shape": [2**40, 2**40]}}), "'w' has 8 bytes, which do not fit its shape"),
    "negative sides": (written({"w": ROW | {"shape": [-1, -2]}}), "'w' has no valid shape"),
    "a fraction": (written({"w": ROW | {"shape": [2.0]}}), "'w' has no valid shape"),
    "a truth": (written({"w": ROW | {"shape": [2, True]}}), "'w' has no valid shape"),
    "too many sides": (written({"w": ROW | {"shape": [2] + [1] * 99}}), "'w' has no valid shape"),
    "an end before the start": (written({"w": ROW | {"data_offsets": [8, 0]}}), "'w' has -8 bytes"),
    "one row for two": (written({"v": ROW, "w": ROW}), "its arrays are not the 8 bytes after the header"),
    "too few bytes": (written({"w": ROW}, bytes(7)), "its arrays are not the 7 bytes after the header"),
    "too many bytes": (written({"w": ROW}, bytes(9)), "its arrays are not the 9 bytes after the header"),
    "another type": (written({"w": ROW | {"dtype": "F4"}}), "'w' is of the type 'F4'; valid: F64, F32"),
    "a longer row": (written({"w": ROW | {"more": 1}}), "its header has no valid 'w'"),
    "a number": (written({"w": 7}), "its header has no valid 'w'"),
    "a name that controls a terminal": (written({"\x1b[2J" * 99: 7}), r"no valid '\\x1b\[2J"),
}


def test_equal_arrays_and_descriptions_are_equal_files(tmp_path: pathlib.Path) -> None:
    """The library has a random order of its own for the metadata, another one in each call."""
    arrays = {"größe": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.float32)}
    for i in range(12):
        export.write(tmp_path / f"{i}.safetensors", arrays, '{"config": "größe"}')
    (content,) = {path.read_bytes() for path in tmp_path.iterdir()}
    assert int.from_bytes(content[:8], "little") % 8 == 0
    found = safetensors.numpy.load(content)
    assert found.keys() == arrays.keys()
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


@pytest.mark.parametrize("name", LIES)
def test_a_header_that_lies_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    data, words = LIES[name]
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(InputError, match=words) as error:
        reader.read(tmp_path / "x")
    assert len(str(error.value)) < 300
    assert str(error.value).isprintable()
