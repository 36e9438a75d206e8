"""A study's report: a page of Markdown with the verdict, a table as CSV, and a figure."""

import csv
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.study import Panel, Study
from cnnjax.study.conduct import Lines, value
from cnnjax.study.verdict import LEVEL, Finding, judge, together

Found = Mapping[str, Sequence[tuple[Lines, dict[str, Any]]]]  # arm -> of each run its metrics, and what was measured


def write(path: pathlib.Path, study: Study, found: Found, made_by: Sequence[str]) -> tuple[str, list[Finding]]:
    """Writes `path`.md, .csv and .png; returns the verdict and what it rests on. `made_by`: command, versions."""
    values = {arm: {m: [value(m, *run) for run in runs] for m in study.metrics} for arm, runs in found.items()}
    findings = [judge(comparison, values) for comparison in study.comparisons]
    verdict = together(findings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_suffix(".csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["arm", "run", *study.metrics])
        for arm, of in values.items():
            for i, numbers in enumerate(zip(*of.values(), strict=True)):
                rows.writerow([arm, i, *numbers])
    draw(path.with_suffix(".png"), study, found)
    path.with_suffix(".md").write_text(_page(path.stem, study, values, findings, verdict, made_by))
    return verdict, findings


def _page(
    name: str, study: Study, values: Mapping, findings: Sequence[Finding], verdict: str, made_by: Sequence[str]
) -> str:
    seeds = f"{study.seeds} runs each, ± their standard deviation" if study.seeds > 1 else "one run each"
    return "\n".join(
        [
            f"# {name}: {verdict}",
            "",
            f"**Claim.** {_line(study.claim)}",
            "",
            f"**Source.** {_line(study.source)}",
            "",
            f"**Verdict: {verdict}.** Each part of the claim is a difference of means; it holds when the whole "
            f"{LEVEL:.0%} confidence interval (Welch's) is on its side, and is undecided when that has both signs.",
            "",
            _table(
                ["expected", "in", "difference", f"{LEVEL:.0%} interval", "verdict"],
                [
                    [
                        f"{f.comparison.a} {f.comparison.sign} than {f.comparison.b}"
                        + (f" by {f.comparison.margin:g}" if f.comparison.margin else ""),
                        study.metrics[f.comparison.metric],
                        f"{f.difference:+.3g}",
                        f"{f.low:+.3g} to {f.high:+.3g}" if math.isfinite(f.low) else "one run tells none",
                        f.verdict,
                    ]
                    for f in findings
                ],
            ),
            "",
            f"## Arms ({seeds})",
            "",
            _table(
                ["arm", *study.metrics.values()],
                [[arm, *(_spread(numbers) for numbers in of.values())] for arm, of in values.items()],
            ),
            "",
            f"![{name}]({name}.png)",
            "",
            *([_line(study.remarks), ""] if study.remarks else []),
            "## How",
            "",
            *(f"- {line}" for line in made_by),
            "",
        ]
    )


def _line(text: str) -> str:
    return " ".join(text.split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def _spread(numbers: Sequence[float]) -> str:
    mean = statistics.fmean(numbers)
    if len(numbers) < 2 or not (spread := statistics.stdev(numbers)):
        return f"{mean:,.0f}" if mean >= 1000 else f"{mean:.4g}"
    digits = min(6, max(0, 1 - math.floor(math.log10(spread))))  # two of the spread, and the mean to the same
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def draw(path: pathlib.Path, study: Study, found: Found) -> None:
    """The figure: the panels side by side, each arm in a colour of its own."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    across = 2 if len(study.panels) in (2, 4) else min(3, len(study.panels))
    down = -(-len(study.panels) // across)
    figure = Figure(figsize=(5.2 * across, 3.9 * down), layout="constrained")
    FigureCanvasAgg(figure)
    for i, panel in enumerate(study.panels, start=1):
        axes = figure.add_subplot(down, across, i, title=panel.title)
        arms = [arm for arm in study.arms if not panel.arms or arm in panel.arms]
        for at, arm in enumerate(arms):
            _plot(axes, panel, arm, at, len(arms), found[arm])
        if panel.log:
            axes.set_yscale("log")
        if panel.kind == "bars":
            axes.set_yticks(range(len(arms)), arms)
            axes.invert_yaxis()
            axes.grid(axis="x", alpha=0.3)
        else:
            axes.set_xlabel(panel.xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.grid(alpha=0.3)
            axes.legend(fontsize=7, ncols=1 + len(arms) // 10)
    figure.savefig(path, dpi=110, bbox_inches="tight")  # however long the titles are


def _plot(axes: Any, panel: Panel, arm: str, at: int, count: int, runs: Sequence[tuple[Lines, dict[str, Any]]]) -> None:
    """An arm: the mean of its runs, and from the least to the most of them."""
    from matplotlib import colormaps

    colour = colormaps["tab10"](at) if count <= 10 else colormaps["turbo"]((at + 0.5) / count)
    if panel.kind == "bars":
        numbers = [value(panel.metric, *run) for run in runs]
        axes.barh(at, statistics.fmean(numbers), color=colour, alpha=0.7)
        axes.plot(numbers, [at] * len(numbers), "k.", markersize=4)
        return
    if panel.kind == "curve":
        epochs = [line["epoch"] for line in runs[0][0] if panel.metric in line]
        rows = [[line[panel.metric] for line in lines if panel.metric in line] for lines, _ in runs]
    else:
        rows = [measured[panel.metric] for _, measured in runs]
        epochs = list(range(1, len(rows[0]) + 1))
    table = np.array(rows, float)
    (line,) = axes.plot(epochs, table.mean(axis=0), color=colour, label=arm)
    axes.fill_between(epochs, table.min(axis=0), table.max(axis=0), color=line.get_color(), alpha=0.15, linewidth=0)
