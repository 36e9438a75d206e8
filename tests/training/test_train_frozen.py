"""Frozen parameters: they stay, bit for bit, and are trained from their time on."""

import functools
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cnnjax import optim
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.models import create_model
from cnnjax.models.normalization import BatchNorm
from cnnjax.optim import freezing
from cnnjax.state import TrainState
from tests import tiny

SMALL: dict[str, Any] = {
    "model": "mlp(features=(16, 8))",
    "test_split": "test[:64]",
    "val_split": "",
    "checkpoint_every": "1 steps",
}
run = functools.partial(tiny.run, **SMALL)

# ------------------------------------------------------------------------------------------------------------ a step


class Net(nn.Module):
    """A network with all that can be frozen."""

    norm: Any = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(nn.Dense(8, name="body")(x.reshape(x.shape[0], -1)))
        x = self.norm(use_running_average=not train, name="norm")(x)
        return nn.Dense(10, name="head")(x)


def batch_of(side: int) -> dict[str, jax.Array]:
    pixels = jax.random.normal(jax.random.key(2, impl="rbg"), (16, side, side, 3))
    return {"image": pixels, **dict.fromkeys(("label", "example", "epoch"), jnp.arange(16) % 10)}


def step_of(config: Config, model: Any = None, side: int = 4) -> tuple[TrainState, Callable]:
    """Returns a network's first state and its step, with the same batch each time."""
    key = jax.random.key(0, impl="rbg")
    state, step = tiny.first_state_and_step(config, model or Net(), (side, side, 3), key=key, epoch=1, total=9)
    return state, functools.partial(step, batch=batch_of(side), key=jax.random.key(1))


SAME = {"sgd": {}, "momentum, decay": {"optimizer": "sgd(momentum=0.9)", "weight_decay": 0.1, "decay_mask": ".*"},
        "adamw": {"optimizer": "adamw", "weight_decay": 0.1}, "ema": {"ema": 0.5}, "clipped": {"grad_clip_norm": 0.1},
        "lookahead": {"optimizer": "sgd(momentum=0.9)|lookahead(every=2)"}, "muon": {"optimizer": "muon"},
        "muon_sgd": {"optimizer": "muon_sgd"},
        "schedule_free": {"optimizer": "sgd|schedule_free"}, "sam": {"sam_rho": 0.1, "grad_accum_steps": 2},
        "lbfgs": {"optimizer": "lbfgs", "lr": 1.0}, "factors": {"lr_factors": "^head/bias:2"}}  # fmt: skip


@pytest.mark.parametrize("settings", SAME.values(), ids=SAME)
def test_what_is_frozen_stays_and_the_optimizer_knows_nothing_of_it(settings: dict[str, Any]) -> None:
    config = Config(freeze="^(?!head)", **settings)
    first, step = step_of(config)
    state, jitted = first, jax.jit(step)
    for _ in range(3):
        state, sums = jitted(state)
    before, after = tiny.by_path(first.variables), tiny.by_path(state.variables)
    for name, value in before.items():
        assert np.array_equal(after[name], value) == ("head" not in name), name
        assert (
            np.array_equal(tiny.by_path(state.params).get(name.removeprefix("params/"), value), after[name])
            or state.ema
        )
    kept = [*tiny.by_path(state.opt_state), *tiny.by_path(state.ema)]
    assert not [name for name in kept if re.search("body|norm", name)]
    assert np.isfinite(sums["loss"])
    assert bool(state.ema) == optim.parse(config).keeps_average


