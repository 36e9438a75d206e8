"""Studies: a claim of the literature, the arms that test it, and how it is judged. What experiments import."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cnnjax.config import Config

Measure = Callable[[pathlib.Path, str], dict[str, Any]]  # (a run's folder, data_dir) -> numbers, or lists of numbers


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A part of a claim: in a metric, arm `a` is higher (or lower) than arm `b` by more than `margin`."""

    a: str
    sign: Literal["higher", "lower"]
    b: str
    metric: str
    margin: float = 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """A part of the figure: a metric of all arms, or of those given.

    'curve': over the epochs, 'profile': a list that was measured, over its index; 'bars': a number.
    """

    kind: Literal["curve", "profile", "bars"]
    metric: str
    title: str
    arms: tuple[str, ...] = ()
    log: bool = False
    xlabel: str = "epoch"


@dataclasses.dataclass(frozen=True)
class Study:
    """What get_study(budget) of a file in experiments/ returns.

    A metric is a name in metrics.jsonl, of which the last value counts ('test/accuracy'), or one that `measure` gives.
    """

    claim: str
    source: str  # where the claim is made: paper, section, figure
    arms: Mapping[str, Config]
    seeds: int  # runs of each arm, with seeds from its config's on
    metrics: Mapping[str, str]  # metric -> its heading in the table
    comparisons: tuple[Comparison, ...]
    panels: tuple[Panel, ...]
    measure: Measure | None = None
    starts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # arm -> the arm whose weights it starts from
    remarks: str = ""  # what a reader of the report has to know: what differs from the paper
