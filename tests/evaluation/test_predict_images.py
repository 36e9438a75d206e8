"""Predictions and feature maps of arrays: those of files and of the network itself."""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import augment
from cnnjax.data import images, transforms
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.evaluation import predict
from tests.evaluation.networks import mesh_of, random_network

DATA = DataInfo(("ant", "bee", "cat"), (28, 28, 3), {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]})
NET = 'lenet5(head="gap")'


def network(model: str = NET, **changes: Any) -> Any:
    return random_network(model, DATA, kernel_scale=1.3, **changes)


def photographs(*sizes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3)[:3], np.uint8) for size in sizes]


def silent(line: str) -> None:
    pass


@pytest.mark.parametrize(
    "config",
    [
        {"preprocess": "resize(30)|center_crop(28)"},
        {"protocol": "ten_crop(28)", "average": "logits"},
        {"protocol": "multiscale(28, 36)"},
    ],
    ids=str,
)
def test_an_array_has_the_probabilities_of_its_file(config: dict[str, Any], tmp_path: pathlib.Path) -> None:
    arrays, trained = photographs((36, 40), (30, 30), (36, 40)), network(**config)
    paths = [tmp_path / f"{i}.png" for i in range(len(arrays))]
    for path, array in zip(paths, arrays, strict=True):
        path.write_bytes(images.encode_png(array))
    found = predict.predict_images(trained, arrays, mesh=mesh_of())
    assert (found.shape, found.dtype) == ((3, 3), np.float32)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-5)
    for row, prediction in zip(found, predict.predict(trained, paths, top=3, mesh=mesh_of()), strict=True):
        for class_index, probability in prediction.top:
            assert row[class_index] == pytest.approx(probability, abs=1e-6)


def test_a_batch_is_its_images_on_any_devices() -> None:
    batch = np.stack(photographs(*[(28, 28)] * 21))
    found = predict.predict_images(network(), batch, mesh=mesh_of(4))
    predictor = predict.Predictor(network(), mesh=mesh_of())
    for start, stop in ((0, 1), (3, 20)):
        np.testing.assert_allclose(predictor.probabilities(batch[start:stop]), found[start:stop], atol=1e-6)
    assert predictor.probabilities([]).shape == (0, 3)


SIZELESS = [{}, {"protocol": "six_view"}, {"preprocess": "rgb"}, {"preprocess": "move(1, 0)", "protocol": "flip"}]


@pytest.mark.parametrize("config", SIZELESS, ids=str)
def test_where_nothing_sets_a_size_others_are_resized_and_that_is_logged_once(config: dict[str, Any]) -> None:
    large, lines, trained = photographs((56, 70), (30, 28)), [], network(**config)
    found = predict.predict_images(trained, large, mesh=mesh_of(), log=lines.append)
    resized = [transforms.center_crop(transforms.resize(image, 28), 28) for image in large]
    np.testing.assert_allclose(found, predict.predict_images(trained, np.stack(resized), mesh=mesh_of()), atol=1e-6)
    assert len(lines) == 1
    assert "resize(28)|center_crop(28) is applied" in lines[0]


def test_gray_images_are_converted_for_a_network_of_color_images() -> None:
    (color,) = photographs((28, 28))
    gray = color[..., :1]
    found = predict.predict_images(network(), [gray, np.repeat(gray, 3, axis=2)], mesh=mesh_of())
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_are_converted_as_those_of_a_file_without_encoding(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = dataclasses.replace(DATA, shape=(28, 28, channels), statistics={"mean": [0.5], "std": [0.2]})
    predictor = predict.Predictor(random_network(NET, data, normalize="none"), mesh=mesh_of(), log=silent)
    pixels = [image[..., : 4 - channels] for image in photographs((28, 28), (28, 28))]
    files = [images.decode(images.encode_png(image), channels) for image in pixels]
    monkeypatch.delattr(images, "encode_png")
    np.testing.assert_array_equal(predictor.single_views(pixels), files)


WRONG = {
    "floats": (np.zeros((2, 28, 28, 3), np.float32), r"image 0 is float32 \[28, 28, 3\]: expected uint8 \[height"),
    "one image": (np.zeros((28, 28, 3), np.uint8), r"image 0 is uint8 \[28, 3\]: expected"),
    "channels": ([np.zeros((28, 28, 3), np.uint8), np.zeros((28, 28, 4), np.uint8)], r"image 1 is uint8 \[28, 28, 4\]"),
    "no rows": ([np.zeros((0, 28, 3), np.uint8)], r"image 0 is uint8 \[0, 28, 3\]: .* with at least one pixel"),
    "no columns": ([np.zeros((28, 0, 1), np.uint8)], r"image 0 is uint8 \[28, 0, 1\]: .* with at least one pixel"),
}


@pytest.mark.parametrize("case", WRONG)
def test_arrays_that_are_no_images_are_refused(case: str) -> None:
    pixels, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        predict.predict_images(network(), pixels, mesh=mesh_of())


def test_scores_that_are_no_finite_numbers_are_an_error() -> None:
    trained = random_network(NET, DATA, kernel_scale=1e25)
    with pytest.raises(InputError, match="image 0: the network's scores are not finite"):
        predict.predict_images(trained, photographs((28, 28)), mesh=mesh_of())


def test_an_image_that_an_operation_refuses_is_named_by_its_index() -> None:
    with pytest.raises(InputError, match=r"image 1: .*center_crop\(28\): the image is 20x20"):
        predict.predict_images(
            network(preprocess="center_crop(28)"), photographs((28, 28), (20, 20)), mesh=mesh_of(), log=silent
        )


def test_feature_maps_are_those_of_the_network() -> None:
    batch, trained = np.stack(photographs(*[(28, 28)] * 5)), network(model="mlp(features=(7, 5))", eval_batch_size=2)
    maps: Any = predict.feature_maps(trained, batch, mesh=mesh_of())
    assert {name: (array.shape, array.dtype.name) for name, array in maps.items()} == {
        "hidden1": ((5, 7), "float32"), "hidden2": ((5, 5), "float32"),
    }  # fmt: skip
    variables = trained.load_variables(mesh_of(), "last", silent).variables
    normalized = augment.build([], "mean_std", DATA.statistics, (28, 28, 3))(jax.random.key(0), batch)
    expected = trained.model.clone(features_only=True).apply(variables, normalized, train=False)
    for name, array in maps.items():
        np.testing.assert_allclose(array, expected[name], atol=1e-5)
    hidden: Any = predict.feature_maps(trained, batch, "hidden2", mesh=mesh_of(2))
    np.testing.assert_allclose(hidden, maps["hidden2"], atol=1e-5)


def test_feature_maps_have_the_size_that_preprocessing_leaves() -> None:
    trained, pixels = network(preprocess="resize(40)"), photographs((80, 100), (40, 50))
    predictor = predict.Predictor(trained, mesh=mesh_of(), log=silent)
    large = predictor.feature_maps(pixels)
    first = next(iter(large))
    assert large[first].shape[0] == 2
    assert large[first].shape[2] > large[first].shape[1]
    with pytest.raises(InputError, match=r"images of one size after preprocessing.*\(40, 50, 3\), \(50, 40, 3\)"):
        predictor.feature_maps([pixels[0], pixels[0].transpose(1, 0, 2)], first)
    with pytest.raises(InputError, match=r"unknown layer of .*did you mean"):
        predictor.feature_maps(pixels, f"{first}x")
