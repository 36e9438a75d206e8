"""Corruptions of images for tests of robustness (Hendrycks & Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", ICLR 2019): their names, groups and published strengths.

The authors made CIFAR-10-C, Tiny ImageNet-C and ImageNet-C, of 32, 64 and 224 pixels, with strengths of their own for
each. An image of any other size gets the strengths of the size that is nearest to its shorter side by ratio: those of
32 pixels up to 45, those of 64 up to 119, and those of 224 above. Lengths are in pixels and do not scale with the
image, except in `elastic_transform`, as in the authors' code.

To add a corruption: a function in `corruption_effects` and a row of `CORRUPTIONS` of the same name.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from cnnjax.errors import InputError, nearest, unknown
from cnnjax.spec import Range

SEVERITIES = (1, 2, 3, 4, 5)
SIZES = (32, 64, 224)  # pixels of the published data sets' images
Severity = Annotated[int, Range(SEVERITIES[0], SEVERITIES[-1])]


@dataclasses.dataclass(frozen=True)
class Corruption:
    """Describes a corruption: the function of its name in `corruption_effects`.

    Attributes:
      group: 'noise', 'blur', 'weather' or 'digital', the paper's 15; 'extra' for the 4 meant for validation.
      strengths: for each of `SIZES`, the function's further arguments at the five severities.
    """

    group: str
    strengths: tuple[tuple[tuple[Any, ...], ...], ...]


def _single(*values: tuple[Any, ...]) -> tuple[tuple[tuple[Any, ...], ...], ...]:
    """Returns `Corruption.strengths` of an effect with one argument, from its values by size and severity."""
    return tuple(tuple((value,) for value in row) for row in values)


def _elastic(side: int, *rows: tuple[float, float, float]) -> tuple[tuple[Any, ...], ...]:
    """Returns arguments of `elastic_transform` from (amount, sigma, affine) in units of `side` pixels."""
    return tuple((*(side * value for value in row), side) for row in rows)


_ZOOM_SMALL = ((1.06, 0.01), (1.11, 0.01), (1.16, 0.01), (1.21, 0.01), (1.26, 0.01))

# The numbers are those of the programs that made the published data sets.
CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption("noise", _single(
        (0.04, 0.06, 0.08, 0.09, 0.10), (0.04, 0.08, 0.12, 0.15, 0.18), (0.08, 0.12, 0.18, 0.26, 0.38),
    )),
    "shot_noise": Corruption("noise", _single(
        (500, 250, 100, 75, 50), (250, 100, 50, 30, 15), (60, 25, 12, 5, 3),
    )),
    "impulse_noise": Corruption("noise", _single(
        (0.01, 0.02, 0.03, 0.05, 0.07), (0.01, 0.02, 0.05, 0.08, 0.14), (0.03, 0.06, 0.09, 0.17, 0.27),
    )),
    "defocus_blur": Corruption("blur", (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    )),
    "glass_blur": Corruption("blur", (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    )),
    "motion_blur": Corruption("blur", (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    )),
    "zoom_blur": Corruption("blur", (
        _ZOOM_SMALL,
        _ZOOM_SMALL,
        ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
    )),
    "snow": Corruption("weather", (
        ((0.1, 0.2, 1, 0.6, 8, 3, 0.95), (0.1, 0.2, 1, 0.5, 10, 4, 0.9), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8)),
        ((0.1, 0.2, 1, 0.6, 8, 3, 0.8), (0.1, 0.2, 1, 0.5, 10, 4, 0.8), (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
         (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65), (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6)),
        ((0.1, 0.3, 3, 0.5, 10, 4, 0.8), (0.2, 0.3, 2, 0.5, 12, 4, 0.7), (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
         (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65), (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55)),
    )),
    "frost": Corruption("weather", (
        ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)),
        ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55)),
        ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75)),
    )),
    "fog": Corruption("weather", (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    )),
    "brightness": Corruption("weather", _single(
        (0.05, 0.1, 0.15, 0.2, 0.3), (0.1, 0.2, 0.3, 0.4, 0.5), (0.1, 0.2, 0.3, 0.4, 0.5),
    )),
    "contrast": Corruption("digital", _single(
        (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05), (0.4, 0.3, 0.2, 0.1, 0.05),
    )),
    "elastic_transform": Corruption("digital", (
        _elastic(32, (0, 0, 0.08), (0.05, 0.2, 0.07), (0.08, 0.06, 0.06), (0.1, 0.04, 0.05), (0.1, 0.03, 0.03)),
        _elastic(64, (0, 0, 0.08), (0.05, 0.3, 0.06), (0.1, 0.08, 0.06), (0.1, 0.03, 0.03), (0.16, 0.03, 0.02)),
        # For 244 pixels instead of 224: the authors' typo, which they and we keep.
        tuple((*(244 * value for value in row), 224) for row in (
            (2, 0.7, 0.1), (2, 0.08, 0.2), (0.05, 0.01, 0.02), (0.07, 0.01, 0.02), (0.12, 0.01, 0.02))),
    )),
    "pixelate": Corruption("digital", _single(
        (0.95, 0.9, 0.85, 0.75, 0.65), (0.9, 0.8, 0.7, 0.6, 0.5), (0.6, 0.5, 0.4, 0.3, 0.25),
    )),
    "jpeg_compression": Corruption("digital", _single(
        (80, 65, 58, 50, 40), (65, 58, 50, 40, 25), (25, 18, 15, 10, 7),
    )),
    "speckle_noise": Corruption("extra", _single(
        (0.06, 0.1, 0.12, 0.16, 0.2), (0.15, 0.2, 0.25, 0.3, 0.35), (0.15, 0.2, 0.35, 0.45, 0.6),
    )),
    "gaussian_blur": Corruption("extra", _single(
        (0.4, 0.6, 0.7, 0.8, 1), (0.5, 0.75, 1, 1.25, 1.5), (1, 2, 3, 4, 6),
    )),
    "spatter": Corruption("extra", (
        ((0.62, 0.1, 0.7, 0.7, 0.5, 0), (0.65, 0.1, 0.8, 0.7, 0.5, 0), (0.65, 0.3, 1, 0.69, 0.5, 0),
         (0.65, 0.1, 0.7, 0.69, 0.6, 1), (0.65, 0.1, 0.5, 0.68, 0.6, 1)),
        ((0.62, 0.1, 0.7, 0.7, 0.6, 0), (0.65, 0.1, 0.8, 0.7, 0.6, 0), (0.65, 0.3, 1, 0.69, 0.6, 0),
         (0.65, 0.1, 0.7, 0.68, 0.6, 1), (0.65, 0.1, 0.5, 0.67, 0.6, 1)),
        ((0.65, 0.3, 4, 0.69, 0.6, 0), (0.65, 0.3, 3, 0.68, 0.6, 0), (0.65, 0.3, 2, 0.68, 0.5, 0),
         (0.65, 0.3, 1, 0.65, 1.5, 1), (0.67, 0.4, 1, 0.65, 1.5, 1)),
    )),
    "saturate": Corruption("extra", (
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    )),
}  # fmt: skip


def groups() -> Mapping[str, tuple[str, ...]]:
    """Returns the names of the corruptions by group. 'all' are the paper's 15, without the group 'extra'."""
    by_group: dict[str, tuple[str, ...]] = {"all": ()}
    for name, row in CORRUPTIONS.items():
        by_group[row.group] = (*by_group.get(row.group, ()), name)
        if row.group != "extra":
            by_group["all"] += (name,)
    return by_group


