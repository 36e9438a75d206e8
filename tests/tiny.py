"""The smallest run that shows what a training does, and helpers that read what it left in its folder."""

import dataclasses
import functools
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh

from cnnjax import augment, optim, pretrained
from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.console import Console
from cnnjax.distributed import sharding
from cnnjax.models import create_model
from cnnjax.runs import checkpoint
from cnnjax.runs.signals import Interrupted
from cnnjax.state import TrainState, Tree, path_name
from cnnjax.training import init, loop, progress
from cnnjax.training import step as training_step
from cnnjax.training.recipe import parse_recipe

ROOT = pathlib.Path(__file__).resolve().parents[1]

CONFIG: dict[str, Any] = {
    "model": "mlp(features=(16,))",
    "train_split": "train[:96]",
    "val_split": "test[:64]",
    "test_split": "test[64:101]",
    "duration": "8 steps",
    "batch_size": 16,
    "eval_batch_size": 32,
    "lr": 0.05,
    "log_every": "2 steps",
    "eval_every": "4 steps",
    "checkpoint_every": "2 steps",
    "keep_checkpoints": 9,
}

# The same with as many settings as go together: random operations, accumulation, decay, clipping and an average.
EVERYTHING: dict[str, Any] = {
    "model": "mlp(features=(16,), dropout=0.5)",
    "augment": "pad_crop(1)|flip_lr|flip_alternating",
    "normalize": "mean_image",
    "repeated_augment": 2,
    "grad_accum_steps": 2,
    "optimizer": "adamw",
    "schedule": "one_cycle",
    "weight_decay": 1e-3,
    "lr_factors": "bias$:2",
    "grad_clip_norm": 1.0,
    "ema": 0.9,
}
# With settings that depend on earlier evaluations.
MONITORED: dict[str, Any] = {
    "optimizer": "sgd(momentum=0.9)|lookahead(every=2)",
    "sam_rho": 0.05,
    "grad_accum_steps": 2,
    "lr": 0.5,
    "schedule": "plateau(patience=0, metric='loss', warmup='2 steps')",
    "early_stop": "early_stop(patience=3, metric='loss')",
    "eval_every": "1 steps",
    "duration": "40 steps",
}

BATCHNORM: dict[str, Any] = {"model": "mlp(features=(16, 8), norm='batch')"}

# -------------------------------------------------------------------------------------------------------------- runs


def config(**changes: Any) -> Config:
    """Returns the tiny config with other values of some fields."""
    return Config(**(CONFIG | changes))


def mesh(devices: int = 1, text: str = "") -> Mesh:
    """Returns a mesh of the first `devices` devices, with the axes of `config.mesh`."""
    return sharding.make_mesh(jax.devices()[:devices], text)


def train(
    config: Config, folder: pathlib.Path, data_dir: str, devices: int = 1, lines: list[str] | None = None
) -> dict[str, Any]:
    """Trains; returns the final numbers, those of result.json. Appends to `lines` what the console would show."""
    with open(os.devnull if lines is None else folder.with_name(folder.name + ".txt"), "w+") as file:
        console = Console(file=file, width=999, color_system=None)
        result = loop.train(config, folder, data_dir=data_dir, mesh=mesh(devices, config.mesh), console=console).metrics
        if lines is not None:
            file.seek(0)
            lines += file.read().splitlines()
    return result


def run(
    folder: pathlib.Path, data_dir: str, devices: int = 1, lines: list[str] | None = None, **changes: Any
) -> dict[str, Any]:
    """Trains the tiny config with other values of some fields. See `train`."""
    return train(config(**changes), folder, data_dir, devices, lines)


def send_at(monkeypatch: pytest.MonkeyPatch, step: int, number: int = signal.SIGTERM) -> None:
    """Makes the training send a signal to its process after `step`."""
    advance = progress.Bar.advance

    def signaling(self: Any, now: int) -> None:
        advance(self, now)
        if now == step:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(progress.Bar, "advance", signaling)


def interrupt(folder: pathlib.Path, data_dir: str, step: int, devices: int = 1, **changes: Any) -> Interrupted:
    """Trains as `run` does until SIGTERM after `step`; returns the exception, which has to be raised."""
    with pytest.MonkeyPatch.context() as patch:
        send_at(patch, step)
        with pytest.raises(Interrupted, match=f"stopped after step {step}; the state is saved") as caught:
            run(folder, data_dir, devices, **changes)
    return caught.value


def patch_step(monkeypatch: pytest.MonkeyPatch, change: Callable[[TrainState, TrainState, dict], tuple]) -> list[Any]:
    """Replaces what a training step returns, (state, sums), by `change(state before, state after, sums)`.

    Returns a list that gets an element each time the step is traced.
    """
    traces: list[Any] = []
    train_step = training_step.train_step

    def changed(state: TrainState, *args: Any, **kwargs: Any) -> tuple:
        traces.append(state)
        return change(state, *train_step(state, *args, **kwargs))

    monkeypatch.setattr(training_step, "train_step", changed)
    return traces


