"""Keras's weight files, in every form in which its versions write them."""

import io
import json
import pathlib
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cnnjax.pretrained import files
from cnnjax.pretrained.formats import keras
from tests.pretrained.reading import refusal

h5py = pytest.importorskip("h5py")

rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


# A layer's class, its name, and its variables as Keras names them, in its order.
NET: list[tuple[str, str, dict[str, np.ndarray]]] = [
    ("Conv2D", "conv1", {"kernel": draw(3, 3, 3, 4), "bias": draw(4)}),
    ("Conv2D", "conv2", {"kernel": draw(1, 1, 4, 4)}),
    ("BatchNormalization", "bn1", {n: draw(4) for n in ("gamma", "beta", "moving_mean", "moving_variance")}),
    ("BatchNormalization", "bn2", {n: draw(4) for n in ("beta", "moving_mean", "moving_variance")}),
    ("BatchNormalization", "bn3", {n: draw(4) for n in ("gamma", "moving_mean", "moving_variance")}),
    ("SeparableConv2D", "sep", {"depthwise_kernel": draw(3, 3, 4, 1), "pointwise_kernel": draw(1, 1, 4, 5)}),
    ("ReLU", "relu", {}),
    ("Dense", "fc", {"kernel": draw(5, 2), "bias": draw(2)}),
]
ARRAYS = {f"{name}/{variable}": array for _, name, own in NET for variable, array in own.items()}


def keras2(group: Any, oldest: bool = False) -> None:
    """As Keras 1 and 2 write; with names as in the oldest files, and lists that are too long for one attribute."""
    names = [name for _, name, _ in NET]
    if oldest:
        group.attrs["layer_names0"], group.attrs["layer_names1"] = [
            [n.encode() for n in p] for p in (names[:3], names[3:])
        ]
    else:
        group.attrs["layer_names"] = [name.encode() for name in names]
    for _, name, own in NET:
        layer = group.create_group(name)
        short = [variable if "bn" in name else variable[0].upper() for variable in own]
        variables = [f"{name}_{v}_{i}:0" for i, v in enumerate(short)] if oldest else [f"{name}/{v}:0" for v in own]
        layer.attrs["weight_names"] = [variable.encode() for variable in variables]
        for variable, array in zip(variables, own.values(), strict=True):
            layer[variable] = array


def keras3(file: Any, with_names: bool) -> None:
    counts: dict[str, int] = {}
    kinds = {"Conv2D": "conv2d", "BatchNormalization": "batch_normalization", "SeparableConv2D": "separable_conv2d"}
    for kind, name, own in NET:
        kind = kinds.get(kind, kind.lower())
        count = counts[kind] = counts.get(kind, -1) + 1
        group = file.create_group(f"layers/{kind}_{count}/vars" if count else f"layers/{kind}/vars")
        if with_names:
            group.attrs["name"] = name
        for i, array in enumerate(own.values()):
            group[f"{i}"] = array
    file["optimizer/vars/0"] = 1.0


def h5(write: Callable[..., None], **options: Any) -> bytes:
    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        write(file, **options)
    return out.getvalue()


def whole_model(file: Any) -> None:
    keras2(file.create_group("model_weights"))
    file["optimizer_weights/iteration"] = 3


def dot_keras(config: bool = True) -> bytes:
    out = io.BytesIO()
    center = lambda own: {"center": "beta" in own} if "moving_mean" in own else {}  # noqa: E731
    layers = [{"class_name": kind, "config": {"name": name, **center(own)}} for kind, name, own in NET]
    with zipfile.ZipFile(out, "w") as archive:
        if config:
            archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        archive.writestr("model.weights.h5", h5(keras3, with_names=False))
    return out.getvalue()


FORMS = {
    "keras 2": h5(keras2),
    "keras 1": h5(keras2, oldest=True),
    "keras 2, whole": h5(whole_model),
    "keras 3": h5(keras3, with_names=True),
    ".keras": dot_keras(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_keras_gives_the_same_arrays(form: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(FORMS[form])
    found = keras.read(tmp_path / "net")
    if form == "keras 3":  # such a file does not say which
        found["bn3/gamma"] = found.pop("bn3/beta")
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name], name)
    if form in ("keras 1", ".keras"):  # the order is the network's
        assert list(found) == list(ARRAYS)


def test_what_a_file_does_not_say_of_a_normalization_is_said(tmp_path: pathlib.Path) -> None:
    lines: list[str] = []
    for name, form in (("net.weights.h5", "keras 3"), ("net.keras", ".keras"), ("net.h5", "keras 2")):
        (tmp_path / name).write_bytes(FORMS[form])
        files.open_file(tmp_path / name, log=lines.append)
    assert lines == ["net.weights.h5: 'bn2/beta' is assumed to be beta, not gamma; a .keras file says which"]


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"not HDF5", "not a file of Keras's weights, or damaged"),
        (FORMS["keras 2"][:3000], "not a file of Keras's weights, or damaged"),
        (FORMS[".keras"][:-30], "not a file of Keras's weights, or damaged"),
        (dot_keras(config=False), "not a file of Keras's weights, or damaged: "),
        (h5(lambda file: file.create_dataset("data", data=1)), "not a file of Keras's weights: no layer_names in it"),
        (h5(keras3, with_names=False), "it has no layer names; save the model as .keras, which has them"),
        (h5(lambda file: file.create_group("layers")), "no weights in it"),
    ],
)
def test_other_files_are_refused_in_one_line(data: bytes, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(data)
    assert refusal(keras.read, tmp_path / "net").startswith(text)
