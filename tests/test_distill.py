"""Distillation: the formula, and a small network that learns from a larger one's folder."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import distill, train
from cnnjax.config import Config
from cnnjax.data import build, images
from cnnjax.errors import InputError
from cnnjax.evaluate import evaluate
from cnnjax.interrupt import Interrupted

SMALL: dict[str, Any] = {
    "model": "mlp(features=(16,))",
    "train_split": "train[:96]",
    "test_split": "test[:64]",
    "batch_size": 16,
    "lr": 0.05,
    "log_every": "2 steps",
    "checkpoint_every": "4 steps",
    "eval_every": "4 steps",
    "augment": "pad_crop(1)",
}


def run(folder: pathlib.Path, digits_dir: str, **changes: Any) -> dict[str, Any]:
    return train.train(Config(**(SMALL | {"duration": "8 steps"} | changes)), folder, data_dir=digits_dir)


@pytest.fixture(scope="module")
def teacher(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run with another network and normalisation, and a moving average."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    changes: dict[str, Any] = {"model": 'mlp(features=(64,), activation="relu")', "normalize": "symmetric", "ema": 0.9}
    run(folder, digits_dir, duration="200 steps", train_split="train[:1000]", **changes)
    return folder


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 0.0), (3.0, 1.0)])
def test_the_loss_is_hintons(temperature: float, weight: float) -> None:
    rng = np.random.default_rng(0)
    pupil, taught = rng.normal(size=(2, 6, 4))
    loss = rng.random(6)

    def soft(x: np.ndarray) -> np.ndarray:
        return np.exp(x / temperature) / np.exp(x / temperature).sum(axis=1, keepdims=True)

    divergence = (soft(taught) * np.log(soft(taught) / soft(pupil))).sum(axis=1)
    got = distill.blend(jnp.array(loss), jnp.array(pupil), jnp.array(taught), temperature, weight)
    np.testing.assert_allclose(got, (1 - weight) * loss + weight * temperature**2 * divergence, rtol=1e-5)


def test_a_pupil_learns_what_its_teacher_says(teacher: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path) -> None:
    """From 96 images alone it answers as a teacher does that saw 1,000."""
    settings: dict[str, Any] = {"duration": "300 steps", "augment": "pad_crop(1)"}
    taught = f'distill("{teacher}", temperature=2.0, weight=1.0)'
    alone = run(tmp_path / "alone", digits_dir, **settings)
    pupil = run(tmp_path / "pupil", digits_dir, distill=taught, **settings)
    assert pupil["accuracy"] > alone["accuracy"] + 0.01
    assert evaluate(tmp_path / "pupil", data_dir=digits_dir)["accuracy"] == pupil["accuracy"]  # without the teacher
