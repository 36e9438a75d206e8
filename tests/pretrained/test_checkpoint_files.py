"""Whatever training scripts save with the weights: it is passed over, and nothing of it is built."""

import argparse
import collections
import dataclasses
import datetime
import decimal
import enum
import pathlib
import pickle
import re
import struct
from typing import Any

import numpy as np
import pytest

from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from cnnjax.pretrained.formats import torch_pickles
from tests.pretrained.test_weight_files import FLOATS, PLAIN, as_stream, as_zip, ask, push, state_dict, tensor


class Phase(enum.Enum):
    TRAIN = 1


@dataclasses.dataclass
class Options:
    lr: float = 0.1
    data: str = "/data"


class Tracker(dict):
    def __init__(self, *values: Any) -> None:
        super().__init__(loss=values)
        self.best = 3


BESIDE: dict[str, Any] = {
    "options": argparse.Namespace(lr=0.1, data=pathlib.PurePosixPath("/data"), inner=argparse.Namespace(x=1)),
    "a number of NumPy": np.float64(71.2),
    "an array of NumPy": np.ones(3),
    "an array of objects": np.array([None, {}], object),
    "texts of NumPy": np.array(["a", "b"]),
    "a state of NumPy's generator": np.random.RandomState(0).get_state(),
    "a generator": np.random.default_rng(0),
    "a defaultdict": collections.defaultdict(list, loss=[1.0, 2.0]),
    "an OrderedDict": collections.OrderedDict(a=1),
    "a Counter": collections.Counter("abc"),
    "a deque": collections.deque([1, 2], maxlen=3),
    "a date": datetime.datetime(2020, 1, 2, tzinfo=datetime.UTC),
    "an enum": Phase.TRAIN,
    "a dataclass": Options(),
    "a subclass of dict": Tracker(1, 2),
    "a class": Options,
    "a function": len,
    "sets": [{1, 2}, frozenset("a")],
    "keys": {("a", 1): 2, None: 3, 2.5: 4, Phase.TRAIN: 5, frozenset([1]): 6},
    "others": [
        decimal.Decimal("1.5"),
        1 + 2j,
        range(3),
        slice(2),
        bytearray(b"x"),
        re.compile("x"),
        2**100,
        ...,
        "ö\0",
    ],
}
HEADER = rb"\A\x80.(\x95.{8})?"  # protocol and frame of a pickle
OF_TORCH = {
    "a type": ask("torch", "float32"),
    "a device": ask("torch", "device") + push(("cuda:0",)) + b"R",
    "a size": ask("torch", "Size") + push(((1, 2),)) + b"R",
    "an optimizer": push({"state": {}, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}),
}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", [*BESIDE, *OF_TORCH])
@pytest.mark.parametrize("form", [as_zip, as_stream])
def test_anything_beside_the_weights_is_passed_over(form: Any, name: str, protocol: int, tmp_path: Any) -> None:
    # Without its header, and first, since the references of protocol 4 count from the beginning.
    value = OF_TORCH.get(name) or re.sub(HEADER, b"", pickle.dumps(BESIDE[name], protocol), flags=re.DOTALL)[:-1]
    before = b"(X\4\0\0\0args" + value + push("state_dict") + PLAIN + push("epoch") + push(3) + b"d"
    (tmp_path / "x.pth").write_bytes(form(before, FLOATS))
    found = formats.read(tmp_path / "x.pth")[1]
    assert list(found) == ["w", "b"]
    np.testing.assert_array_equal(found["w"], FLOATS["7"].reshape(3, 4))


def numpy_array(value: Any) -> bytes:
    return pickle.dumps(value, 2)[2:-1]


