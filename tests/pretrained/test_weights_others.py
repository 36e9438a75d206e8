"""Weights of Keras, Caffe and TF-Slim: what their files hold, and what it becomes in our networks."""

import io
import json
import os
import pathlib
import sys
import tarfile
import types
import zipfile
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from cnnjax import pretrained
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.pretrained import convert, formats
from cnnjax.pretrained.formats import caffe, keras, slim
from cnnjax.pretrained.library import Layer
from tests.parity.harness import random_variables

h5py = pytest.importorskip("h5py")

rng = np.random.default_rng(0)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def refusal(read: Callable[[pathlib.Path], Any], path: pathlib.Path) -> str:
    """What is said of a file, in one line that begins with its name."""
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


# --------------------------------------------------------------------------------------------------------------- Keras

# A layer's class, its name, and its variables as Keras names them, in its order.
NET: list[tuple[str, str, dict[str, np.ndarray]]] = [
    ("Conv2D", "conv1", {"kernel": draw(3, 3, 3, 4), "bias": draw(4)}),
    ("Conv2D", "conv2", {"kernel": draw(1, 1, 4, 4)}),
    ("BatchNormalization", "bn1", {n: draw(4) for n in ("gamma", "beta", "moving_mean", "moving_variance")}),
    ("BatchNormalization", "bn2", {n: draw(4) for n in ("beta", "moving_mean", "moving_variance")}),
    ("SeparableConv2D", "sep", {"depthwise_kernel": draw(3, 3, 4, 1), "pointwise_kernel": draw(1, 1, 4, 5)}),
    ("ReLU", "relu", {}),
    ("Dense", "fc", {"kernel": draw(5, 2), "bias": draw(2)}),
]
ARRAYS = {f"{name}/{variable}": array for _, name, own in NET for variable, array in own.items()}


def keras2(group: Any, of_old: bool = False) -> None:
    """As Keras 1 and 2 write; with names as in the oldest files, and lists that are too long for one attribute."""
    names = [name for _, name, _ in NET]
    if of_old:
        group.attrs["layer_names0"], group.attrs["layer_names1"] = [
            [n.encode() for n in p] for p in (names[:3], names[3:])
        ]
    else:
        group.attrs["layer_names"] = [name.encode() for name in names]
    for _, name, own in NET:
        layer = group.create_group(name)
        variables = [f"{name}_{v[0].upper()}_{i}:0" if of_old else f"{name}/{v}:0" for i, v in enumerate(own)]
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
    layers = [{"class_name": kind, "config": {"name": name}} for kind, name, _ in NET]
    with zipfile.ZipFile(out, "w") as archive:
        if config:
            archive.writestr("config.json", json.dumps({"config": {"layers": layers}}))
        archive.writestr("model.weights.h5", h5(keras3, with_names=False))
    return out.getvalue()


