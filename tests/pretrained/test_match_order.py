"""Arrays that are matched by order and shape: files of Caffe, Keras and PyTorch, with names that nobody else knows.

The networks are written out here with convolutions of `jax.lax`, in the layouts of these frameworks.
"""

import importlib
import itertools
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax import traverse_util

import cnnjax
from cnnjax import augment
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.pretrained import convert, files, order
from cnnjax.pretrained import export as state_dicts
from cnnjax.pretrained.library import Arrays, list_layers
from tests.pretrained.test_caffe_files import caffemodel, conv, draw, norm

relu = jax.nn.relu


def logits(path: pathlib.Path, images: np.ndarray, **options: Any) -> np.ndarray:
    """Our logits of images in [0, 1], with the weights of a file that are matched by order."""
    net = cnnjax.load(path, match="order", normalize="none", log=lambda line: None, **options)
    prepare = augment.build([], "none", net.data.statistics, net.data.shape)
    return np.asarray(net.model.apply(net.variables, prepare(jax.random.key(0), images), train=False))


def photos(*shape: int) -> tuple[np.ndarray, Any]:
    """Images uint8 [2, H, W, C], and the same as float32 [2, C, H, W] in [0, 1]."""
    images = np.random.default_rng(7).integers(0, 256, (2, *shape), np.uint8)
    return images, jnp.asarray(images.transpose(0, 3, 1, 2) / np.float32(255))


def agree(ours: np.ndarray, theirs: Any) -> None:
    assert ours.shape == theirs.shape
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def pool(x: Any) -> Any:
    """2x2 max pooling of [N, C, H, W]."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")


def full(x: Any, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """A fully connected layer with a kernel [in, out]."""
    return np.asarray(x) @ kernel + bias


def kernel(*shape: int) -> np.ndarray:
    return draw(*shape) * np.float32(np.sqrt(2 / np.prod(shape[1:])))


# ------------------------------------------------------------------------------------------------------------- Caffe


@pytest.mark.parametrize("oldest", [False, True])
def test_lenet_of_caffe_gives_its_logits(oldest: bool, tmp_path: pathlib.Path) -> None:
    """20 and 50 channels, 500 units: fully connected layers there flatten feature maps with channels first."""
    net = [[kernel(20, 1, 5, 5), draw(20)], [kernel(50, 20, 5, 5), draw(50)]]
    dense = [[kernel(500, 800), draw(500)], [kernel(10, 500), draw(10)]]
    rows = [(f"my {name}", "", blobs) for name, blobs in zip("abcd", net + dense, strict=True)]
    (tmp_path / "lenet.caffemodel").write_bytes(caffemodel(rows, oldest=oldest))
    images, x = photos(28, 28, 1)
    for blobs in net:
        x = pool(conv(x, blobs))
    x = relu(full(x.reshape(2, -1), dense[0][0].T, dense[0][1]))
    agree(logits(tmp_path / "lenet.caffemodel", images, model="lenet_caffe"), full(x, dense[1][0].T, dense[1][1]))


@pytest.mark.parametrize("shortcut_first", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_a_cifar_resnet_of_caffe_gives_its_logits(shortcut_first: bool, bias: bool, tmp_path: pathlib.Path) -> None:
    """BatchNorm and Scale layers; biases before them; and the shortcut of a block before or behind its other branch."""
    rows: list[tuple[str, str, list[np.ndarray]]] = []

    def layer(x: Any, name: str, features: int, side: int, stride: int = 1) -> Any:
        weights = [kernel(features, x.shape[1], side, side), *([draw(features)] if bias else [])]
        sums = [draw(features) * 9, rng.uniform(5, 15, features).astype(np.float32), np.array([9], np.float32)]
        scale = [draw(features), draw(features)]
        rows.extend([(name, "", weights), (f"{name} bn", "BatchNorm", sums), (f"{name} scale", "Scale", scale)])
        return norm(conv(x, weights, stride=stride, pad=side // 2), sums, scale)

    rng = np.random.default_rng(0)
    images, x = photos(32, 32, 3)
    x = relu(layer(x, "first", 16, 3))
    for stage, features in enumerate((16, 32, 64)):
        for block in range(2):
            name, stride = f"{stage}.{block}", 2 if stage and not block else 1
            projects = stride == 2
            shortcut = layer(x, f"{name} short", features, 1, 2) if projects and shortcut_first else x
            y = layer(relu(layer(x, f"{name} a", features, 3, stride)), f"{name} b", features, 3)
            x = relu(y + (layer(x, f"{name} short", features, 1, 2) if projects and not shortcut_first else shortcut))
    head = [kernel(10, 64), draw(10)]
    rows.append(("classes", "", head))
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(rows))
    model = 'cifar_resnet20(depth=14, shortcut="B")'
    agree(logits(tmp_path / "net.caffemodel", images, model=model), full(x.mean((2, 3)), head[0].T, head[1]))


# ------------------------------------------------------------------------------------------------- Keras and PyTorch

LAYERS = (
    "conv(8, 3, padding=1)|relu|conv(8, 3, bias=False)|batch_norm(epsilon=0.001)|relu|max_pool(2)|flatten|dense(20)"
    "|relu|dense(7)"
)


def cnn(x: Any, net: Arrays) -> Any:
    """The logits of the network of `LAYERS`, of arrays in Keras's layouts. Images are [N, H, W, C]."""

    def conv2d(x: Any, number: int, padding: str) -> Any:
        layouts = ("NHWC", "HWIO", "NHWC")
        kernel, bias = (jnp.asarray(net[f"conv2d_{number}/{name}"]) for name in ("kernel", "bias"))
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), padding, dimension_numbers=layouts) + bias.reshape(
            1, 1, 1, -1
        )

    x = conv2d(relu(conv2d(x, 5, "SAME")), 6, "VALID")
    statistics = ("gamma", "beta", "moving_mean", "moving_variance")
    gamma, beta, mean, var = (net[f"batch_normalization_2/{name}"] for name in statistics)
    x = relu((np.asarray(x) - mean) / np.sqrt(var + 1e-3) * gamma + beta)
    x = pool(x.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1).reshape(len(x), -1)
    return full(relu(full(x, net["dense_3/kernel"], net["dense_3/bias"])), net["dense_4/kernel"], net["dense_4/bias"])


