"""The strongest patches: a search against a written-out loop, cut from the images, and projected back to pixels."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import InputError, visualize
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.summarize import trace
from cnnjax.visualize.activations import features_model, layer_function, normalization
from cnnjax.visualize.names import layer_shapes
from cnnjax.visualize.patches import Patches
from cnnjax.visualize.rules import with_rule
from tests.models import zoo
from tests.visualize.networks import images, trained

NET = 'vgg11(features=(8, 8, 16, 16, 16), head="gap")'
FAST = ("lenet5", "cifar_resnet20(depth=8)", NET)


def networks() -> list:
    texts = [text for text in zoo.COMPUTED if "features_only" in zoo.fields_of(text) and text != "mlp"]
    return [pytest.param(text, marks=[] if text in FAST else [pytest.mark.slow, pytest.mark.zoo]) for text in texts]


def middle_layer(net: TrainedNetwork) -> str:
    names = [name for name, shape in layer_shapes(net).items() if len(shape) == 3]
    return names[len(names) // 2]


@pytest.mark.parametrize("model", networks())
def test_patches_are_those_of_a_written_out_search(model: str) -> None:
    net = trained(model)
    pixels, layer = images(net, 11), middle_layer(net)
    result = visualize.strongest_patches(net, pixels, layer=layer)
    maps = np.asarray(net.features(pixels, layer))
    field = trace.receptive_fields(features_model(net), net.data.shape)[layer]
    for k, channel in enumerate(result.channels):
        maxima = maps[..., channel].max(axis=(1, 2))
        order = [i for i in np.argsort(-maxima, kind="stable")[:9] if maxima[i] > 0]
        count = len(order)
        np.testing.assert_array_equal(result.examples[k], order + [-1] * (9 - count))
        np.testing.assert_allclose(result.activations[k, :count], maxima[order], rtol=1e-5)
        for example, position, patch in zip(order, result.positions[k], result.patches[k], strict=False):
            assert maps[example][(*position, channel)] == pytest.approx(maxima[example], rel=1e-5)
            (top, bottom), (left, right) = field.window(position, within=net.data.shape[:2])
            inside = patch[~np.isnan(patch).any(axis=-1)]
            expected = pixels[example, top:bottom, left:right].reshape(-1, pixels.shape[-1]) / 255
            if field.size[0] < pixels.shape[1] and field.size[1] < pixels.shape[2]:
                np.testing.assert_allclose(inside, expected, atol=1e-6)
            else:
                np.testing.assert_allclose(patch, pixels[example] / 255, atol=1e-6)
    assert np.isfinite(result.projections).all()


@pytest.mark.parametrize("rule", ["deconvnet", "guided", "gradient"])
def test_projections_follow_the_rule(rule: str) -> None:
    net = trained(NET)
    pixels = images(net, 3)
    result = visualize.strongest_patches(net, pixels, layer="conv3_1", channel=5, rule=rule)
    example, (row, column) = result.examples[0, 0], result.positions[0, 0]
    function = with_rule(lambda x: layer_function(net, "conv3_1")(net.variables, x), rule)
    maps, backward = jax.vjp(function, normalization(net, net.data.shape)(jnp.asarray(pixels[example][None])))
    signal = np.zeros(maps.shape, np.float32)
    signal[0, row, column, 5] = maps[0, row, column, 5]
    (projection,) = backward(signal)
    (top, bottom), (left, right) = result.field.window((row, column), within=net.data.shape[:2])
    expected = np.asarray(projection[0, top:bottom, left:right])
    assert np.abs(expected).max() > 0
    is_inside = ~np.isnan(result.patches[0, 0]).any(axis=-1)
    np.testing.assert_allclose(
        result.projections[0, 0][is_inside].reshape(expected.shape), expected, atol=1e-5 * np.abs(expected).max()
    )
    assert not result.projections[0, 0][~is_inside].any()
    np.testing.assert_allclose(np.abs(projection).sum(), np.abs(expected).sum(), rtol=1e-5)  # nothing is cut off


def assert_equal(a: Patches, b: Patches) -> None:
    for field in dataclasses.fields(a):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5, err_msg=field.name)


def test_batches_do_not_matter_and_equal_activations_keep_their_order() -> None:
    net = trained(NET)
    pixels = images(net, 4)[[0, 1, 2, 3, 3, 2, 1, 0, 0, 1, 2]]
    small = dataclasses.replace(net, config=dataclasses.replace(net.config, eval_batch_size=3))
    results = [visualize.strongest_patches(n, pixels, layer="pool2", channel=(1, 0)) for n in (net, small)]
    assert_equal(*results)
    best = results[0].examples[0][:2].tolist()
    assert best == sorted(best)
    assert results[0].channels.tolist() == [1, 0]


def test_a_patch_at_the_border_is_padded() -> None:
    net = trained("cifar_resnet20(depth=8)")
    pixels = np.zeros((1, 32, 32, 3), np.uint8)
    pixels[0, 0, 31] = 255  # everything else is the same everywhere
    result = visualize.strongest_patches(net, pixels, layer="conv1", channel=range(16))
    corner = [
        patch for patch, at in zip(result.patches[:, 0], result.positions[:, 0], strict=True) if (*at,) == (0, 31)
    ]
    assert corner
    np.testing.assert_array_equal(np.isnan(corner[0][:, :, 0]), [[1, 1, 1], [0, 0, 1], [0, 0, 1]])
    assert corner[0][1, 1].tolist() == [1, 1, 1]


def test_channels_are_spread_over_those_that_images_excite_and_drawn() -> None:
    net = trained(NET)
    result = visualize.strongest_patches(net, images(net, 3))
    assert result.layer == "pool5"
    assert len(result.channels) == 6
    assert (result.activations[:, 0] > 0).all()
    assert (result.examples[:, 3:] == -1).all()
    assert (result.rule, result.has_switches) == ("deconvnet", True)
    assert "the 9 strongest of 3 images for 6 channels" in result.note
    width, height = result.figure().get_size_inches()
    assert width <= 8.2
    assert height < 4.6


def test_without_max_pools_the_rule_is_guided_backpropagation() -> None:
    net = trained("cifar_resnet20(depth=8)")
    channel: Any = np.int64(0)  # as argmax returns it
    result = visualize.strongest_patches(net, images(net, 2), layer="stage1", channel=channel)
    assert (result.rule, result.channels.tolist()) == ("guided", [0])
    assert result.note.endswith("no max pools and so no switches: projected by rule 'guided'")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv9"}, "'conv9'"),
        ({"channel": (0, 16)}, "channel 16 of 'pool5': expected 0 to 15"),
        ({"rule": "guide"}, "unknown rule 'guide'; did you mean 'guided'"),
    ],
)
def test_what_does_not_exist_is_an_error(options: dict, message: str) -> None:
    net = trained(NET)
    with pytest.raises(InputError, match=message):
        visualize.strongest_patches(net, images(net, 1), **options)


def test_a_layer_of_vectors_has_no_patches_and_no_images_are_an_error() -> None:
    net = trained("mlp")
    with pytest.raises(InputError, match="layer 'hidden1' has 300 features and no maps"):
        visualize.strongest_patches(net, images(net, 1), layer="hidden1")
    with pytest.raises(InputError, match="no images to search"):
        visualize.strongest_patches(trained("lenet5"), [])


def test_channels_that_no_image_excites_are_an_error() -> None:
    net = trained("cifar_resnet20(depth=8)")
    dead = jax.tree_util.tree_map_with_path(
        lambda path, x: -np.ones_like(x) if path[-2].key == "norm1" and path[-1].key == "bias" else x, net.variables
    )
    net = dataclasses.replace(net, variables=jax.tree.map(lambda x: np.minimum(x, 0), dead))
    with pytest.raises(InputError, match="no image excites any channel of 'conv1'"):
        visualize.strongest_patches(net, images(net, 1), layer="conv1")
    with pytest.raises(InputError, match=r"no image excites channels \[3\] of 'conv1'"):
        visualize.strongest_patches(net, images(net, 1), layer="conv1", channel=3)
