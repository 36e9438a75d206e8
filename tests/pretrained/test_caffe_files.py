"""Caffe's weight files, and networks with their weights against Caffe's layers written out in JAX."""

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from cnnjax.models import create_model
from cnnjax.pretrained import convert
from cnnjax.pretrained.formats import caffe
from tests.pretrained.reading import refusal

rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def blob(array: np.ndarray, oldest: bool = False, double: bool = False) -> dict[str, Any]:
    data = {"double_data": [array.astype("<f8").tobytes()]} if double else {"data": [array.astype("<f4").tobytes()]}
    if not oldest:
        return data | {"shape": {"dim": array.shape}}
    sides = (1,) * (4 - array.ndim) + array.shape
    return data | dict(zip(("num", "channels", "height", "width"), sides, strict=True))


def caffemodel(layers: list[tuple[str, str, list[np.ndarray]]], oldest: bool = False, double: bool = False) -> bytes:
    """A file with these layers: names, kinds and blobs."""
    rows = [{"name": name, "blobs": [blob(one, oldest, double) for one in blobs]} for name, _, blobs in layers]
    if oldest:
        return caffe.net_parameter()(layers=rows).SerializeToString()
    return caffe.net_parameter()(
        layer=[row | {"type": kind} for row, (_, kind, _) in zip(rows, layers, strict=True)]
    ).SerializeToString()


LAYERS = [
    ("conv1/7x7", "Convolution", [draw(2, 3, 5, 5), draw(2)]),
    ("relu", "ReLU", []),
    ("fc", "InnerProduct", [draw(3, 8)]),
]


@pytest.mark.parametrize("form", [{}, {"oldest": True}, {"double": True}], ids=str)
def test_every_form_of_caffe_gives_the_same_arrays(form: dict[str, bool], tmp_path: pathlib.Path) -> None:
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(LAYERS, **form))
    found = caffe.read(tmp_path / "net.caffemodel")
    assert list(found) == ["conv1/7x7/0", "conv1/7x7/1", "fc/0"]
    for array, expected in zip(found.values(), [one for _, _, blobs in LAYERS for one in blobs], strict=True):
        np.testing.assert_array_equal(array, expected)


SHORT = caffe.net_parameter()(layer=[{"blobs": [{"data": [b"1234"], "shape": {"dim": [3]}}]}]).SerializeToString()


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x89PNG, say", "not a .caffemodel"),
        (b"", "not a .caffemodel: no layer with weights in it"),
        (caffemodel(LAYERS)[:-7], "not a .caffemodel, or damaged"),
        (caffemodel([("a", "BatchNorm", [])]), "not a .caffemodel, or damaged"),
        (SHORT, "not a .caffemodel, or damaged: 1 numbers for a blob of shape [3]"),
    ],
)  # fmt: skip
def test_other_files_are_refused_in_one_line(data: bytes, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(data)
    assert refusal(caffe.read, tmp_path / "net").startswith(text)


def conv(x: Any, blobs: list[np.ndarray], stride: int = 1, pad: int = 0, groups: int = 1) -> Any:
    """Caffe's Convolution: images [batch, channels, height, width], kernels [out, in / groups, height, width]."""
    y = jax.lax.conv_general_dilated(
        x, jnp.asarray(blobs[0]), (stride, stride), [(pad, pad)] * 2, feature_group_count=groups
    )
    return y + blobs[1].reshape(1, -1, 1, 1) if len(blobs) > 1 else y


def norm(x: Any, batch_norm: list[np.ndarray], scale: list[np.ndarray]) -> Any:
    """Caffe's BatchNorm, with its sums and what to divide them by, and Scale."""
    mean, var = (one.reshape(1, -1, 1, 1) / batch_norm[2][0] for one in batch_norm[:2])
    return (x - mean) / np.sqrt(var + 1e-5) * scale[0].reshape(1, -1, 1, 1) + scale[1].reshape(1, -1, 1, 1)


def max_pool(x: Any) -> Any:
    """Caffe's Pooling by 3 with stride 2: what is left of a side has a window, too."""
    more = x.shape[-1] % 2 == 0
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0),) * 2 + ((0, more),) * 2)


def lrn(x: Any) -> Any:
    """Caffe's LRN: over 5 channels, of whose squares alpha multiplies the mean, and k = 1."""
    squares = jnp.pad(x * x, ((0, 0), (2, 2), (0, 0), (0, 0)))
    return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75


def of_caffe(images: np.ndarray) -> Any:
    """Converts RGB images [batch, height, width, 3] to BGR [batch, 3, height, width]."""
    return jnp.asarray(images[..., ::-1].transpose(0, 3, 1, 2))


