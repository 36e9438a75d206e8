"""What the runs say of a claim: differences of means, with confidence intervals."""

import math
import statistics
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import scipy.stats

from cnnjax.study import Comparison

LEVEL = 0.95  # of the confidence intervals
HELD, REFUTED, OPEN = "held", "refuted", "undecided"

Values = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> metric -> a number for each seed


class Finding(NamedTuple):
    """The difference of two arms' means, its interval, and what it says of the comparison."""

    comparison: Comparison
    difference: float
    low: float
    high: float
    verdict: str


def interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """mean(a) - mean(b) and its confidence interval, by Welch's t-test; infinite where a spread is unknown."""
    difference = statistics.fmean(a) - statistics.fmean(b)
    if min(len(a), len(b)) < 2:
        return difference, -math.inf, math.inf
    if statistics.pvariance(a) == statistics.pvariance(b) == 0:
        return difference, difference, difference
    with warnings.catch_warnings():  # of an arm whose runs all end alike: it has no spread, and needs none
        warnings.simplefilter("ignore", RuntimeWarning)
        found = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return difference, float(found.low), float(found.high)


def judge(comparison: Comparison, values: Values) -> Finding:
    """Held when the whole interval is beyond the margin, refuted when all of it is short of it, undecided between."""
    a, b = values[comparison.a][comparison.metric], values[comparison.b][comparison.metric]
    difference, low, high = interval(a, b)
    sign = 1 if comparison.sign == "higher" else -1
    nearest, farthest = sorted((sign * low, sign * high))
    beyond, short = nearest > comparison.margin, farthest <= comparison.margin
    return Finding(comparison, difference, low, high, HELD if beyond else REFUTED if short else OPEN)


def together(findings: Sequence[Finding]) -> str:
    """Of a claim: refuted when a part of it is, held when all are."""
    verdicts = {finding.verdict for finding in findings}
    return REFUTED if REFUTED in verdicts else OPEN if OPEN in verdicts or not verdicts else HELD
