"""The training step: gradient accumulation, averages, mixing, dropout, auxiliary losses."""

import dataclasses
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax.config import Config
from cnnjax.data import transforms
from cnnjax.data.build import load
from cnnjax.errors import InputError
from cnnjax.models import airbench, blocks, create_model
from cnnjax.runs import checkpoint
from tests import tiny


@pytest.mark.parametrize("augment", ["", "pad_crop(2)|flip_lr|noise(0.1)", "pad_crop(2)|mixup(0.5)|cutmix(1.0)"])
def test_accumulated_parts_give_the_update_of_the_whole(augment: str, digits_dir: str, tmp_path: pathlib.Path) -> None:
    """Also of images that are augmented at random, and mixed: the draws are those of the whole batch."""
    for parts in (1, 4):
        tiny.run(tmp_path / str(parts), digits_dir, grad_accum_steps=parts, log_every="1 steps", augment=augment)
    tiny.assert_close(tiny.variables(tmp_path / "4"), tiny.variables(tmp_path / "1"), 1e-5)
    for line, other in zip(tiny.metrics_of(tmp_path / "1"), tiny.metrics_of(tmp_path / "4"), strict=True):
        assert other == pytest.approx(line, rel=1e-4)


def test_the_moving_average_follows_its_formula(digits_dir: str, tmp_path: pathlib.Path) -> None:
    tiny.run(tmp_path, digits_dir, ema=0.3, checkpoint_every="1 steps", keep_checkpoints=99, duration="6 steps")
    history = []
    for step in reversed(checkpoint.steps(tmp_path)):
        history.insert(0, tiny.variables(tmp_path))
        shutil.rmtree(tmp_path / "checkpoints" / f"{step:08d}")
    names = [name for name in history[0] if name.startswith("ema/")]
    assert len(names) == 4
    for name in names:
        params = name.replace("ema/", "params/")
        for step in range(1, 6):  # the decays are 2/11, 3/12, then 0.3
            decay = min(0.3, (1 + step) / (10 + step))
            expected = decay * history[step - 1][name].astype(np.float64) + (1 - decay) * history[step][params]
            np.testing.assert_allclose(history[step][name], expected, rtol=1e-5, atol=1e-7)


def test_bfloat16_computes_with_float32_parameters_and_learns(digits_dir: str, tmp_path: pathlib.Path) -> None:
    tiny.run(tmp_path, digits_dir, dtype="bfloat16", duration="60 steps", optimizer="sgd(momentum=0.9)")
    assert {kind for kind, _, _ in tiny.digest(tmp_path, 60).values()} <= {"float32", "int32"}
    losses = [line["train/loss"] for line in tiny.metrics_of(tmp_path) if "train/loss" in line]
    assert losses[-1] < losses[0] / 2


@pytest.mark.parametrize("weight", [0.0, 0.3])
def test_auxiliary_classifiers_learn_with_their_weight(weight: float) -> None:
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
            x = nn.relu(nn.Dense(8, name="shared")(x.reshape(x.shape[0], -1)))
            blocks.sow_aux_logits(self, lambda: nn.Dense(10, name="aux")(x), train)
            return nn.Dense(10, name="head")(x)

    config, key = Config(lr=0.1, aux_weight=weight), jax.random.key(0)
    state, step = tiny.first_state_and_step(config, Net(), (4, 4, 1))
    batch = {
        "image": jax.random.normal(key, (8, 4, 4, 1)),
        **dict.fromkeys(("label", "example", "epoch"), jnp.arange(8)),
    }
    after, sums = step(state, batch, key)

    def losses_of(params: Any) -> list[jax.Array]:
        x = nn.relu(batch["image"].reshape(8, -1) @ params["shared"]["kernel"])  # biases are 0 at first
        rows = [jax.nn.log_softmax(x @ params[name]["kernel"]) for name in ("head", "aux")]
        return [-row[jnp.arange(8), batch["label"]].mean() for row in rows]

    gradients = jax.grad(lambda params: jnp.dot(jnp.array(losses_of(params)), jnp.array([1.0, weight])))(state.params)
    for name, gradient in gradients.items():
        moved = after.params[name]["kernel"] - state.params[name]["kernel"]
        np.testing.assert_allclose(moved, -0.1 * gradient["kernel"], rtol=1e-4, atol=1e-6)
    assert np.any(after.params["aux"]["kernel"] != state.params["aux"]["kernel"]) == (weight > 0)
    assert after.model_state == {}
    assert float(sums["loss"]) == pytest.approx(8 * float(losses_of(state.params)[0]), rel=1e-5)  # without the others


