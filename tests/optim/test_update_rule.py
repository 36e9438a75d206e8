"""The complete update rule: masks, factors, wrappers, SAM, and what is refused."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import augment, optim
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.state import TrainState
from cnnjax.training.init import init_state
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.step import train_step
from tests.optim.reference import LR, PARAMS, apply, params, run

SETTINGS: list[dict[str, Any]] = [
    *({"optimizer": name} for name in optim.OPTIMIZERS if name != "lbfgs"),
    {"optimizer": "lbfgs", "lr": 1.0, "weight_decay": 1e-3},
    *({"optimizer": f"sgd|{name}", "lr": 0.1} for name in optim.WRAPPERS),
    {"sam_rho": 0.05, "grad_accum_steps": 2, "lr": 0.1},
]


def step_of(config: Config, batch: dict, shape: tuple[int, ...] = (4, 4, 1)) -> tuple[TrainState, Callable]:
    """Returns the first state of a small network, and its step on a fixed batch."""
    model, recipe = create_model("mlp(features=(8,))", 10), parse_recipe(config)
    parts: dict[str, Any] = {"recipe": recipe, "model": model, "schedule": optim.build_schedule(recipe.optim, 1, 100)}
    seen = {"prepare": lambda key, x, *_: x, "mix": augment.build_mixing([], 10)}
    step = functools.partial(train_step, key=jax.random.key(1), **seen, **parts)
    state = init_state(jax.random.key(0, impl="rbg"), shape=shape, **parts)
    return state, lambda state: step(state, batch)


def some_batch() -> dict[str, jax.Array]:
    images = jax.random.normal(jax.random.key(2, impl="rbg"), (16, 4, 4, 1))
    return {"image": images, **dict.fromkeys(("label", "example", "epoch"), jnp.arange(16) % 10)}


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: settings.get("optimizer", "sam"))
def test_a_network_learns_a_batch_and_its_state_keeps_its_form(settings: dict[str, Any]) -> None:
    config = Config(**{"lr": 10.0 if settings.get("optimizer") == "lars" else 0.01, **settings})
    state, step = step_of(config, some_batch())
    compiled: Any = jax.jit(step)
    losses = []
    for _ in range(20):
        state, sums = compiled(state)
        losses.append(float(sums["loss"]))
    assert losses[-1] < 0.95 * losses[0]
    assert compiled._cache_size() == 1  # for the state has the same types after a step


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("kernel$", {"conv/kernel"}),
        (".*", {"conv/kernel", "conv/bias", "norm/scale"}),
        ("^conv/", {"conv/kernel", "conv/bias"}),
        ("bias|scale", {"conv/bias", "norm/scale"}),
    ],
)
def test_only_parameters_whose_path_matches_decay(pattern: str, matches: set[str]) -> None:
    mask = optim.path_mask(pattern, params())
    paths = {f"{group}/{name}": value for group, values in mask.items() for name, value in values.items()}
    assert {path for path, value in paths.items() if value} == matches
    plain, decayed = (run(Config(decay_mask=pattern, weight_decay=wd), steps=1) for wd in (0.0, 0.1))
    changed = {name for name in plain if not np.array_equal(plain[name], decayed[name])}
    assert changed == {path.partition("/")[2] for path in matches}


@pytest.mark.parametrize("optimizer", ["sgd(momentum=0.9, nesterov=True)", "adamw"])
def test_a_factor_scales_the_rate_and_leaves_the_decay(optimizer: str) -> None:
    settings: dict[str, Any] = {"optimizer": optimizer, "lr": LR, "decay_mask": ".*"}
    factors = "norm/:0 bias$:3 .*:1"  # the first that matches counts

    def moved(**more: Any) -> dict[str, np.ndarray]:
        start = {name: np.array(value) for group in PARAMS.values() for name, value in group.items()}
        end = run(Config(**settings, **more), steps=1)
        return {name: end[name] - start[name] for name in start}

    plain, scaled = moved(), moved(lr_factors=factors)
    for name, factor in {"kernel": 1, "bias": 3, "scale": 0}.items():
        np.testing.assert_allclose(scaled[name], factor * plain[name], rtol=1e-5, atol=1e-7)
    decayed, both = moved(weight_decay=0.01), moved(weight_decay=0.01, lr_factors=factors)
    np.testing.assert_allclose(both["kernel"], decayed["kernel"], rtol=1e-6)
    np.testing.assert_allclose(both["bias"] - scaled["bias"], decayed["bias"] - plain["bias"], rtol=1e-3)
    assert not both["scale"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr_factors": "bias$"}, "config.lr_factors: 'bias$': expected PATTERN:FACTOR, as in 'bias$:2'"),
        ({"lr_factors": "bias$:-1"}, "'bias$:-1': expected PATTERN:FACTOR"),
        ({"lr_factors": "kernal:2"}, "'kernal' matches no parameter"),
        (
            {"weight_decay": 0.1, "decay_mask": "kernels"},
            "'kernels' matches no parameter that is trained; one is 'conv/bias'",
        ),
        ({"weight_decay": 0.1, "decay_mask": "("}, "'(' is not a regular expression"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; did you mean 'sgd'?"),
        ({"optimizer": "sgd(decay=1)"}, "optimizer 'sgd' has no argument 'decay'"),
        ({"optimizer": ""}, "'' is not a call string"),
        ({"optimizer": "sgd|lookahed"}, "unknown wrapper 'lookahed'; did you mean 'lookahead'?"),
        ({"optimizer": "lookahead"}, "unknown optimizer 'lookahead'"),
        ({"optimizer": "sgd|lookahead(every=0)"}, "every = 0: expected int of 1 to 1,000,000"),
        ({"optimizer": "sgd|schedule_free(b1=0.0)"}, "b1 = 0.0: expected float of more than 0 and at most 1"),
        ({"optimizer": "sgd|lookahead|schedule_free"}, "expected an optimizer and one wrapper at most"),
        ({"schedule": "exponential(0.0)"}, "factor = 0.0: expected float of more than 0 and at most 1"),
        ({"schedule": "exponential(every='0 steps')"}, "every = '0 steps': expected"),
        ({"schedule": "plateau(factor=2.0)"}, "factor = 2.0: expected float of 0 to 1"),
        ({"schedule": "plateau(patience=-1)"}, "patience = -1: expected int of 0 to 1,000,000"),
        ({"schedule": "plateau(metric='acuracy')"}, "unknown metric 'acuracy'; did you mean 'accuracy'?"),
        ({"optimizer": "sgd(nesterov=True)"}, "nesterov=True needs a momentum"),
        ({"schedule": "plateau(metric='losss')"}, "unknown metric 'losss'; did you mean 'loss'?"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ({"schedule": "piecewise"}, "missing a required argument: 'at'"),
        ({"schedule": "piecewise(('5 epchs',))"}, "'5 epchs' is not a duration"),
        ({"schedule": "piecewise((32000, 48000))"}, "at = (32000, 48000): expected list of str"),
        ({"schedule": "piecewise('50%', '75%')"}, "factor = '75%': expected float"),
        ({"optimizer": "sgd(momentum='0.9')"}, "momentum = '0.9': expected float"),
        ({"schedule": "one_cycle(peak='100%')"}, "its peak at '100%' (step 1000000) is not before the end"),
    ],
)
def test_what_does_not_exist_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(Config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "plateau", "val_split": ""}, "plateau monitors the validation split: give config.val_split"),
        ({"early_stop": "early_stop", "val_split": ""}, "early_stop monitors the validation split"),
        ({"early_stop": "early_stop(patience=0)"}, "patience = 0: expected int of 1 to 1,000,000"),
        ({"early_stop": "stop_early"}, "unknown early_stop 'stop_early'"),
        ({"optimizer": "sgd|schedule_free", "ema": 0.9}, "config.ema = 0.9: schedule_free has an average of its own"),
        ({"optimizer": "sgd(0.9)|schedule_free"}, "schedule_free replaces momentum: use sgd(momentum=0.0)"),
        ({"optimizer": "adamw|schedule_free"}, "schedule_free replaces momentum: use adamw(b1=0.0)"),
        (
            {"optimizer": "muon_sgd(0.0)|schedule_free"},
            "schedule_free replaces momentum: use muon_sgd(sgd_momentum=0.0)",
        ),
        ({"optimizer": "lbfgs", "sam_rho": 0.1}, "config.sam_rho does not work with lbfgs"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        parse_recipe(Config(**{"val_split": "test", **settings}))


def followed(optimizer: str, steps: int) -> list[tuple[float, float]]:
    """Returns (parameter, evaluated average) after each step on the loss p^2 / 2, from p = 1 at rates 0.1, 0.2, ..."""
    p = {"kernel": jnp.ones(1)}
    tx = optim.build(optim.parse(Config(optimizer=optimizer)), p, lambda count: 0.1 * (count + 1))
    state, taken = tx.init(p), []
    for _ in range(steps):
        updates, state = tx.update(p, state, p)
        p = apply(p, updates)
        taken.append((float(p["kernel"][0]), float(optim.eval_params(state, p)["kernel"][0])))
    return taken


def test_lookahead_is_its_algorithm() -> None:
    fast = slow = 1.0
    expected = []
    for t in range(1, 8):
        fast -= 0.1 * t * fast
        if t % 3 == 0:
            fast = slow = slow + 0.25 * (fast - slow)
        expected.append((fast, slow))
    np.testing.assert_allclose(followed("sgd|lookahead(every=3, share=0.25)", 7), expected, rtol=1e-5)


def test_schedule_free_is_its_algorithm() -> None:
    x = z = 1.0
    total, expected = 0.0, []
    for t in range(1, 8):
        y = 0.2 * z + 0.8 * x
        z -= 0.1 * t * y
        total += (0.1 * t) ** 2
        x += (0.1 * t) ** 2 / total * (z - x)
        expected.append((0.2 * z + 0.8 * x, x))
    np.testing.assert_allclose(followed("sgd|schedule_free(b1=0.8)", 7), expected, rtol=1e-5)


@pytest.mark.parametrize("wrapper", optim.WRAPPERS)
def test_what_a_wrapper_averages_is_evaluated(wrapper: str) -> None:
    config = Config(optimizer=f"sgd|{wrapper}")
    assert optim.parse(config).keeps_average
    state, step = step_of(config, some_batch())
    state, _ = step(state)
    evaluated, expected = state.variables["params"], optim.eval_params(state.opt_state, state.params)
    jax.tree.map(np.testing.assert_array_equal, evaluated, expected)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), evaluated, state.params)))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_sam_takes_the_gradient_at_the_worst_point_near_by(accumulate: int) -> None:
    batch = some_batch()
    config = Config(optimizer="sgd", lr=0.5, sam_rho=0.3, grad_accum_steps=accumulate)
    state, step = step_of(config, batch)
    after, sums = step(state)
    model = create_model("mlp(features=(8,))", 10)

    def loss(params: Any) -> jax.Array:
        logits: Any = model.apply({"params": params}, batch["image"], train=True)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]).mean()

    first = jax.grad(loss)(state.params)
    norm = np.sqrt(sum(float((g**2).sum()) for g in jax.tree.leaves(first)))
    worst = jax.tree.map(lambda p, g: p + 0.3 / norm * g, state.params, first)
    expected = jax.tree.map(lambda p, g: p - 0.5 * g, state.params, jax.grad(loss)(worst))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), after.params, expected)
    assert float(sums["loss"]) / 16 == pytest.approx(float(loss(state.params)), rel=1e-5)