@pytest.mark.parametrize(
    ("settings", "rests"),
    [
        ({}, False),
        ({"freeze": "^(body|norm)"}, True),
        ({"freeze": "norm"}, True),
        ({"freeze": "^(body|norm)", "unfreeze": "norm:1 steps"}, True),
        ({"freeze": "^(body|norm)", "freeze_stats": False}, False),
        ({"freeze": "body"}, False),  # its normalisation is trained
        ({"freeze": "scale$"}, False),
    ],
)
@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm])
def test_statistics_rest_with_their_layer_unless_they_are_to_move(
    norm: Any, settings: dict[str, Any], rests: bool
) -> None:
    state, step = step_of(Config(**settings), Net(norm))
    after, sums = jax.jit(step)(state)
    same = [
        np.array_equal(a, b) for a, b in zip(*(jax.tree.leaves(s.model_state) for s in (state, after)), strict=True)
    ]
    assert same == [rests] * 2
    logits: Any = Net(norm).apply(state.variables, batch_of(4)["image"], train=False)
    evaluated = -float(jax.nn.log_softmax(logits)[jnp.arange(16), jnp.arange(16) % 10].sum())
    assert (float(sums["loss"]) == pytest.approx(evaluated, rel=1e-5)) == rests


def test_statistics_of_flax_layers_rest_until_their_time() -> None:
    state, step = step_of(Config(freeze="^(body|norm)", unfreeze="norm:1 steps"), Net(nn.BatchNorm))
    unfreeze_steps = freezing.unfreeze_steps(
        freezing.parse_freezing("norm", "norm:1 steps", True), state.params, epoch=1, total=9
    )
    jitted = jax.jit(functools.partial(step, unfreeze_steps=unfreeze_steps))
    before, (during, _) = state, jitted(state)
    after, _ = jitted(during)
    for name, value in tiny.by_path(before.model_state).items():
        assert np.array_equal(tiny.by_path(during.model_state)[name], value)
        assert not np.array_equal(tiny.by_path(after.model_state)[name], value)


@pytest.mark.parametrize(("freeze", "rests"), [("body|norm", True), ("body", False)])
def test_a_norm_without_parameters_rests_if_it_is_named(freeze: str, rests: bool) -> None:
    norm = functools.partial(nn.BatchNorm, use_scale=False, use_bias=False)
    state, step = step_of(Config(freeze=freeze), Net(norm))
    after, _ = jax.jit(step)(state)
    for a, b in zip(*map(jax.tree.leaves, (state.model_state, after.model_state)), strict=True):
        assert np.array_equal(a, b) == rests


@pytest.mark.parametrize("options", ["", ", scan=True", ", remat=True, shortcut='B'"])
def test_statistics_rest_in_every_form_of_a_block(options: str) -> None:
    model = create_model(f"cifar_resnet20(depth=14{options})", 10)
    state, step = step_of(Config(freeze="^(?!head|stage3)"), model, side=8)
    after, _ = jax.jit(step)(state)
    before, now = tiny.by_path(state.model_state), tiny.by_path(after.model_state)
    moved = {name for name in before if not np.array_equal(before[name], now[name])}
    assert moved == {name for name in before if "stage3" in name}


@pytest.mark.parametrize("options", ["", ", scan=True", ", remat=True"])
def test_statistics_move_once_their_layer_is_trained(options: str) -> None:
    """As if they had not rested from then on: by the batch, which the loss shows, too."""
    model = create_model(f"cifar_resnet20(depth=14{options})", 10)
    config = Config(freeze="^(?!head|stage3)", unfreeze="^stage2:2 steps", lr=0.0)
    state, step = step_of(config, model, side=8)
    unfreeze_steps = freezing.unfreeze_steps(optim.parse(config).freezing, state.params, epoch=1, total=9)
    jitted = jax.jit(functools.partial(step, unfreeze_steps=unfreeze_steps))
    losses = []
    for number in (1, 2, 3, 4):
        before = tiny.by_path(state.model_state)
        state, sums = jitted(state)
        now = tiny.by_path(state.model_state)
        moved = {name for name in before if not np.array_equal(before[name], now[name])}
        assert moved == {name for name in before if re.search("stage3" if number < 3 else "stage[23]", name)}, number
        losses.append(float(sums["loss"]))
    assert losses[0] == losses[1] != losses[2] == losses[3]
    state, step = step_of(Config(freeze="^(?!head|stage[23])", lr=0.0), model, side=8)
    _, sums = jax.jit(step)(state)
    assert losses[2] == pytest.approx(float(sums["loss"]), rel=1e-5)


