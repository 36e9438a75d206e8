"""AlexNet of 2012 as its source code has it, against loops in NumPy that were written from facts about that code.

Every window is cut out by itself. Nothing is shared with the network but its variables. The facts are listed in
experiments/alexnet_paper_and_code.md.
"""

import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.models import count_params, create_model
from tests.models import zoo

SMALL = "alexnet_2012(features=(6, 8, 8, 12, 8), hidden=(10, 12), dropout=0.0)"
SIZES = [(224, 224), (83, 70)]  # conv1's last windows lack 3 rows and columns; or 1 column, as do those of some pools
SCALE = 60.0  # of the images: as pixels of 0 to 255 without their mean, for which response normalization is made

# ----------------------------------------------------------------------------------------------------------- the oracle


def windows(x: np.ndarray, size: int, stride: int, padding: int, fill: float) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yields (row, column, window [N, size, size, C]); counts are rounded up, and beyond the border there is `fill`."""
    counts = [1 + math.ceil((side + 2 * padding - size) / stride) for side in x.shape[1:3]]
    plane = np.full((len(x), *((count - 1) * stride + size for count in counts), x.shape[3]), float(fill))
    plane[:, padding : padding + x.shape[1], padding : padding + x.shape[2]] = x
    for i, j in np.ndindex(*counts):
        yield i, j, plane[:, i * stride : i * stride + size, j * stride : j * stride + size]


def joined(values: Iterator[tuple[int, int, np.ndarray]]) -> np.ndarray:
    """Returns the arrays [N, C] of all positions as feature maps [N, H, W, C]."""
    table = {(i, j): value for i, j, value in values}
    rows, columns = (1 + max(place[axis] for place in table) for axis in (0, 1))
    return np.stack([np.stack([table[i, j] for j in range(columns)], 1) for i in range(rows)], 1)


def conv(x: np.ndarray, layer: dict[str, np.ndarray], stride: int = 1, padding: int = 0, groups: int = 1) -> np.ndarray:
    kernel, bias = layer["kernel"], layer["bias"]
    inputs, outputs = (np.split(np.arange(count), groups) for count in (x.shape[3], kernel.shape[3]))

    def response(window: np.ndarray) -> np.ndarray:
        parts = [np.tensordot(window[..., i], kernel[..., o], 3) for i, o in zip(inputs, outputs, strict=True)]
        return np.concatenate(parts, -1) + bias

    return joined((i, j, response(w)) for i, j, w in windows(x, len(kernel), stride, padding, 0))


def pool(x: np.ndarray) -> np.ndarray:
    return joined((i, j, w.max((1, 2))) for i, j, w in windows(x, 3, 2, 0, -np.inf))


def relu(x: np.ndarray) -> np.ndarray:
    return x * (x > 0)


def across_channels(x: np.ndarray) -> np.ndarray:
    """minDiv 2, size 5, scale 1e-4 divided by the size, power 0.75."""
    out = np.empty_like(x)
    for c in range(x.shape[3]):
        energy = (x[..., max(c - 2, 0) : c + 3] ** 2).sum(-1)
        out[..., c] = x[..., c] / (2 + 1e-4 / 5 * energy) ** 0.75
    return out


def within_channels(x: np.ndarray) -> np.ndarray:
    """Size 5x5, scale 0.001 divided by the area, power 0.75, and 1 for the constant, which we have not seen."""
    energy = joined((i, j, (w**2).sum((1, 2))) for i, j, w in windows(x, 5, 1, 2, 0))
    return x / (1 + 0.001 / 25 * energy) ** 0.75


def fc(x: np.ndarray, layer: dict[str, np.ndarray]) -> np.ndarray:
    return x.reshape(len(x), -1) @ layer["kernel"] + layer["bias"]


def oracle(params: dict[str, Any], x: np.ndarray) -> dict[str, np.ndarray]:
    """Returns the outputs of all convolutions and fully connected layers, before what follows them."""
    out = {}
    out["conv1"] = conv(x, params["conv1"], 4)
    x = relu(pool(across_channels(out["conv1"])))
    out["conv2"] = conv(x, params["conv2"], 1, 2, groups=2)
    x = pool(within_channels(across_channels(relu(out["conv2"]))))
    out["conv3"] = conv(x, params["conv3"], 1, 1)
    out["conv4"] = conv(relu(out["conv3"]), params["conv4"], 1, 1, groups=2)
    out["conv5"] = conv(relu(out["conv4"]), params["conv5"], 1, 1, groups=2)
    x = relu(pool(out["conv5"]))
    out["fc6"] = fc(x, params["fc6"])
    out["fc7"] = fc(relu(out["fc6"]), params["fc7"])
    out["fc8"] = fc(relu(out["fc7"]), params["fc8"])
    return out


# -------------------------------------------------------------------------------------------------------- the network


def layer_outputs(params: Any, x: Any, dtype: str) -> dict[str, Any]:
    """Returns our outputs under the oracle's names; they include those of pools and normalizations as inputs."""
    flags = {"capture_intermediates": True, "mutable": ["intermediates"], "train": False}
    state: Any = create_model(SMALL, 10, dtype).apply({"params": params}, x, **flags)[1]["intermediates"]
    return {name: state[name]["__call__"][0] for name in params}


