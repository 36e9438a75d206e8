"""Pickles that run nothing, whatever they hold: inert values, a budget, and arrays out of checked parts."""

import argparse
import collections
import datetime
import enum
import functools
import io
import os
import pathlib
import pickle
import struct
from typing import Any

import numpy as np
import pytest

from cnnjax.data import pickled_arrays, safe_pickle
from cnnjax.data.build import build
from cnnjax.data.safe_pickle import Record
from cnnjax.errors import InputError
from tests.data.original_files import PY, silent, write_cifar


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


class Color(enum.Enum):
    RED = 1


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("call", [os.mkdir, eval, functools.partial], ids=lambda call: call.__name__)
def test_a_malicious_batch_is_refused_and_nothing_runs(tmp_path, call, protocol):
    write_cifar(tmp_path / "raw", "cifar10", "py")
    mark = tmp_path / "mark"
    args = {os.mkdir: (str(mark),), eval: (f"__import__('os').mkdir({str(mark)!r})",)}.get(call, (os.mkdir, str(mark)))
    batch = {b"data": Evil(call, *args), b"labels": [0]}
    (tmp_path / "raw" / PY / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(
        InputError, match=r"test_batch \(.* bytes\) is truncated or not a CIFAR batch: .* not a valid array"
    ):
        build("cifar10", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol):
    value = {
        "numbers": [1, -2, 2.5, 2**70, None, True],
        b"bytes": b"\x80 x",
        3: (1, (2, "ö\n"), []),
        "ordered": collections.OrderedDict(a=1),
        "default": collections.defaultdict(list, loss=[1.0]),
    }
    assert safe_pickle.loads(pickle.dumps(value, protocol)) == value


FOREIGN = {
    "argparse.Namespace": argparse.Namespace(lr=0.1),
    f"{pathlib.PurePosixPath.__module__}.PurePosixPath": pathlib.PurePosixPath("/data"),
    "datetime.datetime": datetime.datetime(2020, 1, 1),
    f"{__name__}.Color": Color.RED,
    f"{__name__}.Evil": Evil,
    "posix.mkdir": Evil(os.mkdir, "mark"),
    "": Evil(functools.partial(os.mkdir), "mark"),
}


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize("name", FOREIGN)
def test_whatever_else_becomes_a_record_of_its_name(name, protocol, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    record = safe_pickle.loads(pickle.dumps([FOREIGN[name], 7], protocol))
    assert (type(record[0]), record[0].name, record[1]) == (Record, name, 7)
    assert list(tmp_path.iterdir()) == []


def test_sets_and_keys_of_other_types_are_passed_over():
    assert safe_pickle.loads(pickle.dumps({("a", 1): 1, None: 2, 2.5: 3, "set": {1}, 2**64: 4}, 4)) == {"set": [1]}


ARRAYS = [
    np.arange(12, dtype=np.uint8).reshape(3, 4),
    np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.arange(3, dtype=">i4"),
    np.zeros((0, 3), np.float16),
    np.array(3),
    np.float64(3.5),
    np.bool_(True),
    np.ones(2, np.complex64),
]


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("array", ARRAYS, ids=str)
def test_arrays_and_numbers_of_numpy_come_back(array: Any, protocol):
    data = pickle.dumps(array, protocol)
    for form in (data, data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")):  # of NumPy 1
        if form is not data and protocol >= 4:
            continue  # the length of the name is part of the pickle
        record = safe_pickle.loads(form)
        assert pickled_arrays.is_array(record)
        found = pickled_arrays.to_array(record)
        np.testing.assert_array_equal(found, array)
        assert (found.shape, found.dtype) == (array.shape, array.dtype.newbyteorder("="))


# --------------------------------------------------------------------------------------------- what must not be built


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def dtype(name: str, state: bytes = b"") -> bytes:
    return b"cnumpy\ndtype\n" + text(name) + b"\x85R" + state


def array(kind: bytes, shape: bytes = b"K\x02\x85", data: bytes = b"B\x10\0\0\0" + b"A" * 16) -> bytes:
    """An array of protocol 5, of 2 x 8 bytes unless said otherwise."""
    return b"cnumpy._core.numeric\n_frombuffer\n(" + data + kind + shape + text("C") + b"tR"


# A dtype with a field of objects, but without the flag that says so: NumPy would follow a pointer out of the file.
FIELD = b"}" + text("a") + dtype("O") + b"K\0\x86s"
POINTERS = dtype("V8") + b"(K\x03" + text("|") + b"N" + text("a") + b"\x85" + FIELD + b"K\x08K\x01K\0tb"
INVALID = {
    "objects": array(dtype("O")),
    "objects, by their code": array(dtype("|O8")),
    "a field of objects": array(POINTERS),
    "a structure": array(dtype("V8")),
    "texts": array(dtype("U2")),
    "dates": array(dtype("M8[ns]")),
    "a list of fields": array(b"cnumpy\ndtype\n](" + text("a") + text("O") + b"\x86e\x85R"),
    "too few bytes": array(dtype("f8"), b"K\x03\x85"),
    "too many bytes": array(dtype("f8"), b"K\x01\x85"),
    "a negative side": array(dtype("f8"), b"J\xfe\xff\xff\xff\x85"),
    "a product of negative sides": array(dtype("f8"), b"J\xfe\xff\xff\xffJ\xff\xff\xff\xff\x86"),
    "a fraction": array(dtype("f8"), b"G\x40\0\0\0\0\0\0\0\x85"),
    "a huge side": array(dtype("f8"), b"\x8a\x09" + b"\x7f" * 9 + b"\x85"),
    "numbers for bytes": array(dtype("f8"), data=b"](K\1K\2e"),
    "the class itself": b"cnumpy\nndarray\n(" + b"K\x02\x85" + dtype("O") + b"tR",
    "another class": b"cnumpy._core.multiarray\n_reconstruct\n(cos\nmkdir\nK\0\x85C\1btR(K\1K\2\x85" + dtype("f8")
    + b"\x89B\x10\0\0\0" + b"A" * 16 + b"tb",
    "no state": b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85C\1btR",
    "a scalar of objects": b"cnumpy._core.multiarray\nscalar\n" + dtype("O") + b"C\x08AAAAAAAA\x86R",
}  # fmt: skip


@pytest.mark.parametrize("name", INVALID)
def test_an_invalid_array_is_refused(name):
    record = safe_pickle.loads(b"\x80\x02" + INVALID[name] + b".")
    with pytest.raises(InputError, match="not a valid array of numbers"):
        pickled_arrays.to_array(record)


@pytest.mark.parametrize("key", ["data", "labels"])
@pytest.mark.parametrize("wrapped", [False, True], ids=["array", "list"])
def test_a_batch_of_pointers_is_refused(tmp_path, key, wrapped):
    write_cifar(tmp_path / "raw", "cifar10", "py")
    value = b"(" + array(POINTERS) * 2 + b"l" if wrapped else array(POINTERS)
    pixels = array(dtype("u1"), b"K\x00M\x00\x0c\x86", b"C\0")
    content = {"data": pixels, "labels": b"]"} | {key: value}
    batch = b"\x80\x02}" + b"".join(text(name) + one + b"s" for name, one in content.items()) + b"."
    (tmp_path / "raw" / PY / "test_batch").write_bytes(batch)
    with pytest.raises(InputError, match=r"test_batch .* or not a CIFAR batch: .*(not a valid array|not integers)"):
        build("cifar10", str(tmp_path / "raw"), str(tmp_path / "data"), silent)


# A tuple of 2^64 tuples, and bytes made of one text.
LAUGHS = b")" + b"2\x86" * 64  # a tuple of 2^64 tuples
SHARED = b"(" + text("a" * 10**6) + text("latin1") + b"tq\0c_codecs\nencode\nq\1"
BOMBS = {
    "operations": (b"]" * 10_001 + b".", "takes more than 10,000 operations"),
    "the items of one list, again and again": (
        b"](" + b"K\1K\1\x86" * 1000 + b"eq\0ccollections\nOrderedDict\nq\1" + b"h\1h\0\x85R" * 100 + b".",
        "takes more than 10,000 operations",
    ),
    "the bytes of one text, again and again": (SHARED + b"h\1h\0R" * 100 + b".", "truncated or damaged"),
    "a text of 4 GB": (b"X\xff\xff\xff\xffabc.", "truncated or damaged"),
    "a number of 2 GB": (b"\x8b\xff\xff\xff\x7fabc.", "truncated or damaged"),
    "a number of many digits": (b"L" + b"9" * 10**5 + b"L\n.", "truncated or damaged"),
    "an empty stack": (b"R.", "truncated or damaged"),
    "nothing": (b"", "truncated or damaged"),
    "another buffer": (b"\x97.", "the pickle uses NEXT_BUFFER"),
    "an extension": (b"\x82\1.", "the pickle uses EXT1"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name, monkeypatch):
    monkeypatch.setattr(safe_pickle, "MAX_OPERATIONS", 10_000)
    with pytest.raises(InputError, match=BOMBS[name][1]) as error:
        safe_pickle.loads(BOMBS[name][0])
    assert len(str(error.value)) < 100


DEEP = {
    "tuples as a value": LAUGHS + b".",
    "tuples as a key": b"}" + LAUGHS + b"Ns.",
    "tuples as a name": b"}" + text("data") + LAUGHS + b"cos\nmkdir\n" + LAUGHS + b"Rs.",
    "lists in lists": b"]" * 10**5 + b"a" * (10**5 - 1) + b".",
    "calls of calls": b"cos\nmkdir\n" + b")R" * 10**5 + b".",
    "itself": b"]q\0h\0a.",
    "a memo of 2^32 places": b"Nr\xff\xff\xff\xff.",
}


@pytest.mark.parametrize("name", DEEP)
def test_deep_values_take_no_time(name):
    safe_pickle.loads(DEEP[name])


def test_pickles_one_after_the_other_and_their_persistent_ids():
    identities: list[Any] = []
    file = io.BytesIO(b"(K\1K\2tQ." + pickle.dumps({"a": 2}) + b"Pname\n.rest")
    values = [safe_pickle.load(file, identities) for _ in range(3)]
    assert [values[0].name, values[1], values[2].args] == [safe_pickle.PERSISTENT_ID, {"a": 2}, ("name",)]
    assert (identities, file.read()) == ([(1, 2), "name"], b"rest")
