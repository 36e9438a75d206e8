"""Normalisations: each is its formula, however it is run, with statistics of the training split alone."""

import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, spec
from cnnjax.augment import normalize
from cnnjax.augment.normalize import NORMALIZE
from cnnjax.config import Config
from cnnjax.data import build, pipeline, statistics
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.runs import workdir
from cnnjax.training.loop import train

SHAPE = (8, 6, 3)
SIZE = 8 * 6 * 3


def pixels(count: int = 4, shape: tuple = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)


def correlated(count: int, shape: tuple = SHAPE) -> np.ndarray:
    """Images whose neighboring values are alike, as in photographs, and with channels of their own brightness."""
    rng = np.random.default_rng(1)
    values = rng.normal(128, 20, (count, 1, 1, 1)) + rng.normal(0, 20, (count, *shape)).cumsum(axis=1) / 2
    return np.clip(values + 20 * np.arange(shape[-1]), 0, 255).astype(np.uint8)


KNOWN = statistics.derive(statistics.accumulate([correlated(500)], normalize.STATISTICS), SHAPE)
PER_CHANNEL = {name: KNOWN[name] for name in ("mean", "std")}


def run(text: str, images: np.ndarray, known: dict[str, Any] = KNOWN) -> np.ndarray:
    return np.asarray(augment.build([], text, known, images.shape[1:])(jax.random.key(0), images))


def contrasted(x: np.ndarray, scale: float = 55.0) -> np.ndarray:
    x = x - x.mean(axis=(1, 2, 3), keepdims=True)
    return scale * x / np.sqrt((x**2).sum(axis=(1, 2, 3), keepdims=True))


# Every normalization, by its call, and what it does to images on the scale of [0, 1].
FORMULAS: dict[str, Any] = {
    "none": lambda x: x,
    "mean_std": lambda x: (x - KNOWN["mean"]) / KNOWN["std"],
    "centered": lambda x: x - KNOWN["mean"],
    "symmetric": lambda x: 2 * x - 1,
    "range_to(-0.1, 1.175)": lambda x: x * 1.275 - 0.1,
    "constants([0.4, 0.5, 0.6], (0.1, 0.2, 0.4))": lambda x: (x - [0.4, 0.5, 0.6]) / [0.1, 0.2, 0.4],
    "imagenet": lambda x: (x - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225],
    "caffe": lambda x: 255 * x - [123.68, 116.779, 103.939],
    "caffe(bgr=True)": lambda x: (255 * x - [123.68, 116.779, 103.939])[..., ::-1],
    "mean_image": lambda x: x - KNOWN["mean_image"],
    "pixel_mean_std": lambda x: (x - KNOWN["mean_image"]) / KNOWN["std_image"],
    "gcn": contrasted,
    "gcn(scale=1)": lambda x: contrasted(x, 1),
    "gcn_zca": lambda x: ((contrasted(x).reshape(-1, SIZE) - KNOWN["zca_mean"]) @ KNOWN["zca"]).reshape(x.shape),
}


def test_every_normalization_has_its_formula() -> None:
    assert {spec.parse(text).name for text in FORMULAS} == set(NORMALIZE)


