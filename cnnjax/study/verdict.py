"""Verdicts on claims: paired t-tests between arms, with seeds added until they decide.

Each comparison of arms a and b has a margin m. Its difference d is the mean of a - b; runs of one seed are paired,
because they share the order of the data and, where shapes agree, the initialization. [L, U] is d's 95 % confidence
interval, and [l, u] its 90 % one.

| sign     | expected   | held or equal       | contradicted        | refuted                | undecided   |
| -------- | ---------- | ------------------- | ------------------- | ---------------------- | ----------- |
| higher   | d > m      | L > m               | U < -m              | U < m, not U < -m      | else        |
| lower    | d < -m     | U < -m              | L > m               | L > -m, not L > m      | else        |
| equal    | abs(d) < m | -m < l and u < m    | L > m or U < -m     | never                  | else        |
| at_least | d > -m     | L > -m              | U < -m              | never                  | else        |

'equal' is decided by two one-sided tests at 5 % (Schuirmann 1987, J. Pharmacokinetics and Biopharmaceutics 15, p. 657),
which ask whether the 90 % interval lies within the margin; 'at_least' is a test of non-inferiority at 2.5 %.

**Identical differences**, which are common for accuracies on a small test set, have no deviation for a t-test. A sign
test decides: n of them lie on one side of the margin by chance with a probability of 2**-n, which must be at most the
error that the look may spend. Differences that equal the margin, such as 0 without one, decide nothing.

**Looks.** A claim is judged at `seeds` runs of each arm; while it is undecided, at half as many again, up to
`max_seeds` (`looks`). The error is spent in proportion to the seeds (`error_at`; the power family with exponent 1 in
Kim, DeMets 1987, Biometrika 74, p. 149). The errors of the looks add up to the whole, so by Boole's inequality the
rate of false verdicts over all looks is at most 5 %, also with the t-distributions of two degrees of freedom. A
verdict stays as it is at the look that decides it.

**Parts.** A claim of several comparisons is corrected by Holm's method (Holm 1979, Scandinavian J. of Statistics 6, p.
65): with r undecided parts, each is tested with 1/r of the error; one that is decided leaves the others 1/(r - 1).

| verdict on the claim | parts                                                          |
| -------------------- | -------------------------------------------------------------- |
| contradicted         | all are contradicted                                           |
| refuted              | else: at least one is contradicted or refuted                  |
| undecided            | else: at least one is undecided                                |
| equal                | all are equal                                                  |
| held                 | else: all are held or equal                                    |

In 2,000 simulations each (tests/study/test_error_rates.py), 3.3 to 4.2 % of the claims of arms without a difference
were decided, with one, two or four parts and 3 to 8 or 5 to 12 seeds. A difference of one standard deviation of the
paired differences was found in 50 % with 3 to 8 seeds, and in 78 % with 5 to 12; one of two, in 99 % and 100 %. The
tests assume differences that are normally distributed, and independent between seeds. Of claims on numbers of errors
around 0 to 1, which are far from normal, at most 0.6 % were decided falsely, but 6 % of 'equal' within one error.
"""

import dataclasses
import functools
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import scipy.stats

from cnnjax.study import Claim, Comparison
from cnnjax.study.record import CONTRADICTED, EQUAL, HELD, REFUTED, UNDECIDED, Finding

ERROR = 0.025  # in each direction, over all looks and parts
ERROR_EQUAL = 0.05  # of each of the two tests of 'equal'
POWER = 0.8  # with which `seeds_needed` seeds decide
MAX_NEEDED = 200  # seeds; a larger estimate is of no use

Values = Mapping[str, Mapping[str, Sequence[float]]]  # arm -> metric -> one value per seed


def looks(seeds: int, max_seeds: int) -> tuple[int, ...]:
    """Returns the numbers of seeds at which claims are judged: `seeds`, then half as many again, up to `max_seeds`."""
    numbers = [seeds]
    while numbers[-1] < max_seeds:
        numbers.append(min(max_seeds, numbers[-1] + math.ceil(numbers[-1] / 2)))
    return tuple(numbers)


