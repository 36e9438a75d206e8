"""Attribution: the maps are what the papers define, for networks whose maps can be computed in another way."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax.errors import InputError
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import create_model
from cnnjax.visualize import cam
from cnnjax.visualize.activations import features_model
from cnnjax.visualize.attribution import METHODS, Scorer, attribute, windows
from cnnjax.visualize.names import layer_shapes
from cnnjax.visualize.sanity import rank_correlation
from tests.models import zoo
from tests.visualize.networks import images, trained

RESNET = "cifar_resnet20(depth=8)"
SMALL = "sequential(layers='conv(6, 3)|relu|max_pool(2)|conv(8, 3)|tanh|gap|dense')"
FC = "sequential(layers='conv(6, 3)|relu|max_pool(4)|dense(8)|relu|dense')"


def test_class_maps_multiply_in_the_precision_of_the_config() -> None:
    net = trained(SMALL)
    net = dataclasses.replace(net, config=dataclasses.replace(net.config, matmul_precision="highest"))
    scorer, x = Scorer(net, net.data.shape, cam.last_maps(net)), np.zeros((1, *net.data.shape), np.float32)
    for traced in (scorer.logits.trace(net.variables, x),
                   scorer.class_maps.trace(net.variables, x, np.zeros(1, np.int32), is_exact=None)):  # fmt: skip
        text = str(traced.jaxpr)
        assert "HIGHEST" in text
        assert "precision=None" not in text


def logits_of(net: TrainedNetwork, x: Any) -> np.ndarray:
    return np.asarray(net.model.apply(net.variables, x, train=False))


def inputs_of(net: TrainedNetwork, pixels: np.ndarray) -> np.ndarray:
    """Normalized by the mean 0.5 and the deviation 0.25 that `trained` gives the data."""
    assert net.config.normalize == "mean_std"
    return ((pixels / 255 - 0.5) / 0.25).astype(np.float32)


@pytest.mark.parametrize(
    ("text", "baseline"),
    [(RESNET, "mean"), pytest.param(RESNET, "black", marks=pytest.mark.slow), (SMALL, "black"), (SMALL, "mean")],
)
def test_integrated_gradients_sum_to_a_difference_of_logits(text: str, baseline: str) -> None:
    net = trained(text)
    pixels = images(net, 3)
    result = attribute(net, pixels, "integrated_gradients", classes=4, options={"baseline": baseline})
    start = inputs_of(net, 0 * pixels) if baseline == "black" else 0 * inputs_of(net, pixels)
    difference = logits_of(net, inputs_of(net, pixels))[:, 4] - logits_of(net, start)[:, 4]
    np.testing.assert_allclose(result.values.sum((1, 2, 3)), difference, rtol=0.01)
    np.testing.assert_allclose(result.maps, result.values.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("text", [SMALL, "densenet40_12(stage_sizes=(2, 2), growth_rate=4)"])
@pytest.mark.parametrize("method", METHODS)
def test_maps_of_a_network_in_bfloat16_are_in_float32(method: str, text: str) -> None:
    net = trained(text)
    config, model = dataclasses.replace(net.config, dtype="bfloat16"), net.model.clone(dtype=jnp.bfloat16)
    few = {"smoothgrad": {"samples": 2}, "integrated_gradients": {"steps": 2, "max_steps": 2}}
    half = dataclasses.replace(net, config=config, model=model)
    result = attribute(half, images(net), method, classes=1, options=few.get(method))
    assert (result.values.dtype, result.maps.dtype) == (np.float32, np.float32)
    assert rank_correlation(result.maps, result.maps) == pytest.approx(1)


def test_gradients_are_those_of_the_logit_with_respect_to_the_input() -> None:
    net = trained(SMALL)
    x = inputs_of(net, images(net))
    gradient = jax.grad(lambda x: logits_of_jax(net, x)[:, 2].sum())(x)
    expected = {"gradient": gradient, "gradient_x_input": x * gradient, "smoothgrad": gradient}
    for method, values in expected.items():
        options = {"noise": 0.0, "samples": 2} if method == "smoothgrad" else {}
        result = attribute(net, images(net), method, 2, options=options)
        np.testing.assert_allclose(result.values, values, rtol=1e-4, atol=1e-6)
        reduced = np.abs(values).max(-1) if method != "gradient_x_input" else values.sum(-1)
        np.testing.assert_allclose(result.maps, reduced, rtol=1e-4, atol=1e-6)


def test_noise_changes_the_gradient_and_is_the_same_in_each_call() -> None:
    net = trained(SMALL)
    once, again = (attribute(net, images(net), "smoothgrad", 2, options={"samples": 3}).values for _ in range(2))
    np.testing.assert_array_equal(once, again)
    assert not np.allclose(once, attribute(net, images(net), "gradient", 2).values, rtol=1e-2)


def test_occlusion_is_the_fall_of_the_logit_when_a_square_is_hidden() -> None:
    net = trained(SMALL)
    x = inputs_of(net, images(net, 2))
    side, window, stride = x.shape[1], 5, 3
    gray = (127.5 / 255 - 0.5) / 0.25
    falls, counts = np.zeros(x.shape[:3]), np.zeros(x.shape[1:3])
    before = logits_of(net, x)[:, 7]
    for top in range(0, side - window + stride, stride):
        for left in range(0, side - window + stride, stride):
            hidden = x.copy()
            hidden[:, top : top + window, left : left + window] = gray
            falls[:, top : top + window, left : left + window] += (before - logits_of(net, hidden)[:, 7])[:, None, None]
            counts[top : top + window, left : left + window] += 1
    assert counts.min() > 0
    result = attribute(net, images(net, 2), "occlusion", 7, options={"window": window, "stride": stride})
    np.testing.assert_allclose(result.maps, falls / counts, atol=1e-5)


@pytest.mark.parametrize("side", [7, 8, 9])
@pytest.mark.parametrize(("window", "stride"), [(3, 2), (7, 7), (3, 3), (2, 1)])
def test_windows_cover_a_side(side: int, window: int, stride: int) -> None:
    spans = windows(side, window, stride)
    assert {i for start, end in spans for i in range(start, end)} == set(range(side))
    assert all(start < end <= side for start, end in spans)
    assert len(spans) == 1 or spans[-2][1] < side


EXACT = {  # networks whose head averages the last maps and is linear, by the layer of the maps
    RESNET: True,
    "densenet40_12(stage_sizes=(2, 2), growth_rate=4)": True,
    'vgg11(features=(8, 8, 16, 16, 16), head="gap")': True,
    SMALL: True,
    FC: False,
    "lenet5": False,
}


@pytest.mark.parametrize("text", EXACT)
def test_the_mean_of_a_class_activation_map_and_a_bias_are_the_logit(text: str) -> None:
    net = trained(text)
    x = jnp.asarray(inputs_of(net, images(net, 3)))
    classes = jnp.array([1, 1, 5])

    def full(x: jax.Array) -> Any:
        return net.model.apply(net.variables, x, train=False)

    @jax.jit
    def compute(x: jax.Array) -> cam.ClassMaps:
        return cam.class_maps(full, lambda x: features_of(net, x), cam.last_maps(net), x, classes)

    result = compute(x)
    assert result.exact.tolist() == [EXACT[text]] * 3
    if EXACT[text]:
        bias = net.variables["params"][sorted(net.variables["params"])[-1] if text == SMALL else "head"]["bias"]
        logits = np.asarray(full(x))[np.arange(3), classes]
        np.testing.assert_allclose(result.bias, bias[classes], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(result.maps.mean((1, 2)) + bias[classes], logits, rtol=1e-4, atol=1e-4)


def test_grad_cam_is_the_positive_part_of_maps_times_mean_gradients() -> None:
    net = trained(FC)
    params = {path: np.asarray(leaf) for path, leaf in flat(net.variables["params"])}
    x, layer = inputs_of(net, images(net)), cam.last_maps(net)
    maps = np.asarray(features_of(net, jnp.asarray(x))[layer])
    kernels = [leaf for path, leaf in params.items() if leaf.ndim == 2]
    biases = [leaf for path, leaf in params.items() if leaf.shape == (8,)]
    first, last = sorted(kernels, key=lambda kernel: -kernel.shape[0])
    awake = maps.reshape(2, -1) @ first + biases[0] > 0
    gradient = ((awake * last[:, 3]) @ first.T).reshape(maps.shape)
    expected = np.maximum((gradient.mean((1, 2), keepdims=True) * maps).sum(-1), 0)
    assert expected.max() > 0
    for method in ("cam", "grad_cam"):
        result = attribute(net, images(net), method, 3)
        np.testing.assert_allclose(result.values[..., 0], expected, rtol=1e-4, atol=1e-5)


def flat(tree: Any) -> list[tuple[str, Any]]:
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


@pytest.mark.parametrize("text", zoo.computed(lambda text: "features_only" in zoo.fields_of(text)))
def test_every_network_is_split_at_each_of_its_layers(text: str) -> None:
    """Traced only: the layer's maps are found on the way to the logits, and the rest has the shape of the logits."""
    model, named = (create_model(t, 10) for t in (text, zoo.with_fields(text, features_only=True)))
    x = jax.ShapeDtypeStruct((1, *zoo.smallest(text)), jnp.float32)
    variables = jax.eval_shape(lambda x: model.init(zoo.key(), x, train=False), x)

    def ends(variables: Any, x: jax.Array) -> Any:
        def apply(network: Any, x: jax.Array) -> Any:
            return network.apply(variables, x, train=False)

        layers = jax.eval_shape(lambda x: apply(named, x), x)
        chosen = [*layers][-1:] if text not in zoo.REDUCED else layers
        pairs = [cam.split_at(lambda x: apply(model, x), lambda x: apply(named, x), layer, x) for layer in chosen]
        return apply(model, x), [head(maps) for maps, head in pairs]

    logits, others = jax.eval_shape(ends, variables, x)
    assert {other.shape for other in others} == {logits.shape}


