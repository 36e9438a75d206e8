"""Feature maps: those of `net.features`, sorted, counted and drawn."""

import numpy as np
import pytest

from cnnjax import visualize
from cnnjax.visualize.names import layer_shapes
from tests.models import zoo
from tests.visualize.networks import images, trained

NET = 'vgg11(features=(8, 8, 16, 16, 16), head="gap")'


@pytest.mark.parametrize("model", zoo.computed(lambda text: "features_only" in zoo.fields_of(text)))
def test_the_maps_of_every_network_are_its_activations(model: str) -> None:
    net = trained(model)
    (image,) = images(net, 1)
    features = net.features([image])
    assert isinstance(features, dict)
    assert list(features) == list(layer_shapes(net))  # in the order of execution
    if not any(values.ndim == 4 for values in features.values()):
        pytest.skip("has vectors only")
    result = visualize.maps(net, image)
    assert list(result.maps)[:1] == [next(iter(result.totals))]
    for layer, values in result.maps.items():
        np.testing.assert_array_equal(values, features[layer][0][:, :, result.channels[layer]])


def test_channels_are_sorted_by_activation_or_in_order() -> None:
    net = trained(NET)
    (image,) = images(net, 1)
    by_strength = visualize.maps(net, image, layer="pool1")
    strengths = np.abs(by_strength.maps["pool1"]).mean(axis=(0, 1))
    assert (np.diff(strengths) <= 0).all()
    in_order = visualize.maps(net, image, layer="pool1", order="index", count=3)
    assert in_order.channels["pool1"].tolist() == [0, 1, 2]
    only = visualize.maps(net, image, layer="pool1", channel=5)
    assert only.channels["pool1"].tolist() == [5]
    np.testing.assert_array_equal(only.maps["pool1"][:, :, 0], np.asarray(net.features([image], "pool1"))[0, :, :, 5])
    assert in_order.note.startswith("pool1: 3 of 8 channels, ")
