"""The assembly of a training: what bench compiles for a config is what training compiles."""

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from cnnjax import config as configs
from cnnjax import config_files, models, optim
from cnnjax.bench import measure
from cnnjax.config import Config
from cnnjax.data.build import build
from cnnjax.data.images import encode_png
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.models.network import Variant
from cnnjax.training import loop
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import make_setup
from cnnjax.training.step import jit_step

SMALL: dict[str, Any] = {"model": "mlp(features=(8,))", "dataset": "digits", "batch_size": 16, "duration": "6 steps",
                         "checkpoint_every": "100%", "log_every": "100%"}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "teacher": {"distill": "distill('teacher', temperature=2.0)"},
    "unfreeze": {"freeze": "^hidden1", "unfreeze": "^hidden1:2 steps"},
    "several steps per call": {"steps_per_call": 3, "cache": "device"},
    "everything": {"augment": "cutout(4)|mixup(0.2)", "grad_accum_steps": 2, "ema": 0.9, "sam_rho": 0.05,
                   "steps_per_call": 2, "cache": "device", "distill": "distill('teacher')"},
}  # fmt: skip


@pytest.mark.parametrize("name", CONFIGS)
def test_what_bench_compiles_is_what_training_compiles(
    name: str, tmp_path: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mesh = sharding.make_mesh(jax.devices()[:1])
    if "distill" in CONFIGS[name]:
        loop.train(Config(**{**SMALL, "duration": "1 steps"}), "teacher", data_dir=digits_dir, mesh=mesh)
    texts: list[str] = []

    def recording(setup: Any) -> Any:
        step = jit_step(setup)

        def call(*args: Any) -> Any:
            if not texts:
                texts.append(step.lower(*args).as_text())
            return step(*args)

        return call

    monkeypatch.setattr(loop, "jit_step", recording)
    config = Config(**{**SMALL, **CONFIGS[name]})
    loop.train(config, "run", data_dir=digits_dir, mesh=mesh)
    monkeypatch.setattr(sharding, "make_mesh", lambda *args, **kwargs: mesh)
    setup = measure.of_config(config, digits_dir)
    _, feed = next(iter(loop.feeds(setup, 0, setup.total_steps, ())))
    assert measure.lower_train(setup, feed).as_text() == texts[0]


def test_a_recipe_touches_no_disk_and_keeps_a_copy_of_its_config(monkeypatch: pytest.MonkeyPatch) -> None:
    config = Config(distill="distill('nowhere')", init="nowhere")
    monkeypatch.setattr(pathlib.Path, "open", None)
    recipe = parse_recipe(config)
    config.lr = 5.0
    assert recipe.config.lr != 5.0
    assert recipe.distill is not None
    assert recipe.distill.folder == "nowhere"


@pytest.mark.parametrize("name", ["distill", "init"])
def test_a_network_that_is_missing_is_an_error_before_the_data_is_read(name: str) -> None:
    settings: dict[str, Any] = {name: {"distill": "distill('nowhere')", "init": "nowhere"}[name]}
    with pytest.raises(InputError, match="nowhere"):
        make_setup(parse_recipe(Config(dataset="no_such_data", **settings)))


def test_a_setup_is_frozen_and_writes_nothing(tmp_path: pathlib.Path, digits_dir: str) -> None:
    mesh = sharding.make_mesh(jax.devices()[:1])
    setup = make_setup(parse_recipe(Config(**SMALL)), folder=tmp_path / "run", data_dir=digits_dir, mesh=mesh)
    assert not (tmp_path / "run").exists()
    assert setup.data.classes == tuple("0123456789")
    with pytest.raises(dataclasses.FrozenInstanceError):
        setup.total_steps = 3  # type: ignore[misc]


@pytest.mark.parametrize("old", sorted(configs.ALIASES))
def test_a_config_of_an_older_version_loads(old: str, tmp_path: pathlib.Path) -> None:
    new = configs.ALIASES[old]
    value = {"int": "3", "float": "0.5", "bool": "true"}[type(configs.FIELDS[new].default).__name__]
    (tmp_path / "config.json").write_text(f'{{"{old}": {value}, "batch_size": 12, "init": "x"}}')
    expected = {"3": 3, "0.5": 0.5, "true": True}[value]
    assert getattr(configs.load(tmp_path / "config.json"), new) == expected
    others = ("--config.init=x", "--config.batch_size=12")
    typed = config_files.read_config("configs/digits_lenet5.py", [f"--config.{old}={value}", *others])
    assert getattr(typed, new) == expected


LONELY: dict[str, tuple[dict[str, Any], str]] = {
    "fully connected": ({"model": "mlp(features=(8,), norm='batch')", "batch_size": 1}, "'norm1' would see a single"),
    "micro-batches of one": (
        {"model": "resnet18(stage_sizes=(1, 1, 1, 1), features=4)", "batch_size": 4, "grad_accum_steps": 4},
        "config.batch_size = 4: the batch normalization '.*' would see a single value per channel",
    ),
    "ghost batches of one": (
        {"model": "resnet18(stage_sizes=(1, 1, 1, 1), features=4, ghost_batch_size=1)", "batch_size": 4},
        "single value",
    ),
    "two images": ({"model": "mlp(features=(8,), norm='batch')", "batch_size": 2}, ""),
    "larger maps": ({"model": "resnet18(stage_sizes=(1,), features=4, small_images=True)", "batch_size": 1}, ""),
    "frozen statistics": (
        {"model": "mlp(features=(8,), norm='batch')", "batch_size": 1, "freeze": "^(hidden1|norm1)/"}, "",
    ),
}  # fmt: skip


class Wide(nn.Module):
    """A network that does not ask for the number of classes."""

    logits: int = 12
    aux: int = 10

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.BatchNorm(use_running_average=not train)(x.mean(axis=(1, 2)))
        if train:
            self.sow("aux_logits", "logits", jnp.tile(x[:, :1], self.aux))
        return nn.Dense(self.logits)(x)


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        ("wide", 2, r"config.model = 'wide': the network returns 12 logits; expected 10, the number of classes"),
        ("wide(logits=10, aux=1)", 2, "an auxiliary classifier of the network returns 1 logits; expected 10"),
        ("wide(logits=10)", 1, "the batch normalization 'BatchNorm_0' would see a single value"),
    ],
)
def test_a_network_of_ones_own_that_cannot_be_trained_is_named(
    model: str, size: int, message: str, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.MODELS, "wide", Variant(Wide, "", (8, 8, 1), 10, {}, params=0, macs=0))
    recipe = parse_recipe(Config(**{**SMALL, "model": model, "batch_size": size}))
    with pytest.raises(InputError, match=message):
        make_setup(recipe, data_dir=digits_dir, mesh=sharding.make_mesh(jax.devices()[:1]))


