"""Metrics and losses against NumPy, and in any grouping."""

import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses, metrics
from cnnjax.errors import InputError

NAN, INF = float("nan"), float("inf")
RANK, SUMS = map(jax.jit, (metrics.rank, metrics.sums))


def example(classes: int, count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits with many ties, and labels."""
    rng = np.random.default_rng(seed)
    return rng.integers(-3, 4, (count, classes)).astype(np.float32), rng.integers(0, classes, count).astype(np.int32)


@pytest.mark.parametrize("classes", [1, 2, 5, 1000])
def test_the_rank_is_the_place_in_a_stable_sort(classes: int) -> None:
    logits, label = example(classes)
    places = np.argsort(-logits, axis=1, kind="stable")
    want = (places == label[:, None]).argmax(axis=1)
    np.testing.assert_array_equal(RANK(jnp.array(logits), jnp.array(label)), want)


@pytest.mark.parametrize(
    ("logits", "label", "want"),
    [
        ([3, 2, 1], 0, 0),
        ([3, 2, 1], 2, 2),
        ([1, 1, 1], 0, 0),
        ([1, 1, 1], 2, 2),  # no gain from answering the same for every class
        ([-INF, INF, 0], 1, 0),
        ([-INF, -INF], 1, 1),
        ([NAN, 1, 2], 0, 3),
        ([NAN, 1, 2], 2, 0),
        ([NAN, NAN, NAN], 0, 3),
    ],
)
def test_ties_go_by_class_and_nan_is_never_right(logits: list, label: int, want: int) -> None:
    assert RANK(jnp.array([logits], jnp.float32), jnp.array([label]))[0] == want


@pytest.mark.parametrize("classes", [3, 10])
def test_sums_count_hits_and_leave_padding_out(classes: int) -> None:
    logits, label = example(classes)
    loss = np.random.default_rng(1).random(len(label)).astype(np.float32)
    mask = np.arange(len(label)) % 3 > 0
    logits[~mask], loss[~mask] = NAN, NAN
    got = SUMS(jnp.array(logits), jnp.array(label), jnp.array(loss), jnp.array(mask))
    places = np.argsort(-logits[mask], axis=1, kind="stable")
    hit = places == label[mask][:, None]
    assert got["count"] == mask.sum()
    assert got["top1"] == hit[:, 0].sum()
    assert got["top5"] == hit[:, :5].sum()
    np.testing.assert_allclose(got["loss"], loss[mask].sum(), rtol=1e-5)


def test_a_nan_is_no_top_5_hit_however_few_the_classes() -> None:
    got = SUMS(jnp.array([[NAN, 1.0], [1.0, 2.0]]), jnp.array([0, 0]), jnp.ones(2))
    assert (got["top1"], got["top5"]) == (0, 1)


def test_without_a_mask_every_example_counts() -> None:
    logits, label = map(jnp.array, example(10, count=7))
    assert SUMS(logits, label, jnp.ones(7))["count"] == 7


@pytest.mark.parametrize("cuts", [[], [1], [8, 16], list(range(1, 24))])
def test_any_grouping_gives_the_same_sums(cuts: list[int]) -> None:
    logits, label = map(jnp.array, example(10, count=24))
    loss = (label + 1.0) / 4  # exact in float32
    parts = [np.s_[a:b] for a, b in zip([0, *cuts], [*cuts, 24], strict=True)]
    total = metrics.add([SUMS(logits[part], label[part], loss[part]) for part in parts])
    right = int((np.argmax(logits, axis=1) == label).sum())
    assert (total["count"], total["top1"], total["loss"]) == (24, right, float(loss.sum()))


def test_sums_stay_exact_where_float32_would_not() -> None:
    parts = [{"count": np.int32(2**31 - 1), "loss": np.float32(1.0)}, {"count": np.int32(1), "loss": np.float32(1e-9)}]
    total = metrics.add(parts)
    assert total["count"] == 2**31
    assert total["loss"] == 1.0 + np.float64(np.float32(1e-9))


def test_means_are_shares_of_the_count() -> None:
    total = {name: np.array(x) for name, x in {"count": 8, "loss": 4, "top1": 2, "top5": 6}.items()}
    assert metrics.means(total) == {"loss": 0.5, "accuracy": 0.25, "top5": 0.75}


# ------------------------------------------------------------------------------------------------------------ losses


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def margins(logits: np.ndarray, label: np.ndarray, margin: float, power: int) -> np.ndarray:
    """By the definition: for each example, each wrong class against the right one."""
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
        ("cross_entropy(label_smoothing=5)", "cross_entropy: label_smoothing = 5: expected 0 to 1"),
        ("cross_entropy(class_weights=(1, -1))", "class_weights = (1, -1): expected 2 numbers of at least 0, one for"),
        ("cross_entropy(class_weights=(1, 'a'))", "class_weights = (1, 'a'): expected Sequence[float]"),
        ("mse(of='sigmoid')", "mse: of = 'sigmoid'; valid: logits, softmax"),
        ("mse(scale=2)", "mse: scale = 2: probabilities have none; use of='logits' with it"),
        ("hinge(margin=0)", "hinge: margin = 0: expected more than 0"),
        ("binary(label_smoothing=-1)", "binary: label_smoothing = -1: expected 0 to 1"),
        ("binary(threshold=1)", "binary: threshold = 1: expected at least 0 and less than 1"),
        ("focal(gamma=-1)", "focal: gamma = -1: expected at least 0"),
        ("focal(alpha=2)", "focal: alpha = 2: expected 0 to 1, or None"),
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
