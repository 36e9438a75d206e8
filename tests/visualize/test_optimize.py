"""Optimized images: the prior, the excitation, the ascent, and what comes of them."""

import io
import pathlib
import re
import tarfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import InputError, visualize
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.models import create_model
from cnnjax.visualize import ascent, excitation, image_prior, inputs
from cnnjax.visualize.ascent import Penalty, Targets
from cnnjax.visualize.excitation import Excitation
from cnnjax.visualize.names import LOGITS, layer_shapes
from tests.models import zoo
from tests.visualize.networks import images, trained

SMALL = "sequential(layers='conv(6, 3)|relu|max_pool(2)|conv(8, 3)|relu|gap|dense')"
VGG = 'vgg11(features=(8, 8, 16, 16, 16), head="gap")'


def silent(line: str) -> None:
    pass


def networks(fast: Sequence[str] = ()) -> list[Any]:
    """Returns the networks of the zoo with named layers, as parameters of a test; all but the `fast` ones are slow."""
    marks = [pytest.mark.slow, pytest.mark.zoo]
    names = [text for text in zoo.COMPUTED if "features_only" in zoo.fields_of(text)]
    return [pytest.param(text, marks=[] if text in fast else marks) for text in names]


def colored_noise(count: int, slope: float, shape: tuple[int, int, int] = (24, 20, 3)) -> np.ndarray:
    """Returns images whose amplitudes fall as frequency^-slope; two channels are alike, and the middle is brighter."""
    height, width, channels = shape
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    amplitude = np.maximum(frequency, 1 / height)[None, :, :, None] ** -slope
    noise = np.fft.rfft2(rng.normal(size=(count, height, width, channels)), axes=(1, 2)) * amplitude
    field = np.fft.irfft2(noise, s=(height, width), axes=(1, 2))
    field[..., -1] = 0.9 * field[..., 0] + 0.1 * field[..., -1]
    middle = np.hanning(height)[:, None, None] * np.hanning(width)[:, None] * np.ones(channels)
    return (np.clip(0.3 + 0.2 * middle + 0.05 * field / field.std(), 0, 1) * 255).astype(np.uint8)


# ------------------------------------------------------------------------------------------------------------ the prior


@pytest.mark.parametrize("slope", [0.0, 1.0, 1.5])
def test_white_noise_becomes_images_with_the_statistics_of_real_ones(slope: float) -> None:
    real = colored_noise(400, slope)
    prior = image_prior.fit(real)
    code = jax.random.normal(jax.random.key(0), (400, *real.shape[1:]))
    made = np.asarray(image_prior.decode(prior, code))
    real = real / 255
    np.testing.assert_allclose(made.mean(axis=(0, 3)), real.mean(axis=(0, 3)), atol=0.035)
    assert made.std(axis=0).mean() == pytest.approx(real.std(axis=0).mean(), rel=0.1)
    np.testing.assert_allclose(np.corrcoef(made.reshape(-1, 3).T), np.corrcoef(real.reshape(-1, 3).T), atol=0.05)
    steps = [np.abs(np.diff(values, axis=2)).mean() / values.std(axis=0).mean() for values in (made, real)]
    assert steps[0] == pytest.approx(steps[1], rel=0.15)


def test_a_border_that_is_black_in_all_images_stays_black() -> None:
    real = np.zeros((300, 12, 12, 1), np.uint8)
    real[:, 3:-3, 3:-3] = np.random.default_rng(0).integers(0, 256, (300, 6, 6, 1))
    made = image_prior.decode(image_prior.fit(real), jax.random.normal(jax.random.key(0), (20, 12, 12, 1)))
    inside = np.asarray(made)[:, 3:-3, 3:-3]
    assert made.max() < 1
    assert made.min() > 0
    assert made[:, :2].mean() < 0.06
    assert inside.std() > 0.1


def test_the_prior_of_few_images_does_not_show_them() -> None:
    real = colored_noise(400, 1.0)
    mean = image_prior.fit(real[:2]).mean
    assert np.abs(mean - mean.mean(axis=(0, 1))).max() < 0.05


