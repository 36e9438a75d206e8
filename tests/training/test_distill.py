"""Distillation: the formula, and a small network that learns from the folder of a larger one."""

import json
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment, optim
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.runs import workdir
from cnnjax.training import distill, loop

SMALL: dict[str, Any] = {
    "model": "mlp(features=(16,))",
    "train_split": "train[:96]",
    "test_split": "test[:64]",
    "duration": "8 steps",
    "batch_size": 16,
    "lr": 0.05,
    "log_every": "2 steps",
    "checkpoint_every": "4 steps",
    "augment": 'flip_lr|pad_crop(1, fill="reflect")',
}
TEACHER = {"model": 'mlp(features=(24,), activation="relu")', "normalize": "symmetric", "ema": 0.9}
QUIET: dict[str, Any] = {"say": lambda line: None}


def one_device() -> Any:
    return sharding.make_mesh(jax.devices()[:1])


def run(folder: pathlib.Path, digits_dir: str, **changes: Any) -> dict[str, Any]:
    return loop.train(Config(**(SMALL | changes)), folder, data_dir=digits_dir, mesh=one_device())


def weights(folder: pathlib.Path) -> Any:
    """Type, shape and checksum of every array at the end: the same for the same bits."""
    digest = json.loads((folder / "checkpoints" / "00000008" / "digest" / "metadata").read_text())
    return digest["model"], digest["optimizer"]


@pytest.fixture(scope="module")
def teacher(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    run(folder, digits_dir, **TEACHER, val_split="test[64:100]", eval_every="4 steps")
    return folder


@pytest.mark.parametrize(("temperature", "weight"), [(1.0, 0.5), (4.0, 0.9), (2.0, 0.0), (3.0, 1.0)])
def test_the_loss_is_hintons(temperature: float, weight: float) -> None:
    rng = np.random.default_rng(0)
    pupil, taught = rng.normal(size=(2, 6, 4))
    loss = rng.random(6)

    def soft(x: np.ndarray) -> np.ndarray:
        return np.exp(x / temperature) / np.exp(x / temperature).sum(axis=1, keepdims=True)

    divergence = (soft(taught) * np.log(soft(taught) / soft(pupil))).sum(axis=1)
    got = distill.distillation_loss(jnp.array(loss), jnp.array(pupil), jnp.array(taught), temperature, weight)
    np.testing.assert_allclose(got, (1 - weight) * loss + weight * temperature**2 * divergence, rtol=1e-5)


def test_a_step_is_taught_by_the_images_that_the_pupil_sees(teacher: pathlib.Path, digits_dir: str) -> None:
    """With both networks' logits computed here, and the teacher's images from the pupil's by its own normalisation."""
    config, key = Config(**SMALL, normalize="none"), jax.random.key(1)
    seen: list[jax.Array] = []
    known, split = workdir.read_json(teacher / "data.json"), load("digits", "train[:16]", digits_dir)
    rows = np.arange(16)
    batch: Any = pipeline.read(split, [], rows, rows, 0) | {"example": rows, "epoch": 0 * rows}
    ops = pipeline.split_ops(config.augment)[1]
    prepare = augment.build(ops, "none", known, (8, 8, 1))
    text = f'distill("{teacher}", temperature=2.0, weight=0.7)'
    mine, variables = distill.load(text, ops, (8, 8, 1), split.classes, one_device(), **QUIET)
    schedule = optim.build_schedule(config, 10, 100)
    parts: dict[str, Any] = {"config": config, "model": create_model(config.model, 10), "schedule": schedule}
    state = loop.init_state(key, shape=(8, 8, 1), **parts)

    @jax.jit
    def step(*args: Any) -> tuple[Any, jax.Array]:
        def seeing(*given: Any) -> jax.Array:
            seen.append(prepare(*given))
            return seen[0]

        _, sums = loop.train_step(*args, prepare=seeing, mix=augment.build_mixing([], 10), teacher=mine, **parts)
        return sums["loss"], seen[0]

    network: Any = create_model(TEACHER["model"], 10)
    got, images = step(state, batch, key, variables)
    logits = [
        parts["model"].apply(state.variables, images, train=False),
        network.apply(variables, 2 * images - 1, train=False),
    ]
    loss = -jax.nn.log_softmax(logits[0])[np.arange(16), batch["label"]]
    assert float(got) == pytest.approx(
        float(distill.distillation_loss(loss, *logits, temperature=2.0, weight=0.7).sum()), rel=1e-5
    )


def test_a_pupil_goes_on_and_takes_several_steps_at_once(
    teacher: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    text = f'distill("{teacher}", step="best")'
    for name, changes in {
        "alone": {},
        "idle": {"distill": f'distill("{teacher}", weight=0.0)'},
        "pupil": {"distill": text},
    }.items():
        run(tmp_path / name, digits_dir, **changes)
    assert weights(tmp_path / "idle") == weights(tmp_path / "alone") != weights(tmp_path / "pupil")
    shutil.copytree(tmp_path / "pupil", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "00000008")
    run(tmp_path / "again", digits_dir, distill=text)
    assert weights(tmp_path / "again") == weights(tmp_path / "pupil")
    several = run(tmp_path / "several", digits_dir, distill=text, steps_per_call=4)
    assert several["loss"] == pytest.approx(
        json.loads((tmp_path / "pupil" / "result.json").read_text())["loss"], rel=1e-4
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('distil("{teacher}")', "unknown distillation 'distil'; did you mean 'distill'?"),
        ("distill", "missing a required argument: 'folder'"),
        ('distill("{teacher}", T=2)', "has no argument 'T'; valid: folder, step, temperature, weight"),
        ('distill("{teacher}", temperature=0)', "distill: temperature = 0: expected more than 0"),
        ('distill("{teacher}", weight=1.5)', "distill: weight = 1.5: expected 0 to 1"),
        ('distill("{teacher}/checkpoints")', "checkpoints is not a run's folder: it has no config.json"),
        ('distill("{teacher}", step="5")', "no checkpoint of step '5'; valid: last, best, 4, 8"),
        ('distill("{of_two}")', "of_two has 2 classes; the data set 10"),
        ('resize(9): distill("{teacher}")', "does not take images of (9, 9, 1): "),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused_before_anything_is_written(
    text: str, message: str, teacher: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    of_two = tmp_path / "of_two"
    shutil.copytree(teacher, of_two)
    workdir.write_json(of_two / "data.json", workdir.read_json(teacher / "data.json") | {"classes": ["ant", "bee"]})
    augment, _, text = text.rpartition(": ")
    changes = {"distill": text.format(teacher=teacher, of_two=of_two), "augment": augment, "test_split": ""}
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path / "run", digits_dir, **changes)
    assert not (tmp_path / "run").exists()
