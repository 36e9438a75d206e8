"""Verdicts: the paired interval, and what follows from it."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import scipy.stats

from cnnjax.study import Claim, Comparison
from cnnjax.study.record import CONTRADICTED, EQUAL, HELD, REFUTED, UNDECIDED
from cnnjax.study.verdict import (
    interval,
    judge,
    judge_claim,
    looks,
    overall_verdict,
    paired,
    seeds_needed,
    standardized,
)

NEAR = [-0.1, 0.0, 0.1]  # differences with a 95 % interval of +-0.25 around their mean


@pytest.mark.parametrize(
    ("mean", "sign", "margin", "expected"),
    [
        (1.0, "higher", 0.0, HELD), (1.0, "lower", 0.0, CONTRADICTED), (-1.0, "lower", 0.0, HELD),
        (-1.0, "higher", 0.0, CONTRADICTED), (1.0, "higher", 0.5, HELD), (1.0, "higher", 2.0, REFUTED),
        (1.0, "higher", 1.1, UNDECIDED), (-1.0, "higher", 0.5, CONTRADICTED), (0.0, "higher", 0.0, UNDECIDED),
        (0.0, "higher", 0.5, REFUTED), (0.0, "lower", 0.5, REFUTED), (0.0, "equal", 0.5, EQUAL),
        (0.0, "equal", 0.15, UNDECIDED), (0.0, "equal", 0.2, EQUAL),
        (1.0, "equal", 0.5, CONTRADICTED), (-1.0, "equal", 0.5, CONTRADICTED),
        (0.0, "at_least", 0.5, HELD), (1.0, "at_least", 0.5, HELD), (-1.0, "at_least", 0.5, CONTRADICTED),
        (-0.5, "at_least", 0.5, UNDECIDED),
    ],
)  # fmt: skip
def test_the_verdict_follows_from_the_interval(mean: float, sign: Any, margin: float, expected: str) -> None:
    finding = judge(Comparison("a", sign, "b", "m", margin), [mean + x for x in NEAR])
    assert finding.verdict == expected
    assert finding.difference == pytest.approx(mean)


@pytest.mark.parametrize(
    ("difference", "seeds", "sign", "margin", "expected"),
    [
        (8.0, 1, "higher", 0.0, UNDECIDED), (1.0, 5, "higher", 0.0, UNDECIDED), (1.0, 6, "higher", 0.0, HELD),
        (-1.0, 5, "higher", 0.0, UNDECIDED), (-1.0, 6, "higher", 0.0, CONTRADICTED), (0.0, 6, "higher", 0.5, REFUTED),
        (0.0, 4, "equal", 0.5, UNDECIDED), (0.0, 5, "equal", 0.5, EQUAL), (1.0, 6, "equal", 0.5, CONTRADICTED),
        (0.0, 6, "at_least", 0.5, HELD), (-1.0, 6, "at_least", 0.5, CONTRADICTED),
        # the margin itself, with and without rounding
        (0.0, 99, "higher", 0.0, UNDECIDED), (0.0, 99, "lower", 0.0, UNDECIDED), (0.0, 99, "at_least", 0.0, UNDECIDED),
        (0.5, 99, "equal", 0.5, UNDECIDED), (-0.5, 99, "at_least", 0.5, UNDECIDED),
        (0.70 - 0.69, 99, "higher", 0.01, UNDECIDED), (0.69 - 0.70, 99, "at_least", 0.01, UNDECIDED),
    ],
)  # fmt: skip
def test_identical_differences_decide_by_a_sign_test(
    difference: float, seeds: int, sign: Any, margin: float, expected: str
) -> None:
    finding = judge(Comparison("a", sign, "b", "m", margin), [difference] * seeds)
    assert finding.verdict == expected
    assert seeds == 1 or finding.low == finding.high == pytest.approx(difference)


@pytest.mark.parametrize(("mean", "level"), [(1.0, 0.95), (0.0, 0.9), (0.5, 0.9)])
def test_the_interval_of_equal_is_that_of_the_tests_that_decided(mean: float, level: float) -> None:
    differences = [mean + x for x in NEAR]
    finding = judge(Comparison("a", "equal", "b", "m", 0.5), differences)
    assert finding.level == pytest.approx(level)
    assert (finding.low, finding.high) == pytest.approx(interval(differences, (1 - level) / 2))


def test_the_interval_is_students_of_the_differences() -> None:
    differences = [0.3, 0.1, 0.2, 0.6]
    low, high = interval(differences, 0.025)
    quantile = 3.18245  # of Student's t with 3 degrees of freedom, at 97.5 %
    assert (high - low) / 2 == pytest.approx(quantile * np.std(differences, ddof=1) / math.sqrt(4), rel=1e-5)
    assert (high + low) / 2 == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("verdicts", "overall"),
    [
        ([HELD, HELD], HELD), ([HELD, UNDECIDED], UNDECIDED), ([UNDECIDED, REFUTED, HELD], REFUTED), ([EQUAL], EQUAL),
        ([EQUAL, HELD], HELD), ([CONTRADICTED, CONTRADICTED], CONTRADICTED), ([REFUTED, CONTRADICTED], REFUTED),
        ([HELD, CONTRADICTED], REFUTED), ([UNDECIDED, CONTRADICTED], REFUTED),
    ],
)  # fmt: skip
def test_a_claim_holds_if_all_comparisons_do(verdicts: list[str], overall: str) -> None:
    finding = judge(Comparison("a", "higher", "b", "m"), [])
    assert overall_verdict([dataclasses.replace(finding, verdict=verdict) for verdict in verdicts]) == overall


def claim(*signs: Any) -> Claim:
    comparisons = tuple(Comparison("a", sign, f"b{i}", "m") for i, sign in enumerate(signs))
    return Claim("it_is_better", "training", "It is better.", "nobody", comparisons)


def values(*differences: list[float]) -> dict[str, dict[str, list[float]]]:
    others = {f"b{i}": {"m": [-x for x in numbers]} for i, numbers in enumerate(differences)}
    return {"a": {"m": [0.0] * max(map(len, differences))}} | others


@pytest.mark.parametrize(
    ("seeds", "most", "expected"),
    [(3, 0, (3,)), (3, 3, (3,)), (3, 8, (3, 5, 8)), (3, 6, (3, 5, 6)), (5, 12, (5, 8, 12)), (1, 4, (1, 2, 3, 4))],
)
def test_a_look_has_half_as_many_seeds_more(seeds: int, most: int, expected: tuple[int, ...]) -> None:
    assert looks(seeds, most) == expected


def test_a_verdict_stays_as_it_was_at_the_look_that_decided_it() -> None:
    clear = [1.0, 1.01, 0.99]
    for more in ([], [-9.0, 9.0]):
        verdict, (finding,) = judge_claim(claim("higher"), values(clear + more), (3, 5))
        assert (verdict, finding.seeds) == (HELD, 3)
    verdict, (finding,) = judge_claim(claim("higher"), values([1.0, -1.0, 0.5, 1.0, 1.0]), (3, 5))
    assert (verdict, finding.seeds) == (UNDECIDED, 5)
    assert finding.needed > 5
    verdict, (finding,) = judge_claim(claim("higher"), values([1.0, -1.0, 0.5, 1.0]), (3, 5))
    assert (verdict, finding.seeds) == (UNDECIDED, 3)  # the second look is not complete


def test_a_claim_that_fails_in_one_part_is_not_looked_at_again() -> None:
    fails, noise = [-1.0, -1.01, -0.99, -1.0, -1.0], [1.0, -1.0, 0.5, 1.0, 1.0]
    verdict, findings = judge_claim(claim("higher", "higher"), values(fails, noise), (3, 5))
    assert (verdict, [finding.seeds for finding in findings]) == (REFUTED, [3, 3])


def test_the_parts_share_the_error_by_holms_method() -> None:
    """The differences of the first part have a p-value of 0.03, two-sided: decided alone, but not as one of two."""
    one, other = [1.0, 1.6, 0.8], [1.0, 1.01, 0.99]
    assert judge_claim(claim("higher"), values(one), (3,))[0] == HELD
    assert judge_claim(claim("higher", "higher"), values(one, one), (3,))[0] == UNDECIDED
    verdict, findings = judge_claim(claim("higher", "higher"), values(one, other), (3,))
    assert verdict == HELD  # the second part is decided, so the first has the whole error
    assert findings[0].low == pytest.approx(interval(one, 0.025)[0])


@pytest.mark.parametrize(
    ("sign", "margin", "difference"),
    [
        ("equal", 0.5, 0.0), ("equal", 0.5, 0.1), ("equal", 0.5, -0.2), ("equal", 0.5, 1.1), ("higher", 0.0, 0.5),
        ("lower", 0.5, 0.0), ("at_least", 0.5, 0.0),
    ],
)  # fmt: skip
def test_the_seeds_needed_decide_with_a_power_of_four_fifths(sign: Any, margin: float, difference: float) -> None:
    """The differences have a deviation of 1."""
    comparison, sample = Comparison("a", sign, "b", "m", margin), [difference + x for x in (-1.0, 0.0, 1.0)]
    seeds = seeds_needed(judge(comparison, sample), sample)
    draws = np.random.default_rng(0).normal(difference, 1.0, (4000, seeds))
    mean, error = draws.mean(axis=1), draws.std(axis=1, ddof=1) / math.sqrt(seeds)
    half_90, half_95 = (scipy.stats.t.ppf(level, seeds - 1) * error for level in (0.95, 0.975))
    if sign == "equal":
        decided = (abs(mean) + half_90 < margin) | (abs(mean) - half_95 > margin)
    else:
        decided = abs(mean - margin * (1 if sign == "higher" else -1)) > half_95
    assert 0.77 < decided.mean() < 0.86


def test_runs_of_one_seed_are_compared() -> None:
    arms = {"a": {"m": [5.0, 1.0, 9.5]}, "b0": {"m": [4.0, 0.0, 8.0, 77.0]}}
    assert paired(claim("higher").comparisons[0], arms) == [1.0, 1.0, 1.5]
    assert judge_claim(claim("higher"), arms, (3,))[0] == HELD


def test_the_effect_is_hedges() -> None:
    """The factor for 3 degrees of freedom is gamma(3/2) / gamma(1) / sqrt(3/2) = 0.7236."""
    differences = [0.3, 0.1, 0.2, 0.6]
    assert standardized(differences) == pytest.approx(0.72360 * 0.3 / np.std(differences, ddof=1), rel=1e-4)
    assert math.isnan(standardized([0.1, 0.2]))
    assert math.isnan(standardized([0.1] * 3))
    assert math.isnan(standardized([0.3 - 0.2, 0.4 - 0.3, 0.1]))  # equal but for rounding
