"""Error rates and power of the verdicts, by simulation. `python -m tests.study.test_error_rates 2000` prints them all.

A simulated study has arms with independent normal values, such that a paired difference has a standard deviation of 1,
or with numbers of errors on a small test set, which are Poisson variables and often the same for both arms. All parts
of a claim share arm `a`, so their differences are correlated (1/2), as in a study with one baseline.
"""

import dataclasses
import sys
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cnnjax.study import Claim, Comparison
from cnnjax.study.record import CONTRADICTED, EQUAL, HELD, REFUTED
from cnnjax.study.verdict import error_at, judge, judge_claim, looks

REPETITIONS = 400  # in the tests


@dataclasses.dataclass(frozen=True)
class Case:
    """A simulated claim: its comparisons, the true difference a - b in each, and the verdicts that are false then."""

    sign: Any
    margin: float
    difference: float
    false: tuple[str, ...]
    parts: int = 1
    seeds: tuple[int, int] = (3, 8)  # and the cap
    errors: tuple[float, ...] = ()  # mean numbers of errors of `a` and of the others; the metric is minus their number


ANY = (HELD, CONTRADICTED, REFUTED)
CASES = {
    **{f"{sign}, no difference, {parts} parts, {seeds[0]} to {seeds[1]} seeds": Case(sign, 0, 0, ANY, parts, seeds)
       for sign in ("higher", "lower") for parts in (1, 2, 4) for seeds in ((3, 3), (3, 8), (5, 12))},
    "higher, at the margin": Case("higher", 1, 1, (HELD, CONTRADICTED)),
    "higher, opposite margin": Case("higher", 1, -1, (HELD, CONTRADICTED)),
    "higher, just above the margin": Case("higher", 1, 1.001, (REFUTED, CONTRADICTED)),
    **{f"equal, at the edge of {margin} sd, {parts} parts, {seeds[0]} to {seeds[1]} seeds":
       Case("equal", margin, margin, (EQUAL,), parts, seeds)
       for margin in (1, 3) for parts in (1, 2, 4) for seeds in ((3, 3), (3, 8), (5, 12))},
    "equal, just within the margin": Case("equal", 1, 0.999, (CONTRADICTED,)),
    "at_least, at the margin": Case("at_least", 1, -1, (HELD,)),
    "at_least, just above the margin": Case("at_least", 1, -0.999, (CONTRADICTED,)),
}  # fmt: skip
COUNTS = {  # claims on numbers of errors, with 3 to 8 seeds
    f"{case.sign}, {case.errors[0]} and {case.errors[1]} errors": case
    for case in (
        *(Case("higher", 0, b - a, (REFUTED, CONTRADICTED), errors=(a, b)) for a, b in ((0.1, 0.3), (0.36, 0.72))),
        Case("lower", 0, -0.36, (REFUTED, CONTRADICTED), errors=(0.72, 0.36)),
        Case("higher", 0, 0, (HELD, CONTRADICTED), errors=(0.36, 0.36)),
        Case("at_least", 0, -0.2, (HELD,), errors=(0.3, 0.1)),
        Case("at_least", 0, 0.2, (CONTRADICTED,), errors=(0.1, 0.3)),
        Case("equal", 1, 1, (EQUAL,), errors=(0.1, 1.1)),
        Case("equal", 1, 0.9, (CONTRADICTED,), errors=(0.1, 1.0)),
    )
}
CASES |= COUNTS
POWER = {  # what is shown -> case, and the least power with 3 to 8 seeds and with 5 to 12
    "higher, 1 sd": (Case("higher", 0, 1, ()), 0.3, 0.6),
    "higher, 2 sd": (Case("higher", 0, 2, ()), 0.85, 0.97),
    "equal within 1 sd, no difference": (Case("equal", 1, 0, ()), 0.1, 0.6),
    "equal within 2 sd, no difference": (Case("equal", 2, 0, ()), 0.9, 0.97),
    "at_least -1 sd, no difference": (Case("at_least", 1, 0, ()), 0.3, 0.6),
}