def keras_arrays() -> Arrays:
    """Arrays as Keras names them in the second network of a program."""
    sizes = {
        "conv2d_5/kernel": (3, 3, 3, 8), "conv2d_5/bias": (8,), "conv2d_6/kernel": (3, 3, 8, 8), "conv2d_6/bias": (8,),
        "batch_normalization_2/gamma": (8,), "batch_normalization_2/beta": (8,),
        "batch_normalization_2/moving_mean": (8,), "batch_normalization_2/moving_variance": (8,),
        "dense_3/kernel": (1800, 20), "dense_3/bias": (20,), "dense_4/kernel": (20, 7), "dense_4/bias": (7,),
    }  # fmt: skip
    return {n: np.abs(draw(*size)) if "variance" in n else draw(*size) / size[0] ** 0.5 for n, size in sizes.items()}


def write_h5(path: pathlib.Path, arrays: Arrays) -> None:
    """Writes an HDF5 file of Keras 1 and 2."""
    h5py = importlib.import_module("h5py")
    with h5py.File(path, "w") as file:
        layers = list(dict.fromkeys(name.partition("/")[0] for name in arrays))
        file.attrs["layer_names"] = [name.encode() for name in [*layers[:1], "dropout", *layers[1:]]]
        file.create_group("dropout").attrs["weight_names"] = []
        for layer in layers:
            names = [name for name in arrays if name.startswith(f"{layer}/")]
            group = file.create_group(layer)
            group.attrs["weight_names"] = [f"{name}:0".encode() for name in names]
            for name in names:
                group[f"{name}:0"] = arrays[name]


