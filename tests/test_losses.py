"""Losses against NumPy, for one-hot and mixed targets."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses
from cnnjax.errors import InputError


def example(classes: int, count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits with many ties, and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 4, (count, classes)).astype(np.float32), rng.integers(0, classes, count).astype(np.int32)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def margins(logits: np.ndarray, label: np.ndarray, margin: float, power: int) -> np.ndarray:
    """Returns the hinge loss of each example, by its definition."""
    each = []
    for row, right in zip(logits, label, strict=True):
        wrong = [max(0.0, margin - row[right] + x) ** power for k, x in enumerate(row) if k != right]
        each.append(sum(wrong) / len(row))
    return np.array(each)


def focal(logits: np.ndarray, hot: np.ndarray, gamma: float, alpha: float | None) -> np.ndarray:
    p = np.where(hot > 0, sigmoid(logits), 1 - sigmoid(logits))
    weight = 1.0 if alpha is None else np.where(hot > 0, alpha, 1 - alpha)
    return (-weight * (1 - p) ** gamma * np.log(p)).mean(axis=1)


def crossed(share: np.ndarray, logits: np.ndarray) -> np.ndarray:
    return -(share * np.log(sigmoid(logits)) + (1 - share) * np.log(1 - sigmoid(logits))).mean(axis=1)


WEIGHTS = (0.5, 2.0, 1.0)
# Call -> the same in float64, of logits x, one-hot targets t and labels y of three classes.
FORMULAS: dict[str, Callable[..., np.ndarray]] = {
    "cross_entropy": lambda x, t, y: -(t * log_softmax(x)).sum(1),
    "cross_entropy(label_smoothing=0.1)": lambda x, t, y: -((0.9 * t + 0.1 / 3) * log_softmax(x)).sum(1),
    "cross_entropy(label_smoothing=1.0)": lambda x, t, y: -log_softmax(x).mean(1),
    f"cross_entropy(class_weights={WEIGHTS})": lambda x, t, y: -np.take(WEIGHTS, y) * (t * log_softmax(x)).sum(1),
    f"cross_entropy(0.3, {[*WEIGHTS]})": lambda x, t, y: -((0.7 * t + 0.1) * WEIGHTS * log_softmax(x)).sum(1),
    "mse": lambda x, t, y: ((np.exp(log_softmax(x)) - t) ** 2).mean(1),
    'mse(of="logits")': lambda x, t, y: ((x - t) ** 2).mean(1),
    'mse("logits", scale=15)': lambda x, t, y: ((x - 15 * t) ** 2).mean(1),
    "hinge": lambda x, t, y: margins(x, y, 1, 1),
    "hinge(margin=0.5, squared=True)": lambda x, t, y: margins(x, y, 0.5, 2),
    "binary": lambda x, t, y: crossed(t, x),
    "binary(label_smoothing=0.3)": lambda x, t, y: crossed(0.7 * t + 0.1, x),
    "binary(label_smoothing=0.3, threshold=0.2)": lambda x, t, y: crossed(t, x),
    "focal": lambda x, t, y: focal(x, t, 2, 0.25),
    "focal(gamma=0.5, alpha=None)": lambda x, t, y: focal(x, t, 0.5, None),
    "focal(gamma=0, alpha=None)": lambda x, t, y: crossed(t, x),
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("text", FORMULAS)
def test_a_loss_is_its_formula(text: str, dtype: str) -> None:
    logits, label = example(3, count=50)
    hot = np.eye(3)[label]
    got = jax.jit(losses.build(text))(jnp.array(logits, dtype), jnp.array(hot))
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, FORMULAS[text](logits.astype(np.float64), hot, label), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("text", [text for text in FORMULAS if "threshold" not in text])
def test_a_mixed_targets_gradient_is_the_mean_of_those_of_its_classes(text: str) -> None:
    logits, label = map(jnp.array, example(3, count=20))
    one, other = jax.nn.one_hot(label, 3), jax.nn.one_hot((label + 1) % 3, 3)
    loss = losses.build(text)
    gradient = jax.jit(jax.grad(lambda logits, target: loss(logits, target).sum()))
    want = 0.3 * gradient(logits, one) + 0.7 * gradient(logits, other)
    np.testing.assert_allclose(gradient(logits, 0.3 * one + 0.7 * other), want, rtol=1e-5, atol=1e-6)


def test_every_loss_has_a_formula_here() -> None:
    assert {text.partition("(")[0] for text in FORMULAS} == losses.LOSSES.keys()


def test_a_threshold_takes_each_class_of_a_mixture_that_is_large_enough() -> None:
    logits, shares = jnp.array([[0.5, -1.0, 2.0]]), jnp.array([[0.7, 0.3, 0.0]])
    for threshold, want in ((0.2, [1, 1, 0]), (0.3, [1, 0, 0]), (0.8, [0, 0, 0])):
        got = losses.build(f"binary(threshold={threshold})")(logits, shares)
        np.testing.assert_allclose(got, crossed(np.array([want]), np.asarray(logits, np.float64)), rtol=1e-6)


def test_cross_entropy_does_not_overflow() -> None:
    got = losses.cross_entropy(jnp.array([[1000.0, -1000.0]] * 2), jnp.eye(2))
    np.testing.assert_allclose(got, [0, 2000])


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_gives_one_finite_number_per_example(name: str) -> None:
    logits, label = map(jnp.array, example(10))
    each = losses.build(name)(logits, jax.nn.one_hot(label, 10))
    assert each.shape == label.shape
    assert bool(jnp.isfinite(each).all())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cross_entrpy", "unknown loss 'cross_entrpy'; did you mean 'cross_entropy'?"),
        ("cross_entropy(smoothing=0.1)", "has no argument 'smoothing'; did you mean 'label_smoothing'?"),
        ("cross_entropy(target=1)", "has no argument 'target'"),
        ("cross_entropy()()", "is not a call string"),
        ("cross_entropy(label_smoothing=5)", "label_smoothing = 5: expected float of 0 to 1"),
        ("cross_entropy(class_weights=(1, -1))", "class_weights = (1, -1): expected list of float of at least 0"),
        ("cross_entropy(class_weights=(1, 'a'))", "class_weights = (1, 'a'): expected list of float of at least 0"),
        ("mse(of='sigmoid')", "mse: of = 'sigmoid'; valid: logits, softmax"),
        ("mse(scale=2)", "mse: scale = 2: expected 1 for of='softmax'; only of='logits' has a scale"),
        ("hinge(margin=0)", "margin = 0: expected float of more than 0"),
        ("binary(label_smoothing=-1)", "label_smoothing = -1: expected float of 0 to 1"),
        ("binary(threshold=1)", "threshold = 1: expected float of at least 0 and less than 1"),
        ("focal(gamma=-1)", "gamma = -1: expected float of at least 0"),
        ("focal(alpha=2)", "alpha = 2: expected float of 0 to 1 or None"),
    ],
)
def test_a_loss_that_does_not_exist_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        losses.build(text)


def test_weights_for_other_classes_are_refused_where_these_are_known() -> None:
    text = f"cross_entropy(class_weights={WEIGHTS})"
    losses.build(text)
    losses.build(text, 3)
    with pytest.raises(InputError, match=re.escape(f"class_weights = {WEIGHTS}: expected 10 numbers")):
        losses.build(text, 10)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_loss_and_its_gradient_stay_finite_for_extreme_logits(text: str) -> None:
    loss = losses.build(text)
    value, gradient = jax.jit(jax.value_and_grad(lambda x: loss(x, jnp.eye(3)).sum()))(
        jnp.array([[1000.0, -1000.0, 0.0]] * 3)
    )
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
