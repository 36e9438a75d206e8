"""Metrics against NumPy, in any grouping of the examples; and a new one, which is one row."""

import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnnjax import losses, metrics
from cnnjax.config import Config
from cnnjax.distributed import sharding
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.metrics import METRICS, Metric
from cnnjax.runs import checkpoint
from cnnjax.sweep import record, report
from cnnjax.sweep.settings import Settings
from cnnjax.training import loop, progress

NAN, INF = float("nan"), float("inf")
RANK, SUMS = map(jax.jit, (metrics.rank, metrics.sums))


def example(classes: int, count: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns logits with many ties, and labels."""
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


def test_the_prediction_is_the_class_of_rank_0() -> None:
    rows = [[3, 2, 1], [1, 1, 1], [-INF, INF, 0], [NAN, 1, 2], [NAN, -INF, NAN], [NAN, NAN, NAN], [1, INF, NAN]]
    scores = np.array(rows, np.float32)
    ranks = np.array([RANK(jnp.array(scores), jnp.full(len(rows), k)) for k in range(3)])
    assert metrics.predictions(scores).tolist() == [0, 0, 1, 2, 1, -1, 1]
    for row, prediction in enumerate(metrics.predictions(scores)):
        assert np.flatnonzero(ranks[:, row] == 0).tolist() == ([prediction] if prediction >= 0 else [])


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
    assert got["accuracy"] == hit[:, 0].sum()
    assert got["top5"] == hit[:, :5].sum()
    np.testing.assert_allclose(got["loss"], loss[mask].sum(), rtol=1e-5)


def test_a_nan_is_no_top_5_hit_however_few_the_classes() -> None:
    got = SUMS(jnp.array([[NAN, 1.0], [1.0, 2.0]]), jnp.array([0, 0]), jnp.ones(2))
    assert (got["accuracy"], got["top5"]) == (0, 1)


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
    assert (total["count"], total["accuracy"], total["loss"]) == (24, right, float(loss.sum()))


def test_sums_stay_exact_where_float32_would_not() -> None:
    parts = [{"count": np.int32(2**31 - 1), "loss": np.float32(1.0)}, {"count": np.int32(1), "loss": np.float32(1e-9)}]
    total = metrics.add(parts)
    assert (total["count"], total["count"].dtype, total["loss"].dtype) == (2**31, np.int64, np.float64)
    assert total["loss"] == 1.0 + np.float64(np.float32(1e-9))


def test_means_are_shares_of_the_count() -> None:
    total = {name: np.array(x) for name, x in {"count": 8, "loss": 4, "accuracy": 2, "top5": 6}.items()}
    assert metrics.means(total) == {"loss": 0.5, "accuracy": 0.25, "top5": 0.75}


def test_a_whole_split_has_the_metrics_of_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "EXAMPLES_PER_CHUNK", 16)
    scores, label = example(10, 40)
    got = metrics.evaluate(scores, label, losses.cross_entropy)
    loss = losses.cross_entropy(jnp.array(scores), jax.nn.one_hot(label, 10))
    want = metrics.means(metrics.add([jax.device_get(SUMS(jnp.array(scores), jnp.array(label), loss))]))
    assert got == want | {"loss": pytest.approx(want["loss"], rel=1e-6)}


def test_values_are_shown_as_their_rows_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METRICS, "mine", Metric("mine", METRICS["loss"].batch_sum, format_spec=".1f"))
    values = {"loss": 0.12345, "accuracy": 0.98765, "top5": 1.0, "mine": 2.34}
    assert metrics.describe(values) == "loss 0.1235, accuracy 98.77%, mine 2.3"
    assert metrics.format_value("val/top5", 0.5) == "50.00%"
    assert metrics.format_value("depth", 12.0) == "12"
    assert METRICS["loss"].format(None) == "-"


# ------------------------------------------------------------------------------------------------- one row more


def _hits_and_images(logits: jax.Array, label: jax.Array, loss: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the correctly classified images and all images of each class, int [2, K]."""
    classes = jax.nn.one_hot(label, logits.shape[-1], dtype=int) * mask[:, None]
    hit = (metrics.rank(logits, label) == 0)[:, None]
    return jnp.stack([(classes * hit).sum(axis=0), classes.sum(axis=0)])


def _mean_recall(total: np.ndarray, count: float) -> float:
    hits, images = total[:, total[1] > 0]
    return float((hits / images).mean())


BALANCED = Metric("balanced", _hits_and_images, format_spec=".3%", title="balanced accuracy", mean=_mean_recall)
SMALL: dict[str, Any] = {
    "model": "mlp(features=(16,))", "train_split": "train[:96]", "val_split": "test[:64]", "test_split": "test[64:101]",
    "duration": "8 steps", "batch_size": 16, "eval_batch_size": 24, "lr": 0.05, "eval_every": "2 steps",
    "log_every": "4 steps", "checkpoint_every": "2 steps", "keep_checkpoints": 1,
}  # fmt: skip


@pytest.mark.parametrize("steps_per_call", [1, 4])
def test_a_new_metric_is_one_row(
    steps_per_call: int, digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "balanced", BALANCED)
    monkeypatch.setattr(checkpoint, "METRIC", "balanced")
    shown: list[str] = []
    monkeypatch.setattr(progress.Bar, "note", lambda bar, line: shown.append(line))
    config = Config(
        **SMALL,
        steps_per_call=steps_per_call,
        grad_accum_steps=2 if steps_per_call > 1 else 1,
        schedule="plateau(patience=0, metric='balanced')",
        early_stop="early_stop(patience=9, metric='balanced')",
    )
    mesh = sharding.make_mesh(jax.devices()[:1])
    result = loop.train(config, tmp_path, data_dir=digits_dir, mesh=mesh)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    values = {line["step"]: line["val/balanced"] for line in lines if "val/balanced" in line}
    assert sorted(values) == [2, 4, 6, 8]
    assert all(0 <= line["train/balanced"] <= 1 for line in lines if "train/loss" in line)
    assert [line.rpartition(" ")[2] for line in shown] == [format(value, ".3%") for value in values.values()]
    best = max(values, key=lambda step: (values[step], step))
    assert checkpoint.best(tmp_path) == best
    assert set(checkpoint.steps(tmp_path)) == {best, 8}

    again = evaluate(tmp_path, data_dir=digits_dir, mesh=mesh)
    assert again["balanced"] == result.metrics["balanced"] == pytest.approx(again["recall_macro"])


@pytest.mark.parametrize(("name", "order"), [("balanced", [0, 1]), ("loss", [1, 0]), ("top5", [0, 1])])
def test_a_sweep_takes_the_direction_of_its_metric(
    name: str, order: list[int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(METRICS, "balanced", BALANCED)
    config: dict[str, Any] = {"val_split": "test", "train_split": "train"}
    full = json.loads(json.dumps(vars(Config(**config))))
    settings = Settings(config=full, source="x.py", space={"lr": [0.1, 0.2]}, metric=name)
    sweep = record.open_sweep(tmp_path, settings, log=print, writable=True)
    for value in (0.9, 0.1):
        sweep.study.tell(sweep.study.ask(sweep.space), value)
    assert [trial.number for trial in report.ranked(sweep)] == order
    assert sweep.study.best_trial.number == order[0]


@pytest.mark.parametrize(("metric", "best"), [("accuracy", 2), ("loss", 4)])
def test_the_best_checkpoint_is_by_the_direction_of_its_metric(
    metric: str, best: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "METRIC", metric)
    saved = {
        2: {"accuracy": 0.9, "loss": 0.5},
        4: {"accuracy": 0.8, "loss": 0.4},
        6: None,
        1: {"accuracy": 0.9, "loss": 0.6},
    }
    assert checkpoint._best(saved) == best