@functools.cache
def case(size: tuple[int, int]) -> tuple[Any, np.ndarray]:
    """Returns random parameters, none of which is 0, and images, in float64."""
    rng = np.random.default_rng(0)
    model, image = create_model(SMALL, 10), jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    shapes: Any = jax.eval_shape(lambda x: model.init(zoo.key(), x, train=False), image)
    params = jax.tree.map(lambda leaf: rng.normal(0, (2 / math.prod(leaf.shape[:-1])) ** 0.5, leaf.shape), shapes)
    return params["params"], SCALE * rng.normal(size=(2, *size, 3))


@pytest.mark.parametrize(
    ("dtype", "limit", "size"),
    [("float64", 1e-10, SIZES[0]), ("float64", 1e-10, SIZES[1]), ("float32", 4e-6, SIZES[1])],  # errors add up
)
def test_every_layer_is_that_of_the_oracle(dtype: str, limit: float, size: tuple[int, int]) -> None:
    params, x = case(size)
    with jax.enable_x64(dtype == "float64"):
        cast = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), (params, x))
        ours = jax.device_get(jax.jit(functools.partial(layer_outputs, dtype=dtype))(*cast))
    theirs = oracle(params, x)
    assert ours.keys() == theirs.keys()
    for name, expected in theirs.items():
        assert ours[name].dtype == dtype
        assert ours[name].shape == expected.shape, name
        assert np.abs(ours[name] - expected).max() <= limit * np.abs(expected).max(), name


def test_gradients_are_the_slopes_of_the_oracle() -> None:
    """Differentiates a random sum of the logits, along a random direction of each parameter and of the images."""
    rng = np.random.default_rng(1)
    params, x = case(SIZES[1])
    weights = rng.normal(size=(2, 10))

    def ours(params: Any, x: Any) -> jax.Array:
        return (layer_outputs(params, x, "float64")["fc8"] * weights).sum()

    with jax.enable_x64(True):
        gradient = jax.device_get(jax.jit(jax.grad(ours, (0, 1)))(*jax.tree.map(jnp.asarray, (params, x))))
    leaves, structure = jax.tree.flatten((params, x))
    for i, (leaf, slope) in enumerate(zip(leaves, jax.tree.leaves(gradient), strict=True)):
        direction = rng.normal(size=leaf.shape) * np.abs(leaf).mean()
        ends = []
        for step in (1e-7, -1e-7):
            moved = [leaf + step * direction if j == i else other for j, other in enumerate(leaves)]
            ends.append((oracle(*structure.unflatten(moved))["fc8"] * weights).sum())
        expected = (ends[0] - ends[1]) / 2e-7
        assert abs((slope * direction).sum() - expected) < 1e-5 * max(1, abs(expected)), structure


# -------------------------------------------------------------------------------------------------- shapes and starts


def test_images_of_224_have_the_feature_maps_of_the_paper() -> None:
    shapes = {name: leaf.shape[1:] for name, leaf in feature_shapes("alexnet_2012", 224).items()}
    assert shapes == {
        "conv1": (55, 55, 96), "pool1": (27, 27, 96), "conv2": (27, 27, 256), "pool2": (13, 13, 256),
        "conv3": (13, 13, 384), "conv4": (13, 13, 384), "conv5": (13, 13, 256), "pool5": (6, 6, 256),
    }  # fmt: skip
    assert count_params(create_model("alexnet_2012"), (224, 224, 3)) == 60_965_224
    rounded_down = feature_shapes("alexnet_2012(ceil=False)", 224)
    assert [rounded_down[name].shape[1] for name in ("conv1", "pool1", "pool2", "pool5")] == [54, 26, 12, 5]


def feature_shapes(text: str, side: int) -> Any:
    model, image = create_model(zoo.with_fields(text, features_only=True)), jnp.zeros((1, side, side, 3))
    return jax.eval_shape(lambda x: model.init_with_output(zoo.key(), x, train=False)[0], image)


def test_without_its_differences_it_is_the_network_of_the_paper_on_images_with_three_more_rows_and_columns() -> None:
    small = {"features": (6, 8, 8, 12, 8), "hidden": (10, 12)}
    off = {"relu_after_pool": False, "spatial_norm": False, "lrn_alpha": 1e-4, "deep_std": 0.0}
    params, x = case(SIZES[0])
    code, paper = (
        jax.jit(functools.partial(create_model(zoo.with_fields(name, **fields), 10).apply, train=False))
        for name, fields in (("alexnet_2012", small | off), ("alexnet", small))
    )
    padded = np.pad(x, ((0, 0), (0, 3), (0, 3), (0, 0)))
    expected = paper({"params": params}, padded)
    np.testing.assert_allclose(code({"params": params}, x), expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(("text", "deep"), [("alexnet_2012", 0.03), ("alexnet", 0.01)])
def test_weights_and_biases_start_as_in_code_and_paper(text: str, deep: float) -> None:
    narrow = zoo.with_fields(text, features=(32, 64, 64, 64, 64), hidden=(64, 64))
    init = jax.jit(functools.partial(create_model(narrow, 10).init, train=False))
    params: Any = init(zoo.key(), jnp.zeros((1, 67, 67, 3)))["params"]
    for name, layer in params.items():
        expected = deep if name in ("conv3", "conv4", "conv5") else 0.01
        assert layer["kernel"].std() == pytest.approx(expected, rel=0.1), name
        assert (layer["bias"] == (name in ("conv2", "conv4", "conv5", "fc6", "fc7"))).all(), name