def test_the_rest_of_a_network_gives_the_logits_from_the_maps() -> None:
    net = trained(RESNET)
    x = jnp.asarray(inputs_of(net, images(net)))
    for layer in layer_shapes(net):
        maps, head = cam.split_at(lambda x: logits_of_jax(net, x), lambda x: features_of(net, x), layer, x)
        np.testing.assert_allclose(head(maps), logits_of(net, x), rtol=1e-5)
        assert not np.allclose(head(0 * maps), logits_of(net, x), rtol=0.1)


def logits_of_jax(net: TrainedNetwork, x: jax.Array) -> Any:
    return net.model.apply(net.variables, x, train=False)


def features_of(net: TrainedNetwork, x: jax.Array) -> Any:
    return features_model(net).apply(net.variables, x, train=False)


@pytest.mark.parametrize("method", METHODS)
def test_maps_have_the_size_of_the_images_and_do_not_depend_on_the_batch(method: str) -> None:
    net = trained(SMALL)
    pixels = images(net, 3)
    options = {"steps": 2, "max_steps": 2} if method == "integrated_gradients" else {}
    options |= {"samples": 2, "noise": 0.0} if method == "smoothgrad" else {}
    together = attribute(net, pixels, method, options=options)
    alone = dataclasses.replace(net, config=dataclasses.replace(net.config, eval_batch_size=1))
    one_by_one = attribute(alone, pixels, method, options=options)
    assert together.maps.shape == pixels.shape[:3]
    assert together.classes.tolist() == net.predict(pixels).argmax(1).tolist()
    np.testing.assert_allclose(one_by_one.maps, together.maps, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("gradcam", {}, "unknown method of attribution 'gradcam'; did you mean 'grad_cam'"),
        ("occlusion", {"options": {"windw": 3}}, "unknown option of 'occlusion' 'windw'; did you mean 'window'"),
        ("guided", {"options": {"rule": "deconvnet"}}, "unknown option of 'guided' 'rule'"),
        ("occlusion", {"options": {"window": 99}}, "window = 99, stride = 49: expected 1 <= stride <= window <= "),
        ("integrated_gradients", {"options": {"baseline": "blck"}}, "unknown baseline 'blck'; did you mean 'black'"),
        ("gradient", {"classes": 10}, "class 10: expected 0 to 9"),
        ("cam", {"layer": "conv9"}, "unknown layer with maps of"),
    ],
)
def test_what_does_not_exist_is_named(method: str, changes: dict[str, Any], message: str) -> None:
    net = trained(SMALL)
    with pytest.raises(InputError) as error:
        attribute(net, images(net), method, **changes)
    assert message in str(error.value)


def test_a_network_without_maps_has_no_class_activation_map() -> None:
    net = trained("mlp")
    with pytest.raises(InputError, match="'mlp' has no feature maps"):
        attribute(net, images(net), "cam")
