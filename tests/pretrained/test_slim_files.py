"""TensorFlow checkpoints of TF-Slim, read by a stand-in for TensorFlow."""

import io
import os
import pathlib
import sys
import tarfile
import types

import numpy as np
import pytest

from cnnjax import limits, pretrained
from cnnjax.errors import InputError
from cnnjax.pretrained import formats
from cnnjax.pretrained.formats import keras, slim
from tests.pretrained.reading import refusal


def test_a_missing_reader_names_its_extra(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("h5py", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'cnnjax[keras]'" in refusal(keras.read, tmp_path / "net.h5")
    assert "pip install 'cnnjax[tf]'" in refusal(slim.read, tmp_path / "net.ckpt")


@pytest.fixture
def tensorflow(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A TensorFlow that knows one checkpoint; the beginnings of names that it was asked for."""
    asked: list[str] = []

    class Reader:
        def get_variable_to_shape_map(self) -> dict[str, list[int]]:
            return {"net/conv/weights": [2], "global_step": []}

        def get_tensor(self, name: str) -> np.ndarray:
            return {"net/conv/weights": np.ones(2, np.float32), "global_step": np.array(7)}[name]

    def load(beginning: str) -> Reader:
        asked.append(beginning)
        if not list(pathlib.Path(beginning).parent.glob(f"{pathlib.Path(beginning).name}*")):
            raise IndexError("Read less bytes than requested\nand more of that")
        return Reader()

    module = types.SimpleNamespace(train=types.SimpleNamespace(load_checkpoint=load))
    module.errors = types.SimpleNamespace(OpError=type("OpError", (Exception,), {}))
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    return asked


def archive(path: pathlib.Path, names: list[str]) -> pathlib.Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["net.ckpt", "net.ckpt.index", "net.ckpt.data-00000-of-00001"])
def test_a_checkpoint_is_named_by_any_of_its_files(name: str, tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
    (tmp_path / name).touch()
    kind, arrays = formats.read(tmp_path / name)
    assert (kind, list(arrays)) == ("slim", ["global_step", "net/conv/weights"])
    assert tensorflow == [str(tmp_path / "net.ckpt")]


def test_a_checkpoint_is_named_by_the_beginning_of_its_files(tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
    (tmp_path / "net.ckpt.index").touch()
    with pytest.raises(InputError, match=r"net\.ckpt\.index: the arrays do not match the network"):
        pretrained.load(tmp_path / "net.ckpt", pretrained.FileOptions(like="slim:mobilenet_v1_0.25_128"))
    assert tensorflow == [str(tmp_path / "net.ckpt")]


def test_a_checkpoint_is_found_in_its_archive(tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
    names = ["./net.ckpt.meta", "./net.ckpt.index", "a/../../net.ckpt.data-00000-of-00001", "._net.ckpt"]
    assert slim.read(archive(tmp_path / "net.tar.gz", names))["global_step"] == 7
    assert [pathlib.Path(one).name for one in tensorflow] == ["net.ckpt"]
    assert not (tmp_path.parent / "net.ckpt.data-00000-of-00001").exists()
    for wrong in ([], ["a.ckpt", "b.ckpt"]):
        assert "expected one checkpoint in it" in refusal(slim.read, archive(tmp_path / "net.tar.gz", wrong))


def test_an_archive_does_not_unpack_beyond_the_limit(
    tmp_path: pathlib.Path, tensorflow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(limits.VARIABLE, "0.001")
    path = tmp_path / "net.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("net.ckpt")
        member.size = 4 << 20
        tar.addfile(member, io.BytesIO(bytes(member.size)))
    assert "a file of 4,194,304 bytes, where at most 1,073,229 are left" in refusal(slim.read, path)


def test_other_files_are_refused_in_one_line(tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
    assert refusal(slim.read, tmp_path / "none.ckpt").endswith("or damaged: Read less bytes than requested")
    path = tmp_path / "net.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("net.ckpt")
        member.size = 1 << 20
        tar.addfile(member, io.BytesIO(np.random.default_rng(0).bytes(member.size)))
    whole, half = path.read_bytes(), 1 << 19
    for damaged in (whole[:half], whole[:half] + b"\xff" * (1 << 17) + whole[half + (1 << 17) :]):
        path.write_bytes(damaged)
        assert refusal(slim.read, path).startswith("not a TensorFlow checkpoint, or damaged: ")


@pytest.mark.parametrize(("asked", "got"), [({}, "0"), ({"TF_ENABLE_ONEDNN_OPTS": "1"}, "1")])
def test_tensorflow_is_silent_about_its_kernels_unless_set_otherwise(
    asked: dict[str, str], got: str, tmp_path: pathlib.Path, tensorflow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", asked)
    (tmp_path / "net.ckpt").touch()
    slim.read(tmp_path / "net.ckpt")
    assert os.environ == {"TF_ENABLE_ONEDNN_OPTS": got}
