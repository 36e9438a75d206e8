"""Confident learning against the package cleanlab."""

from typing import Any

import numpy as np
import pytest

from cnnjax.evaluation import confident_learning


def noisy(classes: int, strength: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns probabilities [5000, K] and labels of which 8 % are wrong, more often for some pairs of classes."""
    rng = np.random.default_rng(seed)
    truth = rng.choice(classes, 5000, p=rng.dirichlet(np.full(classes, 5.0)))
    logits = rng.normal(size=(5000, classes)) + strength * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = np.where(rng.random(5000) < 0.05, (truth + 1) % classes, truth)
    return p, np.where(rng.random(5000) < 0.03, rng.integers(0, classes, 5000), labels)


@pytest.mark.parametrize("strength", [2.0, 4.0, 7.0])
@pytest.mark.parametrize("classes", [2, 10, 50])
def test_the_joint_and_the_issues_agree(classes: int, strength: float) -> None:
    pytest.importorskip("cleanlab")
    count: Any = pytest.importorskip("cleanlab.count")
    filters: Any = pytest.importorskip("cleanlab.filter")
    p, labels = noisy(classes, strength, seed=classes)
    ours = confident_learning.confident_joint(p, labels)
    theirs = count.compute_confident_joint(labels, p, calibrate=False)
    # Of the classes above their thresholds ours takes the most probable, as in the paper; theirs takes the most
    # probable of all classes, even if that is below its threshold.
    assert np.abs(ours - theirs).sum() <= 0.02 * ours.sum()
    found = confident_learning.find_label_issues(p, labels).indices
    options = {"filter_by": "prune_by_noise_rate", "return_indices_ranked_by": "self_confidence", "n_jobs": 1}
    expected = filters.find_label_issues(labels, p, **options)
    assert len(set(found) & set(expected)) >= 0.95 * len(set(found) | set(expected))
    common = [i for i in expected if i in set(found)]
    assert [i for i in found if i in set(common)] == common  # in the same order
