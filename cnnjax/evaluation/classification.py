"""Classification metrics: accuracies, per-class rates, confusion matrix, calibration, ROC and precision-recall curves.

Scores are float32 [N, K], logits or log-probabilities; labels are int [N]. Macro averages are over the classes that
have examples. A NaN score ranks below all others; an example whose scores are all NaN counts as a wrong prediction of
no class.
"""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np

from cnnjax import metrics

CALIBRATION_BINS = 15  # as in Guo et al. 2017
CURVE_GRID = np.arange(1001) / 1000  # the x values of stored curves; linspace misses k/1000 in the last bit
SCORES_PER_CHUNK = 2**22  # converted to float64 at a time
MACRO_AVERAGED = ("precision", "recall", "f1", "specificity", "fall_out", "roc_auc", "average_precision")


@dataclasses.dataclass(frozen=True)
class ClassificationMetrics:
    """Results of `classification_metrics`. Undefined values, such as the recall of a class without examples, are NaN.

    In names, "fall_out" is the false positive rate, "right" means correctly predicted, "images" counts examples.

    Attributes:
      overall: {name: number}: "accuracy", "top5", "ece", "nll", "brier", averages such as "recall_macro", and more.
      per_class: {name: array [K]}: "images", "accuracy", "precision", "recall", "f1", "roc_auc", and more.
      confusion: int64 [K, K]; rows are labels, columns predictions.
      calibration: {name: array [CALIBRATION_BINS]}: "low", "high", "images", "confidence" and "accuracy" of each bin.
      roc: [K, len(CURVE_GRID)], one-vs-rest recall at each false positive rate of CURVE_GRID.
      precision_recall: [K, len(CURVE_GRID)], one-vs-rest precision at each recall of CURVE_GRID.
    """

    overall: dict[str, Any]
    per_class: dict[str, np.ndarray]
    confusion: np.ndarray
    calibration: dict[str, np.ndarray]
    roc: np.ndarray
    precision_recall: np.ndarray