def error_at(schedule: Sequence[int], i: int) -> float:
    """Returns the fraction of the error that look `i` of a schedule spends: the new seeds' fraction of all."""
    previous = schedule[i - 1] if i else 0
    return (schedule[i] - previous) / schedule[-1]


def interval(differences: Sequence[float], error: float) -> tuple[float, float]:
    """Returns Student's confidence interval of a mean, (low, high), with an error of `error` at each end.

    The bounds are infinite for fewer than two differences.
    """
    if len(differences) < 2:
        return -math.inf, math.inf
    half = _quantile(1 - error, len(differences) - 1) * _deviation(differences) / math.sqrt(len(differences))
    mean = statistics.fmean(differences)
    return mean - half, mean + half


def _bounds(differences: Sequence[float], error: float) -> tuple[float, float]:
    """Returns the interval that is compared with the margin: `interval`, but for identical differences.

    They have infinite bounds if a sign test does not decide with an error of `error`, and else some room for rounding.
    """
    low, high = interval(differences, error)
    if low < high:
        return low, high
    if 2.0 ** -len(differences) > error:
        return -math.inf, math.inf
    return low - 1e-9 * abs(low), high + 1e-9 * abs(high)


def _deviation(values: Sequence[float]) -> float:
    """Returns the standard deviation of a sample of at least two values; 0 if they differ by rounding alone."""
    if max(values) - min(values) <= 1e-12 * max(map(abs, values)):
        return 0.0
    mean = statistics.fmean(values)
    return math.sqrt(math.fsum((x - mean) ** 2 for x in values) / (len(values) - 1))


@functools.cache
def _quantile(probability: float, freedom: int) -> float:
    """Returns a quantile of Student's t-distribution."""
    return float(scipy.stats.t.ppf(probability, freedom))


def judge(comparison: Comparison, differences: Sequence[float], fraction: float = 1.0) -> Finding:
    """Judges one comparison by the paired differences a - b, with a fraction of the error; see the module's table."""
    m, sign, error = comparison.margin, comparison.sign, ERROR
    low, high = _bounds(differences, ERROR * fraction)
    below, above = (-high, -low) if sign == "lower" else (low, high)  # as if `a` were expected to be higher
    if sign == "equal" and not (low > m or high < -m):
        error = ERROR_EQUAL
        low, high = _bounds(differences, ERROR_EQUAL * fraction)
        verdict = EQUAL if -m < low and high < m else UNDECIDED
    elif sign == "equal":
        verdict = CONTRADICTED
    elif sign == "at_least":
        verdict = HELD if low > -m else CONTRADICTED if high < -m else UNDECIDED
    else:
        verdict = HELD if below > m else CONTRADICTED if above < -m else REFUTED if above < m else UNDECIDED
    low, high = interval(differences, error * fraction)
    count = len(differences)
    return Finding(
        comparison, statistics.fmean(differences) if count else math.nan, low, high, 1 - 2 * error,
        standardized(differences), count, verdict,
    )  # fmt: skip


def judge_claim(claim: Claim, values: Values, schedule: Sequence[int]) -> tuple[str, tuple[Finding, ...]]:
    """Returns the verdict on a claim, and the finding of each of its comparisons.

    Looks at the first `schedule[0]` seeds, then at `schedule[1]`, as long as the claim is undecided and its undecided
    comparisons have the runs.
    """
    differences = [paired(comparison, values) for comparison in claim.comparisons]
    findings = [judge(comparison, ()) for comparison in claim.comparisons]
    for i, seeds in enumerate(schedule):
        undecided = {k for k, finding in enumerate(findings) if finding.verdict == UNDECIDED}
        if overall_verdict(findings) != UNDECIDED or any(len(differences[k]) < seeds for k in undecided):
            break
        for k, finding in _holm(claim.comparisons, differences, undecided, seeds, error_at(schedule, i)):
            findings[k] = finding
    undecided = [k for k, finding in enumerate(findings) if finding.verdict == UNDECIDED]
    for k in undecided:
        needed = seeds_needed(findings[k], differences[k][: findings[k].seeds], 1 / len(undecided))
        findings[k] = dataclasses.replace(findings[k], needed=needed)
    return overall_verdict(findings), tuple(findings)


