"""The training loop: its calls, its errors and what it reports."""

import concurrent.futures
import dataclasses
import pathlib
import re
import shutil
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnnjax
from cnnjax import augment, sealed
from cnnjax.data import pipeline
from cnnjax.errors import InputError
from cnnjax.runs import checkpoint, supervise
from cnnjax.runs.duration import training_seconds
from cnnjax.training import loop, progress, setup
from tests import tiny


def test_training_stops_at_a_loss_that_is_not_finite(digits_dir: str, tmp_path: pathlib.Path) -> None:
    model = 'mlp(features=(16, 16), activation="relu")'
    with pytest.raises(FloatingPointError, match=r"at step [23]$|by step [123]$"):
        tiny.run(tmp_path, digits_dir, model=model, lr=1e30, checkpoint_every="1 steps")
    assert checkpoint.steps(tmp_path) == [1]
    for step in checkpoint.steps(tmp_path):
        shutil.copytree(tmp_path, copy := tmp_path.with_name(f"{tmp_path.name}-{step}"))
        for later in checkpoint.steps(copy):
            if later > step:
                shutil.rmtree(copy / "checkpoints" / f"{later:08d}")
        assert all(np.isfinite(array).all() for array in tiny.variables(copy).values())


def test_a_pixel_that_is_not_finite_stops_the_training(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch normalization with ReLU by oneDNN loses it before the loss."""

    def spoil(key: jax.Array, image: jax.Array) -> jax.Array:
        return image.at[0, 0, 0].set(jnp.where(image[14, 14, 0] > 0.5, jnp.nan, image[0, 0, 0]))

    monkeypatch.setitem(augment.OPS, "spoil", spoil)
    with pytest.raises(FloatingPointError, match=r"the loss became nan at step [12]$"):
        tiny.run(tmp_path, digits_dir, model="cifar_resnet20(depth=8)", augment="resize(28)|spoil")


def test_a_network_trains_outside_the_main_thread(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        assert pool.submit(tiny.run, tmp_path, digits_dir, duration="1 steps").result()["step"] == 1


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("digits_lenet5", r"^config = 'digits_lenet5': expected a cnnjax\.Config; load it with cnnjax\.load_config\('"),
        ({"lr": 1}, r"^config = {'lr': 1}: expected a cnnjax\.Config$"),
    ],
)
def test_what_is_no_config_is_one_error(config: Any, message: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match=message):
        cnnjax.train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_images_of_a_size_that_the_network_does_not_take_are_an_error_before_training(
    digits_dir: str, tmp_path: pathlib.Path
) -> None:
    cases: list[tuple[dict[str, Any], int]] = [({"preprocess": "resize(9)"}, 9), ({"model": "lenet5_1998"}, 8)]
    for changes, size in cases:
        with pytest.raises(InputError, match=rf"does not take images of \({size}, {size}, 1\): "):
            tiny.run(tmp_path, digits_dir, **changes)
        assert not checkpoint.steps(tmp_path)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ('lenet5(head="conv")', r"the network returns maps of \(2, 2, 10\); training needs logits"),
        ("lenet5(features_only=True)", "the network returns feature maps c1, c3, c5, s2, s4; training needs logits"),
    ],
)
def test_a_network_that_gives_no_logits_is_an_error_before_training(
    model: str, message: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=message):
        tiny.run(tmp_path / "run", digits_dir, model=model, augment="resize(32)", preprocess="resize(32)")
    assert not (tmp_path / "run").exists()


def test_a_batch_that_does_not_divide_into_groups_is_an_error(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(InputError, match="a batch of 8 cannot be divided into the network's ghost batches of 16"):
        tiny.run(tmp_path / "run", digits_dir, model="cifar_resnet20(ghost_batch_size=16)", grad_accum_steps=2)
    assert not (tmp_path / "run").exists()


def test_parameters_that_are_not_finite_are_not_saved(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of a step is still finite when its update overflows."""

    def overflow(before: Any, after: Any, sums: Any) -> Any:
        grown = jax.tree.map(lambda x: jnp.where(before.step == 3, jnp.inf, 1) * x, after.params)
        return dataclasses.replace(after, params=grown), sums

    tiny.patch_step(monkeypatch, overflow)
    with pytest.raises(FloatingPointError, match="hidden1/bias became infinite or NaN by step 4"):
        tiny.run(tmp_path, digits_dir)
    assert checkpoint.steps(tmp_path) == [2]
    assert all(np.isfinite(array).all() for array in tiny.variables(tmp_path).values())


@pytest.mark.parametrize(
    ("start", "total", "periods", "most", "ends"),
    [
        (0, 4, [100], 1, [1, 2, 3, 4]),
        (0, 10, [100], 4, [4, 8, 10]),
        (0, 10, [5, 100], 4, [4, 5, 9, 10]),
        (3, 10, [2.5], 32, [5, 8, 10]),  # every 2.5 steps: what is due at 7.5 is at 8
        (0, 7, [3, 2], 32, [2, 3, 4, 6, 7]),
        (7, 7, [3], 4, []),
    ],
)
def test_a_group_of_steps_ends_where_something_is_due(
    start: int, total: int, periods: list[float], most: int, ends: list[int]
) -> None:
    groups = list(loop._groups(start, total, periods, most))
    assert [group.stop for group in groups] == ends
    assert [step for group in groups for step in group] == list(range(start, total))


def test_every_step_counts_in_one_line_of_the_metrics(digits_dir: str, tmp_path: pathlib.Path) -> None:
    periods: dict[str, Any] = {"log_every": "8 steps", "checkpoint_every": "7 steps", "val_split": ""}
    tiny.run(tmp_path / "run", digits_dir, **periods)
    periods["log_every"] = "1 steps"
    tiny.run(tmp_path / "each", digits_dir, **periods)
    lines, each = (
        [line for line in tiny.metrics_of(tmp_path / name) if "train/loss" in line] for name in ("run", "each")
    )
    assert [line["step"] for line in lines] == [7, 8]
    assert lines[0]["train/loss"] == pytest.approx(np.mean([line["train/loss"] for line in each[:7]]))


@pytest.mark.parametrize(("steps_per_call", "devices"), [(3, 1), (32, 8)])
def test_several_steps_in_one_call_give_what_single_ones_give(
    steps_per_call: int, devices: int, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    for number in (1, steps_per_call):
        changes: dict[str, Any] = {**tiny.EVERYTHING, "log_every": "3 steps", "steps_per_call": number}
        tiny.run(tmp_path / str(number), digits_dir, devices, **changes)
    one, several = (tiny.metrics_of(tmp_path / str(number)) for number in (1, steps_per_call))
    for line, other in zip(one, several, strict=True):
        assert other == pytest.approx(line, rel=1e-5)  # XLA rounds otherwise inside its loop
    tiny.assert_close(tiny.variables(tmp_path / str(steps_per_call)), tiny.variables(tmp_path / "1"), 1e-6)


def test_a_loss_that_is_not_finite_is_named_by_its_step_within_a_group(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    def fail(before: Any, after: Any, sums: Any) -> Any:
        return after, sums | {"loss": jnp.where(before.step == 4, jnp.nan, sums["loss"])}

    tiny.patch_step(monkeypatch, fail)
    every: dict[str, Any] = {"log_every": "8 steps", "checkpoint_every": "8 steps", "eval_every": "8 steps"}
    with pytest.raises(FloatingPointError, match="the loss became nan at step 5"):
        tiny.run(tmp_path, digits_dir, steps_per_call=8, **every)


def test_several_steps_in_one_call_need_the_split_in_device_memory(digits_dir: str, tmp_path: pathlib.Path) -> None:
    with pytest.raises(
        InputError, match=r"config.steps_per_call = 2: the training split is not in device memory; use 0"
    ):
        tiny.run(tmp_path / "run", digits_dir, steps_per_call=2, cache="host")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["input", "step", "dispatch", "evaluation", "saving"])
def test_the_end_of_a_run_shows_what_took_most_time(
    part: str, digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slowly(function: Any, seconds: float) -> Any:
        def slow(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds)
            return function(*args, **kwargs)

        return slow

    if part == "input":
        monkeypatch.setattr(pipeline, "batch_indices", slowly(pipeline.batch_indices, 0.4))
    elif part == "step":
        monkeypatch.setattr(jax, "block_until_ready", slowly(jax.block_until_ready, 0.4))
    elif part == "dispatch":
        monkeypatch.setattr(progress.Bar, "advance", slowly(progress.Bar.advance, 0.4))
    elif part == "evaluation":
        make = setup.make_scorer
        monkeypatch.setattr(setup, "make_scorer", lambda *args: slowly(make(*args), 3))
    else:
        monkeypatch.setattr(checkpoint.Saver, "finish", slowly(checkpoint.Saver.finish, 1))
    lines: list[str] = []
    changes: dict[str, Any] = {"val_split": "", "log_every": "8 steps", "checkpoint_every": "4 steps"}
    result = tiny.run(tmp_path / "run", digits_dir, lines=lines, **changes)
    line = next(line for line in lines if line.startswith("time: "))
    assert re.match(rf"time: \d+% {progress.LABELS.get(part, part)}, ", line)
    assert max(result["loop_seconds"], key=result["loop_seconds"].__getitem__) == part
    assert sealed.read_json(tmp_path / "run" / "result.json") == result
    trained = training_seconds(supervise.read_metrics(tmp_path / "run"), tiny.config().batch_size)
    assert 0 < result["seconds"] == round(trained, 1) <= sum(result["loop_seconds"].values()) + 0.1
