"""Meshes as a person writes them, what is divided over them, and what the compiled step says to other devices."""

import functools
import math
import re
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from cnnjax import augment, optim
from cnnjax.config import Config
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.models import MODELS, create_model, network
from cnnjax.ops.convolution import convolution
from cnnjax.state import path_name
from cnnjax.training.init import init_state
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.step import train_step
from tests import tiny

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


def collectives(text: str) -> list[tuple[str, tuple[int, ...]]]:
    """Of each array that a collective of an optimised HLO gives: its shape, and the collective's name."""
    found = re.findall(rf"= (.+?) ({'|'.join(COLLECTIVES)})(?:-start)?\(", text)
    each = [(name, shape) for results, name in found for shape in re.findall(r"\w\[([\d,]*)\]", results)]
    return [(name, tuple(map(int, filter(None, shape.split(","))))) for name, shape in each]


# ------------------------------------------------------------------------------------------------------------- meshes


@pytest.mark.parametrize(
    ("text", "devices", "shape"),
    [
        ("", 8, (8, 1)),
        ("", 1, (1, 1)),
        ("data=8", 8, (8, 1)),
        ("data=4,model=2", 8, (4, 2)),
        (" model = 2, data = 4 ", 8, (4, 2)),
        ("model=2", 2, (1, 2)),
    ],
)
def test_a_mesh_has_the_sizes_it_names(text: str, devices: int, shape: tuple[int, int]) -> None:
    mesh = sharding.make_mesh(jax.devices()[:devices], text)
    assert dict(mesh.shape) == dict(zip(("data", "model"), shape, strict=True))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data=4", "config.mesh = 'data=4' is for 4 devices, but there are 8: use 'data=8'"),
        ("data=8,model=2", "config.mesh = 'data=8,model=2' is for 16 devices, but there are 8: use 'data=4,model=2'"),
        ("model=3", "config.mesh = 'model=3' is for 3 devices, but there are 8: use 'data=8'"),
        ("dta=8", "config.mesh = 'dta=8': unknown axis 'dta'; did you mean 'data'? valid: data, model"),
        ("8", "config.mesh = '8': unknown axis '8'; valid: data, model"),
        ("data=4,data=2", "expected each axis once, with its size, as in 'data=4,model=2'"),
        ("data=0", "config.mesh = 'data=0': expected each axis once, with its size"),
        ("data=-8", "expected each axis once, with its size"),
        ("data=8,", "config.mesh = 'data=8,': unknown axis ''"),
    ],
)
def test_what_is_no_mesh_is_one_line(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)) as error:
        sharding.make_mesh(jax.devices(), text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("text", "rows"), [("", 8), ("data=4,model=2", 4), ("data=1,model=8", 1)])