def _holm(
    comparisons: Sequence[Comparison],
    differences: Sequence[Sequence[float]],
    undecided: set[int],
    seeds: int,
    error: float,
) -> Iterator[tuple[int, Finding]]:
    """Yields the index and the finding of each undecided comparison at one look, by Holm's method.

    `error` is the fraction of the whole error that the look may spend.
    """
    while undecided:
        fraction = error / len(undecided)
        found = {k: judge(comparisons[k], differences[k][:seeds], fraction) for k in sorted(undecided)}
        decided = {k for k, finding in found.items() if finding.verdict != UNDECIDED}
        yield from ((k, found[k]) for k in (decided or undecided))
        undecided = undecided - decided if decided else set()


def paired(comparison: Comparison, values: Values) -> list[float]:
    """Returns the difference a - b of each seed that both arms of a comparison have."""
    a, b = values[comparison.a][comparison.metric], values[comparison.b][comparison.metric]
    return [x - y for x, y in zip(a, b, strict=False)]


def overall_verdict(findings: Sequence[Finding]) -> str:
    """Returns the verdict on a claim from those on its comparisons; see the module's second table."""
    verdicts = {finding.verdict for finding in findings}
    if verdicts == {CONTRADICTED}:
        return CONTRADICTED
    if verdicts & {CONTRADICTED, REFUTED}:
        return REFUTED
    if UNDECIDED in verdicts:
        return UNDECIDED
    return EQUAL if verdicts == {EQUAL} else HELD


def standardized(differences: Sequence[float]) -> float:
    """Returns the mean of paired differences divided by their standard deviation, without the bias of few seeds.

    The factor that removes the bias is Hedges' (1981, J. of Educational Statistics 6, eq. 6e). nan for fewer than three
    seeds, or if the deviation is 0.
    """
    freedom = len(differences) - 1
    if freedom < 2 or not (deviation := _deviation(differences)):
        return math.nan
    unbiased = math.gamma(freedom / 2) / math.gamma((freedom - 1) / 2) / math.sqrt(freedom / 2)
    return unbiased * statistics.fmean(differences) / deviation


def seeds_needed(finding: Finding, differences: Sequence[float], fraction: float = 1.0) -> int:
    """Estimates the number of seeds that decide a comparison, if mean and deviation stay as they are.

    `fraction` is that of the error which the comparison may spend.

    The estimate is the smallest n for which t-tests of one look decide with a probability of about `POWER`: both of the
    one-sided tests for a difference within the margin of 'equal', else one test. 0 if there is no estimate: fewer than
    two seeds, identical differences, or more than `MAX_NEEDED` needed.
    """
    if len(differences) < 2 or not (deviation := _deviation(differences)):
        return 0
    m, d, sign = finding.comparison.margin, finding.difference, finding.comparison.sign
    both = sign == "equal" and abs(d) < m
    n = np.arange(len(differences) + 1, MAX_NEEDED + 1)
    quantile = scipy.stats.t.ppf(1 - fraction * (ERROR_EQUAL if both else ERROR), n - 1)

    def power(distance: float) -> np.ndarray:
        return scipy.stats.t.cdf(abs(distance) * np.sqrt(n) / deviation - quantile, n - 1)

    if both:
        reached = power(m - d) + power(m + d) - 1
    else:
        reached = power({"higher": d - m, "lower": d + m, "equal": abs(d) - m, "at_least": d + m}[sign])
    enough = n[reached >= POWER]
    return int(enough[0]) if len(enough) else 0