def test_a_frozen_trunk_costs_a_forward_pass_and_no_more() -> None:
    model = create_model("mlp(features=(256, 256, 256))", 10)

    def flops(function: Callable, *args: Any) -> float:
        costs: Any = jax.jit(function).lower(*args).cost_analysis()
        return costs["flops"]

    states = [step_of(Config(freeze=pattern), model, side=16) for pattern in ("", "hidden[12]", "hidden")]
    whole, last, head = (flops(step, state) for state, step in states)
    forward = flops(functools.partial(model.apply, train=False), states[0][0].variables, batch_of(16)["image"])
    assert whole > 2.5 * forward  # the images themselves have no gradient
    assert head < 1.2 * forward < last < 0.7 * whole


@pytest.mark.parametrize("name", ["momentum, decay", "adamw", "lookahead", "schedule_free", "muon", "sam"])
def test_a_parameter_is_trained_from_its_time_on(name: str) -> None:
    config = Config(freeze="^(?!head)", unfreeze="norm:2 steps body:3 steps .*:5 steps", **SAME[name])
    first, step = step_of(config)
    unfreeze_steps = freezing.unfreeze_steps(optim.parse(config).freezing, first.params, epoch=1, total=9)
    assert unfreeze_steps == {"norm/scale": 2, "norm/bias": 2, "body/kernel": 3, "body/bias": 3}
    state, jitted = first, jax.jit(functools.partial(step, unfreeze_steps=unfreeze_steps))
    for number in range(1, 5):
        state, _ = jitted(state)
        before, after = tiny.by_path(first.params), tiny.by_path(state.params)
        moved = {path for path in before if not np.array_equal(before[path], after[path])}
        assert moved == {path for path in before if unfreeze_steps.get(path, 0) < number}, number


@pytest.mark.parametrize("settings", [{"grad_clip_norm": 0.1}, {"sam_rho": 0.5}])
def test_what_waits_does_not_count_in_the_norm_of_the_gradient(settings: dict[str, Any]) -> None:
    """A step with parameters that wait is that with parameters that stay frozen."""
    heads = []
    for unfreeze in ("", ".*:5 steps"):
        config = Config(freeze="^(?!head)", unfreeze=unfreeze, **settings)
        state, step = step_of(config)
        steps = freezing.unfreeze_steps(optim.parse(config).freezing, state.params, epoch=1, total=9)
        state, _ = jax.jit(functools.partial(step, unfreeze_steps=steps))(state)
        heads.append(state.params["head"]["kernel"])
    np.testing.assert_allclose(*heads, rtol=1e-5)


# -------------------------------------------------------------------------------------------------------------- runs

WAITING: dict[str, Any] = {"freeze": "hidden", "unfreeze": "hidden2:3 steps hidden1:75%", "ema": 0.9,
                           "optimizer": "adamw", "weight_decay": 0.01}  # fmt: skip


RESTING = {"model": "mlp(features=(16, 8), norm='batch')", "freeze": "hidden|norm",
           "unfreeze": "(hidden|norm)2:3 steps (hidden|norm)1:75%"}  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [
        WAITING,
        WAITING | {"steps_per_call": 3, "optimizer": "adam|lookahead", "ema": 0.0},
        WAITING | RESTING,
        WAITING | RESTING | {"steps_per_call": 3},
    ],
)
def test_a_run_that_goes_on_while_parameters_wait_ends_with_the_same_bits(
    changes: dict[str, Any], digits_dir: str, tmp_path: pathlib.Path
) -> None:
    expected = run(tmp_path / "whole", digits_dir, **changes)
    shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    for step in range(3, 9):
        shutil.rmtree(tmp_path / "cut" / "checkpoints" / f"{step:08d}")  # as if killed after step 2 was saved
    got = run(tmp_path / "cut", digits_dir, **changes)
    bits = [tiny.digest(tmp_path / "whole", step) for step in (2, 3, 4, 6, 7, 8)]
    assert tiny.digest(tmp_path / "cut", 8) == bits[-1]
    assert got["loss"] == expected["loss"]
    times = [{step: of[f"params/{name}/kernel"] for step, of in zip((2, 3, 4, 6, 7, 8), bits, strict=True)}
             for name in ("hidden1", "hidden2", "output")]  # fmt: skip
    one, two, out = times
    assert one[2] == one[6] != one[7]
    assert two[2] == two[3] != two[4]
    assert out[2] != out[3]


