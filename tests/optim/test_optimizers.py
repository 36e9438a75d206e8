"""Optimizers against their papers, written out in NumPy, against PyTorch and against SciPy."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.optimize

from cnnjax import optim
from cnnjax.config import Config
from tests.optim.reference import LR, PARAMS, apply, gradient, run


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


def newton_schulz(matrix: np.ndarray, steps: int) -> np.ndarray:
    x = matrix / np.linalg.norm(matrix)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def muon(beta: float = 0.95, nesterov: bool = True, rms: float = 0.2) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        if p.ndim < 2:
            return adam(decoupled=True)(p, g, memory, t, wd)
        memory["m"] = m = beta * memory.get("m", 0) + (1 - beta) * g
        # both without the bias of their starts, as in NAdam (Dozat 2016)
        m = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * g / (1 - beta**t) if nesterov else m
        x = newton_schulz(m, 5)
        rows, columns = p.shape
        scale = rms * np.sqrt(max(rows, columns)) if rms else np.sqrt(max(1, columns / rows))
        return p - LR * (scale * x + wd * p)

    return rule


def muon_sgd(beta: float = 0.6, steps: int = 3, momentum: float = 0.85) -> Callable:
    def rule(p: np.ndarray, g: np.ndarray, memory: dict, t: int, wd: float) -> np.ndarray:
        if p.ndim < 4:
            return sgd(momentum, True)(p, g, memory, t, wd)
        memory["m"] = m = beta * memory.get("m", 0) + (1 - beta) * (g + wd * p)
        m = beta * m / (1 - beta ** (t + 1)) + (1 - beta) * (g + wd * p) / (1 - beta**t)
        x = newton_schulz(m.reshape(-1, p.shape[-1]), steps).reshape(p.shape)
        return p - LR * x * (np.linalg.norm(p) / np.sqrt(p.shape[-1]) if p.any() else 1.0)

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
    "muon_sgd": muon_sgd(),
    "muon_sgd(sgd_momentum=0.5)": muon_sgd(momentum=0.5),
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


def test_muon_makes_each_convolution_one_orthogonal_matrix() -> None:
    shapes = {"plain": (3, 3, 2, 4), "stack": (5, 1, 1, 8, 4), "dense": (6, 3)}
    keys = jax.random.split(jax.random.key(0, impl="rbg"), len(shapes))
    grads = {n: {"kernel": jax.random.normal(k, s)} for k, (n, s) in zip(keys, shapes.items(), strict=True)}
    tx = optim.build(optim.parse(Config(optimizer="muon(rms=0.2)", lr=1.0)), grads, optax.constant_schedule(1.0))
    updates: Any = tx.update(grads, tx.init(grads), grads)[0]
    for name, shape in shapes.items():
        matrices = -np.asarray(updates[name]["kernel"]).reshape(
            -1 if name == "stack" else 1, np.prod(shape[-4:-1]), shape[-1]
        )
        scale = 0.2 * np.sqrt(max(matrices.shape[1:]))
        values = np.linalg.svd(matrices, compute_uv=False) / scale
        assert (values > 0.5).all(), name  # Newton and Schulz's five steps come so near to 1
        assert (values < 1.3).all(), name


@pytest.mark.parametrize("decay", [0.0, 0.05])
@pytest.mark.parametrize("settings", [{}, {"beta": 0.9, "steps": 5}, {"beta": 0.0}])
def test_muon_sgd_moves_each_convolution_by_its_definition(settings: dict[str, Any], decay: float) -> None:
    names = {"beta": "momentum", "steps": "steps"}
    text = f"muon_sgd({', '.join(f'{names[name]}={value}' for name, value in settings.items())})"
    rng = np.random.default_rng(0)
    want = {name: rng.normal(size=shape) for name, shape in (("tall", (3, 3, 2, 4)), ("wide", (1, 1, 2, 8)))}
    want |= {"zero": np.zeros((3, 3, 2, 4)), "stack0": rng.normal(size=(1, 1, 3, 2)), "stack1": np.ones((1, 1, 3, 2))}

    def tree(arrays: dict[str, np.ndarray]) -> Any:  # nn.scan stacks the kernels of its layers
        stack = np.stack([arrays["stack0"], arrays["stack1"]])
        plain = {name: arrays[name] for name in ("tall", "wide", "zero")}
        return {name: {"kernel": jnp.array(x, jnp.float32)} for name, x in (plain | {"stack": stack}).items()}

    recipe, params = optim.parse(Config(optimizer=text, lr=LR, weight_decay=decay)), tree(want)
    tx = optim.build(recipe, params, optax.constant_schedule(LR))
    state, memory = tx.init(params), {name: {} for name in want}
    for t in range(1, 4):
        grads = {name: rng.normal(size=p.shape) for name, p in want.items()}
        updates, state = tx.update(tree(grads), state, params)
        params = apply(params, updates)
        rule = muon_sgd(**settings)
        want = {name: rule(p, grads[name], memory[name], t, decay) for name, p in want.items()}
    jax.tree.map(lambda p, right: np.testing.assert_allclose(p, right, rtol=1e-4, atol=1e-5), params, tree(want))


def test_muon_sgd_takes_jordans_steps_where_the_loss_ignores_the_scale_of_a_kernel() -> None:
    rng = np.random.default_rng(0)
    slope, kernel = rng.normal(size=(3, 3, 2, 4)), rng.normal(size=(3, 3, 2, 4))

    def gradient_at(w: np.ndarray) -> np.ndarray:  # of (w / |w|) . slope, as if a normalization followed
        unit = w / np.linalg.norm(w)
        return (slope - unit * (unit * slope).sum()) / np.linalg.norm(w)

    params: Any = {"kernel": jnp.array(kernel, jnp.float32)}
    tx = optim.build(optim.parse(Config(optimizer="muon_sgd(momentum=0.0)")), params, optax.constant_schedule(0.3))
    state = tx.init(params)
    for _ in range(4):
        grads = {"kernel": jnp.array(gradient_at(np.asarray(params["kernel"])), jnp.float32)}
        updates, state = tx.update(grads, state, params)
        params = apply(params, updates)
        step = newton_schulz(gradient_at(kernel).reshape(-1, 4), 3).reshape(kernel.shape)
        kernel = kernel * 2 / np.linalg.norm(kernel) - 0.3 * step  # its norm is the root of its 4 outputs before a step
    got = np.asarray(params["kernel"])
    np.testing.assert_allclose(got / np.linalg.norm(got), kernel / np.linalg.norm(kernel), atol=1e-5)


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
    tx = optim.build(optim.parse(Config(optimizer="lbfgs", weight_decay=0.1)), p, optax.constant_schedule(1.0))

    def step(_: Any, carry: Any) -> Any:
        p, state = carry
        updates, state = tx.update(jax.grad(loss)(p), state, p, value_fn=loss)
        return apply(p, updates), state

    p, _ = jax.jit(lambda carry: jax.lax.fori_loop(0, 25, step, carry))((p, tx.init(p)))
    np.testing.assert_allclose(p["kernel"].ravel(), expected.x[:15], atol=1e-3)
    assert whole(np.concatenate([p["kernel"].ravel(), p["bias"]])) == pytest.approx(expected.fun, rel=1e-5)


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
    tx = optim.build(optim.parse(config), p, optim.build_schedule(optim.parse(config), epoch=1, total=50))

    def step(carry: Any, _: Any) -> tuple:
        p, state = carry
        updates, state = tx.update(p, state, p, value_fn=half_square)  # the gradient is p
        return (apply(p, updates), state), None

    (end, _), _ = jax.lax.scan(step, (p, tx.init(p)), length=50)
    assert jnp.linalg.norm(end["kernel"]) < 0.75 * jnp.linalg.norm(p["kernel"])


def half_square(p: Any) -> Any:
    """Returns |p|^2 / 2, whose gradient is p."""
    return 0.5 * optax.tree.vdot(p, p)