def test_a_cnn_of_keras_gives_its_logits(tmp_path: pathlib.Path) -> None:
    """With the size of the images and the number of classes out of the shapes, and a bias before a normalization."""
    pytest.importorskip("h5py")
    net = keras_arrays()
    write_h5(tmp_path / "cnn.h5", net)
    images, x = photos(32, 32, 3)
    agree(logits(tmp_path / "cnn.h5", images, model=f"sequential({LAYERS!r})"), cnn(x.transpose(0, 2, 3, 1), net))


def test_layers_that_are_listed_by_class_are_matched_class_by_class() -> None:
    """As in the .weights.h5 of Keras 3."""
    net = keras_arrays()
    by_class = {name: net[name] for name in sorted(net)}
    model, shape = create_model(f"sequential({LAYERS!r})"), (32, 32, 3)
    found = [files.match(model, shape, files.WeightSet("keras", x), how="order").check("it") for x in (net, by_class)]
    assert all(np.array_equal(found[0][path], found[1][path]) for path in found[0])


def test_pytorch_flattens_images_with_channels_first(tmp_path: pathlib.Path) -> None:
    net = {"a.weight": kernel(20, 300), "a.bias": draw(20), "b.weight": kernel(5, 20), "b.bias": draw(5)}
    state_dicts.write(tmp_path / "mlp.pth", net)
    images, x = photos(10, 10, 3)
    hidden = relu(full(x.reshape(2, -1), net["a.weight"].T, net["a.bias"]))
    expected = full(hidden, net["b.weight"].T, net["b.bias"])
    model = 'mlp(features=(20,), activation="relu")'
    agree(logits(tmp_path / "mlp.pth", images, model=model, preprocess="resize(10)"), expected)
    images, x = photos(32, 32, 3)
    net = {"c1.weight": kernel(6, 3, 5, 5), "c2.weight": kernel(16, 6, 5, 5), "d.weight": kernel(120, 400),
           "e.weight": kernel(84, 120), "f.weight": kernel(10, 84)}  # fmt: skip
    net |= {name.replace("weight", "bias"): draw(len(array)) for name, array in net.items()}
    state_dicts.write(tmp_path / "lenet.pth", net)
    for name in ("c1", "c2"):
        x = pool(relu(conv(x, [net[f"{name}.weight"], net[f"{name}.bias"]])))
    x = x.reshape(2, -1)
    for name in ("d", "e", "f"):
        x = full(x if name == "d" else relu(x), net[f"{name}.weight"].T, net[f"{name}.bias"])
    agree(logits(tmp_path / "lenet.pth", images, model="lenet5(padding=0, activation='relu')"), x)


class Own(nn.Module):
    """A network from outside, without our fields."""

    vector: Callable[[Any], Any]

    @nn.compact
    def __call__(self, images: Any, *, train: bool) -> Any:
        return nn.Dense(5)(self.vector(nn.Conv(8, (3, 3), padding=1)(images)))


def branches(x: Any) -> Any:
    return jnp.concatenate([x, -x, 2 * x, 3 * x], axis=-1).mean((1, 2))


# How a network makes a vector of feature maps [N, H, W, C], and another framework of [N, C, H, W].
VECTORS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "flattened": (lambda x: x.reshape(len(x), -1), lambda x: x.reshape(len(x), -1)),
    "flattened, then rectified": (lambda x: relu(x.reshape(len(x), -1)), lambda x: relu(x.reshape(len(x), -1))),
    "flattened with channels first": (
        lambda x: x.transpose(0, 3, 1, 2).reshape(len(x), -1),
        lambda x: x.reshape(len(x), -1),
    ),
    "averages of branches": (branches, lambda x: branches(x.transpose(0, 2, 3, 1))),
}


@pytest.mark.parametrize("name", VECTORS)
def test_a_network_without_our_fields_gets_the_rows_in_the_order_in_which_it_flattens(name: str) -> None:
    """Also on images that are not square."""
    ours, theirs = VECTORS[name]
    model, (images, x) = Own(ours), photos(4, 6, 3)
    net = {"c.weight": kernel(8, 3, 3, 3), "c.bias": draw(8)}
    x = theirs(conv(x, [net["c.weight"], net["c.bias"]], pad=1))
    net |= {"d.weight": kernel(5, x.shape[1]), "d.bias": draw(5)}
    arrays = files.match(model, (4, 6, 3), files.WeightSet("torch", net), how="order").check("it")
    variables = traverse_util.unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    found: Any = model.apply(variables, images / np.float32(255), train=False)
    agree(found, full(x, net["d.weight"].T, net["d.bias"]))


