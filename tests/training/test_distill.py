"""Distillation: the formula, and a small network that learns from the folder of a larger one."""

import dataclasses
import functools
import json
import pathlib
import re
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import augment
from cnnjax.data import pipeline
from cnnjax.data.build import load
from cnnjax.data.operations import parse_operations
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.runs import workdir
from cnnjax.training import distill
from tests import tiny

SMALL: dict[str, Any] = {
    "val_split": "",
    "checkpoint_every": "4 steps",
    "augment": 'flip_lr|pad_crop(1, fill="reflect")',
}
TEACHER = {"model": 'mlp(features=(24,), activation="relu")', "normalize": "symmetric", "ema": 0.9}
run = functools.partial(tiny.run, **SMALL)


@pytest.fixture(scope="module")
def teacher(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    run(folder, digits_dir, **TEACHER | {"val_split": "test[64:100]"})
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
    config, key = tiny.config(**SMALL, normalize="none"), jax.random.key(1)
    seen: list[jax.Array] = []
    data, split = workdir.read_data_info(teacher), load("digits", "train[:16]", digits_dir)
    rows = np.arange(16)
    batch: Any = pipeline.read(split, [], rows, rows, 0) | {"example": rows, "epoch": 0 * rows}
    ops = parse_operations(config.augment).step
    prepare = augment.build(ops, "none", data.statistics, (8, 8, 1))
    settings = distill.parse(f'distill("{teacher}", temperature=2.0, weight=0.7)')
    loaded = distill.load_teacher(settings, ops, data, tiny.mesh(), lambda line: None)
    model = create_model(config.model, 10)

    def seeing(*given: Any) -> jax.Array:
        seen.append(prepare(*given))
        return seen[0]

    state, train_step = tiny.first_state_and_step(config, model, (8, 8, 1), key=key, prepare=seeing, teacher=loaded)

    @jax.jit
    def step(*args: Any) -> tuple[Any, jax.Array]:
        return train_step(*args)[1]["loss"], seen[0]

    network: Any = create_model(TEACHER["model"], 10)
    got, images = step(state, batch, key, loaded.variables)
    logits = [
        model.apply(state.variables, images, train=False),
        network.apply(loaded.variables, 2 * images - 1, train=False),
    ]
    loss = -jax.nn.log_softmax(logits[0])[np.arange(16), batch["label"]]
    assert float(got) == pytest.approx(
        float(distill.distillation_loss(loss, *logits, temperature=2.0, weight=0.7).sum()), rel=1e-5
    )


def test_a_teacher_sees_operations_with_the_statistics_of_the_pupil(teacher: pathlib.Path) -> None:
    data = dataclasses.replace(workdir.read_data_info(teacher), statistics={"mean": [0.9], "std": [0.1]})
    settings, ops = distill.parse(f'distill("{teacher}")'), parse_operations("cutout(16)").step
    loaded = distill.load_teacher(settings, ops, data, tiny.mesh(), lambda line: None)
    inputs = loaded.prepare(jax.random.key(0), jnp.zeros((4, 8, 8, 1), jnp.uint8))
    np.testing.assert_allclose(inputs, 2 * 0.9 - 1, rtol=1e-5)  # filled with the pupil's mean, and normalized


def test_products_of_a_teacher_have_the_precision_of_the_config(teacher: pathlib.Path) -> None:
    config, key, seen = tiny.config(**SMALL, matmul_precision="bfloat16"), jax.random.key(1), []
    settings, data = distill.parse(f'distill("{teacher}")'), workdir.read_data_info(teacher)
    loaded = distill.load_teacher(settings, (), data, tiny.mesh(), lambda line: None)

    def logits(*args: Any) -> jax.Array:
        seen.append(jax.config.jax_default_matmul_precision)  # type: ignore[attr-defined]
        return loaded.logits(*args)

    watched = dataclasses.replace(loaded, logits=logits)
    model = create_model(config.model, 10)
    state, step = tiny.first_state_and_step(config, model, (8, 8, 1), key=key, teacher=watched)
    numbers = dict.fromkeys(("label", "example", "epoch"), jnp.zeros(16, int))
    batch = {"image": jnp.zeros((16, 8, 8, 1), jnp.uint8), **numbers}
    jax.eval_shape(step, state, batch, key, loaded.variables)
    assert seen == ["bfloat16"]


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
    assert tiny.digest(tmp_path / "idle", 8) == tiny.digest(tmp_path / "alone", 8) != tiny.digest(tmp_path / "pupil", 8)
    shutil.copytree(tmp_path / "pupil", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "checkpoints" / "00000008")
    run(tmp_path / "again", digits_dir, distill=text)
    assert tiny.digest(tmp_path / "again", 8) == tiny.digest(tmp_path / "pupil", 8)
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
        ('distill("{teacher}", temperature=0)', "temperature = 0: expected float of more than 0"),
        ('distill("{teacher}", weight=1.5)', "weight = 1.5: expected float of 0 to 1"),
        ('distill("{teacher}/checkpoints")', "checkpoints is not a run's folder: it has no config.json"),
        ('distill("{teacher}", step="5")', "no checkpoint of step '5'; valid: last, best, 4, 8"),
        ('distill("{of_two}")', "of_two has 2 classes, but the data set has 10"),
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
