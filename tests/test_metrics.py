"""Metrics and losses against NumPy and scikit-learn, and in any grouping."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sklearn.metrics

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
        ([NAN, 1, 2], 2, 1),
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


def test_without_a_mask_every_example_counts() -> None:
    logits, label = map(jnp.array, example(10, count=7))
    assert SUMS(logits, label, jnp.ones(7))["count"] == 7


@pytest.mark.parametrize("classes", [2, 10])
def test_the_confusion_matrix_is_scikit_learns(classes: int) -> None:
    logits, label = example(classes)
    mask = np.arange(len(label)) % 4 > 0
    got = CONFUSION(jnp.array(logits), jnp.array(label), jnp.array(mask))
    want = sklearn.metrics.confusion_matrix(label[mask], logits[mask].argmax(axis=1), labels=range(classes))
    np.testing.assert_array_equal(got, want)
    assert got.dtype == np.int32


@pytest.mark.parametrize("cuts", [[], [1], [8, 16], list(range(1, 24))])
def test_any_grouping_gives_the_same_sums(cuts: list[int]) -> None:
    logits, label = map(jnp.array, example(10, count=24))
    loss = (label + 1.0) / 4  # exact in float32
    parts = [np.s_[a:b] for a, b in zip([0, *cuts], [*cuts, 24], strict=True)]
    total = metrics.add(
        [
            SUMS(logits[part], label[part], loss[part])
            | {"confusion": CONFUSION(logits[part], label[part], jnp.ones(len(label[part]), bool))}
            for part in parts
        ]
    )
    right = int((np.argmax(logits, axis=1) == label).sum())
    assert (total["count"], total["top1"], total["loss"]) == (24, right, float(loss.sum()))
    assert total["confusion"].sum() == 24
    assert np.trace(total["confusion"]) == right


def test_sums_stay_exact_where_float32_would_not() -> None:
    parts = [{"count": np.int32(2**31 - 1), "loss": np.float32(1.0)}, {"count": np.int32(1), "loss": np.float32(1e-9)}]
    total = metrics.add(parts)
    assert total["count"] == 2**31
    assert total["loss"] == 1.0 + np.float64(np.float32(1e-9))


def test_means_are_shares_of_the_count() -> None:
    total = {name: np.array(x) for name, x in {"count": 8, "loss": 4, "top1": 2, "top5": 6}.items()}
    assert metrics.means(total) == {"loss": 0.5, "accuracy": 0.25, "top5": 0.75}


# ------------------------------------------------------------------------------------------------------------ losses


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_cross_entropy_is_the_formula(smoothing: float, dtype: str) -> None:
    logits, label = example(10)
    target = (1 - smoothing) * np.eye(10)[label] + smoothing / 10
    exact = logits.astype(np.float64)
    log_p = exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))
    got = losses.build(f"cross_entropy(label_smoothing={smoothing})")(
        jnp.array(logits, dtype), jax.nn.one_hot(label, 10)
    )
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, -(target * log_p).sum(axis=1), rtol=1e-5, atol=1e-6)


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
        ("cross_entropy(label_smoothing=5)", "label_smoothing = 5: expected 0 to 1"),
    ],
)
def test_a_loss_that_does_not_exist_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        losses.build(text)


def test_nan_is_no_prediction_in_the_confusion_matrix() -> None:
    matrix = CONFUSION(jnp.array([[NAN, 1.0, 2.0]]), jnp.array([0]), jnp.array([True]))
    assert matrix.tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]