@pytest.mark.parametrize("changes", [{"zero_1": True}, {"mesh": "data=4,model=2"}])
def test_eight_devices_freeze_as_one_does(changes: dict[str, Any], digits_dir: str, tmp_path: pathlib.Path) -> None:
    wide = {**WAITING, "checkpoint_every": "8 steps", "freeze": "hidden1", "unfreeze": ""}
    for name, devices, more in (("one", 1, {}), ("eight", 8, changes)):
        lines: list[str] = []
        run(tmp_path / name, digits_dir, devices, lines, **wide, **more)
        assert "1,266 parameters (226 of them trained), 96 images" in "".join(lines)
    one, eight = tiny.eval_variables(tmp_path / "one"), tiny.eval_variables(tmp_path / "eight")
    for path, value in one.items():
        if "hidden1" in path:
            assert np.array_equal(eight[path], value)
        np.testing.assert_allclose(eight[path], value, rtol=1e-4, atol=1e-6, err_msg=path)
    trained, saved = (
        {name for name in tiny.digest(tmp_path / "eight", 8) if part in name} for part in ("opt_state", "params/")
    )
    assert not [name for name in trained if "hidden1" in name]
    assert "params/hidden1/kernel" in saved


def test_what_is_frozen_is_evaluated_from_the_run_alone(digits_dir: str, tmp_path: pathlib.Path) -> None:
    result = run(tmp_path / "run", digits_dir, freeze="hidden", ema=0.5)
    assert evaluate(tmp_path / "run", data_dir=digits_dir, log=pytest.fail)["loss"] == pytest.approx(result["loss"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"freeze": "conv"}, "config.freeze = 'conv' matches no parameter; there are hidden1/bias, hidden1/kernel, "
                             "hidden2/bias, ..., output/kernel"),
        ({"freeze": "."}, "config.freeze = '.' leaves no parameter to train; there are hidden1/bias, "),
        ({"freeze": "("}, "'(' is not a regular expression: "),
        ({"unfreeze": "hidden:1 epochs"}, "config.unfreeze = 'hidden:1 epochs': nothing is frozen; give config"),
        ({"freeze_stats": False}, "config.freeze_stats = False: nothing is frozen; give config.freeze"),
        ({"freeze": "hidden", "unfreeze": "hidden1"}, "config.unfreeze: 'hidden1': expected PATTERN:DURATION, as"),
        ({"freeze": "hidden", "unfreeze": "hidden1:soon"}, "'soon' is not a duration; expected '15 epochs', "),
        ({"freeze": "hidden", "unfreeze": "output:1 epochs"}, "config.unfreeze: 'output' matches no frozen parameter; "
                                                              "there are hidden1/bias, hidden1/kernel, hidden2/bias"),
        ({"freeze": "hidden1", "unfreeze": ".:1%", "optimizer": "lbfgs"}, "config.unfreeze does not work with lbfgs"),
        ({"freeze": "hidden", "lr_factors": "hidden1:2"}, "'hidden1' matches no parameter that is trained; one is '"),
        ({"init_partial": True}, "config.init_partial = True: there is nothing to initialize from; give config.init"),
        ({"init_match": "order"}, "config.init_match = 'order': there is nothing to initialize from; give config.init"),
    ],
)  # fmt: skip
def test_what_cannot_be_frozen_is_named(
    changes: dict[str, Any], message: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(tmp_path / "run", digits_dir, **changes)
    assert not (tmp_path / "run").exists()