def test_a_step_learns_from_mixed_images_and_targets() -> None:
    """The loss is that of the mixed target; hits are counted by the label."""
    config, key = Config(lr=0.0), jax.random.key(0, impl="rbg")
    images, labels = jax.random.normal(key, (8, 4, 4, 1)), jnp.arange(8)
    batch = {"image": images, **dict.fromkeys(("label", "example", "epoch"), labels)}

    def mix(key: jax.Array, images: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
        target = jax.nn.one_hot(label, 10)
        return 0.75 * images + 0.25 * images[::-1], 0.75 * target + 0.25 * target[::-1]

    model = create_model("mlp(features=())", 10)
    state, step = tiny.first_state_and_step(config, model, (4, 4, 1), mix=mix)
    _, sums = step(state, batch, key)
    mixed, target = mix(key, images, labels)
    logits: Any = model.apply(state.variables, mixed, train=False)
    assert float(sums["loss"]) == pytest.approx(float(-(target * jax.nn.log_softmax(logits)).sum()), rel=1e-5)
    assert int(sums["accuracy"]) == int((logits.argmax(axis=1) == labels).sum())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_mixes_and_scores_whole_images(digits_dir: str, tmp_path: pathlib.Path, accumulate: int) -> None:
    changes: dict[str, Any] = {
        "augment": "flip_lr|mixup(0.8)|cutmix",
        "grad_accum_steps": accumulate,
        "duration": "2 steps",
    }
    assert tiny.run(tmp_path / "run", digits_dir, **changes)["loss"] > 0
    with pytest.raises(InputError, match=r"'mixup' mixes the images of a training batch: use it in config.augment"):
        tiny.run(tmp_path / "other", digits_dir, preprocess="mixup(0.8)")
    assert not (tmp_path / "other").exists()


def test_dropout_differs_from_step_to_step_and_follows_the_seed() -> None:
    images, labels = jnp.ones((4, 8, 8, 1)), jnp.arange(4)
    state, step = tiny.first_state_and_step(Config(lr=0.0), "mlp(features=(64,), dropout=0.5)", (8, 8, 1))
    batch = {"image": images, "label": labels, "example": labels, "epoch": labels}

    def loss(seed: int, at: int) -> float:
        return float(step(dataclasses.replace(state, step=jnp.int32(at)), batch, jax.random.key(seed))[1]["loss"])

    assert loss(0, 1) == loss(0, 1)
    assert len({loss(0, 1), loss(0, 2), loss(1, 1)}) == 3


@pytest.mark.parametrize("devices", [1, 8])
def test_a_network_is_primed_with_the_first_images_once(devices: int, digits_dir: str, tmp_path: pathlib.Path) -> None:
    settings: dict[str, Any] = {
        "model": "airbench94(features=(8, 8, 8))",
        "augment": "resize(32)|pad_crop(2)",
        "preprocess": "resize(32)",
    }
    first, second = tmp_path / "first", tmp_path / "second"
    tiny.run(first, digits_dir, devices, duration="1 steps", train_split="train[:50]", **settings)
    split = load("digits", "train[:50]", digits_dir)
    pixels = np.stack([transforms.resize(image, 32) for image in split.read(np.arange(50))[0]]).astype(np.float32)
    expected = airbench.whitening_kernel(jnp.asarray((pixels - pixels.mean()) / pixels.std()))
    kernel = tiny.variables(first, (32, 32, 1))["model_state/constants/whiten/kernel"]
    assert kernel.shape == (2, 2, 1, 8)
    np.testing.assert_allclose(np.abs(kernel), np.abs(expected), rtol=1e-2, atol=1e-2)  # a direction has no sign
    # A network that starts from this one has its kernel, not one of its own images.
    tiny.run(second, digits_dir, devices, duration="1 steps", train_split="train[50:96]", init=str(first), **settings)
    same = tiny.variables(second, (32, 32, 1))["model_state/constants/whiten/kernel"]
    np.testing.assert_array_equal(same, kernel)
