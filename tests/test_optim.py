"""Update rules against PyTorch's or their papers', written out in NumPy; schedules against numbers written by hand."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from cnnjax import augment, optim
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.training import loop

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


def adagrad(eps: float = 1e-10, initial: float = 0.0) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        g = g + wd * p
        memory["s"] = s = memory.get("s", initial) + g**2
        return p - LR * g / np.sqrt(s + eps)

    return rule


def rmsprop(decay: float = 0.9, eps: float = 1e-8, momentum: float = 0.0, tf: bool = False) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        g = g + wd * p
        memory["s"] = s = decay * memory.get("s", 1.0 if tf else 0.0) + (1 - decay) * g**2
        memory["v"] = v = momentum * memory.get("v", 0.0) + g / (np.sqrt(s + eps) if tf else np.sqrt(s) + eps)
        return p - LR * v

    return rule


def lion(b1: float = 0.9, b2: float = 0.99) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        m = memory.get("m", 0.0)
        memory["m"] = b2 * m + (1 - b2) * g
        return p - LR * (np.sign(b1 * m + (1 - b1) * g) + wd * p)

    return rule


def muon(beta: float = 0.95, nesterov: bool = True, rms: float = 0.2) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        if p.ndim < 2:
            return adam(decoupled=True)(p, g, memory, t, wd)
        memory["m"] = m = beta * memory.get("m", 0) + (1 - beta) * g
        # both without the bias of their starts, as in NAdam (Dozat 2016)
        m = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t) if nesterov else m
        x = m / np.linalg.norm(m)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        rows, columns = p.shape
        scale = rms * np.sqrt(max(rows, columns)) if rms else np.sqrt(max(1, columns / rows))
        return p - LR * (scale * x + wd * p)

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
    "adagrad": adagrad(),
    "adagrad(eps=0.1, initial=0.5)": adagrad(0.1, 0.5),
    "rmsprop": rmsprop(),
    "rmsprop(decay=0.5, eps=0.1, momentum=0.9)": rmsprop(0.5, 0.1, 0.9),
    "rmsprop(eps=1.0, momentum=0.9, tf=True)": rmsprop(0.9, 1.0, 0.9, True),
    "adam": adam(),
    "adam(b1=0.8, b2=0.9, eps=0.1)": adam(0.8, 0.9, 0.1),
    "adamw": adam(decoupled=True),
    "adamw(eps=0.1)": adam(eps=0.1, decoupled=True),
    "lion": lion(),
    "lion(b1=0.5, b2=0.8)": lion(0.5, 0.8),
    "muon": muon(),
    "muon(momentum=0.5, nesterov=False, rms=0.0)": muon(0.5, False, 0.0),
    "lars": lars(),
    "lars(momentum=0.8, nesterov=True, trust=0.1)": lars(0.8, True, 0.1),
    "lamb": lamb(),
    "lamb(b1=0.8, b2=0.9, eps=0.1)": lamb(0.8, 0.9, 0.1),
}


@pytest.mark.parametrize("clip", [0.0, 0.5])
@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("optimizer", RULES)
def test_five_steps_are_those_of_their_definition(optimizer: str, decay: float, clip: float) -> None:
    got = run(Config(optimizer=optimizer, lr=LR, weight_decay=decay, grad_clip_norm=clip))
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
    compared = {re.split(r"\W", text)[0] for text in RULES}
    assert compared | {"lbfgs"} == set(optim.OPTIMIZERS)  # that one by where it arrives


DOWNHILL = [*((name, "constant") for name in optim.OPTIMIZERS), *(("sgd", name) for name in optim.SCHEDULES)]


@pytest.mark.parametrize(("optimizer", "schedule"), DOWNHILL)
def test_everything_goes_downhill(optimizer: str, schedule: str) -> None:
    text = {"piecewise": "piecewise('50%')"}.get(schedule, schedule)
    rule = {"lars": "lars(trust=1.0)"}.get(optimizer, optimizer)
    config = Config(optimizer=rule, schedule=text, lr=0.05)
    p = {"kernel": jnp.array([1.0, -2.0])}
    tx = optim.build(config, p, optim.build_schedule(config, epoch=1, total=50))

    def step(carry: Any, _: Any) -> tuple:
        p, state = carry
        updates, state = tx.update(p, state, p, value_fn=half_square)  # the gradient is p
        return (apply(p, updates), state), None

    (end, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=50)
    assert jnp.linalg.norm(end["kernel"]) < 0.75 * jnp.linalg.norm(p["kernel"])


def half_square(p: Any) -> Any:
    return 0.5 * optax.tree.vdot(p, p)


SETTINGS: list[dict[str, Any]] = [
    *({"optimizer": name} for name in optim.OPTIMIZERS if name != "lbfgs"),
    {"optimizer": "lbfgs", "lr": 1.0, "weight_decay": 1e-3},
    *({"optimizer": f"sgd|{name}", "lr": 0.1} for name in optim.WRAPPERS),
    {"sam_rho": 0.05, "grad_accum_steps": 2, "lr": 0.1},
]


def step_of(config: Config, batch: dict, shape: tuple[int, ...] = (4, 4, 1)) -> tuple[loop.TrainState, Callable]:
    """The first state of a small network and its step, the same batch each time."""
    model = create_model("mlp(features=(8,))", 10)
    parts: dict[str, Any] = {"config": config, "model": model, "schedule": optim.build_schedule(config, 1, 100)}
    seen = {"prepare": lambda key, x, *_: x, "mix": augment.build_mixing([], 10)}
    step = functools.partial(loop.train_step, key=jax.random.key(1), **seen, **parts)
    state = loop.init_state(jax.random.key(0, impl="rbg"), shape=shape, **parts)
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
        ({"optimizer": "sgd|lookahead(every=0)"}, "lookahead: every = 0, share = 0.5: expected at least 1"),
        ({"optimizer": "sgd|schedule_free(b1=0.0)"}, "schedule_free: b1 = 0.0: expected above 0, up to 1"),
        ({"optimizer": "sgd|lookahead|schedule_free"}, "expected an optimizer and one wrapper at most"),
        ({"schedule": "exponential(0.0)"}, "exponential: factor = 0.0, every = '2 epochs': expected a factor above 0"),
        ({"schedule": "exponential(every='0 steps')"}, "every = '0 steps': expected"),
        ({"schedule": "plateau(factor=2.0)"}, "plateau: factor = 2.0: expected 0 to 1"),
        ({"schedule": "plateau(patience=-1)"}, "plateau: patience = -1: expected at least 0"),
        ({"schedule": "plateau(metric='acuracy')"}, "unknown metric 'acuracy'; did you mean 'accuracy'?"),
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


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "plateau", "val_split": ""}, "plateau watches the validation split: give config.val_split"),
        ({"early_stop": "early_stop", "val_split": ""}, "early_stop watches the validation split"),
        ({"early_stop": "early_stop(patience=0)"}, "early_stop: patience = 0: expected at least 1"),
        ({"early_stop": "stop_early"}, "unknown early_stop 'stop_early'"),
        ({"optimizer": "sgd|schedule_free", "ema": 0.9}, "config.ema = 0.9: schedule_free has an average of its own"),
        ({"optimizer": "sgd(0.9)|schedule_free"}, "schedule_free takes the place of momentum: use sgd(momentum=0.0)"),
        ({"optimizer": "adamw|schedule_free"}, "schedule_free takes the place of momentum: use adamw(b1=0.0)"),
        ({"optimizer": "lbfgs", "sam_rho": 0.1}, "config.sam_rho goes with any optimizer but lbfgs"),
    ],
)
def test_what_does_not_go_together_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        optim.check(Config(**{"val_split": "test", **settings}))


HALF = 0.5 * (1 + np.cos(np.pi / 4))


# For 100 steps, 10 an epoch, and a peak of 2: the rate that the update of a step is made with, by step.
@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        ("constant", {0: 2, 99: 2}),
        ("constant(warmup='4 steps')", {0: 0.5, 1: 1, 2: 1.5, 3: 2, 4: 2, 99: 2}),
        ("piecewise(('50%', '75 steps'))", {0: 2, 49: 2, 50: 0.2, 74: 0.2, 75: 0.02, 99: 0.02}),
        ("piecewise('2 epochs', factor=0.5, warmup='1 epoch')", {0: 0.2, 9: 2, 19: 2, 20: 1, 99: 1}),
        ("exponential(0.5)", {0: 2, 19: 2, 20: 1, 39: 1, 40: 0.5, 80: 0.125}),
        ("exponential(0.25, '20%', staircase=False)", {0: 2, 10: 1, 20: 0.5, 40: 0.125}),
        ("exponential(0.5, every='50 steps', warmup='1 epoch')", {0: 0.2, 9: 2, 49: 2, 50: 1}),
        ("plateau", {0: 2, 99: 2}),
        ("plateau(factor=0.5, patience=3, warmup='4 steps')", {0: 0.5, 3: 2, 99: 2}),
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


# -------------------------------------------------------------------------------------------- rules that are not tables


def test_muon_makes_each_convolution_one_orthogonal_matrix() -> None:
    shapes = {"plain": (3, 3, 2, 4), "stack": (5, 1, 1, 8, 4), "dense": (6, 3)}
    keys = jax.random.split(jax.random.key(0, impl="rbg"), len(shapes))
    grads = {n: {"kernel": jax.random.normal(k, s)} for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    tx = optim.build(Config(optimizer="muon(rms=0.2)", lr=1.0), grads, optax.constant_schedule(1.0))
    updates: Any = tx.update(grads, tx.init(grads), grads)[0]
    for name, shape in shapes.items():
        matrices = -np.asarray(updates[name]["kernel"]).reshape(
            -1 if name == "stack" else 1, np.prod(shape[-4:-1]), shape[-1]
        )
        scale = 0.2 * np.sqrt(max(matrices.shape[1:]))
        values = np.linalg.svd(matrices, compute_uv=False) / scale
        assert (values > 0.5).all(), name  # Newton and Schulz's five steps come so near to 1
        assert (values < 1.3).all(), name


def test_lbfgs_arrives_where_scipy_does() -> None:
    """Logistic regression with weight decay: a convex problem, which has one minimum."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 5)), np.eye(3)[rng.integers(0, 3, 64)]

    def loss(p: Any) -> jax.Array:
        return optax.softmax_cross_entropy(jnp.asarray(x, jnp.float32) @ p["kernel"] + p["bias"][None], y).mean()

    def whole(flat: np.ndarray) -> float:
        logits = x @ flat[:15].reshape(5, 3) + flat[15:]
        return (
            scipy.special.logsumexp(logits, axis=1).mean() - (logits * y).sum(1).mean() + 0.05 * (flat[:15] ** 2).sum()
        )

    expected = scipy.optimize.minimize(whole, np.zeros(18), tol=1e-10)
    p = {"kernel": jnp.ones((5, 3)), "bias": jnp.ones(3)}
    tx = optim.build(Config(optimizer="lbfgs", weight_decay=0.1), p, optax.constant_schedule(1.0))

    def step(_: Any, carry: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state, p, value_fn=loss)
        return apply(p, updates), state

    p, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 25, step, carry))((p, tx.init(p)))
    np.testing.assert_allclose(p["kernel"].ravel(), expected.x[:15], atol=1e-3)
    assert whole(np.concatenate([p["kernel"].ravel(), p["bias"]])) == pytest.approx(expected.fun, rel=1e-5)


