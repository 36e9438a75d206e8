"""The report of a study in Markdown: verdicts first, then figure, numbers, and how to run it."""

import math
import statistics
from collections.abc import Sequence

from cnnjax.study import Claim, Study
from cnnjax.study.record import ClaimReport, Finding, StudyReport
from cnnjax.study.verdict import Values
from cnnjax.study.words import amount, effect, expectation, interval

PAIRED = """Runs of one seed share the order of the data and, where shapes agree, the initialization; their differences
are compared."""


def page(name: str, study: Study, report: StudyReport, values: Values, command: str) -> str:
    """Returns the report in Markdown. `name` is that of its files, without suffix, and `command` makes it."""
    plan = report.plan
    versions = ", ".join(f"{package} {version}" for package, version in report.versions.items())
    return "\n".join(
        [
            f"# {report.study}, {report.budget} budget",
            "",
            *(line for pair in zip(study.claims, report.claims, strict=True) for line in _claim(study, *pair)),
            "## Figure",
            "",
            f"![{name}]({name}.png)",
            "",
            "## Arms",
            "",
            _table(
                ["arm", *study.metrics.values(), "runs"],
                [
                    [arm, *map(_mean_and_sd, metrics.values()), str(len(next(iter(metrics.values()))))]
                    for arm, metrics in values.items()
                ],
            ),
            "",
            f"Means ± standard deviations over the runs; each run is a line of [{name}.csv]({name}.csv).",
            "",
            "## What was controlled",
            "",
            _line(f"{PAIRED} {study.remarks}"),
            "",
            "## Run it, and change one thing",
            "",
            f"`{command}`",
            "",
            *([_line(study.vary), ""] if study.vary else []),
            "## How sure it is",
            "",
            f"- The plan of {plan.written}: {plan.rule}. The table of verdicts is in cnnjax/study/verdict.py.",
            f"- Runs and verdicts of {report.date}; {_hours(report.hours)}.",
            "- The effect size is the mean of the paired differences in units of their standard deviation (Hedges' g).",
            f"- {report.machine}; {versions}",
            "",
        ]
    )


def _claim(study: Study, claim: Claim, judged: ClaimReport) -> list[str]:
    """Returns the lines of one claim: the verdict, the claim, where it is made, and a table of its comparisons."""
    header = ["metric", "of", "against", "expected", "difference", "interval", "effect size", "seeds", "verdict"]
    return [
        f"## {claim.name}",
        "",
        f"**{judged.headline}**",
        "",
        f"*Claim.* {_line(claim.statement)}",
        "",
        f"*Where it is made.* {_line(claim.source)}",
        "",
        *([f"*Plan.* {' '.join(judged.changes)}", ""] if judged.changes else []),
        _table(header, [_row(study, finding) for finding in judged.findings]),
        "",
        *([_line(claim.remarks), ""] if claim.remarks else []),
    ]


def _row(study: Study, finding: Finding) -> list[str]:
    """Returns the row of one comparison in a claim's table."""
    c = finding.comparison
    difference = "unknown" if math.isnan(finding.difference) else amount(c.metric, finding.difference, finding)
    return [
        study.metrics[c.metric], c.a, c.b, expectation(c), difference, interval(finding),
        effect(finding) or "unknown", str(finding.seeds), finding.verdict,
    ]  # fmt: skip


def _hours(hours: float) -> str:
    """Formats the duration of all trainings: in minutes below two hours; 0 is an unknown one."""
    if not hours:
        return "the hours of training were not recorded"
    return f"{hours:.1f} hours of training" if hours >= 2 else f"{max(1, round(60 * hours))} minutes of training"


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
