"""Studies: claims of the literature, the arms that test them, and the comparisons that decide them."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

from cnnjax.config import Config

Sign = Literal["higher", "lower", "equal", "at_least"]
Measure = Callable[[pathlib.Path, str], dict[str, Any]]  # (run folder, data_dir) -> metric -> number(s)


CHAPTERS = (
    "convolution",
    "padding",
    "pooling",
    "activations",
    "depth",
    "residuals",
    "inception",
    "normalization",
    "regularization",
    "training",
    "augmentation",
    "transfer",
    "evaluation",
    "inside",
)
BUDGETS = ("quick", "standard", "full")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One part of a claim, such as 'the mean of `metric` is higher in arm `a` than in arm `b` by more than `margin`'.

    Attributes:
        a: name of the first arm.
        sign: what is expected of the difference a - b of the means: 'higher' (above `margin`), 'lower' (below
            -`margin`), 'equal' (between -`margin` and `margin`), or 'at_least' (above -`margin`).
        b: name of the second arm.
        metric: key of `Study.metrics`.
        margin: the smallest difference that matters, in units of the metric, not negative; 'equal' needs one above 0.
    """

    a: str
    sign: Sign
    b: str
    metric: str
    margin: float = 0.0


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the literature, as it is taught, and the comparisons that decide it.

    Attributes:
        name: its name in snake case, such as 'plain_depth_degrades', unique over all files of experiments/.
        chapter: one of `CHAPTERS`.
        statement: the claim itself, in one or two plain sentences.
        source: where it is made: paper, section, figure; 'taught so in lectures' if no paper makes it.
        comparisons: the claim holds if all of them do.
        remarks: what was and was not controlled, and why the margins are as large as they are.
    """

    name: str
    chapter: str
    statement: str
    source: str
    comparisons: tuple[Comparison, ...]
    remarks: str = ""


@dataclasses.dataclass(frozen=True)
class Panel:
    """One subplot of a study's figure: one metric, with one color per arm.

    Attributes:
        kind: 'curve' plots a metric of metrics.jsonl over the epochs, 'profile' a list that `measure` returns over the
            index of its elements (from 1), 'points' the last value of each run on a horizontal axis, 'scatter' the
            arms' means of `metric` over those of `x`, in a picture of its own.
        metric: key of metrics.jsonl, or of `measure`'s result.
        title: heading of the subplot.
        arms: names of the arms to show; () for all.
        log: whether the y axis is logarithmic.
        xlabel: label of the x axis; 'points' has none.
        x: of 'scatter': the metric on the x axis, which is logarithmic if its values span orders of magnitude.
    """

    kind: Literal["curve", "profile", "points", "scatter"]
    metric: str
    title: str
    arms: tuple[str, ...] = ()
    log: bool = False
    xlabel: str = "epoch"
    x: str = ""


@dataclasses.dataclass(frozen=True)
class Study:
    """A test of published claims by training runs, as get_study(budget) in a file of experiments/ returns it.

    Without claims, it is a table of results: a row for each arm that has complete runs, sorted by the first metric.

    A metric is a key of metrics.jsonl, such as 'test/accuracy', whose last value counts, or a key of `measure`'s
    result.

    Attributes:
        arms: name -> config of each kind of run; the claims share them.
        metrics: metric -> its name in the report, a singular noun phrase such as 'training loss'.
        claims: what the arms decide.
        panels: subplots of the figure.
        seeds: number of runs of each arm before the first verdicts, with the seeds config.seed, config.seed + 1, ...
        seeds_of: arm -> another number of runs, of a study without claims.
        max_seeds: seeds are added to the arms of undecided claims up to this number; 0 for no more than `seeds`.
        fractions: the metrics, besides accuracies, that are fractions and shown as percentages, such as errors.
        measure: (run folder, data_dir) -> {metric: number or list of numbers}, called for each complete run; None for
            no metrics but those of metrics.jsonl.
        starts: arm -> arm whose trained weights initialize it, with the same seed.
        remarks: text for the report, such as differences from the paper.
        vary: one thing that a reader can change, and how.
        digest: of the study's file, as `config_files.read_study` sets it; a run is measured again when it has changed.
    """

    arms: Mapping[str, Config]
    metrics: Mapping[str, str]
    claims: tuple[Claim, ...]
    panels: tuple[Panel, ...]
    seeds: int
    max_seeds: int = 0
    fractions: tuple[str, ...] = ()
    measure: Measure | None = None
    starts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    seeds_of: Mapping[str, int] = dataclasses.field(default_factory=dict)
    remarks: str = ""
    vary: str = ""
    digest: str = ""

    def first_seeds(self) -> dict[str, int]:
        """Returns the number of runs of each arm before the first verdicts."""
        return dict.fromkeys(self.arms, self.seeds) | dict(self.seeds_of)