IGNORED: dict[str, tuple[dict[str, Any], str]] = {
    "seed": ({"seed": 2**32}, "config.seed = 4294967296: expected less than 4294967296, as random keys have 32 bits"),
    "weight decay": (
        {"optimizer": "plain", "weight_decay": 0.1}, "weight_decay = 0.1: the optimizer 'plain' has no parameter"
    ),
    "dtype": ({"model": "wide", "dtype": "bfloat16"}, "dtype = 'bfloat16': the network 'wide' has no field dtype"),
}  # fmt: skip


@pytest.mark.parametrize("case", IGNORED)
def test_a_new_run_has_no_setting_that_would_be_ignored(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, message = IGNORED[case]
    monkeypatch.setitem(models.MODELS, "wide", Variant(Wide, "", (8, 8, 1), 10, {}, params=0, macs=0))
    monkeypatch.setitem(optim.OPTIMIZERS, "plain", lambda: optax.identity())
    with pytest.raises(InputError, match=message):
        make_setup(parse_recipe(Config(**settings)))


@pytest.mark.parametrize("case", LONELY)
def test_batch_normalization_over_a_single_value_is_refused(case: str, digits_dir: str) -> None:
    settings, message = LONELY[case]
    recipe = parse_recipe(Config(**{**SMALL, **settings}))
    mesh = sharding.make_mesh(jax.devices()[:1])
    if message:
        with pytest.raises(InputError, match=message):
            make_setup(recipe, data_dir=digits_dir, mesh=mesh)
    else:
        make_setup(recipe, data_dir=digits_dir, mesh=mesh)


def test_a_single_class_is_said(tmp_path: pathlib.Path) -> None:
    (tmp_path / "only" / "cat").mkdir(parents=True)
    (tmp_path / "only" / "cat" / "1.png").write_bytes(encode_png(np.zeros((8, 8, 1), np.uint8)))
    build("only", str(tmp_path / "only"), str(tmp_path), log=lambda line: None)
    lines: list[str] = []
    config = Config(
        **{**SMALL, "dataset": "only", "train_split": "train", "val_split": "", "test_split": "", "batch_size": 1}
    )
    make_setup(
        parse_recipe(config), data_dir=str(tmp_path), mesh=sharding.make_mesh(jax.devices()[:1]), log=lines.append
    )
    assert "the data set has a single class, 'cat': any network scores 100 % on it" in lines
