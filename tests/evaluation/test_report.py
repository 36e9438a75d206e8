"""Classification metrics against NumPy written out from their definitions, and the files of an evaluation."""

import csv
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax import style
from cnnjax.evaluation import classification, figures, report

NAN, INF = float("nan"), float("inf")


def example(classes: int, count: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Returns random scores that are highest for the label more often than not."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, classes, count).astype(np.int32)
    scores = rng.normal(size=(count, classes)) + 1.5 * np.eye(classes)[label]
    return scores.astype(np.float32), label


def softmax(scores: np.ndarray) -> np.ndarray:
    p = np.exp(scores.astype(np.float64))
    return p / p.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("classes", [2, 4])
def test_rates_are_counts_over_counts(classes: int) -> None:
    scores, label = example(classes)
    guess = scores.argmax(axis=1)
    found = classification.classification_metrics(scores, label)
    for k in range(classes):
        hit, missed = ((guess == k) & (label == k)).sum(), ((guess != k) & (label == k)).sum()
        wrong, left = ((guess == k) & (label != k)).sum(), ((guess != k) & (label != k)).sum()
        want = {
            "images": hit + missed,
            "right": hit,
            "accuracy": hit / (hit + missed),
            "predicted": hit + wrong,
            "precision": hit / (hit + wrong),
            "recall": hit / (hit + missed),
            "f1": 2 * hit / (2 * hit + wrong + missed),
            "specificity": left / (left + wrong),
            "fall_out": wrong / (left + wrong),
        }
        assert {name: found.per_class[name][k] for name in want} == pytest.approx(want)
        assert [found.confusion[k, j] for j in range(classes)] == [
            ((label == k) & (guess == j)).sum() for j in range(classes)
        ]
    assert all(len(column) == classes for column in found.per_class.values())
    right = (guess == label).mean()
    fractions = np.bincount(label) / len(label)
    for name in ("precision", "recall", "f1"):
        assert found.overall[f"{name}_micro"] == pytest.approx(right)
        assert found.overall[f"{name}_macro"] == pytest.approx(found.per_class[name].mean())
        assert found.overall[f"{name}_weighted"] == pytest.approx((fractions * found.per_class[name]).sum())


@pytest.mark.parametrize("ties", [False, True])
def test_areas_under_the_curves_match_counts_of_pairs_and_thresholds(ties: bool) -> None:
    scores, label = example(3)
    if ties:
        scores[1::2] = scores[::2]
    found = classification.classification_metrics(scores, label)
    for k, p in enumerate(softmax(scores).round(9).T):
        own, others = p[label == k], p[label != k]
        beaten = (own[:, None] > others).sum() + 0.5 * (own[:, None] == others).sum()
        assert found.per_class["roc_auc"][k] == pytest.approx(beaten / (len(own) * len(others)))
        steps = [((p >= t) & (label == k)).sum() / (p >= t).sum() * (own == t).sum() / len(own) for t in np.unique(p)]
        assert found.per_class["average_precision"][k] == pytest.approx(sum(steps))
        # The curves are over a grid of 1,001 places, and these are the areas under them.
        assert found.roc[k].mean() == pytest.approx(found.per_class["roc_auc"][k], abs=2e-3)
        assert found.precision_recall[k].mean() == pytest.approx(found.per_class["average_precision"][k], abs=2e-3)
        assert (found.roc[k, -1], found.precision_recall[k, 0]) == (1, 1)
        assert found.precision_recall[k, -1] == pytest.approx(len(own) / (p >= own.min()).sum())
    for name in ("roc_auc", "average_precision"):
        assert found.overall[f"{name}_macro"] == pytest.approx(found.per_class[name].mean())


@pytest.mark.parametrize("classes", [2, 10])
def test_calibration_error_likelihood_and_brier_score_match_their_definitions(classes: int) -> None:
    scores, label = example(classes)
    found, p = classification.classification_metrics(scores, label), softmax(scores)
    hot, confidence, right = np.eye(classes)[label], p.max(axis=1), p.argmax(axis=1) == label
    error = 0.0
    for i, low in enumerate(np.arange(15) / 15):
        inside = (confidence > low) & (confidence <= (i + 1) / 15)
        row = {name: column[i] for name, column in found.calibration.items()}
        want: dict[str, Any] = {
            "low": low,
            "high": (i + 1) / 15,
            "images": inside.sum(),
            "confidence": NAN,
            "accuracy": NAN,
        }
        if inside.any():
            want |= {"confidence": confidence[inside].mean(), "accuracy": right[inside].mean()}
            error += inside.mean() * abs(want["confidence"] - want["accuracy"])
        assert row == pytest.approx(want, nan_ok=True)
    assert found.overall["ece"] == pytest.approx(error)
    assert found.overall["nll"] == pytest.approx(-np.log(p[hot > 0]).mean())
    assert found.overall["brier"] == pytest.approx(((p - hot) ** 2).sum(axis=1).mean())
    among = np.argsort(-scores, axis=1)[:, :5] == label[:, None]
    assert (found.overall["count"], found.overall["top1_right"], found.overall["top5_right"]) == (
        len(label), right.sum(), among.any(axis=1).sum(),
    )  # fmt: skip


@pytest.mark.parametrize("count", [10, 125, 1000])
def test_the_precision_at_a_recall_is_that_of_the_threshold_that_reaches_it(count: int) -> None:
    """A recall of k / `count` is a point of the grid, and must not be taken for one just below it."""
    right = np.linspace(1, 9, count)
    scores = np.concatenate([right, right - 1e-3])  # a wrong example behind each right one
    scores = np.stack([scores, np.zeros(2 * count)], axis=1).astype(np.float32)
    found = classification.classification_metrics(scores, np.repeat([0, 1], count)).precision_recall[0]
    hits = np.maximum(1, -(-np.arange(1001) * count // 1000))  # the fewest that reach the recall
    want = hits / (2 * hits - 1)
    want[0] = 1
    np.testing.assert_allclose(found, want)


def test_log_probabilities_give_the_same_metrics_as_logits() -> None:
    scores, label = example(4)
    a, b = (
        classification.classification_metrics(x, label) for x in (scores, np.log(softmax(scores)).astype(np.float32))
    )
    assert b.overall == pytest.approx(a.overall, abs=1e-6)


def test_the_chunk_size_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, label = example(4)
    whole = classification.classification_metrics(scores, label).overall
    monkeypatch.setattr(classification, "SCORES_PER_CHUNK", 28)
    assert classification.classification_metrics(scores, label).overall == pytest.approx(whole, rel=1e-12)


def test_macro_averages_leave_out_classes_without_examples() -> None:
    scores, label = example(3)
    wider = np.concatenate([scores, np.full((len(label), 1), -INF, np.float32)], axis=1)
    narrow, wide = (
        classification.classification_metrics(scores, label),
        classification.classification_metrics(wider, label),
    )
    assert wide.overall == pytest.approx(narrow.overall)
    undefined = {name for name, column in wide.per_class.items() if np.isnan(column[3])}
    assert undefined == {"accuracy", "precision", "recall", "f1", "roc_auc", "average_precision"}
    assert (wide.per_class["images"][3], wide.per_class["fall_out"][3]) == (0, 0)


def test_nan_scores_are_no_prediction() -> None:
    scores = np.array([[NAN, 1, 2], [NAN, NAN, NAN], [3, NAN, 1], [0, NAN, NAN]], np.float32)
    found = classification.classification_metrics(scores, np.array([2, 0, 1, 0]))
    assert found.confusion.tolist() == [[1, 0, 0], [1, 0, 0], [0, 0, 1]]
    assert (found.overall["top1_right"], found.overall["top5_right"], found.overall["accuracy"]) == (2, 2, 0.5)
    assert found.overall["recall_micro"] == 0.5
    assert found.overall["precision_micro"] == pytest.approx(2 / 3)  # of three predictions
    assert found.per_class["recall"].tolist() == [0.5, 0, 1]
    assert np.flatnonzero(found.calibration["images"]).tolist() == [0, 10, 13, 14]
    assert found.overall["nll"] == INF


def test_metrics_of_saturated_scores_are_finite() -> None:
    scores, label = example(3)
    found = classification.classification_metrics(scores * 1e30, label)
    assert np.isfinite([found.overall[name] for name in ("ece", "brier", "roc_auc_macro", "nll")]).all()
    unlikely = classification.classification_metrics(np.array([[0, 2000], [0, 2000]], np.float32), np.array([0, 1]))
    assert unlikely.overall["nll"] == pytest.approx(1000)  # of a probability below float64's range
    assert found.overall["accuracy"] == classification.classification_metrics(scores, label).overall["accuracy"]
    assert (
        classification.classification_metrics(np.array([[INF, 0], [-INF, 0]], np.float32), np.array([0, 1])).overall[
            "ece"
        ]
        == 0
    )


# ---------------------------------------------------------------------------------------------------------- the files


@pytest.mark.parametrize("case", ["two", "ten", "many", "absent", "one kind", "one class", "nothing but NaN"])
def test_files_hold_the_metrics_for_any_number_of_classes(case: str, tmp_path: pathlib.Path) -> None:
    count = {"two": 2, "ten": 10, "many": 40, "one class": 1}.get(case, 3)
    scores, label = example(count, count=200)
    label = {"absent": np.minimum(label, 1), "one kind": label * 0}.get(case, label)
    if case == "nothing but NaN":
        scores[:] = NAN
    classes = [f"class {k}" for k in range(count)]
    description = {"dataset": "some/data", "split": "test[:50%]", "step": 7}
    result = report.write(scores, label, {"loss": 0.25, "mine": NAN}, tmp_path, description, classes)
    folder = pathlib.Path(result["folder"])
    assert folder.parent == tmp_path / "evaluations"
    written = json.loads((folder / "metrics.json").read_text(), parse_constant=pytest.fail)  # no NaN, which is no JSON
    found = classification.classification_metrics(scores, label)
    assert written.pop("confusion") == found.confusion.tolist()
    assert written == result
    assert (result["loss"], result["mine"], result["count"], result["dataset"]) == (0.25, None, 200, "some/data")
    for name, columns in (("per_class.csv", found.per_class), ("calibration.csv", found.calibration)):
        with (folder / name).open() as file:
            table = list(csv.DictReader(file))
        for key, column in columns.items():
            got = [float(row[key]) if row[key] else NAN for row in table]
            np.testing.assert_array_equal(got, column)
    for name in ("confusion", "roc", "precision_recall", "calibration"):
        assert (folder / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (folder / f"{name}.svg").read_text().startswith("<?xml")


def test_a_title_has_names_rather_than_paths() -> None:
    subject = {"dataset": "mnist", "split": "test[:9]", "step": 0, "preprocess": "", "init": "/tmp/my runs/a.pth#ema"}
    assert report.title(subject) == "mnist test[:9], step 0, init a.pth#ema, preprocess none"
    ensemble = {"dataset": "mnist", "split": "test", "step": 3, "ensemble": "/tmp/a step 3, runs/b step 4"}
    assert report.title(ensemble) == "mnist test, step 3, ensemble a step 3, b step 4"
    probe = {"dataset": "mnist", "split": "test", "step": 3, "train_split": "train", "layer": "c1", "probe": "linear"}
    assert report.title(probe) == "mnist test, step 3, probe linear, layer c1, train_split train"
    published = {"dataset": "mnist", "split": "test", "step": 0, "init": "torchvision:resnet50.v1"}
    assert report.title(published) == "mnist test, step 0, init torchvision:resnet50.v1"


def test_roc_curves_have_whole_axes_from_corner_to_corner_and_a_diagonal() -> None:
    found = classification.classification_metrics(*example(3))
    drawn = {name: figure.axes[0] for name, figure in figures.draw(found, ["a", "b", "c"], "title").items()}
    for name in ("roc", "precision_recall"):
        assert (drawn[name].get_xlim(), drawn[name].get_ylim(), drawn[name].get_aspect()) == ((0, 1), (0, 1), 1)
    diagonal, *curves = drawn["roc"].lines
    assert (diagonal.get_label(), diagonal.get_xydata().tolist()) == ("random guessing", [[0, 0], [1, 1]])
    for curve in curves:
        assert (curve.get_xydata()[0].tolist(), curve.get_xydata()[-1].tolist()) == ([0, 0], [1, 1])
    assert "random guessing" not in [line.get_label() for line in drawn["precision_recall"].lines]


@pytest.mark.parametrize(
    ("classes", "lines"),
    [(2, 2 + 1), (figures.MAX_CLASS_CURVES, figures.MAX_CLASS_CURVES + 1), (40, figures.WORST_CURVES_SHOWN + 1)],
)
def test_few_classes_have_a_curve_each_and_many_have_a_band(classes: int, lines: int) -> None:
    found = classification.classification_metrics(*example(classes, count=600))
    axes = style.new_figure(4, 3).add_subplot()
    names = [f"class {k}" for k in range(classes)]
    figures.plot_class_curves(axes, classification.CURVE_GRID, found.roc, found.per_class["roc_auc"], "AUC", 0.5, names)
    assert len(axes.lines) == lines
    assert len(axes.collections) == (classes > figures.MAX_CLASS_CURVES)
    worst = names[int(found.per_class["roc_auc"].argmin())]
    assert axes.lines[0].get_label().startswith(f"{worst} (AUC ")
