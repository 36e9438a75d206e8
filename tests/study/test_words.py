"""Verdicts in words."""

import dataclasses
import math
from typing import Any

import pytest

from cnnjax.study import Comparison
from cnnjax.study.record import CONTRADICTED, EQUAL, HELD, REFUTED, UNDECIDED, Finding
from cnnjax.study.verdict import judge
from cnnjax.study.words import headline

METRICS = {"train/loss": "training loss", "test/accuracy": "test accuracy", "error": "error"}


def percentage(found: Finding) -> Finding:
    return dataclasses.replace(found, percentage=True)


def finding(sign: Any, differences: list[float], metric: str = "train/loss", margin: float = 0.0) -> Finding:
    return judge(Comparison("deep", sign, "shallow", metric, margin), differences)


NEAR = (0.9, 1.0, 1.1)
LOW = tuple(-x for x in NEAR)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            finding("higher", [*NEAR]),
            'Held: the training loss is 1.00 higher with "deep" than with "shallow" (95 % interval 0.75 to 1.25; '
            "effect size 5.6; 3 seeds).",
        ),
        (
            finding("lower", [*LOW]),
            'Held: the training loss is 1.00 lower with "deep" than with "shallow" (95 % interval 0.75 to 1.25; '
            "effect size 5.6; 3 seeds).",
        ),
        (
            finding("higher", [*LOW], "error"),
            'Contradicted: the error is 1.00 lower with "deep" than with "shallow" (95 % interval 0.75 to 1.25; effect '
            "size 5.6; 3 seeds); expected: higher.",
        ),
        (
            finding("higher", [x / 10 for x in NEAR], "test/accuracy", margin=0.2),
            'Refuted: the test accuracy is 10.0 points higher with "deep" than with "shallow" (95 % interval 7.5 to '
            "12.5 points; effect size 5.6; 3 seeds); expected: higher by more than 20 points.",
        ),
        (
            finding("equal", [0.01, -0.01, 0.03], margin=0.1),
            'Equal: the training loss is 0.010 higher with "deep" than with "shallow" (90 % interval from 0.024 lower '
            "to 0.044 higher; effect size 0.3; 3 seeds); expected: within 0.1.",
        ),
        (
            finding("equal", [*NEAR], margin=0.1),
            'Contradicted: the training loss is 1.00 higher with "deep" than with "shallow" (95 % interval 0.75 to '
            "1.25; effect size 5.6; 3 seeds); expected: within 0.1.",
        ),
        (
            finding("at_least", [0.0001, -0.0001, 0.0003], "test/accuracy", margin=0.01),
            'Held: the test accuracy is 0.010 points higher with "deep" than with "shallow" (95 % interval from 0.040 '
            "points lower to 0.060 points higher; effect size 0.3; 3 seeds); expected: no more than 1 point lower.",
        ),
        (
            finding("higher", [1.0], "error"),
            'Undecided: the error is 1.0 higher with "deep" than with "shallow" (no interval; 1 seed); expected: '
            "higher.",
        ),
        (
            finding("higher", [0.0, 0.0], "error"),
            'Undecided: the error is the same with "deep" and with "shallow" (the same in every seed; 2 seeds); '
            "expected: higher.",
        ),
        (
            percentage(finding("higher", [x / 100 for x in LOW], "error", margin=0.01)),
            'Refuted: the error is 1.00 points lower with "deep" than with "shallow" (95 % interval 0.75 to 1.25 '
            "points; effect size 5.6; 3 seeds); expected: higher by more than 1 point.",
        ),
        (
            finding("higher", []),
            'Undecided: "deep" and "shallow" are compared when all runs of the first look are complete.',
        ),
        (
            finding("higher", [2.0, 0.001, 1.999, 0.0]),
            'Undecided: the training loss is 1.0 higher with "deep" than with "shallow" (95 % interval from 0.8 lower '
            "to 2.8 higher; effect size 0.6; 4 seeds); expected: higher.",
        ),
        (
            dataclasses.replace(finding("higher", [0.9, -0.1, 0.1]), needed=30),
            'Undecided: the training loss is 0.3 higher with "deep" than with "shallow" (95 % interval from 1.0 lower '
            "to 1.6 higher; effect size 0.3; 3 seeds); expected: higher; about 30 seeds in all would decide it.",
        ),
    ],
)
def test_a_verdict_is_a_sentence(found: Finding, expected: str) -> None:
    assert headline(found.verdict, [found], METRICS) == expected


@pytest.mark.parametrize(
    ("verdict", "begin"),
    [
        (HELD, "Held in both parts. The smallest effect: the training loss is 1.00 higher"),
        (REFUTED, "Refuted in 1 of 2 parts (held in the other): the training loss is 5.00 lower"),
        (UNDECIDED, "Undecided in 1 of 2 parts (held in the other): the training loss is 5.00 lower"),
        (CONTRADICTED, "Contradicted in both parts: the training loss is 5.00 lower"),
        (EQUAL, "Equal in both parts. The largest difference: the training loss is 0.51"),
    ],
)
def test_the_part_that_matters_most_is_told(verdict: str, begin: str) -> None:
    sure, other = finding("higher", [*NEAR]), finding("higher", [-4.9, -5.0, -5.1])
    if verdict == EQUAL:
        other = finding("equal", [0.5, 0.51, 0.52], margin=1)
        sure = finding("equal", [0.01, 0.0, 0.0], margin=1)
    else:
        other = dataclasses.replace(other, verdict=verdict)
    if verdict == CONTRADICTED:
        sure = dataclasses.replace(sure, verdict=verdict)
        sure, other = other, sure
    assert headline(verdict, [sure, other], METRICS).startswith(begin)
    assert not math.isnan(sure.effect)
