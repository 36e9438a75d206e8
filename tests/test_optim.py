"""Update rules against PyTorch's or their papers', written out in NumPy; schedules against numbers written by hand."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import optim
from cnnjax.config import Config
from cnnjax.errors import InputError

PARAMS = {"conv": {"kernel": [[1.0, -2.0], [0.5, 3.0]], "bias": [0.3, -0.7]}, "norm": {"scale": [1.5, 0.25]}}
LR = 0.1


def params() -> Any:
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), PARAMS, is_leaf=lambda x: isinstance(x, list))


def apply(p: Any, updates: Any) -> Any:
    return optax.apply_updates(p, updates)


def gradient(step: int, name: str, p: np.ndarray) -> np.ndarray:
    """Something that differs from step to step and depends on the parameters."""
    return (np.sin(step + len(name)) + 0.5 * p).astype(np.float32)


def run(config: Config, steps: int = 5) -> dict[str, np.ndarray]:
    p = params()
    tx = optim.build(config, p, optim.build_schedule(config, epoch=1, total=10))
    state = tx.init(p)
    for step in range(steps):
        grads = jax.tree_util.tree_map_with_path(
            lambda path, x, step=step: jnp.array(gradient(step, path[-1].key, np.asarray(x))), p
        )
        updates, state = tx.update(grads, state, p)
        p = apply(p, updates)
    return {"kernel": p["conv"]["kernel"], "bias": p["conv"]["bias"], "scale": p["norm"]["scale"]}


# The rules, as torch.optim or their papers have them: (p, g, memory, t, weight decay) -> p. t counts from 1.
def sgd(momentum: float = 0.0, nesterov: bool = False) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        g = g + wd * p
        memory["v"] = v = momentum * memory["v"] + g if "v" in memory else g
        return p - LR * (g + momentum * v if nesterov else v)

    return rule


def adam(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8, decoupled: bool = False) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        if decoupled:
            p = p - LR * wd * p
        else:
            g = g + wd * p
        memory["m"] = m = b1 * memory.get("m", 0) + (1 - b1) * g
        memory["s"] = s = b2 * memory.get("s", 0) + (1 - b2) * g**2
        return p - LR * (m / (1 - b1**t)) / (np.sqrt(s / (1 - b2**t)) + eps)

    return rule


def lars(momentum: float = 0.9, nesterov: bool = False, trust: float = 0.001) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        d = g + wd * p
        rate = trust * np.linalg.norm(p) / np.linalg.norm(d) if p.ndim > 1 else 1.0
        return sgd(momentum, nesterov)(p, rate * d, memory, t, 0.0)

    return rule


def lamb(b1: float = 0.9, b2: float = 0.999, eps: float = 1e-6) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        r = (p - adam(b1, b2, eps)(p, g, memory, t, 0.0)) / LR + wd * p
        return p - LR * r * (np.linalg.norm(p) / np.linalg.norm(r) if p.ndim > 1 else 1.0)

    return rule


RULES = {
    "sgd": sgd(),
    "sgd(momentum=0.9)": sgd(0.9),
    "sgd(0.9, nesterov=True)": sgd(0.9, True),
    "adam": adam(),
    "adam(b1=0.8, b2=0.9, eps=0.1)": adam(0.8, 0.9, 0.1),
    "adamw": adam(decoupled=True),
    "adamw(eps=0.1)": adam(eps=0.1, decoupled=True),
    "lars": lars(),
    "lars(momentum=0.8, nesterov=True, trust=0.1)": lars(0.8, True, 0.1),
    "lamb": lamb(),
    "lamb(b1=0.8, b2=0.9, eps=0.1)": lamb(0.8, 0.9, 0.1),
}


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", RULES)
def test_five_steps_are_those_of_their_definition(optimizer: str, decay: float, clip: float) -> None:
    got = run(Config(optimizer=optimizer, lr=LR, weight_decay=decay, clip_norm=clip))
    rule = RULES[optimizer]
    want = {name: np.array(value, np.float64) for group in PARAMS.values() for name, value in group.items()}
    memory: dict[str, dict] = {name: {} for name in want}
    for t in range(1, 6):
        grads = {name: gradient(t - 1, name, p).astype(np.float64) for name, p in want.items()}
        norm = np.sqrt(sum((g**2).sum() for g in grads.values()))
        scale = min(1.0, clip / norm) if clip else 1.0
        want = {
            name: rule(p, scale * grads[name], memory[name], t, decay if name == "kernel" else 0.0)
            for name, p in want.items()
        }
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_every_optimizer_is_compared() -> None:
    assert {re.split(r"\W", text)[0] for text in RULES} == set(optim.OPTIMIZERS)


@pytest.mark.parametrize("optimizer", optim.OPTIMIZERS)
@pytest.mark.parametrize("schedule", ["constant", *(name for name in optim.SCHEDULES if name != "constant")])
def test_everything_goes_downhill(optimizer: str, schedule: str) -> None:
    text = {"piecewise": "piecewise('50%')"}.get(schedule, schedule)
    rule = {"lars": "lars(trust=1.0)"}.get(optimizer, optimizer)
    config = Config(optimizer=rule, schedule=text, lr=0.05)
    p = {"kernel": jnp.array([1.0, -2.0])}
    tx = optim.build(config, p, optim.build_schedule(config, epoch=1, total=50))

    def step(carry: Any, _: Any) -> tuple:
        p, state = carry
        updates, state = tx.update(p, state, p)  # the gradient of |p|^2 / 2
        return (apply(p, updates), state), None

    (end, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=50)
    assert jnp.linalg.norm(end["kernel"]) < 0.75 * jnp.linalg.norm(p["kernel"])


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
    mask = optim.matching(pattern, params())
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
        ({"weight_decay": 0.1, "decay_mask": "kernels"}, "'kernels' matches no parameter; one is 'conv/bias'"),
        ({"weight_decay": 0.1, "decay_mask": "("}, "'(' is not a regular expression"),
        ({"optimizer": "sgdd"}, "unknown optimizer 'sgdd'; did you mean 'sgd'?"),
        ({"optimizer": "sgd(decay=1)"}, "optimizer 'sgd' has no argument 'decay'"),
        ({"optimizer": "sgd(nesterov=True)"}, "nesterov=True goes with a momentum"),
        ({"schedule": "cosin"}, "unknown schedule 'cosin'; did you mean 'cosine'?"),
        ({"schedule": "piecewise"}, "missing a required argument: 'at'"),
        ({"schedule": "piecewise(('5 epchs',))"}, "'5 epchs' is not a duration"),
        ({"schedule": "piecewise((32000, 48000))"}, "at = (32000, 48000): expected Sequence[str]"),
        ({"schedule": "piecewise('50%', '75%')"}, "factor = '75%': expected float"),
        ({"optimizer": "sgd(momentum='0.9')"}, "momentum = '0.9': expected float"),
        ({"schedule": "one_cycle(peak='100%')"}, "its peak at '100%' (step 10) is not before the end (step 10)"),
    ],
)
def test_what_does_not_exist_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        run(Config(**settings))


HALF = 0.5 * (1 + np.cos(np.pi / 4))


# For 100 steps, 10 an epoch, and a peak of 2: the rate that the update of a step is made with, by step.
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", {0: 2, 99: 2}),
        ("constant(warmup='4 steps')", {0: 0.5, 1: 1, 2: 1.5, 3: 2, 4: 2, 99: 2}),
        ("piecewise(('50%', '75 steps'))", {0: 2, 49: 2, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        ("piecewise('2 epochs', factor=0.5, warmup='1 epoch')", {0: 0.2, 9: 2, 19: 2, 20: 1, 99: 1}),
        ("cosine", {0: 2, 25: 2 * HALF, 50: 1, 75: 2 - 2 * HALF, 100: 0}),
        ("cosine(final=0.5)", {0: 2, 50: 1.5, 100: 1}),
        ("cosine(warmup='20%')", {0: 0.1, 9: 1, 19: 2, 20: 2, 40: 2 * HALF, 60: 1, 100: 0}),
        ("polynomial", {0: 2, 50: 0.5, 90: 0.02, 100: 0}),
        ("polynomial(power=1, warmup='20%')", {0: 0.1, 9: 1, 19: 2, 20: 2, 60: 1, 100: 0}),
        ("one_cycle", {0: 0.08, 15: 1.04, 30: 2, 65: 1, 100: 0}),
        ("one_cycle(peak='20 steps', start=0.5, final=0.1)", {0: 1, 10: 1.5, 20: 2, 60: 1.1, 100: 0.2}),
    ],
)
def test_the_rate_at_a_step(schedule: str, rates: dict[int, float]) -> None:
    rate = optim.build_schedule(Config(lr=2.0, schedule=schedule), epoch=10, total=100)
    np.testing.assert_allclose([jnp.asarray(rate(jnp.int32(step))) for step in rates], list(rates.values()), atol=1e-6)


def test_the_optimizer_follows_the_schedule_that_is_logged() -> None:
    config = Config(optimizer="sgd", lr=0.5, schedule="one_cycle(peak='3 steps')")
    schedule = optim.build_schedule(config, epoch=1, total=10)
    p = {"kernel": jnp.zeros(1)}
    tx = optim.build(config, p, schedule)
    state, taken = tx.init(p), []
    for _ in range(10):
        updates, state = tx.update({"kernel": jnp.ones(1)}, state, p)
        taken.append(-float(apply(p, updates)["kernel"][0]))
    np.testing.assert_allclose(taken, [jnp.asarray(schedule(jnp.int32(step))) for step in range(10)], rtol=1e-6)


def test_two_boundaries_at_one_step_both_count() -> None:
    schedule = optim.build_schedule(Config(lr=1.0, schedule="piecewise(('50%', '10 steps'))"), epoch=1, total=20)
    assert [np.asarray(schedule(step)).item() for step in (9, 10)] == pytest.approx([1.0, 0.01])
