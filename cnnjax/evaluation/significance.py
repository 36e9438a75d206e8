"""Significance of differences in accuracy between networks that are scored on the same images.

Two networks with 90 % each may get the same images right or quite different ones. So images are compared one by one:
only those count that exactly one network gets right. McNemar's test asks whether these are split as a fair
coin would split them (McNemar 1947, Psychometrika 12, p. 153; exact, by the binomial distribution). It compares two
trained networks, not two recipes: another seed would give other networks.
"""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import scipy.stats

LEVEL = 0.95  # of confidence intervals
ERROR = 0.05  # p-values below it are significant


@dataclasses.dataclass(frozen=True)
class PairedTest:
    """The accuracies of two networks, `first` and `second`, on the same images.

    Attributes:
      both: number of images that both get right.
      only_first: number of images that only the first gets right.
      only_second: number of images that only the second gets right.
      neither: number of images that both get wrong.
      p: McNemar's exact p-value, two-sided; after `corrected`, by Holm's method.
      tests: number of tests that `p` is corrected for.
    """

    both: int
    only_first: int
    only_second: int
    neither: int
    p: float
    tests: int = 1

    @property
    def count(self) -> int:
        """Returns the number of images."""
        return self.both + self.only_first + self.only_second + self.neither

    @property
    def difference(self) -> float:
        """Returns the accuracy of the second network minus that of the first, from -1 to 1."""
        return (self.only_second - self.only_first) / self.count

    @property
    def is_significant(self) -> bool:
        """Returns whether the accuracies differ by more than chance explains, at ERROR."""
        return self.p < ERROR

    @functools.cached_property
    def interval(self) -> tuple[float, float]:
        """Returns the bootstrap interval (low, high) of `difference` over resamples of the images, paired.

        It needs no resamples: each of N drawn images adds -1, 0 or 1 to N times the difference, so the distribution of
        this sum is the N-fold convolution of the distribution of one image, here by its Fourier transform.
        """
        count = self.count
        one_image = np.zeros(2 * count + 1)  # of the sums 0, 1, ..., N, -N, ..., -1
        one_image[[0, 1, -1]] = np.array([self.both + self.neither, self.only_second, self.only_first]) / count
        distribution = np.fft.ifft(np.fft.fft(one_image) ** count).real
        cumulated = np.cumsum(np.roll(distribution, count))  # of the sums -N, ..., N
        low, high = np.searchsorted(cumulated, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - count
        return float(low / count), float(high / count)


def paired_test(first_right: np.ndarray, second_right: np.ndarray) -> PairedTest:
    """Compares two networks by which images each gets right: bool [N], N >= 1, in the same order."""
    only_first, only_second = int((first_right & ~second_right).sum()), int((~first_right & second_right).sum())
    both, neither = int((first_right & second_right).sum()), int((~first_right & ~second_right).sum())
    return PairedTest(both, only_first, only_second, neither, mcnemar(only_first, only_second))


def mcnemar(only_first: int, only_second: int) -> float:
    """Returns McNemar's exact two-sided p-value for the numbers of images that only one of two networks gets right."""
    total = only_first + only_second
    return float(scipy.stats.binomtest(only_first, total).pvalue) if total else 1.0


def corrected(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Corrects the p-values of several tests by Holm's method, so that all together err in at most ERROR of the cases.

    See Holm 1979, Scandinavian J. of Statistics 6, p. 65. The order of the tests stays.
    """
    highest, values = 0.0, dict[int, float]()
    for place, i in enumerate(sorted(range(len(tests)), key=lambda i: tests[i].p)):
        highest = max(highest, min(1.0, (len(tests) - place) * tests[i].p))
        values[i] = highest
    return [dataclasses.replace(test, p=values[i], tests=len(tests)) for i, test in enumerate(tests)]


def accuracy_interval(right: int, count: int) -> tuple[float, float]:
    """Returns the bootstrap interval (low, high) of an accuracy over resamples of `count` images, `right` of them hits.

    A resample's hits have a binomial distribution, whose percentiles are exact. Where all images are right or all
    wrong, all resamples agree; the other bound is then that of Clopper, Pearson (1934, Biometrika 26, p. 404).
    """
    tail = (1 - LEVEL) / 2
    if right in (0, count):
        bound = tail ** (1 / count)
        return (bound, 1.0) if right else (0.0, 1 - bound)
    low, high = scipy.stats.binom.ppf([tail, 1 - tail], count, right / count) / count
    return float(low), float(high)
