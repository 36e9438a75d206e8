"""Studies: a claim of the literature, the arms that test it, and the comparisons that decide it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cnnjax.config import Config

Measure = Callable[[pathlib.Path, str], dict[str, Any]]  # (run folder, data_dir) -> metric -> number(s)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One statement of a claim: in `metric`, arm `a` is higher (or lower) than arm `b` by more than `margin`."""

    a: str
    sign: Literal["higher", "lower"]
    b: str
    metric: str
    margin: float = 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One subplot of the figure: a metric of all arms, or of `arms`.

    kind: 'curve' plots it over the epochs, 'profile' a measured list over its index, 'bars' a number.
    """

    kind: Literal["curve", "profile", "bars"]
    metric: str
    title: str
    arms: tuple[str, ...] = ()
    log: bool = False
    xlabel: str = "epoch"


@dataclasses.dataclass(frozen=True)
class Study:
    """A study, returned by get_study(budget) of a file in experiments/.

    A metric is a key of metrics.jsonl, such as 'test/accuracy', whose last value counts, or a key of `measure`'s.
    """

    claim: str
    source: str  # of the claim: paper, section, figure
    arms: Mapping[str, Config]
    seeds: int  # runs of each arm, with seeds from its config's on
    metrics: Mapping[str, str]  # metric -> column heading
    comparisons: tuple[Comparison, ...]
    panels: tuple[Panel, ...]
    measure: Measure | None = None
    starts: Mapping[str, str] = dataclasses.field(default_factory=dict)  # arm -> the arm that initializes it
    remarks: str = ""  # for readers of the report: the differences from the paper
