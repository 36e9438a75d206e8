"""Verdicts on claims: paired differences between arms, with confidence intervals."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import scipy.stats

from cnnjax.study import Claim, Comparison

LEVEL = 0.95  # of the confidence intervals
HELD, EQUAL, CONTRADICTED, REFUTED, UNDECIDED = "held", "equal", "contradicted", "refuted", "undecided"

Values = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> metric -> one value per seed


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of one comparison.

    Attributes:
        comparison: what was expected.
        difference: mean over the seeds of the value of arm `a` minus that of arm `b`.
        low: lower bound of the difference's confidence interval; -inf for a single seed.
        high: upper bound; inf for a single seed.
        verdict: HELD, EQUAL, CONTRADICTED, REFUTED or UNDECIDED.
    """

    comparison: Comparison
    difference: float
    low: float
    high: float
    verdict: str


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Returns the mean of paired differences and the bounds (low, high) of its 95 % confidence interval.

    The bounds are infinite for a single difference.
    """
    count, mean = len(differences), float(np.mean(differences))
    if count < 2:
        return mean, -math.inf, math.inf
    half = float(scipy.stats.t.ppf((1 + LEVEL) / 2, count - 1) * np.std(differences, ddof=1) / math.sqrt(count))
    return mean, mean - half, mean + half


def judge(comparison: Comparison, values: Values) -> Finding:
    """Compares two arms in one metric. `values` is arm -> metric -> one value for each seed."""
    a, b = values[comparison.a][comparison.metric], values[comparison.b][comparison.metric]
    mean, low, high = interval([x - y for x, y in zip(a, b, strict=False)])
    sign, margin = comparison.sign, comparison.margin
    below, above = (-high, -low) if sign == "lower" else (low, high)  # as if `a` were expected to be higher
    if sign == "equal":
        verdict = EQUAL if -margin < low and high < margin else UNDECIDED
        verdict = CONTRADICTED if low >= margin or high <= -margin else verdict
    elif sign == "at_least":
        verdict = HELD if low > -margin else CONTRADICTED if high <= -margin else UNDECIDED
    else:
        verdict = HELD if below > margin else CONTRADICTED if above < -margin else UNDECIDED
        verdict = REFUTED if verdict == UNDECIDED and above <= margin else verdict
    return Finding(comparison, mean, low, high, verdict)


def judge_claim(claim: Claim, values: Values) -> tuple[str, tuple[Finding, ...]]:
    """Returns the verdict on a claim, and the finding of each of its comparisons."""
    findings = tuple(judge(comparison, values) for comparison in claim.comparisons)
    return overall_verdict(findings), findings


def overall_verdict(findings: Sequence[Finding]) -> str:
    """Returns the verdict on a claim from those on its comparisons.

    CONTRADICTED or REFUTED if any finding is; UNDECIDED if any is; EQUAL if all are; else HELD.
    """
    verdicts = {finding.verdict for finding in findings}
    for verdict in (CONTRADICTED, REFUTED, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return EQUAL if verdicts == {EQUAL} else HELD