def test_a_prior_without_images_is_that_of_photographs_or_of_pixels() -> None:
    code = jax.random.normal(jax.random.key(0), (50, 32, 32, 3))
    natural, pixels = (
        np.asarray(image_prior.decode(image_prior.default((32, 32, 3), 0.5, 0.2, fourier), code))
        for fourier in (True, False)
    )
    assert [np.corrcoef(v.reshape(-1, 3).T)[0, 1] > 0.7 for v in (natural, pixels)] == [True, False]
    neighbors = [np.corrcoef(v[:, :, 1:].ravel(), v[:, :, :-1].ravel())[0, 1] for v in (natural, pixels)]
    assert neighbors[0] > 0.4
    assert neighbors[1] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("shape", [(9, 24, 3), (2, 2, 1)])
def test_no_border_appears_in_a_view(shape: tuple[int, ...]) -> None:
    views = jax.jit(jax.vmap(ascent.transform, (0, None)))(jax.random.split(jax.random.key(0)), jnp.full(shape, 0.3))
    np.testing.assert_allclose(views, np.full((2, *shape), 0.3), rtol=1e-5)


def test_a_view_is_an_image_that_is_moved_a_little() -> None:
    blob = np.zeros((32, 32, 1), np.float32)
    blob[14:18, 14:18] = 1
    keys = jax.random.split(jax.random.key(0), 40)
    views = np.asarray(jax.jit(jax.vmap(ascent.transform, (0, None)))(keys, jnp.asarray(blob)))
    places = (
        np.einsum("nhw,hwk->nk", views[..., 0], np.mgrid[:32, :32].transpose(1, 2, 0)) / views.sum((1, 2, 3))[:, None]
    )
    assert np.abs(places - 15.5).max() < 32 * ascent.SHIFT * ascent.SCALE
    assert places.std(axis=0).min() > 0.5


# ------------------------------------------------------------------------------------------------------- the excitation


