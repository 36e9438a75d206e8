"""Verdicts on a claim: differences of means between arms, with confidence intervals."""

import dataclasses
import math
import statistics
import warnings
from collections.abc import Mapping, Sequence

import scipy.stats

from cnnjax.study import Comparison

LEVEL = 0.95  # of the confidence intervals
HELD, REFUTED, UNDECIDED = "held", "refuted", "undecided"

Values = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> metric -> one value per seed


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one comparison.

    Attributes:
        comparison: what was expected.
        difference: mean of arm `a` minus mean of arm `b`.
        low: lower bound of the difference's confidence interval; -inf if an arm has a single run.
        high: upper bound; inf if an arm has a single run.
        verdict: HELD, REFUTED or UNDECIDED.
    """

    comparison: Comparison
    difference: float
    low: float
    high: float
    verdict: str


def interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float, float]:
    """Returns mean(a) - mean(b) and the bounds (low, high) of its 95 % confidence interval, by Welch's t-test.

    The bounds are infinite if `a` or `b` has a single value.
    """
    difference = statistics.fmean(a) - statistics.fmean(b)
    if min(len(a), len(b)) < 2:
        return difference, -math.inf, math.inf
    if statistics.pvariance(a) == statistics.pvariance(b) == 0:
        return difference, difference, difference
    with warnings.catch_warnings():  # SciPy warns about an arm without variance, which is fine here
        warnings.simplefilter("ignore", RuntimeWarning)
        bounds = scipy.stats.ttest_ind(a, b, equal_var=False).confidence_interval(LEVEL)
    return difference, float(bounds.low), float(bounds.high)


def judge(comparison: Comparison, values: Values) -> Finding:
    """Compares two arms in one metric. `values` is arm -> metric -> one value for each seed.

    The verdict is HELD if the whole confidence interval is beyond the margin in the expected direction, REFUTED if none
    of it is, else UNDECIDED.
    """
    a, b = values[comparison.a][comparison.metric], values[comparison.b][comparison.metric]
    difference, low, high = interval(a, b)
    sign = 1 if comparison.sign == "higher" else -1
    nearest, farthest = sorted((sign * low, sign * high))
    beyond, short = nearest > comparison.margin, farthest <= comparison.margin
    return Finding(comparison, difference, low, high, HELD if beyond else REFUTED if short else UNDECIDED)


def overall_verdict(findings: Sequence[Finding]) -> str:
    """Returns the verdict on the claim: REFUTED if any finding is, HELD if all are, else (or without any) UNDECIDED."""
    verdicts = {finding.verdict for finding in findings}
    return REFUTED if REFUTED in verdicts else UNDECIDED if UNDECIDED in verdicts or not verdicts else HELD
