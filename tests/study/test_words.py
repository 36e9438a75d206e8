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


def finding(sign: Any, differences: list[float], metric: str = "train/loss", margin: float = 0.0) -> Finding:
    return judge(Comparison("deep", sign, "shallow", metric, margin), differences)


NEAR = (0.9, 1.0, 1.1)
LOW = tuple(-x for x in NEAR)


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (
            finding("higher", [*NEAR]),
            "Held: deep has a training loss 1.00 higher than shallow (95 % interval 0.75 to 1.25; effect size 5.6; "
            "3 seeds).",
        ),
        (
            finding("lower", [*LOW]),
            "Held: deep has a training loss 1.00 lower than shallow (95 % interval 0.75 to 1.25; effect size 5.6; "
            "3 seeds).",
        ),
        (
            finding("higher", [*LOW], "error"),
            "Contradicted: deep has an error 1.00 lower than shallow (95 % interval 0.75 to 1.25; effect size 5.6; "
            "3 seeds); expected: higher.",
        ),
        (
            finding("higher", [x / 10 for x in NEAR], "test/accuracy", margin=0.2),
            "Refuted: deep has a test accuracy 10.0 points higher than shallow (95 % interval 7.5 to 12.5 points; "
            "effect size 5.6; 3 seeds); expected: higher by more than 20 points.",
        ),
        (
            finding("equal", [0.01, -0.01, 0.03], margin=0.1),
            "Equal: deep and shallow have the same training loss within 0.1; the difference is 0.010 (90 % interval "
            "-0.024 to 0.044; effect size 0.3; 3 seeds).",
        ),
        (
            finding("equal", [*NEAR], margin=0.1),
            "Contradicted: deep has a training loss 1.00 higher than shallow (90 % interval 0.83 to 1.17; effect size "
            "5.6; 3 seeds); expected: within 0.1.",
        ),
        (
            finding("at_least", [0.01, -0.01, 0.03], margin=0.1),
            "Held: deep has a training loss 0.010 higher than shallow (95 % interval -0.040 to 0.060; effect size 0.3; "
            "3 seeds); expected: not lower by 0.1 or more.",
        ),
        (
            finding("higher", [1.0], "error"),
            "Undecided: deep has an error 1.0 higher than shallow (no interval; 1 seed); expected: higher.",
        ),
        (
            finding("higher", [0.0, 0.0], "error"),
            "Refuted: deep has the same error as shallow (the same in every seed; 2 seeds); expected: higher.",
        ),
        (
            finding("higher", []),
            "Undecided: deep and shallow are compared when all runs of the first look are complete.",
        ),
        (
            finding("higher", [2.0, 0.001, 1.999, 0.0]),
            "Undecided: deep has a training loss 1.0 higher than shallow (95 % interval -0.8 to 2.8; effect size 0.6; "
            "4 seeds); expected: higher.",
        ),
        (
            dataclasses.replace(finding("higher", [0.9, -0.1, 0.1]), needed=30),
            "Undecided: deep has a training loss 0.3 higher than shallow (95 % interval -1.0 to 1.6; effect size 0.3; "
            "3 seeds); expected: higher; about 30 seeds would decide it.",
        ),
    ],
)
def test_a_verdict_is_a_sentence(found: Finding, expected: str) -> None:
    assert headline(found.verdict, [found], METRICS) == expected


@pytest.mark.parametrize(
    ("verdict", "begin"),
    [
        (HELD, "Held in both parts. The closest: deep has a training loss 1.00 higher"),
        (REFUTED, "Refuted in 1 of 2 parts: deep has a training loss 5.00 lower"),
        (UNDECIDED, "Undecided in 1 of 2 parts: deep has a training loss 5.00 lower"),
        (CONTRADICTED, "Contradicted in both parts: deep has a training loss 5.00 lower"),
        (EQUAL, "Equal in both parts. The closest: deep and shallow have the same"),
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