def followed(optimizer: str, steps: int) -> list[tuple[float, float]]:
    """Of one number whose loss is p^2 / 2, from 1 at rates 0.1, 0.2, ...: the parameter, and what is evaluated."""
    p = {"kernel": jnp.ones(1)}
    tx = optim.build(Config(optimizer=optimizer), p, lambda count: 0.1 * (count + 1))
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
    assert optim.keeps_average(config)
    state, step = step_of(config, some_batch())
    state, _ = step(state)
    found, expected = state.variables["params"], optim.eval_params(state.opt_state, state.params)
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert any(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a != b).any()), found, state.params)))


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


# --------------------------------------------------------------------------------------------------- watched metrics


def watched(values: list[float], **settings: Any) -> list[dict[str, Any]]:
    """What is remembered after each value of both metrics."""
    config, after = Config(**settings), []
    seen = optim.init_monitors(config)
    for value in values:
        seen = optim.update_monitors(config, seen, {"loss": value, "accuracy": value})
        after.append(seen)
    return after


UP_AND_DOWN = [1.0, 0.9, 0.9, 0.95, 0.89995, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, float("nan"), 0.4]
END = UP_AND_DOWN[5:]


# By PyTorch's ReduceLROnPlateau: the factor of the rate after each of the values.
@pytest.mark.parametrize(
    ("arguments", "values", "factors"),
    [
        ("patience=1, metric='loss'", UP_AND_DOWN, [1, 1, 1, 0.1, 0.1, 0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, *[1e-4] * 3]),
        ("patience=0, metric='loss', factor=0.5, cooldown=2", END, [1, 0.5, 0.5, 0.5, *[0.25] * 3, *[0.125] * 2]),
        ("patience=0, metric='loss', lowest=0.05", END[:5], [1, 0.1, 0.05, 0.05, 0.05]),
        ("patience=1, threshold=0.1", [0.5, 0.54, 0.54, 0.6, 0.6, 0.6], [1, 1, 0.1, 0.1, 0.1, 0.01]),
        ("patience=2", [0.1, 0.1, 0.1, 0.1, 0.2], [1, 1, 1, 0.1, 0.1]),
    ],
)  # fmt: skip
def test_the_rate_falls_on_a_plateau(arguments: str, values: list[float], factors: list[float]) -> None:
    seen = watched(values, schedule=f"plateau({arguments})")
    np.testing.assert_allclose([one["plateau"]["factor"] for one in seen], factors, rtol=1e-5)
    rate = optim.scaled_schedule(optax.constant_schedule(2.0), seen[-1])
    assert np.asarray(rate(jnp.int32(0))).item() == pytest.approx(2 * factors[-1])


