"""Confident learning: which labels of a data set may be wrong (Northcutt et al. 2021, JAIR 70, arXiv:1911.00068).

It takes class probabilities of networks that were not trained on the images they judge, such as those of the
validation folds of a cross-validation.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class LabelIssues:
    """The examples whose labels may be wrong, and how often classes are mislabeled.

    Attributes:
      indices: int [M], the examples, the least probable label first.
      suggestions: int [M], the class that each probably belongs to.
      joint: float [K, K], estimated fraction of all examples with label i (row) that belong to class j (column); sums
        to 1.
      thresholds: float [K], the mean probability of each class among the examples that have it as label.
    """

    indices: np.ndarray
    suggestions: np.ndarray
    joint: np.ndarray
    thresholds: np.ndarray

    @property
    def noise_rate(self) -> float:
        """Returns the estimated fraction of wrong labels."""
        return float(self.joint.sum() - self.joint.trace())


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the mean probability of each class among the examples with this label, float [K] (eq. 2).

    The threshold of a class without examples is infinite.
    """
    count = np.bincount(labels, minlength=probabilities.shape[1])
    total = np.bincount(labels, probabilities[np.arange(len(labels)), labels], probabilities.shape[1])
    return np.divide(total, count, out=np.full(len(count), np.inf), where=count > 0)


def confident_joint(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Counts the examples with label i that confidently belong to class j: int [K, K] (eq. 1).

    An example belongs confidently to the most probable of the classes whose probability reaches their threshold.
    Examples that reach none are not counted.
    """
    classes = probabilities.shape[1]
    confident = np.where(probabilities >= class_thresholds(probabilities, labels), probabilities, -1)
    chosen = confident.argmax(axis=1)
    counted = confident.max(axis=1) >= 0
    return np.bincount(labels[counted] * classes + chosen[counted], minlength=classes**2).reshape(classes, classes)


def estimated_joint(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Estimates the joint distribution of labels (rows) and classes (columns) from a confident joint: [K, K] (eq. 3).

    Its rows are scaled to the frequencies of the labels. A label without confident examples counts as right.
    """
    exact = counts + np.diag(counts.sum(axis=1) == 0)
    frequency = np.bincount(labels, minlength=len(counts)) / len(labels)
    return exact / exact.sum(axis=1, keepdims=True) * frequency[:, None]


def find_label_issues(probabilities: np.ndarray, labels: np.ndarray) -> LabelIssues:
    """Finds the labels that may be wrong, by "prune by noise rate" (sec. 3.2, method 4).

    For each pair of label i and class j, the estimated joint says how many examples with label i belong to class j: as
    many are taken, those with the largest margin p(j) - p(i). Examples whose label has the highest probability are
    left out. Issues are ranked by the probability of their label, the lowest first.

    Args:
      probabilities: float [N, K], each row from networks that were not trained on the example.
      labels: int [N], from 0 to K - 1.
    """
    joint = estimated_joint(confident_joint(probabilities, labels), labels)
    counts = np.rint(len(labels) * joint).astype(int)
    is_issue = np.zeros(len(labels), bool)
    for i in range(len(joint)):
        members = np.flatnonzero(labels == i)
        for j in np.flatnonzero((counts[i] > 0) & (np.arange(len(joint)) != i)):
            margin = probabilities[members, j] - probabilities[members, i]
            is_issue[members[np.argsort(-margin, kind="stable")[: counts[i, j]]]] = True
    suggestions = probabilities.argmax(axis=1)
    indices = np.flatnonzero(is_issue & (suggestions != labels))
    label_probability = probabilities[indices, labels[indices]]
    indices = indices[np.argsort(label_probability, kind="stable")]
    return LabelIssues(indices, suggestions[indices], joint, class_thresholds(probabilities, labels))
