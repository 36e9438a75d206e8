"""Receptive fields of named layers, against a count: of the outputs that a single row or column of pixels reaches."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.errors import InputError
from cnnjax.models import MODELS, blocks, create_model, layers
from cnnjax.models.blocks import TiledConv
from cnnjax.models.normalization import spatial_response_norm
from cnnjax.summarize.receptive_field import ReceptiveField
from cnnjax.summarize.trace import receptive_fields
from tests.models import zoo


class Net(nn.Module):
    """Functions that make layers, each applied to the output of the last, as a network that returns all outputs."""

    functions: tuple[Callable[..., Any], ...]

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> dict[str, jax.Array]:
        outputs = {}
        for i, function in enumerate(self.functions):
            x = outputs[f"layer{i}"] = function(x)
        return outputs


def positive_variables(model: nn.Module, shape: tuple[int, ...]) -> Any:
    """Returns variables with which each output is > 0 exactly where an input that it depends on is > 0, else 0."""

    def positive(path: tuple[Any, ...], leaf: Any) -> np.ndarray:
        if path[-1].key in ("bias", "mean"):
            return np.zeros(leaf.shape, np.float32)
        rows = leaf.shape[0] if leaf.ndim == 4 else 1  # with its root, hundreds of layers neither grow nor vanish
        is_kernel = path[-1].key == "kernel"
        return np.full(leaf.shape, np.sqrt(rows) / np.prod(leaf.shape[:-1]) if is_kernel else 1, np.float32)

    shapes = jax.eval_shape(lambda x: model.init(zoo.key(), x, train=False), jnp.zeros((1, *shape)))
    return jax.tree_util.tree_map_with_path(positive, shapes)


def counted_windows(model: nn.Module, shape: tuple[int, ...], batch: int = 64) -> dict[str, list[np.ndarray]]:
    """Returns (first, last + 1) of the rows that the units see, int [units, 2], and the same of columns, by layer."""
    height, width = shape[:2]
    images = np.zeros((-(-(height + width) // batch) * batch, *shape), np.float32)
    images[np.arange(height), np.arange(height)] = 1
    images[height + np.arange(width), :, np.arange(width)] = 1
    variables = positive_variables(model, shape)  # as an argument: XLA computes products with uniform constants wrongly
    apply = jax.jit(functools.partial(model.apply, train=False))
    parts = [jax.device_get(apply(variables, part)) for part in images.reshape(-1, batch, *shape)]
    windows = {}
    for name in parts[0]:
        if parts[0][name].ndim == 4:
            depends = np.concatenate([part[name] for part in parts]) > 0
            sides = np.any(depends[:height], (2, 3)), np.any(depends[height : height + width], (1, 3))
            windows[name] = [np.stack([s.argmax(0), len(s) - s[::-1].argmax(0)], axis=1) for s in sides]
            assert all(side.any(0).all() for side in sides), name
    return windows


def assert_as_counted(model: nn.Module, shape: tuple[int, int, int], border: int = 0) -> Iterator[ReceptiveField]:
    """Asserts that each unit sees its window, clipped at the border of the image. Yields the fields.

    The `border` outer units on each side may see less.
    """
    fields = receptive_fields(model, shape)
    for name, sides in counted_windows(model, shape).items():
        for side, counted in enumerate(sides):
            windows = np.array([fields[name].window((i, i), within=shape[:2])[side] for i in range(len(counted))])
            inner, message = slice(border, len(counted) - border), f"{name}, {('rows', 'columns')[side]}"
            np.testing.assert_array_equal(windows[inner], counted[inner], err_msg=message)
            assert (windows[:, 0] <= counted[:, 0]).all(), message
            assert (windows[:, 1] >= counted[:, 1]).all(), message
    return iter(fields.values())


# ------------------------------------------------------------------------------------------------------------ the zoo


@pytest.mark.parametrize("text", zoo.computed(lambda text: "features_only" in zoo.fields_of(text)))
def test_every_unit_of_every_network_sees_its_window(text: str) -> None:
    fields = {"spatial_norm": False} if "spatial_norm" in zoo.fields_of(text) else {}  # a zero divided stays a zero
    model = create_model(zoo.with_fields(text, features_only=True, **fields), 10)
    height, width, channels = zoo.smallest(text)
    if MODELS[text.partition("(")[0]].input_shape[0] > 32:  # takes any size; a larger one has windows inside
        height, width = max(height, 48), max(width, 48) + 16
    assert_as_counted(model, (height, width, channels))


# --------------------------------------------------------------------------------------------------- kinds of geometry


def down_and_right(x: jax.Array, pixels: int) -> jax.Array:
    return jnp.pad(x, ((0, 0), (pixels, 0), (pixels, 0), (0, 0)))[:, :-pixels, :-pixels]


GEOMETRIES: dict[str, tuple[Callable[..., Any], ...]] = {
    "rows and columns differ": (
        lambda x: layers.conv(2, (3, 5), 1, (1, 0), name="a")(x),
        lambda x: layers.conv(2, (1, 3), name="b")(x),
    ),
    "more padding behind than before": (
        lambda x: layers.conv(2, 3, 2, "SAME", name="a")(x),
        lambda x: layers.conv(2, 3, 2, "SAME", name="b")(x),
    ),
    "overlapping pools with incomplete windows": (
        lambda x: layers.max_pool(x, 3, 2, ceil=True),
        lambda x: layers.avg_pool(x, 3, 2, 1, ceil=True),
        lambda x: layers.conv(2, 3, name="a")(x),
    ),
    "a shortcut with a stride": (
        lambda x: layers.conv(2, 3, 2, name="a")(x) + x[:, ::2, ::2].mean(-1, keepdims=True),
        lambda x: layers.conv(2, 3, name="b")(x),
    ),
    "copies of the border as padding": (
        lambda x: layers.conv(2, 3, 2, padding_mode="edge", name="a")(x),
        lambda x: layers.conv(2, 5, padding_mode="edge", name="b")(x),
    ),
    "Flax's own pools": (
        lambda x: layers.conv(2, 3, name="a")(x),
        lambda x: nn.max_pool(x, (2, 3), (2, 1), "SAME"),
        lambda x: nn.avg_pool(x, (3, 2), (1, 2), "SAME"),
        lambda x: layers.conv(2, 3, name="b")(x),
    ),
    "tiled convolution": (lambda x: TiledConv(2, 3, name="a")(x), lambda x: layers.max_pool(x, 2)),
    "the largest channel at each position": (
        lambda x: x.max(-1, keepdims=True), lambda x: layers.conv(2, 3, 2, name="a")(x)
    ),
}  # fmt: skip
WITH_GAPS: dict[str, tuple[Callable[..., Any], ...]] = {
    "dilation": (lambda x: layers.conv(2, 3, dilation=3, name="a")(x),),
    "branches beside each other": (
        lambda x: jnp.concatenate([layers.conv(1, 2, 1, "SAME", name="a")(x), down_and_right(x, 3)], -1),
        lambda x: layers.conv(2, 3, 2, name="b")(x),
    ),
    "zeros beside a crop": (lambda x: layers.conv(2, 3, name="a")(x[:, 1:, 2:-1]), lambda x: layers.max_pool(x, 2)),
    "zeros where pixels are left over": (
        lambda x: layers.conv(2, 3, 3, 0, name="a")(x), lambda x: layers.conv(2, 3, name="b")(x)
    ),
}  # fmt: skip


@pytest.mark.parametrize("functions", GEOMETRIES.values(), ids=GEOMETRIES)
def test_every_unit_sees_its_window(functions: Any) -> None:
    assert not any(field.is_global for field in assert_as_counted(Net(functions), (21, 18, 2)))


@pytest.mark.parametrize("functions", WITH_GAPS.values(), ids=WITH_GAPS)
def test_units_beside_the_border_may_see_less_than_their_window(functions: Any) -> None:
    assert_as_counted(Net(functions), (26, 23, 2), border=3)
    with pytest.raises(AssertionError):
        assert_as_counted(Net(functions), (26, 23, 2))


def test_windows_by_hand() -> None:
    def branches(x: jax.Array) -> jax.Array:
        return jnp.concatenate([layers.conv(2, 1, name="a")(x), layers.conv(2, 5, name="b")(x)], axis=-1)

    net = Net((lambda x: layers.max_pool(x, 3, 2), branches))
    pool, both = receptive_fields(net, (20, 30, 1)).values()
    assert pool == ReceptiveField((3, 3), (2, 2), (0, 0))
    assert both == ReceptiveField((11, 11), (2, 2), (-4, -4))
    assert both.window((1, 12)) == ((-2, 9), (20, 31))
    assert both.window((1, 12), within=(20, 30)) == ((0, 9), (20, 30))


@pytest.mark.parametrize(
    "gate", [lambda x: blocks.SqueezeExcite(nn.Dense, 2)(x), lambda x: nn.GroupNorm(2)(x)], ids=["se", "group_norm"]
)
def test_a_mean_over_all_positions_makes_the_field_global_and_keeps_the_window(gate: Any) -> None:
    conv = functools.partial(layers.conv, 4, 3)
    fields = receptive_fields(Net((lambda x: conv(name="a")(x), gate, lambda x: conv(name="b")(x))), (9, 9, 1))
    assert [field.is_global for field in fields.values()] == [False, True, True]
    assert [field.size[0] for field in fields.values()] == [3, 3, 5]


def test_what_a_value_is_divided_by_counts() -> None:
    (field,) = receptive_fields(Net((spatial_response_norm,)), (9, 8, 1)).values()
    assert field == ReceptiveField((5, 5), (1, 1), (-2, -2))
    gradient = jax.grad(lambda x: spatial_response_norm(x)[0, 3, 1, 0])(jnp.ones((1, 9, 8, 1)))
    (top, bottom), (left, right) = field.window((3, 1), within=(9, 8))
    rows, columns = np.nonzero(gradient[0, :, :, 0])
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (top, bottom, left, right)


def test_a_fully_connected_layer_sees_the_whole_image_and_nothing_less() -> None:
    net = Net((lambda x: layers.FullyConnected(4)(x), lambda x: nn.Dense(3)(x)))
    assert list(receptive_fields(net, (9, 7, 1)).values()) == [ReceptiveField((9, 7), (9, 7), (0, 0), True)] * 2


def test_layers_are_in_the_order_of_the_network_and_loops_are_seen_through() -> None:
    fields = [
        receptive_fields(create_model(f"cifar_resnet20(features_only=True, scan={scan})", 10), (32, 32, 3))
        for scan in (True, False)
    ]
    assert fields[0] == fields[1]
    assert list(fields[0]) == ["conv1", "stage1", "stage2", "stage3"]
    names = list(receptive_fields(create_model("squeezenet1_1(features_only=True)", 10), (64, 64, 3)))
    assert (names[0], names[-1]) == ("conv1", "conv10")


def test_images_that_do_not_fit_are_an_error() -> None:
    with pytest.raises(InputError, match="images of 4x4x1 do not fit"):
        receptive_fields(create_model("lenet5(features_only=True)", 10), (4, 4, 1))