@pytest.mark.parametrize(
    ("arguments", "values", "stops"),
    [
        ("patience=1", [1.0, 0.9, 0.9], [False, False, True]),
        ("patience=2", [1.0, 1.1, 0.9, 0.9, 0.8, 0.8, 0.8], [False] * 6 + [True]),
        ("patience=2, threshold=0.2", [1.0, 0.9, 0.7, 0.6, 0.6], [False, False, False, False, True]),
        ("2, 'accuracy'", [0.1, 0.2, 0.2, 0.1], [False, False, False, True]),
        ("patience=2", [float("nan")] * 2, [False, True]),
    ],
)
def test_a_run_ends_without_improvement(arguments: str, values: list[float], stops: list[bool]) -> None:
    config = Config(early_stop=f"early_stop({arguments})")
    seen = watched(values, early_stop=config.early_stop)
    assert [bool(optim.stop_reason(config, one)) for one in seen] == stops


@pytest.mark.parametrize("metric", ["loss", "accuracy"])
@pytest.mark.parametrize(("patience", "cooldown", "threshold"), [(0, 0, 1e-4), (3, 2, 0.01), (1, 4, 0.1)])
def test_a_plateau_is_pytorchs(metric: str, patience: int, cooldown: int, threshold: float) -> None:
    torch = pytest.importorskip("torch")
    values = [float(np.float32(x)) for x in np.random.default_rng(patience).uniform(0.3, 1.0, 60)]
    scheduled = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
    plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
        scheduled, "min" if metric == "loss" else "max", 0.7, patience, threshold, cooldown=cooldown, eps=0.0
    )
    expected = [plateau.step(value) or scheduled.param_groups[0]["lr"] for value in values]
    text = f"plateau(0.7, {patience}, {threshold}, {cooldown}, metric={metric!r})"
    got = [one["plateau"]["factor"] for one in watched(values, schedule=text)]
    np.testing.assert_allclose(got, expected, rtol=1e-5)