def test_arrays_of_numpy_are_weights_too(tmp_path: pathlib.Path) -> None:
    arrays = {"a": np.ones((2, 3), np.float32), "b": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "n": np.array(3)}
    content = {name: numpy_array(array) for name, array in arrays.items()}
    content |= {"t": tensor("7", "Float", 12, 0, (2,), (1,)), "best": numpy_array(np.float64(71.2)), "epoch": push(3)}
    (tmp_path / "x.pth").write_bytes(as_zip(state_dict(content), FLOATS))
    found = formats.read(tmp_path / "x.pth")[1]
    assert list(found) == ["a", "b", "n", "t"]
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_an_array_of_objects_is_no_weight(tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.pth").write_bytes(as_zip(state_dict({"a": numpy_array(np.array([None], object))}), {}))
    with pytest.raises(InputError, match=r"x.pth: the pickle has an object that is not a valid array of numbers"):
        formats.read(tmp_path / "x.pth")


@pytest.mark.parametrize("name", torch_pickles._NEW_DTYPES)
def test_every_type_of_untyped_storages_comes_back(name: str, tmp_path: pathlib.Path) -> None:
    numbers = np.array([1, 2, 4, 8]).astype(torch_pickles._NEW_DTYPES[name])
    storage = b"((" + push("storage") + ask("torch.storage", "UntypedStorage") + push("0") + push("cpu")
    storage += push(numbers.nbytes) + b"tQ"
    rest = push(1) + push((2,)) + push((2,)) + push(False) + ask("collections", "OrderedDict") + b")R"
    value = ask("torch._utils", "_rebuild_tensor_v3") + storage + rest + ask(*name.split(".")) + b"tR"
    (tmp_path / "x.pth").write_bytes(as_zip(state_dict({"x": value}), {"0": numbers}))
    found = formats.read(tmp_path / "x.pth")[1]["x"]
    assert (found.dtype, found.tolist()) == (numbers.dtype, numbers[1::2].tolist())


WEIGHT, BIAS = tensor("7", "Float", 12, 0, (2, 3), (3, 1)), tensor("7", "Float", 12, 6, (2,), (1,))


def record(module: str, name: str, state: bytes) -> bytes:
    return ask(module, name) + b")\x81" + state + b"b"


def items(**values: bytes) -> bytes:
    return b"(" + b"".join(push(name) + value for name, value in values.items()) + b"d"


def plain_module(name: str, parameters: bytes, modules: bytes = b"}") -> bytes:
    training = {"_parameters": parameters, "_buffers": items(mean=BIAS), "_modules": modules}
    return record("torch.nn.modules", name, items(training=push(True), **training, _hooks=b"}"))


SCRIPTED = record("__torch__", "Conv", items(weight=WEIGHT, mean=BIAS))
NETWORKS = {
    "pickled": plain_module("Net", b"}", items(conv=plain_module("Conv2d", items(weight=WEIGHT, bias=push(None))))),
    "scripted": record(
        "__torch__",
        "Net",
        items(mean=BIAS, conv=record("__torch__", "Conv", items(weight=WEIGHT, mean=BIAS)), n=push(3)),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_weights_of_a_whole_network_have_the_names_of_its_state_dict(
    name: str, wrapped: bool, tmp_path: pathlib.Path
) -> None:
    content = items(model=NETWORKS[name], epoch=push(3)) if wrapped else NETWORKS[name]
    (tmp_path / "x.pth").write_bytes(as_zip(content, FLOATS))
    found = formats.read(tmp_path / "x.pth")[1]
    assert sorted(found) == ["conv.mean", "conv.weight", "mean"]
    np.testing.assert_array_equal(found["conv.weight"], [[0, 1, 2], [3, 4, 5]])


LEAF = plain_module("Leaf", items(weight=WEIGHT))
NET = ask("torch.nn.modules", "Net") + b")\x81"


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", 1000 + index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", 1000 + index)


ENDLESS = {
    "each is the one before it twice": LEAF + put(0)
    + b"".join(NET + items(_modules=items(a=get(i), b=get(i))) + b"b" + put(i + 1) for i in range(60)),
    "30,000 inside each other": (NET + b"(" + push("_modules") + b"(" + push("a")) * 30_000 + LEAF + b"ddb" * 30_000,
    "a module in itself": NET + put(0) + items(_modules=items(a=get(0))) + b"b",
}  # fmt: skip


@pytest.mark.parametrize("name", ENDLESS)
def test_modules_inside_each_other_have_an_end(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "x.pth").write_bytes(as_zip(ENDLESS[name], FLOATS))
    with pytest.raises(InputError, match="holds no state dict"):
        formats.read(tmp_path / "x.pth")
    (tmp_path / "x.pth").write_bytes(as_zip(items(trainer=ENDLESS[name], state_dict=PLAIN), FLOATS))
    assert list(formats.read(tmp_path / "x.pth")[1]) == ["w", "b"]
