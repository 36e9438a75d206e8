"""The report of a study in Markdown: verdicts first, then figure, numbers, and how to run it."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence

from cnnjax.config import FIELDS
from cnnjax.study import Claim, Study
from cnnjax.study.record import ClaimReport, Finding, StudyReport
from cnnjax.study.verdict import Values
from cnnjax.study.words import amount, effect, expectation, interval, is_percentage

PAIRED = """Runs with the same seed and the same training images see them in the same order; layers of the same shape
start from the same weights. Two arms are compared seed by seed, by the difference of the two runs."""
UNEQUAL = """A verdict uses only the runs that were complete when it was reached. So if arms differ in their number of
runs, the differences of these means may not match the verdicts."""
VERDICTS = """- The margin is the smallest difference that counts. *Held*: the whole interval is beyond the margin, on
  the expected side. *Equal*: the whole interval is within the margin; a small difference may remain. *Contradicted*:
  the whole interval is beyond the margin on the opposite side. Where "equal" was expected, either side counts, and the
  interval is that of 95 %. *Refuted*: the whole interval falls short of the margin, so the difference is too small or
  absent; a claim of several parts is refuted if one part is contradicted or refuted. *Undecided*: these seeds cannot
  decide, which does not mean that the arms are equal.
- Seeds are added until the claim is decided, or no more are planned. To keep false verdicts at 5 % for each claim, each
  look at the results and each part gets a share of the error, so the intervals are wider than those of a single t-test.
  "Equal" has two one-sided tests of 5 % each, and so an interval of 90 %. Differences that are the same in all of n
  seeds decide only if 2^-n is at most that share of the error, and never if they equal the margin (0 without one).
- The effect size is the mean of the paired differences in units of their standard deviation (Hedges' g). It is large
  where seeds differ little."""
FINDING = ("metric", "arm", "compared with", "expected", "difference", "interval", "effect size", "seeds", "verdict")
UNSHOWN = ("seed", "init", "log_every", "checkpoint_every", "eval_every")  # settings that do not matter for a claim


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
            *settings_lines(study),
            table(
                ["arm", *study.metrics.values(), "runs"],
                [
                    [arm, *map(mean_and_sd, metrics.values()), str(len(next(iter(metrics.values()))))]
                    for arm, metrics in values.items()
                ],
            ),
            "",
            _line(
                f"Means ± standard deviations over the runs; each run is a line of [{name}.csv]({name}.csv). {UNEQUAL}"
            ),
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
            "## How to read this report, and how certain it is",
            "",
            VERDICTS,
            f"- The plan of {plan.written}: {plan.rule}.",
            f"- Runs and verdicts of {report.date}; {duration(report.hours)}.",
            f"- {report.machine}; {versions}",
            "",
        ]
    )


@dataclasses.dataclass(frozen=True)
class ArmSettings:
    """The settings of the arms of a study, without those that do not matter for a claim.

    Attributes:
        shared: setting -> value, of all arms; without defaults, except the model.
        columns: names of the settings in which arms differ, and 'starts from' if arms start from others.
        rows: arm -> its values in `columns`.
    """

    shared: Mapping[str, object]
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[object, ...]]


def arm_settings(study: Study) -> ArmSettings:
    """Returns the settings that all arms of a study share, and those in which they differ."""
    configs = {arm: dataclasses.asdict(config) for arm, config in study.arms.items()}
    values = {name: [config[name] for config in configs.values()] for name in FIELDS if name not in UNSHOWN}
    shared = {name: row[0] for name, row in values.items() if all(value == row[0] for value in row)}
    different = [name for name in values if name not in shared]
    rows = {arm: tuple(config[name] for name in different) for arm, config in configs.items()}
    if study.starts:
        different.append("starts from")
        rows = {arm: (*row, study.starts.get(arm, "")) for arm, row in rows.items()}
    changed = {k: value for k, value in shared.items() if value != FIELDS[k].default or k == "model"}
    return ArmSettings(changed, tuple(different), rows)


def settings_lines(study: Study) -> list[str]:
    """Returns the settings that all arms share, in a line, and a table of those in which they differ."""
    settings = arm_settings(study)
    common = "; ".join(f"{name} {_setting(value)}" for name, value in settings.shared.items())
    count = len(settings.columns) - bool(study.starts)  # the last column has names of arms
    rows = [
        [arm, *(_setting(value).replace("|", "\\|") for value in row[:count]), *map(str, row[count:])]
        for arm, row in settings.rows.items()
    ]
    return [f"All arms: {common}.", "", table(["arm", *settings.columns], rows), ""]


def _setting(value: object) -> str:
    """Formats the value of a setting."""
    return "none" if value == "" else f"`{value}`"


def _claim(study: Study, claim: Claim, judged: ClaimReport) -> list[str]:
    """Returns the lines of one claim: the verdict, the claim, its source, and a table of its comparisons."""
    return [
        f"## {claim.name}",
        "",
        f"**{judged.headline}**",
        "",
        f"*Claim.* {_line(claim.statement)}",
        "",
        f"*Source.* {_line(claim.source)}",
        "",
        *([f"*Plan.* {' '.join(judged.changes)}", ""] if judged.changes else []),
        table(FINDING, [finding_cells(study.metrics, finding) for finding in judged.findings]),
        "",
        *([_line(claim.remarks), ""] if claim.remarks else []),
    ]


def finding_cells(metrics: Mapping[str, str], finding: Finding) -> list[str]:
    """Returns the row of one comparison in a claim's table, in the order of FINDING.

    `metrics` is metric -> its name; one without a name is shown as its key.
    """
    c = finding.comparison
    difference = "unknown" if math.isnan(finding.difference) else amount(finding, finding.difference)
    return [
        metrics.get(c.metric, c.metric), c.a, c.b, expectation(c, is_percentage(finding)), difference,
        interval(finding), effect(finding) or "unknown", str(finding.seeds), finding.verdict,
    ]  # fmt: skip


def duration(hours: float) -> str:
    """Says how long all runs took: in minutes below two hours; 0 is an unknown duration."""
    if not hours:
        return "how long the runs took was not recorded"
    return f"the runs took {hours:.1f} hours" if hours >= 2 else f"the runs took {max(1, round(60 * hours))} minutes"


def _line(text: str) -> str:
    """Joins the lines of a text to one line."""
    return " ".join(text.split())


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Formats a table in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, ["---"] * len(header), *rows])


def mean_and_sd(numbers: Sequence[float]) -> str:
    """Formats numbers as 'mean ± standard deviation', the latter with two significant digits.

    Formats the mean alone for one number, or for equal numbers, and nothing for none.
    """
    if not numbers:
        return ""
    mean = statistics.fmean(numbers)
    if len(numbers) < 2 or not (sd := statistics.stdev(numbers)):
        return f"{mean:,.0f}" if mean >= 999.5 else f"{mean:.4g}"
    decimals = min(6, max(0, 1 - math.floor(math.log10(sd))))  # two significant digits of the standard deviation
    return f"{mean:,.{decimals}f} ± {sd:,.{decimals}f}"
