"""Filters as images, dead ones, and Gabor functions fitted to them."""

import dataclasses

import jax
import numpy as np
import pytest

from cnnjax import InputError, visualize
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize import gabor_fits, kernels
from tests.models import zoo
from tests.visualize.networks import images, trained

NET = "sequential(layers='conv(8, 5)|relu|conv(6, 3)|relu|gap|dense')"


def changed(net: TrainedNetwork, path: str, channel: int, **values: float) -> TrainedNetwork:
    """Returns the network with a constant in place of the channel's weights or bias in the convolution at `path`."""
    variables = jax.tree.map(np.array, net.variables)
    for name, value in values.items():
        variables["params"][path][name][..., channel] = value
    return dataclasses.replace(net, variables=variables)


@pytest.mark.parametrize("model", zoo.computed())
def test_the_filters_of_every_network_are_its_kernels(model: str) -> None:
    net = trained(model)
    paths = kernels.convolutions(net)
    if not paths:
        with pytest.raises(InputError, match="has no convolution"):
            visualize.filters(net)
        return
    for path in (next(iter(paths)), list(paths)[-1]):
        result = visualize.filters(net, layer=path)
        assert result.kernels.shape == paths[path]
        np.testing.assert_allclose(result.norms, np.sqrt((result.kernels**2).sum(axis=(0, 1, 2))), rtol=1e-5)
        assert path in result.note


def test_a_dead_filter_is_found_by_its_norm_and_by_its_activation() -> None:
    net = trained(NET)
    by_norm = visualize.filters(changed(net, "conv1", 3, kernel=0.0))
    assert (np.flatnonzero(by_norm.dead_by_norm).tolist(), by_norm.dead_by_activation) == ([3], None)
    assert "1 dead by norm (below 1% of the median)" in by_norm.note
    silent = changed(changed(net, "conv1", 5, bias=-1e4), "conv1", 3, kernel=0.0)
    result = visualize.filters(silent, images(net, 4))
    assert result.dead_by_activation is not None
    assert np.flatnonzero(result.dead_by_norm).tolist() == [3]
    assert {3, 5} <= set(np.flatnonzero(result.dead_by_activation).tolist())
    assert "dead by activation (constant on 4 images)" in result.note


def test_the_first_filters_are_drawn_in_the_groups_that_the_next_layer_reads() -> None:
    net = trained("sequential(layers='conv(8, 3)|relu|conv(8, 3, groups=2)|relu|gap|dense')")
    result = visualize.filters(net)
    assert (result.next_groups, result.next_layer) == (2, "conv2")
    texts = [text.get_text() for text in result.figure().axes[0].texts]
    assert "\n".join(texts).count("of conv2") == 2
    assert visualize.filters(trained(NET)).next_groups == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv3"}, "unknown convolution of .*'conv3'; did you mean 'conv[12]'"),
        ({"channel": 8}, "channel 8 of 'conv1': expected 0 to 7"),
        ({"scale": "one"}, "unknown scale of the filters 'one'; .*valid: all, each"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        visualize.filters(trained(NET), **options)


def test_a_convolution_inside_a_layer_is_found_by_the_layers_name() -> None:
    net = trained("cifar_resnet20(depth=8)")
    assert kernels.find_convolution(net) == "conv1"
    with pytest.raises(InputError, match="valid: stage1_block1/conv1, stage1_block1/conv2"):
        kernels.find_convolution(net, "stage1_block1")


# ----------------------------------------------------------------------------------------------------------- Gabor


def gabor_function(parameters: tuple[float, ...], cosine: float, sine: float, side: int = 9) -> np.ndarray:
    """A Gabor function written out: a Gaussian times a wave."""
    x, y, angle, frequency, across, along = parameters
    result = np.zeros((side, side))
    for row in range(side):
        for column in range(side):
            dx, dy = column - (side - 1) / 2 - x, row - (side - 1) / 2 - y
            u, v = dx * np.cos(angle) + dy * np.sin(angle), -dx * np.sin(angle) + dy * np.cos(angle)
            wave = cosine * np.cos(2 * np.pi * frequency * u) + sine * np.sin(2 * np.pi * frequency * u)
            result[row, column] = np.exp(-(u**2) / (2 * across**2) - v**2 / (2 * along**2)) * wave
    return result


@pytest.mark.parametrize("seed", range(4))
def test_the_parameters_of_a_gabor_function_are_found(seed: int) -> None:
    rng = np.random.default_rng(seed)
    true = (*rng.uniform(-1, 1, 2), rng.uniform(-1.5, 1.5), rng.uniform(0.12, 0.22), *rng.uniform(1.2, 2.2, 2))
    pattern = gabor_function(true, *rng.normal(size=2))
    parameters, fits, r2 = gabor_fits.fit(pattern[None].astype(np.float32))
    assert r2[0] > 0.999
    np.testing.assert_allclose(fits[0], pattern, atol=0.02 * np.abs(pattern).max())
    np.testing.assert_allclose(parameters[0, 2:4], true[2:4], atol=0.03)


def test_filters_of_gabor_functions_stand_out_from_random_ones() -> None:
    net = trained("sequential(layers='conv(6, 9)|relu|gap|dense')")
    variables = jax.tree.map(np.array, net.variables)
    kernel = variables["params"]["conv1"]["kernel"]
    colors = np.array([0.5, 1.0, -0.5])[: kernel.shape[2]]
    for k in range(3):
        function = gabor_function((0, 0, k, 0.15, 1.5, 2), 1, 0.5)
        kernel[..., k] = function[..., None] * colors * kernel.std()
    result = visualize.gabor(dataclasses.replace(net, variables=variables))
    assert (result.r2[:3] > 0.999).all()
    assert np.percentile(result.random_r2, 95) < 0.6
    assert 3 <= result.above <= 5
    assert f"{result.above} of 6 filters are above" in result.note
    with pytest.raises(InputError, match=r"'conv2' are 3x3, too small .*expected 5x5 or more"):
        visualize.gabor(trained(NET), layer="conv2")


def test_a_pattern_is_the_best_product_of_space_and_color() -> None:
    rng = np.random.default_rng(0)
    space, color = rng.normal(size=(5, 5)), np.array([0.6, 0.0, 0.8])
    kernel = (space[:, :, None] * color)[..., None].astype(np.float32)
    np.testing.assert_allclose(gabor_fits.spatial_patterns(kernel)[0], space, rtol=1e-4)