def select(text: str) -> tuple[str, ...]:
    """Returns the corruptions that a text names: names and groups, separated by commas, as in 'noise,fog'.

    Raises InputError for any other word.
    """
    by_group = groups()
    names: list[str] = []
    for word in (word.strip() for word in text.split(",")):
        if word not in CORRUPTIONS and word not in by_group:
            raise InputError(f"unknown corruption: {word!r}; {nearest(word, (*by_group, *CORRUPTIONS))}")
        names += by_group.get(word, (word,))
    return tuple(dict.fromkeys(names))


def parse_severities(text: str) -> tuple[int, ...]:
    """Parses severities such as '3', '1,3,5' or '1-5'; '' is all. Raises InputError unless they are 1 to 5."""
    valid = {str(severity): severity for severity in SEVERITIES}
    chosen: set[int] = set()
    for word in text.replace(" ", "").split(",") if text else ["1-5"]:
        first, dash, last = word.partition("-")
        ends = valid.get(first, 0), valid.get(last if dash else first, 0)
        if not 0 < ends[0] <= ends[1]:
            raise InputError(f"severity = {text!r}: expected 1 to 5, as in '3', '1,3,5' or '1-5'")
        chosen |= {*range(ends[0], ends[1] + 1)}
    return tuple(sorted(chosen))


def strength(name: str, severity: int, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Returns the arguments of a corruption's effect for an image of `shape`, [H, W, ...].

    They are those of the published size that is nearest to the shorter side by ratio.
    """
    side = min(shape[:2])
    size = min(range(len(SIZES)), key=lambda i: abs(math.log(side / SIZES[i])))
    return CORRUPTIONS[name].strengths[size][severity - 1]


def corrupt(image: np.ndarray, rng: np.random.Generator, name: str, severity: Severity) -> np.ndarray:
    """Corrupts an image, uint8 [H, W, C], as in CIFAR-10-C and ImageNet-C: corrupt('fog', 3).

    `name` is one of `CORRUPTIONS`, `severity` is 1 to 5. In a pipeline its place is after the operations that set the
    size, as the published strengths are for what the network sees. Raises InputError for another name.
    """
    if name not in CORRUPTIONS:
        raise unknown("corruption", name, CORRUPTIONS)
    from cnnjax.data import corruption_effects  # SciPy's filters take a while to import

    effect = getattr(corruption_effects, name)
    result = effect(image / 255, rng, *strength(name, severity, image.shape))
    return np.clip(result * 255 + 1e-6, 0, 255).astype(np.uint8)  # rounded down, as published
