"""Readers of PyTorch and safetensors files: all forms, damaged files, and pickles that ask to run code."""

import io
import os
import pickle
import struct
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from cnnjax.data import safe_pickle
from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from cnnjax.pretrained.formats import state_dicts, torch_pickles

STREAM = tuple(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))


def push(value: object) -> bytes:
    """The opcodes that put a plain value on a pickle's stack."""
    return pickle.dumps(value, 2)[2:-1]


def ask(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def tensor(key, dtype, count, offset, shape, strides, view=None) -> bytes:
    storage = b"((" + push("storage") + ask("torch", f"{dtype}Storage") + push(key) + push("cuda:0") + push(count)
    storage += push(view) + b"tQ"
    rest = push(offset) + push(shape) + push(strides) + push(False) + ask("collections", "OrderedDict") + b")R"
    return ask("torch._utils", "_rebuild_tensor_v2") + storage + rest + b"tR"


def state_dict(tensors: dict[str, bytes]) -> bytes:
    """As PyTorch has it: an OrderedDict, with `_metadata` in its __dict__."""
    items = b"".join(push(name) + value for name, value in tensors.items())
    return ask("collections", "OrderedDict") + b")R(" + items + b"u}" + push("_metadata") + push({"": 1}) + b"sb"


def as_zip(content: bytes, storages: dict[str, np.ndarray], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + content + b".")
        archive.writestr("archive/byteorder", "little")
        for key, numbers in storages.items():
            archive.writestr(f"archive/data/{key}", numbers.tobytes())
    return buffer.getvalue()


def as_stream(content: bytes, storages: dict[str, np.ndarray]) -> bytes:
    numbers = [struct.pack("<q", one.size) + one.tobytes() for one in storages.values()]
    return b"".join([*STREAM, b"\x80\x02" + content + b".", pickle.dumps([*storages], 2), *numbers])


FORMS = {"zip": as_zip, "stream": as_stream}
FLOATS = {"7": np.arange(12, dtype=np.float32)}
PLAIN = state_dict({"w": tensor("7", "Float", 12, 0, (3, 4), (4, 1)), "b": tensor("7", "Float", 12, 2, (4,), (3,))})


@pytest.fixture(params=FORMS)
def form(request):
    return FORMS[request.param]


@pytest.fixture
def read(tmp_path):
    def write_and_read(data: bytes, name: str = "weights.pth") -> formats.Arrays:
        (tmp_path / name).write_bytes(data)
        return formats.read(tmp_path / name)[1]

    return write_and_read


def test_tensors_come_back_by_name_in_order_and_share_numbers(form, read) -> None:
    found = read(form(PLAIN, FLOATS))
    assert [*found] == ["w", "b"]
    np.testing.assert_array_equal(found["w"], np.arange(12).reshape(3, 4))
    np.testing.assert_array_equal(found["b"], [2, 5, 8, 11])
    assert np.shares_memory(found["w"], found["b"])
    assert not found["w"].flags.writeable


@pytest.mark.parametrize("dtype", [name for name in torch_pickles.DTYPES if "Complex" not in name])
def test_every_type_of_numbers_comes_back(form, read, dtype) -> None:
    numbers = np.array([0, 1, 3, 2], torch_pickles.DTYPES[dtype])
    found = read(form(state_dict({"x": tensor("0", dtype, 4, 1, (2,), (2,))}), {"0": numbers}))["x"]
    assert found.dtype == numbers.dtype
    np.testing.assert_array_equal(found, numbers[1::2])


SHAPES = {
    "scalar": (0, (), (), 0),
    "empty": (0, (0, 3), (3, 1), np.zeros((0, 3))),
    "turned": (0, (4, 3), (1, 4), np.arange(12).reshape(3, 4).T),
    "expanded": (3, (2, 3), (0, 1), [[3, 4, 5]] * 2),
    "at the end": (11, (1, 1), (99, 1), [[11]]),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(form, read, name) -> None:
    offset, shape, strides, expected = SHAPES[name]
    found = read(form(state_dict({"x": tensor("7", "Float", 12, offset, shape, strides)}), FLOATS))["x"]
    np.testing.assert_array_equal(found, expected)


def test_a_view_of_a_storage_as_the_oldest_files_have_them(read) -> None:
    content = state_dict({"x": tensor("7", "Float", 12, 1, (2,), (1,), view=("8", 4, 3))})
    np.testing.assert_array_equal(read(as_stream(content, FLOATS))["x"], [5, 6])


@pytest.mark.parametrize("name", [name for name in state_dicts.USUAL_NAMES if name])
def test_a_training_script_may_have_wrapped_it(form, read, name) -> None:
    wrapped = b"(" + push("epoch") + push(3) + push(name) + PLAIN + b"d"
    assert [*read(form(wrapped, FLOATS))] == ["w", "b"]


def test_a_parameter_is_its_tensor(form, read) -> None:
    one = tensor("7", "Float", 12, 0, (2,), (1,))
    old = ask("torch.nn.parameter", "Parameter") + b"(" + one + b"tR(" + push(True) * 2 + b"}tb"
    new = ask("torch._utils", "_rebuild_parameter") + b"(" + one + push(True) + b"}tR"
    found = read(form(state_dict({"old": old, "new": new}), FLOATS))
    np.testing.assert_array_equal([found["old"], found["new"]], [[0, 1], [0, 1]])


def test_the_first_bytes_tell_the_format_of_an_unknown_suffix(form, read, tmp_path) -> None:
    assert [*read(form(PLAIN, FLOATS), "weights")] == ["w", "b"]
    safetensors.numpy.save_file({"x": np.ones(2, ml_dtypes.bfloat16), "a": np.zeros(())}, tmp_path / "x.safetensors")
    for name in ("x.safetensors", "x"):
        kind, found = formats.read((tmp_path / "x.safetensors").rename(tmp_path / name))
        assert (kind, sorted(found), found["x"].dtype) == ("torch", ["a", "x"], ml_dtypes.bfloat16)


# ----------------------------------------------------------------------------------------------- what must not be read

MARK = "mark-of-a-pickle-that-ran"
CODE = f"__import__('os').mkdir({MARK!r})"


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


def evil(*args, protocol: int = 2) -> bytes:
    return pickle.dumps(Evil(*args), protocol)[:-1]


def string(text: str) -> bytes:
    return b"\x8c" + bytes([len(text)]) + text.encode()


MKDIR = b"(" + push(MARK) + b"t"
ONLY = "holds no state dict, but"
MALICIOUS = {
    "os.system": (evil(os.system, f"mkdir {MARK}"), rf"{ONLY} an object of posix\.system"),
    "eval": (evil(eval, CODE), rf"{ONLY} an object of __builtin__\.eval"),
    "eval of protocol 5": (evil(eval, CODE, protocol=5), rf"{ONLY} an object of builtins\.eval"),
    "in a list": (b"]" + evil(os.mkdir, MARK) + b"a", f"{ONLY} list"),
    "a tensor's own": (state_dict({"x": evil(os.mkdir, MARK)}), f"{ONLY} a dict of x"),
    "by names on the stack": (string("os") + string("mkdir") + b"\x93" + MKDIR + b"R", rf"{ONLY} .* os\.mkdir"),
    "by a dotted name": (string("torch") + string("os.mkdir") + b"\x93" + MKDIR + b"R", rf"{ONLY} .* torch\.os\.mkdir"),
    "an instance": (b"(" + push(MARK) + b"ios\nmkdir\n", rf"{ONLY} .* os\.mkdir"),
    "an object": (b"(" + ask("os", "mkdir") + push(MARK) + b"o", rf"{ONLY} .* os\.mkdir"),
    "a new object": (ask("subprocess", "Popen") + MKDIR + b"\x81", rf"{ONLY} .* subprocess\.Popen"),
    "a storage's type": (
        state_dict(
            {"x": tensor("7", "Float", 2, 0, (2,), (1,)).replace(ask("torch", "FloatStorage"), ask("os", "mkdir"))}
        ),
        r"a storage of another type than PyTorch's: os\.mkdir",
    ),
    "a call of a result": (ask("builtins", "getattr") + MKDIR + b"R" + MKDIR + b"R", f"{ONLY} an object of "),
    "a state": (ask("os", "mkdir") + push({"__class__": 1}) + b"b", rf"{ONLY} an object of os\.mkdir"),
    "code of torch": (ask("torch.hub", "load") + MKDIR + b"R", rf"{ONLY} .* torch\.hub\.load"),
    "numpy's own": (ask("numpy", "load") + MKDIR + b"R", rf"{ONLY} .* numpy\.load"),
    "codecs": (ask("_codecs", "encode") + b"(" + push("x") + push("zip") + b"tR", "the pickle is truncated or damaged"),
    "an extension": (b"\x82\x01", "the pickle uses EXT1"),
    "memory": (push(1) + b"r\xff\xff\xff\xff", f"{ONLY} int"),
    "a terminal's": (ask("os\x1b[2J", "mkdir") + MKDIR + b"R", rf"{ONLY} an object of os\\x1b\[2J\.mkdir"),
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_a_malicious_pickle_is_refused_in_one_line_and_nothing_runs(form, read, tmp_path, monkeypatch, name) -> None:
    content, reason = MALICIOUS[name]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=rf"weights\.pth: {reason}") as error:
        read(form(content, FLOATS if b"Storage" in content else {}))
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


@pytest.mark.parametrize("code", [evil(os.mkdir, MARK), evil(eval, CODE), ask("os", "mkdir") + MKDIR + b"R"])
def test_code_beside_the_weights_is_passed_over_and_does_not_run(form, read, tmp_path, monkeypatch, code) -> None:
    monkeypatch.chdir(tmp_path)
    assert [*read(form(b"(" + push("state_dict") + PLAIN + push("x") + code + b"d", FLOATS))] == ["w", "b"]
    assert [path.name for path in tmp_path.iterdir()] == ["weights.pth"]


TENSORS = {
    "beyond the end": tensor("7", "Float", 12, 1, (3, 4), (4, 1)),
    "before the beginning": tensor("7", "Float", 12, -1, (2,), (1,)),
    "backwards": tensor("7", "Float", 12, 5, (2,), (-1,)),
    "of another type": tensor("7", "Double", 6, 0, (6,), (1,)),
    "far away": tensor("7", "Float", 12, 0, (2,), (2**62,)),
    "larger than memory": tensor("7", "Float", 12, 0, (2**40, 2**20), (0, 0)),
    "of a fraction": tensor("7", "Float", 12, 0, (1.5,), (1,)),
    "without a stride": tensor("7", "Float", 12, 0, (3, 4), (1,)),
    "of no storage": ask("torch._utils", "_rebuild_tensor_v2") + b"(" + push((1, 0, (1,), (1,)))[:-1] + b"tR",
    "of a view beyond the end": tensor("7", "Float", 12, 0, (4,), (1,), view=("8", 10, 4)),
    "that is quantized": ask("torch._utils", "_rebuild_qtensor") + b"(" + push("x") + b"tR",
    "of a storage elsewhere": ask("torch._utils", "_rebuild_tensor_v2")
    + b"("
    + push(("x", 0, (1,), (1,)))[:-1]
    + b"tR",
}


@pytest.mark.parametrize("name", TENSORS)
def test_an_invalid_tensor_is_refused(form, read, name) -> None:
    good = tensor("7", "Float", 12, 0, (2,), (1,))
    with pytest.raises(InputError, match=r"weights\.pth") as error:
        read(form(state_dict({"good": good, "x": TENSORS[name]}), FLOATS))
    assert "\n" not in str(error.value)


NO_STATE_DICT = {
    "a list": (push([1, 2]), "but list"),
    "a dict of others": (push({"epoch": 3, "optimizer": {}}), "but a dict of epoch, optimizer"),
    "nothing": (push({}), "but an empty dict"),
    "a tensor": (tensor("7", "Float", 12, 0, (2,), (1,)), "but a tensor"),
    "a model in a model": (b"}\x94(" + push("model") + b"h\x00u", "but a dict of model"),
}


@pytest.mark.parametrize("name", NO_STATE_DICT)
def test_content_without_a_state_dict_is_named(form, read, name) -> None:
    content, what = NO_STATE_DICT[name]
    with pytest.raises(InputError, match=f"holds no state dict, {what}"):
        read(form(content, FLOATS if b"Float" in content else {}))


def test_a_pickle_of_anything_else_is_refused(read) -> None:
    with pytest.raises(InputError, match="is a pickle, but not a PyTorch state dict"):
        read(pickle.dumps({"w": 1}) + pickle.dumps(1))


def test_a_storage_that_claims_more_than_there_is(form, read) -> None:
    content = state_dict({"x": tensor("7", "Float", 2**40, 0, (2**40,), (1,))})
    with pytest.raises(InputError, match=r"truncated or not a PyTorch state dict|not within its 12 numbers"):
        read(form(content, FLOATS))


def test_an_archive_that_unpacks_to_more_than_it_is(read) -> None:
    zeros = {"7": np.zeros(10**6, np.float32)}
    content = state_dict({"x": tensor("7", "Float", 10**6, 0, (10**6,), (1,))})
    with pytest.raises(InputError, match=r"refused to unpack archive/(byteorder|data\.pkl)"):
        read(as_zip(content, zeros, zipfile.ZIP_DEFLATED))


@pytest.mark.parametrize("eighth", range(8))
def test_a_truncated_file_is_an_input_error(form, read, tmp_path, eighth) -> None:
    data = form(PLAIN, FLOATS)
    refusals = "is truncated|holds no weights|the pickle is truncated|is a pickle, but"
    with pytest.raises(InputError, match=rf"weights\.pth(:| \([\d,]+ bytes\)) ({refusals})"):
        read(data[: eighth * len(data) // 8])
    safetensors.numpy.save_file({"x": np.ones(100)}, tmp_path / "whole")
    data = (tmp_path / "whole").read_bytes()
    with pytest.raises(InputError, match=r"x\.safetensors( \([\d,]+ bytes\))? (is .*damaged:|holds no weights)"):
        read(data[: eighth * len(data) // 8], "x.safetensors")


def test_random_damage_raises_nothing_else(form, read) -> None:
    good, rng, refused = form(PLAIN, FLOATS), np.random.default_rng(0), 0
    for _ in range(300):
        data = bytearray(good)
        for at in rng.integers(len(data), size=rng.integers(1, 4)):
            data[at] = rng.integers(256)
        try:
            read(bytes(data))
        except InputError:
            refused += 1
    assert refused > 100


def test_a_web_page_is_no_file_of_weights(read, tmp_path) -> None:
    with pytest.raises(InputError, match=r"\(20 bytes\) holds no weights in a known format; known: .pth, .pt, .th"):
        read(b"html: not found, sir")
    for data, words in ((b"<!DOCTYPE html>", "a web page"), (b"version https://git-lfs", "a pointer of Git LFS")):
        with pytest.raises(InputError, match=f"weights.pth holds no weights, but {words}"):
            read(data)
    with pytest.raises(InputError, match="there is no file"):
        formats.read(tmp_path / "absent.pth")


def test_one_pickle_after_the_other() -> None:
    file = io.BytesIO(pickle.dumps([1]) + pickle.dumps({"a": 2}) + b"rest")
    assert [safe_pickle.load(file) for _ in range(2)] == [[1], {"a": 2}]
    assert file.read() == b"rest"


def test_real_weights_of_2019(shared) -> None:
    kind, found = formats.read(shared / "weights" / "resnet20-12fca82f.th")
    assert (kind, len(found)) == ("torch", 97)
    assert next(iter(found)) == "module.conv1.weight"
    trained = [a for name, a in found.items() if "running" not in name]
    assert sum(a.size for a in trained) == 269_722
    assert all(np.isfinite(a).all() and a.dtype == np.float32 for a in found.values())