def test_several_flattened_feature_maps_are_an_error() -> None:
    model = Own(lambda x: jnp.concatenate([x.reshape(len(x), -1), x[:, ::2].reshape(len(x), -1)], axis=-1))
    with pytest.raises(InputError, match="Dense_0 takes several flattened feature maps: match by name instead"):
        files.match(model, (4, 6, 3), files.WeightSet("torch", {"c.weight": draw(8, 3, 3, 3)}), how="order")


# --------------------------------------------------------------------------------------------- the matches themselves

NETWORKS = {
    "lenet5": (28, 28, 1),
    'cifar_resnet20(depth=14, shortcut="B")': (32, 32, 3),
    "cifar_preresnet164(stage_sizes=(2, 2, 2))": (32, 32, 3),
    "mobilenet_v1_025": (64, 64, 3),
    "vgg11_bn(features=(4, 4, 4, 4, 4))": (32, 32, 3),
    "resnet18(features=8, width=8)": (64, 64, 3),
    "densenet40_12(stage_sizes=(2, 2, 2))": (32, 32, 3),
}


def anonymous(text: str, shape: tuple[int, int, int]) -> tuple[Any, Arrays, Arrays]:
    """A network, random variables by path, and the same as a state dict whose layers have numbers for names."""
    model = create_model(text, 10)
    rng, variables, theirs = np.random.default_rng(0), {}, {}
    spec = convert.find_library("torchvision")
    for number, layer in enumerate(list_layers(model, shape)):
        for path, size in layer.arrays.items():
            variables[path] = rng.random(size).astype(np.float32)
            leaf = path.rpartition("/")[2]
            name = spec.array_name(layer, f"layer{number}", leaf)
            theirs[name] = spec.export_layout(variables[path], layer, "")
    return model, variables, theirs


@pytest.mark.parametrize("text", NETWORKS)
def test_the_same_order_gives_the_same_variables(text: str) -> None:
    model, variables, theirs = anonymous(text, NETWORKS[text])
    found = files.match(model, NETWORKS[text], files.WeightSet("torch", theirs), how="order")
    back = found.check("it")
    assert back.keys() == variables.keys()
    assert all(np.array_equal(back[path], array) for path, array in variables.items())
    assert len(found.remarks[0].splitlines()) == 2 + len(variables)


def shortcuts_first(block: list[str]) -> list[str]:
    """As Caffe's ResNets list the layers of a block."""
    return sorted(block, key=lambda path: "shortcut" not in path)


def by_depth(block: list[str]) -> list[str]:
    """As Keras lists branches: the shortcut's convolution behind the last one of the other branch, then both norms."""
    if not any("shortcut" in path for path in block):
        return block
    last = max(path for path in block if re.search(r"/norm\d$", path))
    moved = [path for path in block if "shortcut_conv" in path]
    rest = [path for path in block if path not in (*moved, last) and "shortcut" not in path]
    return [*rest, *moved, last, *(path for path in block if "shortcut_norm" in path)]


RESIDUAL = {  # and whether the order is clear
    'cifar_resnet20(depth=14, shortcut="B")': True,
    "resnet18(features=8, width=8)": True,
    "resnet50(features=8, width=8, stage_sizes=(2, 2, 2, 2))": False,  # conv3 and the shortcut have one shape
    "cifar_preresnet164(stage_sizes=(2, 2, 2))": False,
}


