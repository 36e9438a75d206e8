"""The layers that families share, each against its definition in numpy or numbers worked out by hand."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.models import blocks, layers
from tests.models import calls

# ------------------------------------------------------------------------------------------------------- convolutions


def test_a_strided_convolution_pads_both_sides() -> None:
    """A point at the corner falls under the kernel's centre; 'SAME' would pad only below and to the right."""
    model: Any = layers.conv(1, 3, stride=2, use_bias=False)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0, 0] = 1
    variables = model.init(calls.key(), x)
    y = model.apply(variables, x)
    assert y.shape == (1, 2, 2, 1)
    assert y[0, 0, 0, 0] == variables["params"]["kernel"][1, 1, 0, 0]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "groups", "shape", "params"),
    [
        (3, 1, None, 1, (9, 9, 4), (3, 3, 2, 4)),
        ((1, 7), 1, None, 1, (9, 9, 4), (1, 7, 2, 4)),
        (5, 1, 0, 1, (5, 5, 4), (5, 5, 2, 4)),
        (1, 2, None, 1, (5, 5, 4), (1, 1, 2, 4)),
        (3, 2, None, 2, (5, 5, 4), (3, 3, 1, 4)),
    ],
)
def test_convolutions_have_the_asked_shape(
    kernel: Any, stride: int, padding: Any, groups: int, shape: tuple, params: tuple
) -> None:
    model: Any = layers.conv(4, kernel, stride, padding, groups)
    y, variables = model.init_with_output(calls.key(), np.ones((1, 9, 9, 2), np.float32))
    assert y.shape[1:] == shape
    assert variables["params"]["kernel"].shape == params


def test_pools() -> None:
    x = jnp.arange(25, dtype=jnp.float32).reshape(1, 5, 5, 1)
    assert layers.max_pool(x, 2)[0, ..., 0].tolist() == [[6, 8], [16, 18]]
    assert layers.avg_pool(x, 2)[0, ..., 0].tolist() == [[3, 5], [13, 15]]
    assert layers.max_pool(x, 3, 2, 1)[0, ..., 0].tolist() == [[6, 8, 9], [16, 18, 19], [21, 23, 24]]
    assert layers.avg_pool(x, 3, 2, 1)[0, 0, 0, 0] == pytest.approx((0 + 1 + 5 + 6) / 9)
    assert layers.global_avg_pool(x).tolist() == [[12]]


@pytest.mark.parametrize(
    ("name", "at_minus_one", "at_one"),
    [
        ("relu", 0, 1),
        ("relu6", 0, 1),
        ("prelu", -0.25, 1),
        ("step", 0, 1),
        ("leaky_relu", -0.01, 1),
        ("elu", np.expm1(-1), 1),
        ("selu", 1.7580993 * np.expm1(-1), 1.0507010),
        ("swish", -1 / (1 + np.e), 1 / (1 + 1 / np.e)),
        ("mish", -np.tanh(np.log1p(np.exp(-1))), np.tanh(np.log1p(np.e))),
        ("gelu", -0.15865525, 0.84134475),
        ("tanh", np.tanh(-1), np.tanh(1)),
        ("scaled_tanh", -1.0, 1.0),
        ("sigmoid", 1 / (1 + np.e), 1 / (1 + 1 / np.e)),
    ],
)
def test_activations(name: str, at_minus_one: float, at_one: float) -> None:
    y, _ = calls.run(calls.Inside(layers.activation(name)), np.array([[-1.0], [1.0]], np.float32))
    assert y[:, 0] == pytest.approx(np.array([at_minus_one, at_one]), abs=2e-5)


def test_every_activation_has_its_values_here() -> None:
    marks = test_activations.pytestmark[0].args[1]
    assert {row[0] for row in marks} == set(layers.ACTIVATIONS)


@pytest.mark.parametrize(
    ("size", "window", "stride", "padding", "ceil", "expected"),
    [
        (227, 11, 4, (0, 0), False, 55),
        (224, 3, 2, (1, 1), False, 112),
        (112, 3, 2, (0, 0), False, 55),
        (112, 3, 2, (0, 0), True, 56),
        (7, 3, 2, (0, 0), True, 3),  # nothing to round
        (6, 3, 2, (1, 1), True, 4),
        (5, 2, 2, (1, 1), True, 3),  # a fourth window would start in the padding
        (5, 5, 1, (0, 0), False, 1),
    ],
)
def test_windows_along_a_side(
    size: int, window: int, stride: int, padding: tuple[int, int], ceil: bool, expected: int
) -> None:
    assert layers.output_size(size, window, stride, padding, ceil) == expected