def imported(text: str, images: np.ndarray, path: pathlib.Path, library: str = "caffe") -> np.ndarray:
    """The logits of ours with the weights of a .caffemodel."""
    model = create_model(text, 10, "float32")
    flat = convert.import_variables(model, images.shape[1:], caffe.read(path), library).check("the file")
    return np.asarray(jax.jit(lambda v: model.apply(v, images, train=False))(unflatten_dict(flat, sep="/")))


def test_alexnet_with_caffe_weights_gives_the_logits_of_caffe(tmp_path: pathlib.Path) -> None:
    """Groups, BGR images, and a fully connected layer that flattens feature channels with channels first."""
    sizes = {
        "conv1": (4, 3, 11, 11),
        "conv2": (8, 2, 5, 5),
        "conv3": (8, 8, 3, 3),
        "conv4": (8, 4, 3, 3),
        "conv5": (4, 4, 3, 3),
    }
    sizes |= {"fc6": (4096, 16), "fc7": (4096, 4096), "fc8": (10, 4096)}
    net = {name: [draw(*size) * np.sqrt(2 / np.prod(size[1:])), draw(size[0])] for name, size in sizes.items()}
    net = {name: [one.astype(np.float32) for one in blobs] for name, blobs in net.items()}
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel([(name, "", blobs) for name, blobs in net.items()], oldest=True))
    images = draw(2, 99, 99, 3)
    relu = jax.nn.relu

    @jax.jit
    def features(x: jax.Array) -> jax.Array:
        x = max_pool(lrn(relu(conv(x, net["conv1"], 4))))
        x = max_pool(lrn(relu(conv(x, net["conv2"], 1, 2, 2))))
        x = relu(conv(x, net["conv3"], 1, 1))
        x = relu(conv(x, net["conv4"], 1, 1, 2))
        return max_pool(relu(conv(x, net["conv5"], 1, 1, 2)))

    x = np.asarray(features(of_caffe(images))).reshape(2, -1)
    for name in ("fc6", "fc7", "fc8"):
        x = x @ net[name][0].T + net[name][1].reshape(1, -1)
        x = x if name == "fc8" else np.maximum(x, 0)
    ours = imported("alexnet_caffe(features=(4, 8, 8, 8, 4), dropout=0)", images, path)
    np.testing.assert_allclose(ours, x, atol=1e-4 * np.abs(x).max())


def test_resnet_with_caffe_weights_gives_the_logits_of_caffe(tmp_path: pathlib.Path) -> None:
    """Sums of statistics, scales in a layer of their own, and a bias before the first of them, in ResNet-50 alone."""
    net: dict[str, list[np.ndarray]] = {"conv1": [draw(4, 3, 7, 7) / 10, draw(4)]}
    branches = {"2a": (4, 4, 1), "2b": (4, 4, 3), "2c": (16, 4, 1), "1": (16, 4, 1)}
    names = {"_conv1": 4} | {f"2a_branch{name}": size[0] for name, size in branches.items()}
    net |= {f"res2a_branch{name}": [draw(o, i, k, k) / 3] for name, (o, i, k) in branches.items()}
    for name, channels in names.items():
        net[f"bn{name}"] = [
            draw(channels) * 9,
            rng.uniform(5, 15, channels).astype(np.float32),
            np.array([9], np.float32),
        ]
        net[f"scale{name}"] = [draw(channels), draw(channels)]
    net["fc1000"] = [draw(10, 16), draw(10)]
    rows = [(name, "BatchNorm" if name.startswith("bn") else "", blobs) for name, blobs in net.items()]
    path = tmp_path / "net.caffemodel"
    path.write_bytes(caffemodel(rows))

    def layer(x: Any, name: str, convolution: str, **options: int) -> Any:
        return norm(conv(x, net[convolution], **options), net[f"bn{name}"], net[f"scale{name}"])

    def branch(x: Any, name: str, pad: int = 0) -> Any:
        return layer(x, f"2a_branch{name}", f"res2a_branch{name}", pad=pad)

    images, relu = draw(2, 40, 40, 3), jax.nn.relu

    @jax.jit
    def logits(x: jax.Array) -> jax.Array:
        x = max_pool(relu(layer(x, "_conv1", "conv1", stride=2, pad=3)))
        y = branch(relu(branch(relu(branch(x, "2a")), "2b", 1)), "2c")
        return relu(branch(x, "1") + y).mean((2, 3)) @ net["fc1000"][0].T + net["fc1000"][1].reshape(1, -1)

    x = logits(of_caffe(images))
    ours = imported("resnet50(stage_sizes=(1,), features=4, width=4, ceil_pool=True)", images, path)
    np.testing.assert_allclose(ours, x, atol=1e-4 * np.abs(x).max())