def test_a_process_reads_the_rows_of_its_devices(text: str, rows: int) -> None:
    mesh = sharding.make_mesh(jax.devices(), text)
    assert sharding.local_rows(mesh, 16).tolist() == list(range(16))  # one process has them all
    held = sharding.put_batch(mesh, np.arange(16, dtype=np.int32))
    assert held.sharding.shard_shape(held.shape) == (16 // rows,)
    assert held.tolist() == list(range(16))


# -------------------------------------------------------------------------------------------------------------- rules


def state_of(model: str, shape: tuple[int, ...], classes: int, **settings: Any) -> tuple[Any, dict[str, Any]]:
    """The shapes of a run's state, and what `train_step` needs beside it."""
    config = Config(model=model, optimizer="sgd(momentum=0.9)", ema=0.9, **settings)
    recipe = parse_recipe(config)
    parts: dict[str, Any] = {
        "recipe": recipe,
        "model": create_model(model, classes),
        "schedule": optim.build_schedule(recipe.optim, 10, 100),
    }
    init = functools.partial(init_state, shape=shape, **parts)
    return init, parts


# Parameters, and those in the kernels and biases of RULES, which each of two devices along `model` has half of.
DIVIDED = {
    "alexnet": (60_965_224, 9216 * 4096 + 4096 + 4096**2 + 4096 * 1000 + 1000),
    "zfnet": (62_357_608, 9216 * 4096 + 4096 + 4096**2 + 4096 * 1000 + 1000),
    "vgg16": (138_357_544, 7 * 7 * 512 * 4096 + 4096 + 4096**2 + 4096 * 1000 + 1000),
    "deep_mlp": (12_115_010, 841 * 2500 + 2500 + 2500 * 2000 + 2000 * 1500 + 1500 + 1500 * 1000 + 1000 * 500 + 500),
}


@pytest.mark.parametrize("model", DIVIDED)
def test_each_device_holds_what_the_rules_say(model: str) -> None:
    init, _ = state_of(model, MODELS[model].input_shape, MODELS[model].num_classes)
    state, mesh = jax.eval_shape(init, jax.random.key(0)), sharding.make_mesh(text="data=4,model=2")
    held = sharding.with_sharding(state, sharding.state_sharding(state, mesh))
    total, divided = DIVIDED[model]
    expected = 4 * (total - divided // 2)
    assert sharding.local_bytes(held.params) == sharding.local_bytes(held.ema) == expected
    assert sharding.local_bytes(held.opt_state) == expected + 4  # and the step, of the schedule


@pytest.mark.parametrize(("mesh", "whole"), [("data=8", 0), ("data=4,model=2", (4096 + 1000) // 2)])
def test_zero_divides_the_optimizers_state_and_nothing_else(mesh: str, whole: int) -> None:
    """All of VGG-16's momentum, but for biases that are divided along `model` already."""
    init, _ = state_of("vgg16", (224, 224, 3), 1000)
    state, on = jax.eval_shape(init, jax.random.key(0)), sharding.make_mesh(jax.devices(), mesh)
    plain, zero = (sharding.with_sharding(state, sharding.state_sharding(state, on, zero)) for zero in (False, True))
    assert sharding.local_bytes(zero.params) == sharding.local_bytes(plain.params) == sharding.local_bytes(zero.ema)
    momentum = sharding.local_bytes(plain.opt_state) - 4
    assert sharding.local_bytes(zero.opt_state) - 4 == (momentum - 4 * whole) // on.shape["data"] + 4 * whole


@pytest.mark.parametrize(
    ("model", "mesh", "specs"),
    [
        ("vgg11", "data=4,model=2", {"fc6": (None, "model"), "fc7": ("model", None), "fc8": (None, "model")}),
        (
            "vgg11",
            "data=1,model=8",
            {"fc6": (None, "model"), "fc7": ("model", None), "fc8": (None, None)},
        ),  # 10 classes
        ("vgg11", "data=8", {"fc6": (None, None), "fc7": (None, None), "fc8": (None, None)}),
    ],
)
def test_layers_are_divided_by_outputs_and_inputs_in_turns(model: str, mesh: str, specs: dict[str, tuple]) -> None:
    init, _ = state_of(model, (224, 224, 3), 10)
    where = sharding.state_sharding(jax.eval_shape(init, jax.random.key(0)), sharding.make_mesh(jax.devices(), mesh))
    for params in (where.params, where.ema, where.opt_state[1][1].trace):
        assert {name: params[name]["kernel"].spec for name in specs} == {
            name: PartitionSpec(*spec) for name, spec in specs.items()
        }
        assert params["conv1_1"]["conv"]["kernel"].is_fully_replicated
    assert where.step.is_fully_replicated


@pytest.mark.parametrize(("model", "mesh"), [("resnet18", "data=4,model=2"), ("mlp(features=(15,))", "data=1,model=8")])
def test_a_mesh_that_divides_nothing_is_an_error(model: str, mesh: str) -> None:
    init, _ = state_of(model, (32, 32, 3), 10)
    shapes = jax.eval_shape(init, jax.random.key(0))
    with pytest.raises(InputError, match=r"config\.mesh has model=[28], but no layer of this network .* use 'data=8'"):
        sharding.state_sharding(shapes, sharding.make_mesh(jax.devices(), mesh))


# -------------------------------------------------------------------------------------------------- the compiled step


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fully connected layers of 64 features in place of 4096."""
    fc_head = functools.partialmethod(network.Network.fc_head, features=(64, 64))
    monkeypatch.setattr(network.Network, "fc_head", fc_head)


NARROW = {  # with last maps of 2x2x16
    "vgg": ("vgg11(stage_sizes=(1, 1, 1, 1, 1), features=(8, 8, 8, 8, 16))", 64),
    "alexnet": ("alexnet(features=(8, 8, 8, 8, 16), hidden=(64, 64), initializer='he')", 99),
}


def stepped(name: str, text: str, devices: int = 8, **settings: Any) -> tuple[str, int, list[dict[str, np.ndarray]]]:
    """On a mesh: a narrow network's HLO, bytes of parameters on a device, and the loss and state after each step."""
    model, side = NARROW[name]
    init, parts = state_of(model, (side, side, 3), 10, lr=0.01, **settings)
    mesh = sharding.make_mesh(jax.devices()[:devices], text)
    whole, rows, key = sharding.replicated(mesh), sharding.batch_sharding(mesh), jax.random.key(0, impl="rbg")
    where = sharding.state_sharding(jax.eval_shape(init, key), mesh, parts["recipe"].config.zero_1)
    state = jax.jit(init, out_shardings=where)(key)
    rng = np.random.default_rng(0)
    batch: dict[str, Any] = {name: np.arange(8, dtype=np.int32) for name in ("label", "example", "epoch")}
    batch["image"] = rng.normal(size=(8, side, side, 3)).astype(np.float32)
    batch = {name: sharding.put_batch(mesh, array) for name, array in batch.items()}
    step = functools.partial(train_step, prepare=tiny.keep_images, mix=augment.build_mixing([], 10), **parts)
    step = jax.jit(step, in_shardings=(where, rows, whole), out_shardings=(where, whole), donate_argnums=0)
    compiled, seen = step.lower(state, batch, key).compile(), []
    held = sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(state.params))
    for _ in range(3):
        state, sums = compiled(state, batch, key)
        seen.append({path_name(path): np.asarray(x) for path, x in jax.tree_util.tree_leaves_with_path((sums, state))})
    return compiled.as_text() or "", held, seen


@pytest.mark.parametrize("name", NARROW)
def test_a_divided_step_is_that_of_one_device_and_gathers_no_matrix(name: str, narrow: None) -> None:
    _, whole, one = stepped(name, "", 1)
    fc6, fc7, fc8 = 4 * (64 * 64 + 64), 4 * 64 * 64, 4 * (64 * 10 + 10)
    text, held, divided = stepped(name, "data=4,model=2")
    assert held == whole - (fc6 + fc7 + fc8) // 2
    # All is sums, but for the maps that XLA gathers to compute a convolution in groups.
    assert {len(shape) for name, shape in collectives(text) if name != "all-reduce"} <= {4}
    zero = stepped(name, "data=4,model=2", zero_1=True)[2]
    for step, others in enumerate(zip(one, divided, zero, strict=True)):
        for key, want in others[0].items():
            for got in (other[key] for other in others[1:]):
                np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max() + 1e-7, err_msg=f"{step}: {key}")


def test_between_devices_along_model_go_maps_alone(narrow: None) -> None:
    text, held, _ = stepped("vgg", "data=1,model=8")
    assert held == stepped("vgg", "data=8")[1] - 7 * 4 * (64 * 64 + 64 + 64 * 64) // 8
    found = collectives(text)
    assert {name for name, _ in found} == {"all-reduce"}
    assert (
        max(math.prod(shape) for _, shape in found) == 8 * 64
    )  # a batch's maps, which are sums of products with parts of a matrix


@pytest.mark.parametrize(
    ("groups", "strides", "padding", "dilation"),
    [
        (1, (1, 1), ((2, 2), (2, 2)), (1, 1)),
        (2, (1, 1), ((2, 2), (2, 2)), (1, 1)),
        (2, (2, 3), ((1, 0), (2, 1)), (1, 1)),
        (4, (1, 2), ((2, 2), (0, 3)), (2, 1)),
        (8, (2, 2), ((0, -1), (1, 1)), (1, 2)),
    ],
)
@pytest.mark.parametrize("mesh", ["data=8", "data=4,model=2"])
def test_the_gradients_of_a_convolution_are_those_of_one_device(
    mesh: str, groups: int, strides: tuple, padding: tuple, dilation: tuple
) -> None:
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=size).astype(np.float32) for size in ((8, 11, 12, 8), (3, 2, 8 // groups, 16)))

    def loss(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return (convolution(x, kernel, strides, padding, dilation, groups) ** 2).sum()

    gradients = jax.grad(loss, (0, 1))
    on = sharding.make_mesh(jax.devices(), mesh)
    rows, whole = sharding.batch_sharding(on), sharding.replicated(on)
    divided = jax.jit(gradients, in_shardings=(rows, whole), out_shardings=(rows, whole))
    for got, want in zip(divided(x, kernel), jax.jit(gradients)(x, kernel), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
