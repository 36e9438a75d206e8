"""Verdicts: Welch's interval, and what follows from it."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from cnnjax.study import Comparison
from cnnjax.study.verdict import HELD, REFUTED, UNDECIDED, interval, judge, overall_verdict


@pytest.mark.parametrize(
    ("a", "b", "sign", "margin", "expected"),
    [
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 0.0, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "lower", 0.0, REFUTED),
        ([1.0, 1.1, 0.9], [3.0, 3.1, 2.9], "lower", 0.0, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 1.5, HELD),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 3.0, REFUTED),
        ([3.0, 3.1, 2.9], [1.0, 1.1, 0.9], "higher", 2.0, UNDECIDED),
        ([3.0, 1.0, 2.0], [2.5, 0.5, 1.5], "higher", 0.0, UNDECIDED),
        ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], "lower", -0.5, HELD),  # higher by less than 0.5
        ([1.0, 1.1, 0.9], [1.0, 1.1, 0.9], "lower", 0.0, UNDECIDED),
        ([2.0, 2.0], [1.0, 1.0], "higher", 0.0, HELD),  # without variance
        ([1.0, 1.0], [1.0, 1.0], "higher", 0.0, REFUTED),
        ([0.3, 0.32, 0.31], [0.1, 0.1, 0.1], "higher", 0.1, HELD),  # SciPy warns about an arm without variance
        ([9.0], [1.0], "higher", 0.0, UNDECIDED),  # a single run has no interval
    ],
)
def test_the_verdict_follows_from_the_interval(a: list, b: list, sign: Any, margin: float, expected: str) -> None:
    finding = judge(Comparison("a", sign, "b", "m", margin), {"a": {"m": a}, "b": {"m": b}})
    assert finding.verdict == expected
    assert finding.difference == pytest.approx(np.mean(a) - np.mean(b))


def test_the_interval_is_welchs() -> None:
    """Against the formulas: degrees of freedom by Welch and Satterthwaite, and the t-distribution by its quantile."""
    a, b = [30.02, 29.99, 30.11, 29.97, 30.01, 29.99], [29.89, 29.93, 29.72, 29.98, 30.02, 29.98]
    difference, low, high = interval(a, b)
    va, vb = np.var(a, ddof=1) / 6, np.var(b, ddof=1) / 6
    freedom = (va + vb) ** 2 / (va**2 / 5 + vb**2 / 5)
    assert freedom == pytest.approx(7.03, abs=0.01)
    quantile = 2.3625  # of Student's t with 7.03 degrees of freedom, at 97.5 %
    assert (high - low) / 2 == pytest.approx(quantile * math.sqrt(va + vb), rel=1e-3)
    assert (high + low) / 2 == pytest.approx(difference) == pytest.approx(0.095, abs=1e-3)


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [([HELD, HELD], HELD), ([HELD, UNDECIDED], UNDECIDED), ([UNDECIDED, REFUTED, HELD], REFUTED), ([], UNDECIDED)],
)
def test_a_claim_holds_if_all_comparisons_do(verdicts: list[str], overall: str) -> None:
    values = {"a": {"m": [1.0, 1.0]}, "b": {"m": [0.0, 0.0]}}
    finding = judge(Comparison("a", "higher", "b", "m"), values)
    assert overall_verdict([dataclasses.replace(finding, verdict=verdict) for verdict in verdicts]) == overall