def simulate(case: Case, repetitions: int) -> list[tuple[str, set[str], int]]:
    """Returns the verdict on each simulated claim, the verdicts on its parts, and the number of seeds."""
    comparisons = tuple(Comparison("a", case.sign, f"b{i}", "m", case.margin) for i in range(case.parts))
    claim = Claim("simulated", "training", "a against b", "nobody", comparisons)
    schedule, outcomes = looks(*case.seeds), []
    rng, shape = np.random.default_rng(0), (repetitions, case.parts + 1, schedule[-1])
    if case.errors:
        samples = -rng.poisson(np.reshape(case.errors, (2, 1)), shape)
    else:
        samples = rng.standard_normal(shape) / np.sqrt(2)
        samples[:, 0] += case.difference
    for a, *others in samples:
        values = {"a": {"m": a.tolist()}}
        values |= {f"b{i}": {"m": b.tolist()} for i, b in enumerate(others)}
        verdict, findings = judge_claim(claim, values, schedule)
        outcomes.append((verdict, {finding.verdict for finding in findings}, max(f.seeds for f in findings)))
    return outcomes


def false_rate(case: Case, repetitions: int) -> float:
    """Returns the fraction of the simulated claims with at least one part whose verdict is false."""
    return float(np.mean([bool(parts & set(case.false)) for _, parts, _ in simulate(case, repetitions)]))


def power(case: Case, repetitions: int) -> tuple[float, float]:
    """Returns the fraction of the simulated claims that are held or equal, and their mean number of seeds."""
    outcomes = simulate(case, repetitions)
    return float(np.mean([verdict in (HELD, EQUAL) for verdict, _, _ in outcomes])), float(
        np.mean([seeds for _, _, seeds in outcomes])
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_at_most_5_percent_of_the_verdicts_are_false(name: str) -> None:
    """As many false ones as a true rate of 5 % exceeds once in 10,000 times are too many."""
    assert false_rate(CASES[name], REPETITIONS) <= scipy.stats.binom.isf(1e-4, REPETITIONS, 0.05) / REPETITIONS


@pytest.mark.parametrize("name", COUNTS)
def test_identical_numbers_of_errors_decide_falsely_in_at_most_2_5_percent(name: str) -> None:
    """By Skellam's distribution of a difference; 5 % for 'equal'. The looks add up, as in the rule."""
    case, schedule = COUNTS[name], looks(*COUNTS[name].seeds)
    a, b = case.errors
    comparison, rate = Comparison("a", case.sign, "b", "m", case.margin), 0.0
    for difference in range(-9, 10):
        probability = scipy.stats.skellam.pmf(difference, b, a)
        for i, seeds in enumerate(schedule):
            verdict = judge(comparison, [float(difference)] * seeds, error_at(schedule, i)).verdict
            rate += probability**seeds * (verdict in case.false)
    assert rate <= (0.05 if EQUAL in case.false else 0.025)


@pytest.mark.slow
@pytest.mark.parametrize("name", POWER)
def test_differences_of_one_and_two_deviations_are_found(name: str) -> None:
    case, few, more = POWER[name]
    assert power(case, REPETITIONS)[0] > few
    assert power(dataclasses.replace(case, seeds=(5, 12)), REPETITIONS)[0] > more


if __name__ == "__main__":
    repetitions = int(sys.argv[1])
    for name, case in CASES.items():
        print(f"{name}: {false_rate(case, repetitions):.2%} false", flush=True)
    for name, (case, *_) in POWER.items():
        for seeds in ((3, 3), (3, 8), (5, 12)):
            found, mean = power(dataclasses.replace(case, seeds=seeds), repetitions)
            print(f"{name}, {seeds[0]} to {seeds[1]} seeds: power {found:.1%}, {mean:.1f} seeds", flush=True)