# ------------------------------------------------------------------------------------------- runs in their own process


def start(
    config: Config,
    folder: pathlib.Path,
    data_dir: str,
    devices: int = 1,
    before: tuple[str, ...] | None = None,
    flags: tuple[str, ...] = (),
    **env: str,
) -> subprocess.Popen:
    """Starts `cnnjax train` in a process, with further flags and environment variables.

    `before` is a command that takes that of the training as its arguments.
    """
    path = folder.with_name(folder.name + "-config.json")
    path.write_text(json.dumps(dataclasses.asdict(config)))
    arguments = ["train", f"--config={path}", f"--workdir={folder}", f"--data_dir={data_dir}", *flags]
    return subprocess.Popen(
        [*(before or ()), sys.executable, "-m", "cnnjax", *arguments],
        cwd=ROOT,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": str(devices)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait(process: subprocess.Popen, seconds: float = 240) -> tuple[int, str, str]:
    """Returns the status, output and errors of a process, which is killed when it takes longer."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    return process.returncode, out, err


# ---------------------------------------------------------------------------------------------------- one step, alone


def keep_images(key: jax.Array, images: jax.Array, *_: jax.Array) -> jax.Array:
    """Stands for the operations on a batch: returns the images as they are."""
    return images


def first_state_and_step(
    config: Config,
    model: Any,
    shape: tuple[int, ...],
    *,
    key: jax.Array | None = None,
    epoch: int = 10,
    total: int = 100,
    num_classes: int = 10,
    **changes: Any,
) -> tuple[TrainState, Callable[..., tuple[TrainState, dict[str, jax.Array]]]]:
    """Returns a network's first state, for images of `shape` [H, W, C], and its training step (state, batch, key).

    `model` is a module or a call string. `changes` are keyword arguments of the step: prepare, mix, teacher,
    unfreeze_steps.
    """
    model = create_model(model, num_classes) if isinstance(model, str) else model
    recipe = parse_recipe(config)
    shared = {"recipe": recipe, "model": model, "schedule": optim.build_schedule(recipe.optim, epoch, total)}
    state = init.init_state(jax.random.key(0) if key is None else key, shape=shape, **shared)
    defaults: dict[str, Any] = {"prepare": keep_images, "mix": augment.build_mixing([], num_classes)}
    return state, functools.partial(training_step.train_step, **shared, **(defaults | changes))


# ------------------------------------------------------------------------------------------------ what a run has left


def metrics_of(folder: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl without the speed, which differs from run to run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/images_per_second"} for line in lines]


def numbers(result: dict[str, Any]) -> dict[str, Any]:
    """Returns the final numbers without times and folder, which differ from run to run."""
    return {name: value for name, value in result.items() if name not in ("seconds", "loop_seconds", "folder")}


def digest(folder: pathlib.Path, step: int) -> dict[str, Any]:
    """Returns type, shape and checksum of each array of a checkpoint by its path: equal for the same bits."""
    content = json.loads((folder / "checkpoints" / f"{step:08d}" / "digest" / "metadata").read_text())
    return content["model"]["arrays"] | content["optimizer"]["arrays"]


def by_path(tree: Tree) -> dict[str, np.ndarray]:
    """Returns the arrays of a tree by path: 'params/hidden1/kernel'."""
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def variables(folder: pathlib.Path, shape: tuple[int, ...] = (8, 8, 1)) -> dict[str, np.ndarray]:
    """Returns the arrays of a run's last checkpoint by path: params, model_state and ema. `shape` is of an image."""
    config = configs.load(folder / "config.json")
    initialize = functools.partial(create_model(config.model, 10, config.dtype).init, train=False)
    abstract = jax.eval_shape(initialize, jax.random.key(0), np.zeros((1, *shape)))
    params = abstract.pop("params")
    tree = {"params": params, "model_state": abstract, "ema": params if optim.parse(config).keeps_average else {}}
    replicated = sharding.replicated(mesh())
    tree = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated), tree)
    return by_path(checkpoint.restore_model(folder, tree, "last", pytest.fail)[1])


def eval_variables(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays with which a run's network is evaluated, of the last checkpoint, by path."""
    return by_path(pretrained.load(folder).load_variables(mesh(), "last", pytest.fail).variables)


def assert_close(a: dict[str, np.ndarray], b: dict[str, np.ndarray], tolerance: float) -> None:
    """Asserts that arrays are equal up to the order of summation, relative to the largest element of each.

    The bias before a batch normalization has no gradient: all of it is rounding, so what is below 0.01 counts as 0.01.
    """
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], atol=tolerance * max(np.abs(b[name]).max(), 0.01), err_msg=name)