@pytest.mark.parametrize("text", FORMULAS)
def test_normalization_is_the_formula(text: str) -> None:
    got = run(text, pixels())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, FORMULAS[text](pixels() / 255.0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("text", FORMULAS)
def test_eager_jit_and_vmap_agree(text: str) -> None:
    given = normalize.statistics(KNOWN)
    batch = jnp.asarray(pixels(), jnp.float32) / 255

    def operation(image: jax.Array) -> jax.Array:
        return spec.find("normalization", spec.parse(text), NORMALIZE, image=image, **given)()

    eager = jnp.stack([operation(image) for image in batch])
    jitted = jnp.stack([jax.jit(operation)(image) for image in batch])
    np.testing.assert_allclose(jitted, eager, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(jax.jit(jax.vmap(operation))(batch), eager, rtol=1e-5, atol=1e-4)


# -------------------------------------------------------------------------------------------------------- statistics


def test_statistics_are_those_of_numpy() -> None:
    images = correlated(300)
    blocks = (images[start : start + 70] for start in range(0, 300, 70))
    got = statistics.derive(statistics.accumulate(blocks, normalize.STATISTICS), SHAPE)
    x = images / 255
    np.testing.assert_allclose(got["mean"], x.mean(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(got["std"], x.std(axis=(0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(got["mean_image"], x.mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(got["std_image"], x.std(axis=0), rtol=1e-5)
    covariance = np.cov(x.reshape(-1, 3).T, bias=True)
    np.testing.assert_allclose(got["eigen"] @ got["eigen"].T, covariance, rtol=1e-5)
    across = got["eigen"].T @ got["eigen"]
    np.testing.assert_allclose(across, np.diag(np.diag(across)), atol=1e-8)


def test_whitened_images_have_the_identity_for_covariance_up_to_the_regularizer() -> None:
    images = correlated(3000, (4, 4, 3))
    known = statistics.derive(statistics.accumulate([images], {"zca"}), (4, 4, 3))
    flat = run("gcn_zca", images, known).reshape(3000, -1)
    np.testing.assert_allclose(flat.mean(axis=0), 0, atol=1e-3)
    before = np.linalg.eigvalsh(np.cov(contrasted(images / 255).reshape(3000, -1).T, bias=True))
    after = np.linalg.eigvalsh(np.cov(flat.T, bias=True))
    np.testing.assert_allclose(np.sort(after), np.sort(before / (before + 0.1)), atol=1e-3)
    assert (after > 0.9).sum() > 40  # of 48


def test_what_never_varies_stays_finite() -> None:
    black = np.zeros((3, *SHAPE), np.uint8)
    known = statistics.derive(statistics.accumulate([black], normalize.STATISTICS), SHAPE)
    for text in FORMULAS:
        assert np.isfinite(run(text, pixels(), known)).all(), text
    for text in ("mean_std", "pixel_mean_std", "gcn", "gcn_zca"):
        np.testing.assert_array_equal(run(text, black, known), 0)
    np.testing.assert_array_equal(run("gcn", black + 77), 0)


def test_only_what_is_taken_is_computed() -> None:
    assert pipeline.required_statistics("pad_crop(2)", "", normalization="mean_std") == set()
    assert pipeline.required_statistics("", normalization="pixel_mean_std") == {"mean_image", "std_image"}
    assert pipeline.required_statistics("", normalization="gcn_zca") == {"zca", "zca_mean"}
    assert set(statistics.accumulate([pixels()], {"eigen"})) == {"histogram", "channel_products"}


# ------------------------------------------------------------------------------------------------------------- a run


def config(normalization: str) -> Config:
    splits: dict[str, Any] = {"train_split": "train[:80]", "test_split": "test[:50]"}
    return Config(model="perceptron", normalize=normalization, batch_size=40, duration="2 steps", lr=0.01, **splits)


@pytest.mark.parametrize("text", [text for text in FORMULAS if pipeline.required_statistics(normalization=text)])
def test_a_run_is_evaluated_with_its_own_statistics(text: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    folder = tmp_path / "run"
    result = train(config(text), folder, data_dir=digits_dir)
    split = build.load("digits", "train[:80]", digits_dir)
    source = pipeline.open_source(split, [], cache="host", seed=0, mesh=sharding.make_mesh())
    known = workdir.read_data_info(folder)
    statistics = known.statistics
    for name, want in source.statistics(pipeline.required_statistics(normalization=text)).items():
        np.testing.assert_allclose(statistics[name], want, atol=1e-5)
    assert evaluate(folder, data_dir=digits_dir, log=lambda line: None)["loss"] == pytest.approx(result.metrics["loss"])
    assert (folder / "data.json").stat().st_size < 2000


def test_a_damaged_file_of_statistics_is_named_and_computed_anew(digits_dir: str, tmp_path: pathlib.Path) -> None:
    train(config("pixel_mean_std"), tmp_path, data_dir=digits_dir)
    path, known = tmp_path / "statistics.npz", workdir.read_data_info(tmp_path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-9], whole[:300] + b"\xff" + whole[301:]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=r"statistics.npz is (damaged|missing); resuming the run rewrites it"):
            evaluate(tmp_path, data_dir=digits_dir)
        train(config("pixel_mean_std"), tmp_path, data_dir=digits_dir)
        jax.tree.map(np.testing.assert_array_equal, workdir.read_data_info(tmp_path).to_dict(), known.to_dict())


# -------------------------------------------------------------------------------------------------------- what is wrong


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("meanstd", "unknown normalization 'meanstd'; did you mean 'mean_std'?"),
        ("range_to(1)", "missing a required argument: 'high'"),
        ("range_to('a', 1)", "low = 'a': expected finite float"),
        ("constants([0.5, 0.5], [1, 1])", "does not fit an image of (8, 6, 3)"),
        ("constants(0.5, (1,))", "means = 0.5: expected list of finite float"),
        ("caffe(bgr=1)", "bgr = 1: expected bool"),
        ("mean_image(0)", "takes at most 0 arguments, got 1"),
        ("mean_image(mean_image=0)", "has no argument 'mean_image'"),
    ],
)
def test_what_does_not_fit_is_refused_at_once(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(text, pixels())


@pytest.mark.parametrize("text", ["constants([0, 0, 0], [1, 1, 1])", "imagenet", "caffe"])
def test_constants_of_three_channels_do_not_fit_one(text: str) -> None:
    with pytest.raises(InputError, match=r"does not fit an image of \(8, 6, 1\): its result is \(8, 6, 3\)"):
        run(text, pixels(shape=(8, 6, 1)), {"mean": [0.5], "std": [0.2]})


def test_a_mean_image_fits_images_of_its_size_alone() -> None:
    with pytest.raises(InputError, match=r"'mean_image' does not fit an image of \(9, 6, 3\)"):
        run("mean_image", pixels(shape=(9, 6, 3)))


def test_large_images_are_not_whitened() -> None:
    message = r"ZCA whitening is for at most 4,096 values per image; these are \(40, 40, 3\), 4,800 values"
    with pytest.raises(InputError, match=message):
        statistics.accumulate([pixels(2, (40, 40, 3))], {"zca"})
