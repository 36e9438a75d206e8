"""Keras files that would read other files, claim too much, or crash HDF5; and those that are compressed."""

import io
import json
import os
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnjax import limits
from cnnjax.pretrained.formats import keras
from tests.pretrained.reading import refusal

h5py = pytest.importorskip("h5py")
keras_worker = pytest.importorskip("cnnjax.pretrained.formats.keras_worker")

SECRET = b"secret of another file"
KERNEL = np.arange(36, dtype=np.float32).reshape(3, 3, 2, 2)


def layer(file: Any, name: str = "conv", variable: str = "conv/kernel:0") -> Any:
    """A file of Keras 2 with a layer of one variable, which is still to be written into the group that returns."""
    file.attrs["layer_names"] = [name.encode()]
    group = file.create_group(name)
    group.attrs["weight_names"] = [variable.encode()]
    return group.create_group("conv")


def written(write: Callable[[Any], Any], **options: Any) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w", **options) as file:
        write(file)
    return out.getvalue()


def dot_keras(weights: bytes, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    config = {"config": {"layers": [{"class_name": "Conv2D", "config": {"name": "conv"}}]}}
    with zipfile.ZipFile(out, "w", compression) as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", weights)
    return out.getvalue()


def put(**options: Any) -> Callable[[Any], Any]:
    return lambda file: layer(file).create_dataset("kernel:0", data=KERNEL, **options)


def keras3(file: Any) -> None:
    file.create_dataset("layers/conv2d/vars/0", data=KERNEL, compression="gzip")


COMPRESSED = {
    "gzip": written(put(compression="gzip", compression_opts=9)),
    "gzip and shuffle": written(put(compression="gzip", shuffle=True, chunks=(2, 3, 1, 1))),
    "lzf": written(put(compression="lzf")),
    "checksums": written(put(fletcher32=True)),
    "chunks": written(put(chunks=(1, 3, 2, 2))),
    "the newest form": written(put(compression="gzip"), libver="latest"),
    ".keras": dot_keras(written(keras3)),
    ".keras of files alone": dot_keras(written(keras3), zipfile.ZIP_STORED),
}


@pytest.mark.parametrize("name", COMPRESSED)
def test_compressed_files_are_read(name: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.h5").write_bytes(COMPRESSED[name])
    found = keras.read(tmp_path / "net.h5")
    assert list(found) == ["conv/kernel"]
    np.testing.assert_array_equal(found["conv/kernel"], KERNEL)


def external_storage(file: Any) -> None:
    layer(file).create_dataset("kernel:0", (22,), "u1", external=[("secret", 0, 22)])


def virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((22,), "u1")
    layout[:] = h5py.VirtualSource("secret.h5", "data", (22,))
    layer(file).create_virtual_dataset("kernel:0", layout)


def linked(**links: Any) -> Callable[[Any], None]:
    def write(file: Any) -> None:
        group = layer(file)
        group["kernel:0"] = KERNEL
        for name, link in links.items():
            if name == "variable":
                del group["kernel:0"]
                group["kernel:0"] = link
            else:
                del file["conv"]
                file["conv"] = link

    return write


def huge(file: Any) -> None:
    layer(file).create_dataset("kernel:0", (10**6, 10**5), "f4")


def sparse(file: Any) -> None:
    layer(file).create_dataset("kernel:0", (10**6, 10**5), "f4", chunks=(1000, 1000), compression="gzip")


def loop(file: Any) -> None:
    file["layers/model/layers"] = file.create_group("layers")


HOSTILE: dict[str, tuple[Callable[[Any], Any], str]] = {
    "storage in another file": (external_storage, "'conv/0' is stored in another file"),
    "a view of another file": (virtual, "'conv/0' is stored in another file"),
    "a link to another file": (linked(variable=h5py.ExternalLink("secret.h5", "data")), "is a link to elsewhere"),
    "a layer in another file": (linked(layer=h5py.ExternalLink("secret.h5", "/")), "'conv' is a link to elsewhere"),
    "a soft link": (linked(variable=h5py.SoftLink("/conv")), "'conv/kernel:0' is a link to elsewhere"),
    "layers in another file": (
        lambda file: file.__setitem__("layers", h5py.ExternalLink("secret.h5", "/")),
        "'layers' is a link to elsewhere",
    ),
    "a model in another file": (
        lambda file: file.__setitem__("model_weights", h5py.ExternalLink("secret.h5", "/")),
        "'model_weights' is a link to elsewhere",
    ),
    "400 GB that are not there": (huge, "claims 400,000,000,000 bytes, of which the file has 0"),
    "400 GB that are compressed": (sparse, r"claims 400,000,000,000 bytes, more than the limit leaves, 1,048,576"),
    "references": (
        lambda file: layer(file).create_dataset("kernel:0", data=[file.ref], dtype=h5py.ref_dtype),
        "'conv/0' is not an array of real numbers",
    ),
    "texts": (lambda file: layer(file).create_dataset("kernel:0", data=["text"]), "is not an array of real numbers"),
    "complex numbers": (
        lambda file: layer(file).create_dataset("kernel:0", data=KERNEL * 1j),
        "is not an array of real numbers, but complex64",
    ),
    "records": (
        lambda file: layer(file).create_dataset("kernel:0", (2,), [("a", "f4"), ("b", "i4")]),
        "is not an array of real numbers",
    ),
    "no array": (lambda file: layer(file).create_dataset("kernel:0", data=h5py.Empty("f4")), "not an array of real"),
    "a type": (lambda file: layer(file).__setitem__("kernel:0", np.dtype("f4")), "'conv/kernel:0' is of the wrong"),
    "a group": (lambda file: layer(file).create_group("kernel:0"), "'conv/kernel:0' is of the wrong kind"),
    "names of numbers": (lambda file: file.attrs.__setitem__("layer_names", [1.5]), "is not a list of names"),
    "a model in itself": (loop, "nested models, 32 deep"),
    "no number": (
        lambda file: file.create_dataset("layers/conv2d/vars/x", data=KERNEL).parent.attrs.__setitem__("name", "a"),
        "its variables have no numbers",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused(name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write, words = HOSTILE[name]
    monkeypatch.chdir(tmp_path)
    pathlib.Path("secret").write_bytes(SECRET)
    with h5py.File("secret.h5", "w") as file:
        file["data"] = np.frombuffer(SECRET, np.uint8)
        file["kernel:0"] = KERNEL
    with h5py.File("net.h5", "w") as file:
        write(file)
    out = io.BytesIO()
    with pytest.raises(SystemExit, match=words) as error:
        keras_worker.main("net.h5", 1 << 20, {"conv2d": "conv"}, out)
    assert "\n" not in str(error.value)
    assert SECRET not in out.getvalue()


def test_what_the_process_refuses_is_one_line_about_the_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.h5").write_bytes(written(huge))
    assert refusal(keras.read, tmp_path / "net.h5") == (
        "'conv/kernel' claims 400,000,000,000 bytes, of which the file has 0"
    )


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), 11)", "while True: pass", "bytes(1 << 40)", "1 / 0"])
def test_the_end_of_the_process_is_an_error(
    ending: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash, an endless loop, too much memory, an exception."""
    source = pathlib.Path(keras_worker.__file__).read_text()
    (tmp_path / "worker.py").write_text(
        source.replace("with h5py.File", f"import os\n    {ending}\n    with h5py.File")
    )
    monkeypatch.setattr(keras, "_WORKER", tmp_path / "worker.py")
    monkeypatch.setattr(keras, "_SECONDS", 1)
    (tmp_path / "net.h5").write_bytes(COMPRESSED["gzip"])
    expected = {"os": r"HDF5 crashed \(-11\)", "wh": "HDF5 did not finish", "by": "more memory than", "1 ": "crashed"}
    assert re.search(expected[ending[:2]], refusal(keras.read, tmp_path / "net.h5"))


def test_an_archive_does_not_unpack_beyond_the_limit(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(limits.VARIABLE, "0.001")
    path = tmp_path / "net.keras"
    path.write_bytes(dot_keras(bytes(10 << 20)))
    claim = "model.weights.h5 claims 10,485,760 bytes, more than the limit of 1,073,741"
    assert refusal(keras.read, path) == f"{claim}; the environment variable {limits.VARIABLE} raises it"
    data = bytearray(path.read_bytes())  # now it claims less than it unpacks to
    for at in [match.start() for match in re.finditer((10 << 20).to_bytes(4, "little"), data)]:
        data[at : at + 4] = (1000).to_bytes(4, "little")
    path.write_bytes(data)
    assert refusal(keras.read, path).startswith("not a file of Keras's weights, or damaged")


def test_a_module_of_the_current_folder_is_not_imported(tmp_path: pathlib.Path, monkeypatch: Any) -> None:
    (tmp_path / "h5py.py").write_text("import os; os.mkdir('ran')")
    (tmp_path / "net.h5").write_bytes(COMPRESSED["gzip"])
    monkeypatch.chdir(tmp_path)
    assert list(keras.read(pathlib.Path("net.h5"))) == ["conv/kernel"]
    assert sorted(os.listdir()) == ["h5py.py", "net.h5"]
