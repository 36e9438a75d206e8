"""Effective receptive fields: where the gradient lies, how much of the theoretical field it fills, and their figure."""

import dataclasses

import jax
import numpy as np
import pytest

from cnnjax import InputError, visualize
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import MODELS, create_model
from cnnjax.visualize.names import layer_shapes
from tests.models import zoo
from tests.visualize.networks import CLASSES, images, trained

WITH_LAYERS = [text for text in zoo.COMPUTED if "features_only" in zoo.fields_of(text)]
NET = 'vgg11(features=(8, 8, 16, 16, 16), head="gap")'


def large(model: str) -> TrainedNetwork:
    """Returns a network for images in which windows of several of its layers have room, if it takes any size."""
    net = trained(model)
    if MODELS[model.partition("(")[0]].input_shape[0] <= 32:
        return net
    height, width, channels = net.data.shape
    shape = (max(height, 48), max(width, 48) + 16, channels)
    return dataclasses.replace(net, data=dataclasses.replace(net.data, shape=shape))


def assert_inside(net: TrainedNetwork, layer: str) -> None:
    result = visualize.receptive_fields(net, images(net), layer=layer)
    energy, field = result.energy[layer], result.fields[layer]
    assert energy.sum() == pytest.approx(1, abs=1e-4)
    outside = energy.copy()
    outside[result.window(layer)] = 0
    assert field.is_global or not outside.any()
    assert result.outside(layer) == pytest.approx(outside.sum() if field.is_global else 0, abs=1e-5)
    assert result.energy[layer][result.effective(layer)].sum() >= 0.9545 - 1e-4


@pytest.mark.parametrize("model", [text for text in WITH_LAYERS if text in zoo.REDUCED])
def test_the_gradient_lies_inside_the_theoretical_field(model: str) -> None:
    net = large(model)
    names = list(layer_shapes(net))
    assert_inside(net, names[len(names) // 2])


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.parametrize("model", WITH_LAYERS)
def test_the_gradient_lies_inside_the_theoretical_field_of_every_layer(model: str) -> None:
    net = large(model)
    for name in layer_shapes(net):
        assert_inside(net, name)


def linear_network() -> TrainedNetwork:
    """Returns two convolutions of ones, without padding or activation."""
    model = "sequential(layers='conv(1, 3, bias=False)|conv(1, 3, bias=False)|dense')"
    module = create_model(model, len(CLASSES))
    data = DataInfo(CLASSES, (9, 11, 1), {"mean": np.zeros(1), "std": np.ones(1)})
    variables = module.init(jax.random.key(0), np.zeros((1, 9, 11, 1), np.float32), train=False)
    ones = jax.tree.map(np.ones_like, variables)
    return TrainedNetwork(Config(model=model, eval_batch_size=4, cache="host"), data, module, ones, 0)


def test_two_convolutions_by_hand() -> None:
    net = linear_network()
    result = visualize.receptive_fields(net, images(net, 6), layer="conv2", position=(1, 3))
    side = np.array([1, 2, 3, 2, 1.0]) ** 2
    expected = np.zeros((9, 11))
    expected[1:6, 3:8] = np.outer(side, side) / side.sum() ** 2
    np.testing.assert_allclose(result.energy["conv2"], expected, atol=1e-6)
    ranked = np.sort(expected, axis=None)[::-1].cumsum()
    area = 1 + int((ranked < 0.9545).sum())
    assert (result.effective("conv2").sum(), result.theoretical_area("conv2")) == (area, 25)
    assert result.share("conv2") == area / 25
    assert result.note == (
        "conv2, unit (1, 3): theoretical 5x5 px, of which the 9x11 image holds 25; 95.45% of the gradient's energy "
        f"is in {area} pixels, {100 * area / 25:.0f}% of these; mean of 6 images"
    )


def test_images_are_averaged_also_over_several_batches() -> None:
    net = trained(NET)
    small = dataclasses.replace(net, config=dataclasses.replace(net.config, eval_batch_size=4))
    results = [visualize.receptive_fields(n, images(n, 6), layer="conv3_1", channel=2) for n in (net, small)]
    np.testing.assert_allclose(results[0].energy["conv3_1"], results[1].energy["conv3_1"], atol=1e-5)
    alone = [visualize.receptive_fields(net, images(net, 6)[i : i + 1], layer="conv3_1", channel=2) for i in (0, 1)]
    assert not np.allclose(alone[0].energy["conv3_1"], alone[1].energy["conv3_1"], atol=1e-5)


def test_a_gate_reaches_beyond_the_window() -> None:
    net = large("se_resnext50_32x4d(stage_sizes=(1, 1), features=16, groups=4, small_images=True)")
    result = visualize.receptive_fields(net, images(net), layer="conv3_x")
    assert 0 < result.outside("conv3_x") < 0.5
    assert "and whole image" in result.note
    assert "beyond the window" in result.note


def test_some_layers_are_drawn_where_none_is_given() -> None:
    net = trained(NET)
    result = visualize.receptive_fields(net, images(net, 1))
    names = list(layer_shapes(net))
    assert len(result.fields) == 6
    assert [list(result.fields)[i] for i in (0, -1)] == [names[0], names[-1]]
    width, height = result.figure().get_size_inches()
    assert width == pytest.approx(8, abs=0.3)
    assert height < 4.6


def test_a_layer_of_vectors_has_one_unit_that_sees_all() -> None:
    net = trained("mlp")
    result = visualize.receptive_fields(net, images(net, 1), layer="hidden1")
    assert (result.positions["hidden1"], result.theoretical_area("hidden1")) == ((0, 0), 28 * 28)
    result.figure()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layer": "conv9"}, "layer of .*'conv9'"),
        ({"layer": "pool1", "channel": 8}, "channel 8 of 'pool1': expected 0 to 7"),
        ({"layer": "pool5", "position": (0, 2)}, r"position \(0, 2\) in 'pool5': expected \(0, 0\) to \(1, 1\)"),
        ({"position": (0, 0)}, "belongs to a layer: pass the layer, too"),
    ],
)
def test_what_does_not_exist_is_an_error(options: dict, message: str) -> None:
    net = trained(NET)
    with pytest.raises(InputError, match=message):
        visualize.receptive_fields(net, images(net, 1), **options)
