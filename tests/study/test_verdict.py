"""Verdicts: the paired interval, and what follows from it."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from cnnjax.study import Comparison
from cnnjax.study.verdict import (
    CONTRADICTED,
    EQUAL,
    HELD,
    REFUTED,
    UNDECIDED,
    interval,
    judge,
    overall_verdict,
)

NEAR = [-0.1, 0.0, 0.1]  # differences with a 95 % interval of +-0.25 around their mean


@pytest.mark.parametrize(
    ("mean", "sign", "margin", "expected"),
    [
        (1.0, "higher", 0.0, HELD), (1.0, "lower", 0.0, CONTRADICTED), (-1.0, "lower", 0.0, HELD),
        (-1.0, "higher", 0.0, CONTRADICTED), (1.0, "higher", 0.5, HELD), (1.0, "higher", 2.0, REFUTED),
        (1.0, "higher", 1.1, UNDECIDED), (-1.0, "higher", 0.5, CONTRADICTED), (0.0, "higher", 0.0, UNDECIDED),
        (0.0, "higher", 0.5, REFUTED), (0.0, "lower", 0.5, REFUTED), (0.0, "equal", 0.5, EQUAL),
        (0.0, "equal", 0.2, UNDECIDED), (1.0, "equal", 0.5, CONTRADICTED), (-1.0, "equal", 0.5, CONTRADICTED),
        (0.0, "at_least", 0.5, HELD), (1.0, "at_least", 0.5, HELD), (-1.0, "at_least", 0.5, CONTRADICTED),
        (-0.5, "at_least", 0.5, UNDECIDED),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_interval(mean: float, sign: Any, margin: float, expected: str) -> None:
    values = {"a": {"m": [mean + x + 7 for x in NEAR]}, "b": {"m": [7.0] * 3}}
    finding = judge(Comparison("a", sign, "b", "m", margin), values)
    assert finding.verdict == expected
    assert finding.difference == pytest.approx(mean)


@pytest.mark.parametrize(("a", "expected"), [([2.0, 2.0], HELD), ([1.0, 1.0], REFUTED), ([9.0], UNDECIDED)])
def test_arms_without_variance_and_single_runs(a: list[float], expected: str) -> None:
    assert judge(Comparison("a", "higher", "b", "m"), {"a": {"m": a}, "b": {"m": [1.0, 1.0]}}).verdict == expected


def test_the_interval_is_students_of_the_differences() -> None:
    differences = [0.3, 0.1, 0.2, 0.6]
    mean, low, high = interval(differences)
    quantile = 3.18245  # of Student's t with 3 degrees of freedom, at 97.5 %
    assert (high - low) / 2 == pytest.approx(quantile * np.std(differences, ddof=1) / math.sqrt(4), rel=1e-5)
    assert (high + low) / 2 == pytest.approx(mean) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [
        ([HELD, HELD], HELD), ([HELD, UNDECIDED], UNDECIDED), ([UNDECIDED, REFUTED, HELD], REFUTED), ([EQUAL], EQUAL),
        ([EQUAL, HELD], HELD), ([REFUTED, CONTRADICTED], CONTRADICTED),
    ],
)  # fmt: skip
def test_a_claim_holds_if_all_comparisons_do(verdicts: list[str], overall: str) -> None:
    values = {"a": {"m": [1.0, 1.0]}, "b": {"m": [0.0, 0.0]}}
    finding = judge(Comparison("a", "higher", "b", "m"), values)
    assert overall_verdict([dataclasses.replace(finding, verdict=verdict) for verdict in verdicts]) == overall