def classification_metrics(scores: np.ndarray, labels: np.ndarray) -> ClassificationMetrics:
    """Computes accuracies, per-class rates, confusion matrix, calibration and curves by scikit-learn's definitions.

    `scores` are logits or log-probabilities float32 [N, K], `labels` are int [N]. Precision is 0 for a class that has
    examples but is never predicted. "ece" is the expected calibration error of Guo et al. (2017, arXiv:1706.04599, sec.
    2). "brier" is the sum of squared errors over the classes (Brier 1950), from 0 to 2. "nll" is the mean negative
    log-likelihood in nats.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support  # costs a second

    count, classes = len(labels), np.arange(scores.shape[1])
    top_k = min(5, len(classes))
    rank = np.asarray(metrics.rank(jnp.asarray(scores), jnp.asarray(labels)))
    predictions = metrics.predictions(scores)
    scores = np.nan_to_num(scores, nan=-np.inf, posinf=float(np.finfo(np.float32).max), neginf=-np.inf)
    log_normalizer, sum_of_squares = _normalize(scores)

    def log_probability(class_index: Any) -> np.ndarray:
        """Returns the log-probability [N] of one class, or of another class for each example."""
        return scores[np.arange(count), class_index] - log_normalizer

    confusion = confusion_matrix(labels, predictions, labels=[-1, *classes])[1:, 1:]
    support, predicted, correct = (
        np.bincount(labels, minlength=len(classes)),
        confusion.sum(axis=0),
        confusion.diagonal(),
    )
    options: dict[str, Any] = {"labels": classes, "zero_division": 0.0}
    rates = dict(zip(MACRO_AVERAGED, precision_recall_fscore_support(labels, predictions, **options)[:3], strict=False))
    rates = {name: np.where(support > 0, rate, np.nan) for name, rate in rates.items()}
    false_positive_rate = np.divide(
        predicted - correct, count - support, out=np.full(len(classes), np.nan), where=support < count
    )
    curves = [_curves(labels == k, np.exp(log_probability(k))) for k in classes]
    roc_auc, average_precision, roc, precision_recall = map(np.array, zip(*curves, strict=True))
    per_class = {"images": support, "right": correct, "accuracy": rates["recall"], "predicted": predicted, **rates,
                 "specificity": 1 - false_positive_rate, "fall_out": false_positive_rate, "roc_auc": roc_auc,
                 "average_precision": average_precision}  # fmt: skip

    calibration = calibration_bins(np.exp(log_probability(predictions)), predictions == labels)
    log_likelihood = log_probability(labels)
    micro = precision_recall_fscore_support(labels, predictions, average="micro", **options)
    overall = {
        "accuracy": (rank < 1).mean(),
        "top5": (rank < top_k).mean(),
        "count": count,
        "top1_right": (rank < 1).sum(),
        "top5_right": (rank < top_k).sum(),
        **{f"{name}_macro": _nan_mean(per_class[name][support > 0]) for name in MACRO_AVERAGED},
        **{f"{name}_micro": rate for name, rate in zip(rates, micro, strict=False)},
        **{f"{name}_weighted": np.nansum(support * rate) / count for name, rate in rates.items()},
        "ece": calibration_error(calibration),
        "nll": -log_likelihood.mean(),
        "brier": (1 - 2 * np.exp(log_likelihood) + sum_of_squares).mean(),
    }
    return ClassificationMetrics(overall, per_class, confusion, calibration, roc, precision_recall)


def _normalize(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the log-sum-exp of each example's scores, and the sum of its squared probabilities: both float64 [N]."""
    log_normalizers, sums_of_squares = [], []
    for chunk in np.array_split(scores, max(1, scores.size // SCORES_PER_CHUNK)):
        exact = chunk.astype(np.float64)
        log_normalizer = np.logaddexp.reduce(exact, axis=1)
        log_normalizer[np.isneginf(log_normalizer)] = 0  # all scores are -inf: all probabilities become 0
        log_normalizers.append(log_normalizer)
        sums_of_squares.append(np.exp(2 * (exact - log_normalizer[:, None])).sum(axis=1))
    return np.concatenate(log_normalizers), np.concatenate(sums_of_squares)


def _curves(is_class: np.ndarray, probability: np.ndarray) -> tuple[float, float, np.ndarray, np.ndarray]:
    """Returns ROC AUC, average precision, ROC curve and precision-recall curve of one class against the rest.

    `is_class` is bool [N], `probability` of the class is float [N]. The curves are recall and precision at CURVE_GRID.
    All four results are NaN unless there are examples both of the class and of others.
    """
    from sklearn.metrics import auc, roc_curve

    if is_class.all() or not is_class.any():
        return np.nan, np.nan, np.full(len(CURVE_GRID), np.nan), np.full(len(CURVE_GRID), np.nan)
    false_positive_rate, recall, _ = roc_curve(is_class, probability, drop_intermediate=False)
    # scikit-learn's precision_recall_curve would sort the probabilities a second time.
    true_positives, false_positives = recall[1:] * is_class.sum(), false_positive_rate[1:] * (~is_class).sum()
    precision = np.append(1.0, true_positives / (true_positives + false_positives))
    average_precision = float((np.diff(recall) * precision[1:]).sum())
    first = np.searchsorted(recall, CURVE_GRID)  # the highest threshold that reaches each recall
    roc = np.interp(CURVE_GRID, false_positive_rate, recall)
    return float(auc(false_positive_rate, recall)), average_precision, roc, precision[first]


def calibration_bins(confidence: np.ndarray, is_correct: np.ndarray) -> dict[str, np.ndarray]:
    """Groups examples into CALIBRATION_BINS equal bins (low, high] of confidence, and averages within each.

    `confidence` is the probability of the predicted class, float [N]; `is_correct` is bool [N]. Returns arrays by name:
    "low" and "high" edges, "images" (number of examples), mean "confidence" and "accuracy", NaN for an empty bin.
    """
    edges = np.linspace(0, 1, CALIBRATION_BINS + 1)
    bins = np.searchsorted(edges[1:-1], confidence)
    images = np.bincount(bins, minlength=CALIBRATION_BINS)
    sums = {
        "confidence": np.bincount(bins, confidence, CALIBRATION_BINS),
        "accuracy": np.bincount(bins, is_correct, CALIBRATION_BINS),
    }
    means = {
        name: np.divide(total, images, out=np.full(CALIBRATION_BINS, np.nan), where=images > 0)
        for name, total in sums.items()
    }
    return {"low": edges[:-1], "high": edges[1:], "images": images, **means}


def calibration_error(bins: dict[str, np.ndarray]) -> float:
    """Returns the expected calibration error (Guo et al. 2017, eq. 3) of the bins of `calibration_bins`, in [0, 1]."""
    gaps = bins["images"] * np.abs(bins["accuracy"] - bins["confidence"])
    return float(np.nansum(gaps) / bins["images"].sum())


def _nan_mean(values: np.ndarray) -> float:
    """Returns the mean of the values that are not NaN, or NaN if there are none. Unlike numpy.nanmean, never warns."""
    return float(np.mean(values, where=~np.isnan(values))) if not np.isnan(values).all() else np.nan