@pytest.mark.parametrize("reorder", [shortcuts_first, by_depth])
@pytest.mark.parametrize("text", RESIDUAL)
def test_branches_in_another_order_are_matched_rightly_or_not_at_all(
    text: str, reorder: Callable[[list[str]], list[str]]
) -> None:
    shape = NETWORKS.get(text, (64, 64, 3))
    model, variables, theirs = anonymous(text, shape)
    paths = [layer.path for layer in list_layers(model, shape)]
    blocks = [list(group) for _, group in itertools.groupby(paths, lambda path: path.partition("/")[0])]
    numbers = {path: f"layer{number}." for number, path in enumerate(paths)}
    moved = [numbers[path] for block in blocks for path in reorder(block)]
    arrays = {name: array for number in moved for name, array in theirs.items() if name.startswith(number)}
    assert list(arrays) != list(theirs) or RESIDUAL[text] is False
    try:
        back = files.match(model, shape, files.WeightSet("torch", arrays), how="order").check("it")
    except InputError:
        assert not RESIDUAL[text]
        return
    wrong = [path for path, array in variables.items() if not np.array_equal(back[path], array)]
    assert not wrong


def bottleneck(shortcut_first: bool) -> Arrays:
    """A state dict of a network whose shortcut has the shape of the block's last convolution."""
    sizes = {"s": (16, 8, 1, 1), "a": (8, 8, 1, 1), "b": (8, 8, 3, 3), "c": (16, 8, 1, 1)}
    names = ["s", "a", "b", "c"] if shortcut_first else ["a", "b", "c", "s"]
    arrays = {"first.weight": draw(8, 3, 3, 3)} | {f"{name}.weight": draw(*sizes[name]) for name in names}
    return arrays | {"fc.weight": draw(10, 16)}


def layer(path: str, *shape: int) -> Any:
    return order.Layer(path, {f"params/{path}/kernel": shape}, (1, 1, shape[0]) if len(shape) == 2 else ())


OURS = [
    layer("first", 3, 3, 3, 8),
    layer("block/conv1", 1, 1, 8, 8),
    layer("block/conv2", 3, 3, 8, 8),
    layer("block/conv3", 1, 1, 8, 16),
    layer("block/shortcut_conv", 1, 1, 8, 16),
    layer("head", 16, 10),
]


def test_an_ambiguous_order_is_an_error_that_names_the_layers() -> None:
    where = "'block/conv3' and 'block/shortcut_conv' [1, 1, 8, 16] of ours may be 's' and 'c' of the file"
    with pytest.raises(InputError, match=re.escape(where)) as error:
        order.match(OURS, [], "torch", bottleneck(True))
    assert "\n" not in str(error.value)
    found = order.match(OURS, [], "torch", bottleneck(False))
    assert found.names["params/block/shortcut_conv/kernel"] == "s.weight"


def test_layers_without_a_partner_are_named() -> None:
    arrays = bottleneck(False)
    arrays["b.weight"] = draw(8, 8, 5, 5)
    lines = "missing: a kernel [3, 3, 8, 8] for block/conv2; not used: b [5, 5, 8, 8]"
    with pytest.raises(InputError, match=re.escape(lines)):
        order.match(OURS, [], "torch", arrays).check("it")


def test_a_bias_that_no_normalization_takes_up_is_an_error() -> None:
    """Between the convolution and the next normalization of a network with pre-activation is a sum."""
    text = "cifar_preresnet164(stage_sizes=(2, 2, 2))"
    model, _, theirs = anonymous(text, NETWORKS[text])
    assert files.match(model, NETWORKS[text], files.WeightSet("torch", theirs), how="order").check("it")
    last = [name for name, array in theirs.items() if array.ndim == 4][3]  # of the first block
    arrays: Arrays = {}
    for name, array in theirs.items():
        arrays[name] = array
        if name == last:
            arrays[name.replace("weight", "bias")] = draw(len(array))
    with pytest.raises(InputError, match=r"1 not used\n  not used: layer\d+\.bias"):
        files.match(model, NETWORKS[text], files.WeightSet("torch", arrays), how="order").check("it")


def test_a_checkpoint_of_tensorflow_has_no_order() -> None:
    with pytest.raises(InputError, match="lists its arrays by name, so they have no order"):
        files.match(create_model("lenet5"), (28, 28, 1), files.WeightSet("slim", {"x": np.zeros(3)}), how="order")