# What PyTorch has, with the arguments that say the same to it. Its RMSprop and Adagrad have eps outside the root.
@pytest.mark.parametrize(
    ("optimizer", "peer", "arguments"),
    [
        ("sgd(0.9, nesterov=True)", "SGD", {"momentum": 0.9, "nesterov": True}),
        ("adagrad", "Adagrad", {}),
        ("rmsprop(decay=0.9, eps=0.1, momentum=0.8)", "RMSprop", {"alpha": 0.9, "eps": 0.1, "momentum": 0.8}),
        ("adam", "Adam", {}),
        ("adamw(b1=0.8)", "AdamW", {"betas": (0.8, 0.999)}),
    ],
)
def test_five_steps_are_pytorchs(optimizer: str, peer: str, arguments: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    p = {name: torch.nn.Parameter(torch.tensor(x)) for group in PARAMS.values() for name, x in group.items()}
    groups = [{"params": [x], "weight_decay": 0.05 if name == "kernel" else 0.0} for name, x in p.items()]
    peers = getattr(torch.optim, peer)(groups, lr=LR, **arguments)
    for step in range(5):
        for name, x in p.items():
            x.grad = torch.from_numpy(gradient(step, name, x.detach().numpy()))
        peers.step()
    got = run(Config(optimizer=optimizer, lr=LR, weight_decay=0.05))
    for name, x in p.items():
        np.testing.assert_allclose(got[name], x.detach().numpy(), rtol=1e-5, atol=1e-5, err_msg=name)