FORMS = {
    "keras 2": h5(keras2),
    "keras 1": h5(keras2, of_old=True),
    "keras 2, whole": h5(whole_model),
    "keras 3": h5(keras3, with_names=True),
    ".keras": dot_keras(),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_keras_gives_the_same_arrays(form: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(FORMS[form])
    found = keras.read(tmp_path / "net")
    assert found.keys() == ARRAYS.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, ARRAYS[name], name)
    if form.startswith("keras 1"):  # the order is the file's
        assert list(found) == list(ARRAYS)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"not HDF5", "not a file of Keras's weights, or damaged"),
        (FORMS["keras 2"][:3000], "not a file of Keras's weights, or damaged"),
        (FORMS[".keras"][:-30], "not a file of Keras's weights, or damaged"),
        (dot_keras(config=False), "not a file of Keras's weights, or damaged: "),
        (h5(lambda file: file.create_dataset("data", data=1)), "not a file of Keras's weights: no layer_names in it"),
        (h5(keras3, with_names=False), "it does not tell the layers' names; save the model as .keras, which does"),
        (h5(lambda file: file.create_group("layers")), "no weights in it"),
    ],
)
def test_what_is_not_of_keras_is_refused_in_a_line(data: bytes, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(data)
    assert refusal(keras.read, tmp_path / "net").startswith(text)


def test_a_reader_says_which_extra_it_takes(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("h5py", "tensorflow"):
        monkeypatch.setitem(sys.modules, module, None)
    assert "pip install 'cnnjax[keras]'" in refusal(keras.read, tmp_path / "net.h5")
    assert "pip install 'cnnjax[tf]'" in refusal(slim.read, tmp_path / "net.ckpt")


# --------------------------------------------------------------------------------------------------------------- Caffe


def blob(array: np.ndarray, of_2014: bool = False, double: bool = False) -> dict[str, Any]:
    data = {"double_data": [array.astype("<f8").tobytes()]} if double else {"data": [array.astype("<f4").tobytes()]}
    if not of_2014:
        return data | {"shape": {"dim": array.shape}}
    sides = (1,) * (4 - array.ndim) + array.shape
    return data | dict(zip(("num", "channels", "height", "width"), sides, strict=True))


def caffemodel(layers: list[tuple[str, str, list[np.ndarray]]], of_2014: bool = False, double: bool = False) -> bytes:
    """A file with these layers: names, kinds and blobs."""
    rows = [{"name": name, "blobs": [blob(one, of_2014, double) for one in blobs]} for name, _, blobs in layers]
    if of_2014:
        return caffe.net_parameter()(layers=rows).SerializeToString()
    return caffe.net_parameter()(
        layer=[row | {"type": kind} for row, (_, kind, _) in zip(rows, layers, strict=True)]
    ).SerializeToString()


LAYERS = [
    ("conv1/7x7", "Convolution", [draw(2, 3, 5, 5), draw(2)]),
    ("relu", "ReLU", []),
    ("fc", "InnerProduct", [draw(3, 8)]),
]


@pytest.mark.parametrize("form", [{}, {"of_2014": True}, {"double": True}], ids=str)
def test_blobs_are_arrays_in_every_form_of_caffe(form: dict[str, bool], tmp_path: pathlib.Path) -> None:
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
def test_what_is_not_of_caffe_is_refused_in_a_line(data: bytes, text: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "net").write_bytes(data)
    assert refusal(caffe.read, tmp_path / "net").startswith(text)


def conv(x: Any, blobs: list[np.ndarray], stride: int = 1, pad: int = 0, groups: int = 1) -> Any:
    """Caffe's Convolution: [batch, maps, height, width], and kernels [outputs, inputs of the group, height, width]."""
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
    """Caffe's LRN: over 5 maps, of which alpha counts the mean, and k = 1."""
    squares = jnp.pad(x * x, ((0, 0), (2, 2), (0, 0), (0, 0)))
    return x / (1 + 1e-4 / 5 * sum(squares[:, i : i + x.shape[1]] for i in range(5))) ** 0.75


def of_caffe(images: np.ndarray) -> Any:
    """Blue first, and maps before positions."""
    return jnp.asarray(images[..., ::-1].transpose(0, 3, 1, 2))


def imported(text: str, images: np.ndarray, path: pathlib.Path, library: str = "caffe") -> np.ndarray:
    """The logits of ours with the weights of a .caffemodel."""
    model = create_model(text, 10, "float32")
    flat = convert.to_ours(model, images.shape[1:], caffe.read(path), library).check("the file")
    return np.asarray(jax.jit(lambda v: model.apply(v, images, train=False))(unflatten_dict(flat, sep="/")))


def test_alexnet_of_caffe_gives_the_logits_of_caffe(tmp_path: pathlib.Path) -> None:
    """Groups, blue first, and full connections to maps: channels come first there."""
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
    path.write_bytes(caffemodel([(name, "", blobs) for name, blobs in net.items()], of_2014=True))
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


def test_resnet_of_caffe_gives_the_logits_of_caffe(tmp_path: pathlib.Path) -> None:
    """Sums of statistics, scales in a layer of their own, and a bias before the first of them, in ResNet-50 alone."""
    net: dict[str, list[np.ndarray]] = {"conv1": [draw(4, 3, 7, 7) / 10, draw(4)]}
    branches = {"2a": (4, 4, 1), "2b": (4, 4, 3), "2c": (16, 4, 1), "1": (16, 4, 1)}
    names = {"_conv1": 4} | {f"2a_branch{name}": size[0] for name, size in branches.items()}
    net |= {f"res2a_branch{name}": [draw(o, i, k, k) / 3] for name, (o, i, k) in branches.items()}
    for name, maps in names.items():
        net[f"bn{name}"] = [draw(maps) * 9, rng.uniform(5, 15, maps).astype(np.float32), np.array([9], np.float32)]
        net[f"scale{name}"] = [draw(maps), draw(maps)]
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


# ---------------------------------------------------------------------------------------------------- TensorFlow, slim


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
    with pytest.raises(InputError, match=r"net\.ckpt\.index: \d+ arrays do not match"):
        pretrained.load(tmp_path / "net.ckpt", like="slim:mobilenet_v1_0.25_128")
    assert tensorflow == [str(tmp_path / "net.ckpt")]


def test_a_checkpoint_is_found_in_its_archive(tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
    names = ["./net.ckpt.meta", "./net.ckpt.index", "a/../../net.ckpt.data-00000-of-00001", "._net.ckpt"]
    assert slim.read(archive(tmp_path / "net.tar.gz", names))["global_step"] == 7
    assert [pathlib.Path(one).name for one in tensorflow] == ["net.ckpt"]
    assert not (tmp_path.parent / "net.ckpt.data-00000-of-00001").exists()
    for wrong in ([], ["a.ckpt", "b.ckpt"]):
        assert "expected one checkpoint in it" in refusal(slim.read, archive(tmp_path / "net.tar.gz", wrong))


def test_what_is_not_of_tensorflow_is_refused_in_a_line(tmp_path: pathlib.Path, tensorflow: list[str]) -> None:
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
def test_tensorflow_says_nothing_of_its_kernels_unless_it_is_asked_to(
    asked: dict[str, str], got: str, tmp_path: pathlib.Path, tensorflow: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", asked)
    (tmp_path / "net.ckpt").touch()
    slim.read(tmp_path / "net.ckpt")
    assert os.environ == {"TF_ENABLE_ONEDNN_OPTS": got}


# --------------------------------------------------------------------------------------------------------------- names

SMALL = {
    "keras": ("mobilenet_v1_025(same=True)", (32, 32, 3)),
    "slim": ("mobilenet_v1_025(same=True)", (32, 32, 3)),
    "caffe": ("squeezenet1_1", (64, 64, 3)),
}


@pytest.mark.parametrize("library", SMALL)
def test_what_goes_out_comes_back(library: str) -> None:
    text, shape = SMALL[library]
    model = create_model(text, 10, "float32")
    tree = random_variables(model, np.zeros((1, *shape), np.float32))
    flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    back = convert.to_ours(model, shape, convert.to_theirs(model, shape, flat, library), library).check("theirs")
    assert back.keys() == flat.keys()
    for name, leaf in flat.items():
        np.testing.assert_array_equal(back[name], leaf, name)


def test_a_class_of_background_is_dropped_or_kept_and_no_other() -> None:
    text, shape = SMALL["slim"]
    theirs, head = {}, "MobilenetV1/Logits/Conv2d_1c_1x1/biases"
    for classes in (10, 11, 12):
        model = create_model(text, classes, "float32")
        if not theirs:
            tree = random_variables(create_model(text, 11, "float32"), np.zeros((1, *shape), np.float32))
            flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
            theirs = convert.to_theirs(create_model(text, 11, "float32"), shape, flat, "slim")
        found = convert.to_ours(model, shape, theirs | {"global_step": np.array(7)}, "slim")
        assert not found.unused
        if classes < 12:
            np.testing.assert_array_equal(found.check("it")["params/head/bias"], theirs[head][11 - classes :])
        else:
            assert found.misshaped["params/head/bias"] == (head, (12,), (11,))


def test_a_normalisation_without_gamma_has_ones() -> None:
    text, shape = SMALL["keras"]
    model = create_model(text, 10, "float32")
    tree = random_variables(model, np.zeros((1, *shape), np.float32))
    flat = {"/".join(p.key for p in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    theirs = convert.to_theirs(model, shape, flat, "keras")
    found = convert.to_ours(model, shape, {n: a for n, a in theirs.items() if not n.endswith("gamma")}, "keras")
    np.testing.assert_array_equal(found.check("it")["params/conv0/norm/scale"], 1)
    found = convert.to_ours(model, shape, {n: a for n, a in theirs.items() if "conv1_bn" not in n}, "keras")
    assert {name for name, _ in found.missing.values()} == {
        f"conv1_bn/{n}" for n in ("beta", "moving_mean", "moving_variance")
    }


def test_keras_automatic_names_count_from_anywhere_and_the_classifier_has_any_name() -> None:
    text, shape = "xception", (71, 71, 3)
    model = create_model(text, 10, "float32")
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0, impl="rbg"), np.zeros((1, *shape), np.float32), train=False)
    )
    flat = {
        "/".join(p.key for p in path): np.full(leaf.shape, i, np.float32)
        for i, (path, leaf) in enumerate(jax.tree_util.tree_leaves_with_path(shapes))
    }
    theirs = convert.to_theirs(model, shape, flat, "keras")
    moved = {}
    for name, array in theirs.items():
        layer, _, variable = name.partition("/")
        kind, _, number = layer.rpartition("_")
        if layer == "predictions":
            layer = "fc1000"
        elif number.isdigit() or layer in ("conv2d", "batch_normalization"):
            layer = f"{kind}_{int(number) + 95}" if number.isdigit() else f"{layer}_95"
        moved[f"{layer}/{variable}"] = array
    back = convert.to_ours(model, shape, moved, "keras").check("theirs")
    assert all((back[name] == leaf).all() for name, leaf in flat.items())


# As the authors' files have them: prototxt for Caffe, keras.applications for Keras.
NAMES = {
    ("caffe", "vgg"): {"conv3_2/conv": "conv3_2", "fc6": "fc6"},
    ("caffe", "googlenet"): {
        "conv1/conv": "conv1/7x7_s2",
        "inception_4a/branch3_1/conv": "inception_4a/5x5_reduce",
        "inception_4a/branch4_2/conv": "inception_4a/pool_proj",
        "aux_4d/conv/conv": "loss2/conv",
        "aux_4d/fc": "loss2/fc",
        "head": "loss3/classifier",
    },
    ("caffe", "nin"): {"conv3/conv": "conv3", "conv4/conv": "conv4-1024", "cccp6/conv": "cccp6", "cccp8": "cccp8-1024"},
    ("caffe", "resnet"): {
        "norm1": "bn_conv1",
        "conv2_3/conv1": "res2c_branch2a",
        "conv3_1/shortcut_norm": "bn3a_branch1",
        "conv4_1/conv3": "res4a_branch2c",
        "conv4_23/norm2": "bn4b22_branch2b",
        "conv5_3/conv2": "res5c_branch2b",
    },
    ("keras", "vgg"): {"conv3_2/conv": "block3_conv2", "fc6": "fc1", "fc7": "fc2", "fc8": "predictions"},
    ("keras", "densenet"): {"block3_layer24/norm2": "conv4_block24_1_bn", "trans3/conv": "pool4_conv"},
}


@pytest.mark.parametrize(("library", "family"), NAMES)
def test_layers_have_the_names_that_authors_gave_them(library: str, family: str) -> None:
    names = NAMES[library, family]
    ours = [Layer(path, {}, ()) for path in names]
    assert convert.find(library).families[family](ours, {}) == names


def test_blocks_of_the_shallow_resnet_of_caffe_have_letters() -> None:
    ours = [Layer(f"conv{stage}_{size}/conv1", {}, ()) for stage, size in ((2, 3), (3, 4), (4, 6), (5, 3))]
    names = convert.find("caffe").families["resnet"](ours, {})
    assert list(names.values()) == [f"res{block}_branch2a" for block in ("2c", "3d", "4f", "5c")]
