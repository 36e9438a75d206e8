"""A study's report: a Markdown page with the verdict, a CSV table and a figure."""

import csv
import io
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import colors, style
from cnnjax.runs import workdir
from cnnjax.study import Claim, Panel, Study
from cnnjax.study.conduct import Result, last_value
from cnnjax.study.verdict import LEVEL, Finding, Values, judge_claim

PANEL = (4.0, 3.0)  # inches; two make the width of a slide
Results = Mapping[str, Sequence[Result]]  # arm -> one for each run
Judged = tuple[Claim, str, Sequence[Finding]]  # a claim, its verdict, and the findings of its comparisons


def write(path: pathlib.Path, study: Study, results: Results, provenance: Sequence[str]) -> list[Judged]:
    """Writes a study's report: `path`.md, `path`.csv (a row for each run), `path`.png and `path`.svg.

    Returns each claim with its verdict and the findings of its comparisons. `results` is arm -> one `Result` for each
    seed. `provenance` is a list of lines for the report: the command, the machine, the versions.
    """
    values = {
        arm: {metric: [last_value(metric, result) for result in arm_results] for metric in study.metrics}
        for arm, arm_results in results.items()
    }
    judged: list[Judged] = [(claim, *judge_claim(claim, values)) for claim in study.claims]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["arm", "run", *study.metrics])
    for arm, metrics in values.items():
        for i, row in enumerate(zip(*metrics.values(), strict=True)):
            rows.writerow([arm, i, *row])
    page = _page(path.name, study, values, judged, provenance)
    workdir.write_atomically(path.with_name(f"{path.name}.csv"), text.getvalue().encode(errors="surrogateescape"))
    draw(path, study, results)
    workdir.write_atomically(path.with_name(f"{path.name}.md"), page.encode(errors="surrogateescape"))
    return judged


def _page(name: str, study: Study, values: Values, judged: Sequence[Judged], provenance: Sequence[str]) -> str:
    """Returns the report in Markdown: claims with verdicts and comparisons, table of the arms' means, figure."""
    runs = f"{study.seeds} runs each, ± their standard deviation" if study.seeds > 1 else "one run each"
    return "\n".join(
        [
            f"# {name}",
            "",
            *(line for entry in judged for line in _claim(study, *entry)),
            f"## Arms ({runs})",
            "",
            _table(
                ["arm", *study.metrics.values()],
                [[arm, *map(_mean_and_sd, metrics.values())] for arm, metrics in values.items()],
            ),
            "",
            f"![{name}]({name}.png)",
            "",
            *([_line(study.remarks), ""] if study.remarks else []),
            "## Provenance",
            "",
            *(f"- {line}" for line in provenance),
            "",
        ]
    )


def _claim(study: Study, claim: Claim, verdict: str, findings: Sequence[Finding]) -> list[str]:
    """Returns the lines of one claim: its verdict, statement, source, and a table of its comparisons."""
    header = ["expected", "metric", "difference", f"{LEVEL:.0%} interval", "verdict"]
    rows = [
        [
            f"{f.comparison.a} {f.comparison.sign} than {f.comparison.b}"
            + (f" by {f.comparison.margin:g}" if f.comparison.margin else ""),
            study.metrics[f.comparison.metric],
            f"{f.difference:+.3g}",
            f"{f.low:+.3g} to {f.high:+.3g}" if math.isfinite(f.low) else "unknown (one run)",
            f.verdict,
        ]
        for f in findings
    ]
    return [
        f"## {claim.name}: {verdict}",
        "",
        f"**Claim.** {_line(claim.statement)}",
        "",
        f"**Source.** {_line(claim.source)}",
        "",
        _table(header, rows),
        "",
        *([_line(claim.remarks), ""] if claim.remarks else []),
    ]


def _line(text: str) -> str:
    """Joins the lines of a text to one line."""
    return " ".join(text.split())


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def _mean_and_sd(numbers: Sequence[float]) -> str:
    """Formats numbers as 'mean ± standard deviation', the latter with two significant digits.

    Formats the mean alone for one number, or for equal numbers.
    """
    mean = statistics.fmean(numbers)
    if len(numbers) < 2 or not (sd := statistics.stdev(numbers)):
        return f"{mean:,.0f}" if mean >= 1000 else f"{mean:.4g}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(sd))))  # two significant digits of the standard deviation
    return f"{mean:.{decimals}f} ± {sd:.{decimals}f}"


@style.house()
def draw(path: pathlib.Path, study: Study, results: Results) -> None:
    """Draws the study's figure into `path`.png and `path`.svg: a grid of its panels, with one color per arm.

    `results` is arm -> one `Result` for each seed.
    """
    from matplotlib.ticker import MaxNLocator

    columns = min(2, len(study.panels))
    rows = -(-len(study.panels) // columns)
    figure = style.new_figure(PANEL[0] * columns, PANEL[1] * rows)
    colors_of = {arm: style.line_style(i) for i, arm in enumerate(study.arms)}
    lines = []
    for i, panel in enumerate(study.panels, start=1):
        axes = figure.add_subplot(rows, columns, i)
        axes.set_title(style.wrap(panel.title, PANEL[0] - 0.8, style.FONT, bold=True))
        arms = [arm for arm in study.arms if not panel.arms or arm in panel.arms]
        for position, arm in enumerate(arms):
            _plot(axes, panel, arm, position, colors_of[arm], results[arm])
        if panel.log:
            axes.set_yscale("log")
            style.plain_log_ticks(axes.yaxis)
        if panel.kind == "bars":
            axes.set_yticks(range(len(arms)), map(style.plain_label, arms))
            axes.invert_yaxis()
            axes.grid(axis="x")
        else:
            axes.set_xlabel(panel.xlabel)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            axes.margins(x=0)
            axes.grid(axis="y")
            lines.append(axes)
    if study.seeds > 1:
        bars = [panel.kind == "bars" for panel in study.panels]
        bands, dots = "; bands: their range" * (not all(bars)), "; dots: single runs" * any(bars)
        style.set_title(figure, "", f"mean of {study.seeds} runs{bands}{dots}")
    for axes in lines:  # when all panels are there, and have their sizes
        style.label_lines(axes, style.SMALL)
    style.save(figure, path)


def _plot(axes: Any, panel: Panel, arm: str, position: int, line: Mapping[str, Any], results: Sequence[Result]) -> None:
    """Plots one arm in a panel: the mean over its runs, and their range or, with bars, a point for each run.

    `position` is the place of the bar, and `line` the color and dashes of the arm.
    """
    if panel.kind == "bars":
        values = [last_value(panel.metric, result) for result in results]
        axes.barh(position, statistics.fmean(values), color=line["color"], alpha=0.7)
        axes.plot(values, [position] * len(values), "o", color=colors.INK, markersize=3)
        return
    if panel.kind == "curve":
        x = [row["epoch"] for row in results[0].metrics if panel.metric in row]
        rows = [[row[panel.metric] for row in result.metrics if panel.metric in row] for result in results]
    else:
        rows = [result.measured[panel.metric] for result in results]
        x = list(range(1, len(rows[0]) + 1))
    table = np.array(rows, float)
    axes.plot(x, table.mean(axis=0), label=style.plain_label(arm), **line)
    axes.fill_between(x, table.min(axis=0), table.max(axis=0), color=line["color"], alpha=0.15, linewidth=0)