def test_a_window_that_does_not_fit_says_so_with_the_formula() -> None:
    message = r"window of 11 does not fit a side of 5: \(N - F \+ 2 pad\) / stride \+ 1 = \(5 - 11 \+ 4\) / 4 \+ 1"
    with pytest.raises(ValueError, match=message):
        calls.run(layers.conv(1, 11, 4, 2), calls.noise(1, 9, 5, 1))
    with pytest.raises(ValueError, match="window of 3 does not fit a side of 2"):
        layers.max_pool(jnp.zeros((1, 8, 2, 1)), 3)
    with pytest.raises(ValueError, match="window of 5 does not fit a side of 4"):  # 3 and what lies between
        calls.run(layers.conv(1, 3, padding=0, dilation=2), calls.noise(1, 4, 4, 1))


def correlate(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The convolution without padding, in numpy."""
    windows = np.lib.stride_tricks.sliding_window_view(x, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


@pytest.mark.parametrize("mode", ["edge", "reflect"])
def test_padding_modes_copy_pixels_as_numpy_does(mode: Literal["edge", "reflect"]) -> None:
    x = calls.noise(2, 6, 7, 3)
    y, params = calls.run(layers.conv(4, (3, 5), use_bias=False, padding_mode=mode), x)
    expected = correlate(np.pad(x, ((0, 0), (1, 1), (2, 2), (0, 0)), mode=mode), np.asarray(params["kernel"]))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
    level, _ = calls.run(layers.conv(1, 3, use_bias=False, padding_mode=mode), np.ones((1, 5, 5, 1), np.float32))
    assert np.ptp(level) < 1e-5  # no darker at the border


def test_same_padding_is_tensorflows() -> None:
    """With a stride the odd pixel goes to the far side: the first window starts at the first pixel."""
    x = calls.noise(1, 6, 6, 1)
    y, params = calls.run(layers.conv(1, 3, 2, "SAME", use_bias=False), x)
    expected = correlate(np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0))), np.asarray(params["kernel"]))[:, ::2, ::2]
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_a_dilated_convolution_keeps_the_size_and_skips_pixels() -> None:
    x = calls.noise(1, 9, 9, 2)
    y, params = calls.run(layers.conv(3, 3, dilation=2, use_bias=False), x)
    spread = np.zeros((5, 5, 2, 3), np.float32)
    spread[::2, ::2] = params["kernel"]
    np.testing.assert_allclose(y, correlate(np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))), spread), rtol=1e-4, atol=1e-5)


def test_a_separable_convolution_is_one_by_one_and_then_across() -> None:
    x = calls.noise(2, 6, 6, 3)
    y, params = calls.run(blocks.SeparableConv(layers.conv, 5, 3, multiplier=2), x)
    depthwise = np.asarray(params["depthwise"]["kernel"])
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    inner = [correlate(padded[..., i // 2 : i // 2 + 1], depthwise[:, :, :, i : i + 1]) for i in range(6)]
    np.testing.assert_allclose(y, np.concatenate(inner, -1) @ params["pointwise"]["kernel"][0, 0], rtol=1e-4, atol=1e-5)


def test_a_tiled_convolution_alternates_its_kernels() -> None:
    x = calls.noise(1, 6, 6, 2)
    y, params = calls.run(blocks.TiledConv(3, 3, tiles=2), x)
    every = correlate(np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), np.asarray(params["conv"]["kernel"]))
    for row in range(6):
        for column in range(6):
            tile = 3 * (row % 2 * 2 + column % 2)
            np.testing.assert_allclose(y[:, row, column], every[:, row, column, tile : tile + 3], rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------- pools


def test_ceil_pools_keep_the_last_incomplete_window() -> None:
    x = jnp.arange(16, dtype=jnp.float32).reshape(1, 4, 4, 1)
    assert layers.max_pool(x, 3, 2)[0, ..., 0].tolist() == [[10]]
    assert layers.max_pool(x, 3, 2, ceil=True)[0, ..., 0].tolist() == [[10, 11], [14, 15]]
    # 2x2 of 3x3 are inside: only they count
    assert layers.avg_pool(x, 3, 2, ceil=True)[0, ..., 0].tolist() == [[5, 6.5], [11, 12.5]]


def test_padding_counts_in_means_only_where_it_should() -> None:
    x = jnp.ones((1, 4, 4, 1))
    corner = {"counted": 4 / 9, "not": 1.0, "SAME": 1.0}
    assert layers.avg_pool(x, 3, 1, 1)[0, 0, 0, 0] == pytest.approx(corner["counted"])
    assert layers.avg_pool(x, 3, 1, 1, count_padding=False)[0, 0, 0, 0] == pytest.approx(corner["not"])
    assert layers.avg_pool(x, 3, 1, "SAME")[0, 0, 0, 0] == pytest.approx(corner["SAME"])
    # Rounding up adds a window that starts inside: its padding counts, what lies beyond does not.
    assert layers.avg_pool(jnp.ones((1, 5, 5, 1)), 2, 2, 1, ceil=True)[0, 0, 0, 0] == pytest.approx(1 / 4)
    assert layers.avg_pool(jnp.ones((1, 6, 6, 1)), 3, 2, 1, ceil=True)[0, 3, 3, 0] == pytest.approx(1 / 4)


def test_pools_of_same_size_are_tensorflows() -> None:
    x = jnp.arange(16, dtype=jnp.float32).reshape(1, 4, 4, 1)
    assert layers.max_pool(x, 3, 2, "SAME")[0, ..., 0].tolist() == [[10, 11], [14, 15]]


def test_means_can_be_differentiated() -> None:
    grad = jax.grad(lambda x: layers.avg_pool(x, 2).sum())(jnp.ones((1, 4, 4, 1)))
    np.testing.assert_allclose(grad, 0.25)


# --------------------------------------------------------------------------------------- activations, gates, heads


def test_prelu_starts_at_a_quarter_and_learns_a_slope_for_each_map() -> None:
    x = np.array([[-2.0, 4.0], [-4.0, -8.0]], np.float32)
    y, params = calls.run(layers.PReLU(), x)
    assert y.tolist() == [[-0.5, 4.0], [-1.0, -2.0]]
    assert params["slope"].shape == (2,)
    grad = jax.grad(lambda p: calls.apply(layers.PReLU(), {"params": p}, x).sum())(params)
    assert grad["slope"].tolist() == [-6.0, -8.0]


def test_squeeze_and_excitation_scales_channels() -> None:
    x = calls.noise(2, 4, 4, 32)
    y, params = calls.run(blocks.SqueezeExcite(nn.Dense, ratio=16), x)
    assert params["squeeze"]["kernel"].shape == (32, 2)
    hidden = np.maximum(x.mean((1, 2)) @ params["squeeze"]["kernel"], 0)
    gate = 1 / (1 + np.exp(-(hidden @ params["excite"]["kernel"])))
    np.testing.assert_allclose(y, x * gate[:, None, None], rtol=1e-4, atol=1e-5)


def test_stochastic_depth_drops_whole_examples_and_keeps_the_mean() -> None:
    x = np.ones((4000, 2, 2, 1), np.float32)
    y, _ = calls.run(blocks.StochasticDepth(0.25, deterministic=False), x, dropout=calls.key(1))
    assert np.ptp(y, axis=(1, 2, 3)).max() == 0
    assert set(np.unique(y)) == {0.0, np.float32(1 / 0.75)}
    assert y.mean() == pytest.approx(1, abs=0.03)
    same, _ = calls.run(blocks.StochasticDepth(0.25, deterministic=True), x)
    np.testing.assert_array_equal(same, x)


def test_a_fully_connected_layer_slides_over_larger_maps_with_the_same_weights() -> None:
    flat, slide = layers.FullyConnected(5), layers.FullyConnected(5, window=3)
    x = calls.noise(2, 4, 6, 7)
    _, params = calls.run(flat, x[:, :3, :3])
    scores = np.asarray(calls.apply(slide, {"params": params}, x))
    assert scores.shape == (2, 2, 4, 5)
    for row in range(2):
        for column in range(4):
            one = calls.apply(flat, {"params": params}, x[:, row : row + 3, column : column + 3])
            np.testing.assert_allclose(scores[:, row, column], one, rtol=1e-4, atol=1e-5)


def test_the_step_is_a_threshold() -> None:
    assert layers.step(jnp.array([-1.0, 0.0, 0.1])).tolist() == [0, 0, 1]