@pytest.mark.parametrize("model", networks(fast=(VGG,)))
def test_an_excitation_is_a_mean_of_the_feature_maps_of_every_network(model: str) -> None:
    net = trained(model)
    pixels = images(net, 2)
    layer, shape = [*layer_shapes(net).items()][-1]
    features = net.features(pixels, layer)
    assert isinstance(features, np.ndarray)
    for objective in ("mean", "center"):
        functions = excitation.build(net, layer, objective)
        values, statistics = excitation.measure(functions.with_statistics, net.variables, pixels, 8)
        expected = features
        if len(shape) == 3:
            middle = features[:, shape[0] // 2, shape[1] // 2]
            expected = features.mean(axis=(1, 2)) if objective == "mean" else middle
        scale = np.abs(expected).max()
        np.testing.assert_allclose(values, expected, atol=1e-4 * scale)
        maps = [shape for name, shape in layer_shapes(net).items() if name != layer and len(shape) == 3]
        assert statistics.shape == (2, 2 * sum(shape[-1] for shape in maps))
        assert np.isfinite(statistics).all()


def test_logits_are_a_layer() -> None:
    net = trained(VGG)
    functions = excitation.build(net, LOGITS, "mean")
    logits = excitation.measure(functions.of_channels, net.variables, images(net, 5), 2)
    np.testing.assert_allclose(jax.nn.softmax(logits), net.predict(images(net, 5)), atol=1e-5)


# ----------------------------------------------------------------------------------------------------------- the ascent


def brightness(variables: Any, pixels: jax.Array) -> jax.Array:
    return pixels.mean(axis=(1, 2))


def brightened(penalty: Penalty) -> np.ndarray:
    """Returns the brightness of two images that are to be bright, where real ones have 0.3, or 0.8, at most.

    Typical is a brightness of 0.5.
    """
    functions = Excitation(brightness, lambda *inputs: (brightness(*inputs), brightness(*inputs)))
    best = np.array([0.3, 0.8], np.float32)
    targets = Targets(np.zeros(2, int), np.full(2, 0.1, np.float32), best, np.full(1, 0.5), np.full(1, 0.1))
    prior = image_prior.default((8, 8, 1), 0.5, 0.2)
    options: dict[str, Any] = {"steps": 100, "batch_size": 2, "seed": 0, "progress": lambda done, total: None}
    return ascent.ascend(functions, {}, prior, targets, penalty, **options).mean(axis=(1, 2, 3))


@pytest.fixture
def _no_transform(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves the random views out, which take long to compile."""
    monkeypatch.setattr(ascent, "transform", lambda key, image: image)


@pytest.mark.usefixtures("_no_transform")
def test_penalties_count_once_an_image_is_better_than_the_best_real_one() -> None:
    free, typical, coded = (brightened(p) for p in (Penalty(), Penalty(typical=1.0), Penalty(code=0.1)))
    assert free.min() > 0.9
    assert typical[0] == pytest.approx(0.55, abs=0.03)  # where the slopes of brightness and penalty are equal
    assert 0.8 < typical[1] < 0.9
    assert coded[0] < free[0] - 0.05
    assert coded[1] > 0.8


# ------------------------------------------------------------------------------------------------ the optimized images


@pytest.fixture(scope="module")
def small() -> tuple[TrainedNetwork, np.ndarray]:
    """Returns a small network with random weights, and 200 images of its size."""
    module, shape = create_model(SMALL, 4), (8, 8, 1)
    variables = module.init(zoo.key(), np.zeros((1, *shape), np.float32), train=False)
    data = DataInfo(("ant", "bee", "cat", "dog"), shape, {"mean": [0.3], "std": [0.2]})
    net = TrainedNetwork(Config(model=SMALL, eval_batch_size=64, cache="host"), data, module, variables, 0)
    return net, colored_noise(200, 1.0, shape)


def test_an_optimized_image_excites_its_channel_more_than_any_real_one(
    small: tuple[TrainedNetwork, np.ndarray],
) -> None:
    net, real = small
    seen: list[tuple[int, int]] = []
    result = visualize.optimized_images(
        net, real, layer="conv2", channels=[0, 2, 7], steps=40, beside=3,
        progress=lambda done, total: seen.append((done, total)),
    )  # fmt: skip
    assert seen == [(16, 40), (32, 40), (40, 40)]
    assert (result.images.dtype, result.images.shape) == (np.uint8, (3, *net.data.shape))
    means = np.asarray(net.features(real, "conv2")).mean(axis=(1, 2))[:, result.channels]
    np.testing.assert_allclose(result.best_excitation, -np.sort(-means, axis=0)[:3].T, rtol=1e-4)
    np.testing.assert_array_equal(result.best_images, real[result.best_indices])
    reached = np.asarray(net.features(result.images, "conv2")).mean(axis=(1, 2))[range(3), result.channels]
    np.testing.assert_allclose(result.excitation, reached, rtol=1e-4)
    assert result.exceeds.all()
    assert result.note.startswith(
        "conv2: 3 of 3 optimized images excite more than the best of 200 real ones, the median"
    )
    assert np.abs(result.images / 255 - result.floats).max() <= 0.5001 / 255


def test_channels_are_chosen_at_equal_distances() -> None:
    assert inputs.equally_spaced(8, 4).tolist() == [0, 2, 4, 7]
    assert inputs.equally_spaced(3, 16).tolist() == [0, 1, 2]


@pytest.mark.usefixtures("_no_transform")
def test_the_image_of_a_channel_does_not_depend_on_the_others(small: tuple[TrainedNetwork, np.ndarray]) -> None:
    net, real = small
    options: dict[str, Any] = {"layer": LOGITS, "steps": 3}
    all_classes = visualize.optimized_images(net, real[:20], **options)
    assert all_classes.names == net.classes
    (alone,) = visualize.optimized_images(net, real[:20], channels=["dog"], **options).images
    assert np.abs(alone.astype(int) - all_classes.images[3]).max() <= 1
    (other,) = visualize.optimized_images(net, real[:20], channels=[3], seed=1, **options).images
    assert np.abs(alone.astype(int) - other).max() > 20


@pytest.mark.usefixtures("_no_transform")
@pytest.mark.parametrize("prior", ["", pytest.param("none", marks=pytest.mark.slow)])
def test_no_images_are_needed(prior: str, small: tuple[TrainedNetwork, np.ndarray]) -> None:
    result = visualize.optimized_images(small[0], layer="conv1", prior=prior, steps=2)
    assert (result.prior, result.num_real) == (prior or "natural", 0)
    assert result.best_images.shape == (6, 0, 8, 8, 1)
    assert result.note == "conv1: 6 optimized images, no real ones to compare them with"
    result.figure()


@pytest.mark.parametrize("model", networks())
def test_every_network_has_optimized_images(model: str) -> None:
    net = trained(model)
    for layer in ([*layer_shapes(net)][-1], LOGITS):
        result = visualize.optimized_images(net, images(net, 3), layer=layer, count=2, steps=2)
        assert np.isfinite(result.excitation).all()
        assert result.floats.min() > 0
        assert result.floats.max() < 1


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "layer": ({"layer": "conv3"}, "unknown layer of"),
    "channel": ({"channels": [8]}, "channel 8 of 'conv2': expected 0 to 7"),
    "name": ({"channels": ["3"]}, "channel '3' of 'conv2': expected a number; only 'logits' has names"),
    "class": ({"layer": LOGITS, "channels": ["elk"]}, "unknown class 'elk'; valid: ant, bee, cat, dog"),
    "objective": ({"objective": "men"}, "unknown objective 'men'; did you mean 'mean'? valid: center, mean"),
    "prior": ({"prior": "date"}, "unknown prior 'date'; did you mean 'data'?"),
    "no images": ({"prior": "data"}, "prior = 'data' is fitted to real images: give some, or choose 'natural'"),
    "steps": ({"steps": 0}, "steps = 0: expected at least 1"),
    "count": ({"count": 0}, "count = 0: expected at least 1"),
    "float images": ({"images": np.zeros((2, 8, 8, 1))}, "image 0 is float64 [8, 8, 1]: expected uint8"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_argument_is_an_error(case: str, small: tuple[TrainedNetwork, np.ndarray]) -> None:
    wrong, message = WRONG[case]
    options: dict[str, Any] = {"layer": "conv2"} | wrong
    with pytest.raises(InputError, match=re.escape(message)):
        visualize.optimized_images(small[0], **options)


# ---------------------------------------------------------------------------------------------------- the real network


def photographs(shared: pathlib.Path, count: int, side: int) -> np.ndarray:
    """Returns photographs of the Imagenette subset as squares, uint8 [count, side, side, 3]."""
    pixels = []
    with tarfile.open(shared / "data" / "imagenette_subset.tar") as archive:
        members = [member for member in archive if member.name.endswith(".JPEG")]
        for member in members[:: len(members) // count][:count]:
            file = archive.extractfile(member)
            assert file is not None
            picture = Image.open(io.BytesIO(file.read())).convert("RGB").resize((side, side), Image.Resampling.BOX)
            pixels.append(np.asarray(picture))
    return np.stack(pixels)


@pytest.mark.slow
def test_channels_of_real_weights_are_excited_more_than_by_any_of_1000_photographs(shared: pathlib.Path) -> None:
    path = shared / "weights" / "resnet20-12fca82f.th"
    net = cnnjax.load(path, model="cifar_resnet20", normalize="imagenet", log=silent)
    real = photographs(shared, 1000, 32)
    # Not channel 0 of stage2: fine noise excites it, and each view has noise.
    for layer, channels in {"stage1": [0, 5, 10, 14], "stage2": [1, 9, 13, 31], "stage3": [0, 21, 42, 63]}.items():
        result = visualize.optimized_images(net, real, layer=layer, channels=channels, steps=96)
        assert result.exceeds.all(), result.note
