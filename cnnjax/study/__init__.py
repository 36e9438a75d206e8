"""Studies: a claim of the literature, the arms that test it, and the comparisons that decide it."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cnnjax.config import Config

Measure = Callable[[pathlib.Path, str], dict[str, Any]]  # (run folder, data_dir) -> metric -> number(s)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One statement of a claim, as 'in `metric`, arm `a` is higher than arm `b` by more than `margin`'.

    Attributes:
        a: name of the first arm.
        sign: whether `a` is expected to be higher or lower.
        b: name of the second arm.
        metric: key of `Study.metrics`; its means over the seeds are compared.
        margin: in units of the metric; a negative one allows a difference of this size in the other direction.
    """

    a: str
    sign: Literal["higher", "lower"]
    b: str
    metric: str
    margin: float = 0.0


@dataclasses.dataclass(frozen=True)
class Panel:
    """One subplot of a study's figure: one metric, with one color per arm.

    Attributes:
        kind: 'curve' plots a metric of metrics.jsonl over the epochs, 'profile' a list that `measure` returns over the
            index of its elements (from 1), 'bars' the last value as a horizontal bar.
        metric: key of metrics.jsonl, or of `measure`'s result.
        title: heading of the subplot.
        arms: names of the arms to show; () for all.
        log: whether the y axis is logarithmic.
        xlabel: label of the x axis; 'bars' has none.
    """

    kind: Literal["curve", "profile", "bars"]
    metric: str
    title: str
    arms: tuple[str, ...] = ()
    log: bool = False
    xlabel: str = "epoch"


@dataclasses.dataclass(frozen=True)
class Study:
    """A test of a published claim by training runs, as get_study(budget) in a file of experiments/ returns it.

    A metric is a key of metrics.jsonl, such as 'test/accuracy', whose last value counts, or a key of `measure`'s
    result.

    Attributes:
        claim: the statement to test.
        source: paper, section and figure of the claim.
        arms: name -> config of each kind of run.
        seeds: number of runs of each arm, with the seeds config.seed, config.seed + 1, ...
        metrics: metric -> column heading in the report.
        comparisons: the claim holds if all of them hold.
        panels: subplots of the figure.
        measure: (run folder, data_dir) -> {metric: number or list of numbers}, called for each complete run; None for
            no metrics but those of metrics.jsonl.
        starts: arm -> arm whose trained weights initialize it, with the same seed.
        remarks: text for the report, such as differences from the paper.
    """

    claim: str
    source: str
    arms: Mapping[str, Config]
    seeds: int
    metrics: Mapping[str, str]
    comparisons: tuple[Comparison, ...]
    panels: tuple[Panel, ...]
    measure: Measure | None = None
    starts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    remarks: str = ""
