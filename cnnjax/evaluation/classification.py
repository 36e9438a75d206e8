"""How good scores are: numbers, tables and curves from what a network says of each example of a split.

Scores are float32 [N, K], logits or log-probabilities; labels are int [N]. A class counts in a mean over the classes
("macro") where it has examples, and has a curve where others have some, too. A NaN is no prediction: it comes after all
other scores, and an example that has nothing else is taken for no class.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from cnnjax import metrics

BINS = 15  # of the calibration error, as in Guo et al. 2017
GRID = np.linspace(0, 1, 1001)  # where curves are kept
CHUNK = 2**22  # scores in double precision at a time
MACRO = ("precision", "recall", "f1", "specificity", "fall_out", "roc_auc", "average_precision")


class Measures(NamedTuple):
    """What `measure` finds. NaN stands for what there is no saying, such as the recall of a class without examples."""

    overall: dict[str, Any]  # name -> number
    classes: dict[str, np.ndarray]  # name -> [K]
    confusion: np.ndarray  # int64 [K, K]: how often a class (row) was taken for another (column)
    calibration: dict[str, np.ndarray]  # name -> [BINS]
    roc: np.ndarray  # [K, len(GRID)]: of each class against the others the recall, where the fall-out is GRID
    precision: np.ndarray  # and the precision, where the recall is GRID


def measure(scores: np.ndarray, label: np.ndarray) -> Measures:
    """All of it: scikit-learn's definitions, with precision 0 for a class that nothing was taken for.

    The calibration error is Guo et al.'s (2017, arXiv:1706.04599, 2), and Brier's score (1950) the sum over the
    classes, from 0 to 2.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # costs a second

    count, kinds = len(label), np.arange(scores.shape[1])
    five = min(5, len(kinds))
    position = np.asarray(metrics.rank(jnp.asarray(scores), jnp.asarray(label)))
    none = np.isnan(scores).all(axis=1)
    scores = np.nan_to_num(scores, nan=-np.inf, posinf=float(np.finfo(np.float32).max), neginf=-np.inf)
    taken_for = np.where(none, -1, scores.argmax(axis=1))
    log_total, squares = _rows(scores)

    def probability(kind: Any) -> np.ndarray:
        """Of one class, or of one for each example, [N]."""
        return np.exp(scores[np.arange(count), kind] - log_total)

    # The classes.
    matrix = confusion_matrix(label, taken_for, labels=[-1, *kinds])[1:, 1:]
    images, predicted, right = np.bincount(label, minlength=len(kinds)), matrix.sum(axis=0), matrix.diagonal()
    by: dict[str, Any] = {"labels": kinds, "zero_division": 0.0}
    rates = dict(zip(MACRO, precision_recall_fscore_support(label, taken_for, **by)[:3], strict=False))
    rates = {name: np.where(images > 0, rate, np.nan) for name, rate in rates.items()}
    fall_out = np.divide(predicted - right, count - images, out=np.full(len(kinds), np.nan), where=images < count)
    curves = [_curves(label == kind, probability(kind)) for kind in kinds]
    roc_auc, average_precision, roc, precision = map(np.array, zip(*curves, strict=True))
    classes = {"images": images, "right": right, "accuracy": rates["recall"], "predicted": predicted, **rates,
               "specificity": 1 - fall_out, "fall_out": fall_out, "roc_auc": roc_auc,
               "average_precision": average_precision}  # fmt: skip

    # All examples.
    calibration = _calibration(probability(scores.argmax(axis=1)), taken_for == label)
    gaps = calibration["images"] * np.abs(calibration["accuracy"] - calibration["confidence"])
    own = probability(label)
    micro = precision_recall_fscore_support(label, taken_for, average="micro", **by)
    with np.errstate(divide="ignore"):
        nll = -np.log(own).mean()
    overall = {
        "accuracy": (position < 1).mean(),
        "top5": (position < five).mean(),
        "count": count,
        "top1_right": (position < 1).sum(),
        "top5_right": (position < five).sum(),
        **{f"{name}_macro": _mean(classes[name][images > 0]) for name in MACRO},
        **{f"{name}_micro": rate for name, rate in zip(rates, micro, strict=False)},
        **{f"{name}_weighted": np.nansum(images * rate) / count for name, rate in rates.items()},
        "ece": np.nansum(gaps) / count,
        "nll": nll,
        "brier": (1 - 2 * own + squares).mean(),
    }
    return Measures(overall, classes, matrix, calibration, roc, precision)


def _rows(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each example, what to subtract from its scores to make log-probabilities, and the sum of their squares."""
    totals, squares = [], []
    for part in np.array_split(scores, max(1, scores.size // CHUNK)):
        exact = part.astype(np.float64)
        total = np.logaddexp.reduce(exact, axis=1)
        total[np.isneginf(total)] = 0  # nothing is predicted: all probabilities are 0
        totals.append(total)
        squares.append(np.exp(2 * (exact - total[:, None])).sum(axis=1))
    return np.concatenate(totals), np.concatenate(squares)


def _curves(right: np.ndarray, probability: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """The area under the ROC curve, the average precision, the recall and the precision, as in `Measures`."""
    from sklearn.metrics import auc, roc_curve

    if right.all() or not right.any():
        return np.nan, np.nan, np.full(len(GRID), np.nan), np.full(len(GRID), np.nan)
    fall_out, recall, _ = roc_curve(right, probability, drop_intermediate=False)
    found, wrong = recall[1:] * right.sum(), fall_out[1:] * (~right).sum()
    precision = np.append(1.0, found / (found + wrong))  # its own function would sort them all again
    average = float((np.diff(recall) * precision[1:]).sum())
    first = np.searchsorted(recall, GRID)  # where the fewest are taken for the class
    return float(auc(fall_out, recall)), average, np.interp(GRID, fall_out, recall), precision[first]


def _calibration(confidence: np.ndarray, right: np.ndarray) -> dict[str, np.ndarray]:
    """The mean confidence and the accuracy of the examples whose confidence is above `low`, and up to `high`."""
    edges = np.linspace(0, 1, BINS + 1)
    where = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(where, minlength=BINS)
    sums = {"confidence": np.bincount(where, confidence, BINS), "accuracy": np.bincount(where, right, BINS)}
    means = {
        name: np.divide(total, images, out=np.full(BINS, np.nan), where=images > 0) for name, total in sums.items()
    }
    return {"low": edges[:-1], "high": edges[1:], "images": images, **means}


def _mean(values: np.ndarray) -> float:
    """Of those that are not NaN; NaN where there is none, without a warning."""
    return float(np.mean(values, where=~np.isnan(values))) if not np.isnan(values).all() else np.nan
