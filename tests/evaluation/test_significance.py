"""Tests between networks on the same images: McNemar's p-value, Holm's correction, intervals, and their error rates."""

import fractions
import functools
import math

import numpy as np
import pytest

from cnnjax.evaluation import significance
from cnnjax.evaluation.significance import PairedTest, accuracy_interval, corrected, mcnemar, paired_test

REPETITIONS = 2000


def by_hand(only_first: int, only_second: int) -> float:
    """Returns the probability of a split at least as uneven as this one, with a fair coin: counted, not computed."""
    total, fewer = only_first + only_second, min(only_first, only_second)
    return float(min(fractions.Fraction(2 * sum(math.comb(total, k) for k in range(fewer + 1)), 2**total), 1))


@pytest.mark.parametrize(
    ("only_first", "only_second", "p"),
    [
        (0, 0, 1),
        (1, 0, 1),
        (5, 0, 2 / 32),
        (0, 6, 2 / 64),
        (1, 5, 14 / 64),
        (7, 7, 1),
        (12, 31, by_hand(12, 31)),
        (430, 511, by_hand(430, 511)),
        (86, 150, 3.716e-05),  # Agresti 1990, p. 350; the exact value as in R's exact2x2
    ],
)
def test_the_p_value_is_that_of_a_fair_coin(only_first: int, only_second: int, p: float) -> None:
    assert mcnemar(only_first, only_second) == pytest.approx(p, rel=1e-3)
    assert mcnemar(only_second, only_first) == mcnemar(only_first, only_second)


def test_images_are_counted_by_who_has_them_right() -> None:
    first, second = np.array([1, 1, 1, 1, 0, 0, 0], bool), np.array([1, 0, 0, 0, 1, 0, 0], bool)
    test = paired_test(first, second)
    assert (test.both, test.only_first, test.only_second, test.neither) == (1, 3, 1, 2)
    assert (test.count, test.difference, test.p) == (7, -2 / 7, mcnemar(3, 1))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.03], [0.03]),
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.02, 0.9], [1.0, 0.06, 1.0]),
        ([0.02, 0.02], [0.04, 0.04]),
        ([], []),
    ],
)
def test_several_p_values_are_corrected_by_holms_method(values: list[float], expected: list[float]) -> None:
    several = corrected([PairedTest(1, 1, 1, 1, p) for p in values])
    assert [test.p for test in several] == pytest.approx(expected)
    assert {test.tests for test in several} <= {len(values)}


def test_the_interval_of_an_accuracy_is_that_of_a_bootstrap() -> None:
    right = np.arange(400) < 340
    drawn = np.random.default_rng(1).choice(right, (20_000, 400)).mean(axis=1)
    assert accuracy_interval(340, 400) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.003)
    assert accuracy_interval(400, 400) == (pytest.approx(0.025 ** (1 / 400)), 1.0)
    assert accuracy_interval(0, 400) == (0.0, pytest.approx(1 - 0.025 ** (1 / 400)))
    assert accuracy_interval(1, 1)[0] == pytest.approx(0.025)


def test_the_interval_of_a_difference_is_that_of_a_bootstrap_over_pairs() -> None:
    first, second = np.arange(300) < 240, np.arange(300) >= 30
    test, generator = paired_test(first, second), np.random.default_rng(1)
    differences = second.astype(int) - first
    drawn = [differences[generator.integers(0, 300, 300)].mean() for _ in range(4000)]
    assert test.difference == pytest.approx(0.1)
    assert test.interval == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.007)
    assert paired_test(first, first).interval == (0.0, 0.0)


def test_the_interval_of_a_difference_is_exact() -> None:
    """Against all outcomes of three resampled images, of which the networks differ in two."""
    test = PairedTest(1, 1, 1, 0, 1.0)
    sums = sorted(a + b + c for a in (-1, 0, 1) for b in (-1, 0, 1) for c in (-1, 0, 1))
    expected = tuple(sums[int(np.ceil(q * 27)) - 1] / 3 for q in (0.025, 0.975))
    assert test.interval == pytest.approx(expected)


@functools.cache
def p_value(only_first: int, only_second: int) -> float:
    return mcnemar(only_first, only_second)


@pytest.mark.parametrize("images", [50, 500])
@pytest.mark.parametrize("disagreement", [0.02, 0.2])
def test_networks_that_are_equally_good_differ_significantly_in_at_most_5_percent(
    images: int, disagreement: float
) -> None:
    kinds = [disagreement / 2, disagreement / 2, 1 - disagreement]
    drawn = np.random.default_rng(0).multinomial(images, kinds, REPETITIONS)
    found = sum(p_value(int(a), int(b)) < significance.ERROR for a, b, _ in drawn)
    assert found <= 0.05 * REPETITIONS


def test_of_three_equally_good_networks_any_two_differ_in_at_most_5_percent() -> None:
    generator, found = np.random.default_rng(0), 0
    for _ in range(REPETITIONS):
        easy = generator.random(200) < 0.7
        networks = [easy ^ (generator.random(200) < 0.1) for _ in range(3)]
        pairs = [(networks[i], networks[j]) for i, j in ((0, 1), (0, 2), (1, 2))]
        values = [p_value(int((a & ~b).sum()), int((b & ~a).sum())) for a, b in pairs]
        found += any(test.is_significant for test in corrected([PairedTest(1, 1, 1, 1, p) for p in values]))
    assert found <= 0.05 * REPETITIONS


def test_a_difference_that_is_there_is_found_and_lies_in_the_interval() -> None:
    drawn = np.random.default_rng(0).multinomial(500, [0.05, 0.11, 0.84], 150)
    tests = [PairedTest(int(rest), int(a), int(b), 0, p_value(int(a), int(b))) for a, b, rest in drawn]
    assert sum(test.is_significant for test in tests) > 0.85 * len(tests)
    covered = sum(low <= 0.06 <= high for low, high in (test.interval for test in tests))
    assert 0.91 * len(tests) < covered < 0.985 * len(tests)
