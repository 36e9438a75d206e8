"""The report of a study without claims: a table of results with a row for each arm, and scatter plots."""

import csv
import dataclasses
import datetime
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.study import Study, scatter
from cnnjax.study.conduct import VERSIONS, Result, config_digest
from cnnjax.study.figure import draw
from cnnjax.study.page import duration, mean_and_sd, settings_lines, table
from cnnjax.study.record import Plan, StudyReport, write_report
from cnnjax.study.sequence import Results
from cnnjax.study.verdict import Values
from cnnjax.study.words import is_fraction


def write(
    path: pathlib.Path, study: Study, results: Results, values: Values, report: StudyReport, command: str
) -> StudyReport:
    """Writes `path`.md, .json, .png and .svg of a study without claims, and a picture for each scatter panel.

    `results` is arm -> one `Result` for each complete run, `values` arm -> metric -> one value for each run. `command`
    is the command line that makes the report. Returns `report`.
    """
    study = sorted_by_result(study, values)
    draw(path, study, results)
    pictures = scatter.draw(path, study, results)
    text = page(path.name, study, report, results, values, command, [picture.name for picture in pictures])
    workdir.write_atomically(path.with_name(f"{path.name}.md"), text.encode(errors="surrogateescape"))
    write_report(path.with_name(f"{path.name}.json"), report)
    return report


def kept(path: pathlib.Path, study: Study) -> dict[str, list[Result]]:
    """Returns the runs in the table's CSV file: arm -> one `Result` for each run, without the lines of its metrics.

    So a table grows on machines that do not have the runs' folders. Rows of other configs or metrics than the study's
    are left out, and there are none without the file. Raises InputError if the file is damaged.
    """
    rows: dict[str, list[Result]] = {arm: [] for arm in study.arms}
    if not path.is_file():
        return rows
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        for row in csv.DictReader(file):
            arm = row.get("arm", "")
            same = arm in study.arms and row.get("config") == config_digest(study.arms[arm])
            if same and all(row.get(metric) for metric in study.metrics):
                versions = {name: row[name] for name in VERSIONS if row.get(name)}
                try:
                    measured = {metric: float(row[metric]) for metric in study.metrics}
                    hours = float(row.get("hours") or 0)
                except ValueError as error:
                    raise InputError(f"{path} is damaged: in a row of {arm!r}, {error}") from error
                rows[arm].append(Result([], measured, versions, hours, row["config"]))
    return rows


def with_kept(results: Results, before: Results) -> dict[str, list[Result]]:
    """Returns the runs of each arm, and those in `before`, the result of `kept`, for seeds that an arm lacks."""
    return {arm: [*runs, *before[arm][len(runs) :]] for arm, runs in results.items()}


def record(name: str, budget: str, plan: Plan, results: Results) -> StudyReport:
    """Returns the record of a table from its runs: as of today, with the machines and versions of all, and their hours.

    Raises InputError if there are no runs.
    """
    runs = [result for arm_results in results.values() for result in arm_results]
    if not runs:
        raise InputError(f"no run of {name} is complete, so there is no report; leave out --report_only")
    versions = {name: ", ".join(sorted({result.versions.get(name, "") for result in runs} - {""})) for name in VERSIONS}
    return StudyReport(
        study=name,
        budget=budget,
        date=datetime.date.today().isoformat(),
        machine="; ".join(versions.pop(name) for name in ("processor", "devices")),
        versions=versions,
        hours=round(sum(result.hours for result in runs), 3),
        plan=plan,
    )


def sorted_by_result(study: Study, values: Values) -> Study:
    """Returns the study with the arms that have runs, the best mean of the first metric first.

    The first metric is an error, unless its name ends in 'accuracy'.
    """
    first = next(iter(study.metrics))
    means = {arm: statistics.fmean(rows[first]) for arm, rows in values.items() if rows[first]}
    order = sorted(means, key=means.__getitem__, reverse=first.endswith("accuracy"))
    return dataclasses.replace(study, arms={arm: study.arms[arm] for arm in order})


def page(
    name: str,
    study: Study,
    report: StudyReport,
    results: Results,
    values: Values,
    command: str,
    pictures: Sequence[str],
) -> str:
    """Returns the report in Markdown, of a study with its arms in order. `pictures` are names of files beside it."""
    missing = [arm for arm in values if arm not in study.arms]
    rows = [
        [
            arm,
            *(cell(metric, values[arm][metric], study.fractions) for metric in study.metrics),
            str(len(results[arm])),
        ]
        for arm in study.arms
    ]
    machines = {_machine(result.versions) for arm in study.arms for result in results[arm]}
    return "\n".join(
        [
            f"# {report.study}, {report.budget} budget",
            "",
            table(["network", *study.metrics.values(), "seeds"], rows),
            "",
            f"Means ± standard deviations over the seeds; each run is a line of [{name}.csv]({name}.csv).",
            *(["", f"Not run yet: {', '.join(missing)}."] if missing else []),
            "",
            " ".join(study.remarks.split()),
            "",
            *(line for picture in (f"{name}.png", *pictures) for line in (f"![{picture}]({picture})", "")),
            "## Settings",
            "",
            *settings_lines(study),
            "## Run it",
            "",
            f"`{command}`",
            "",
            "`--arms=PATTERN` trains the rows of these names. Runs in the table or in the folder of the runs are kept.",
            "",
            f"- {report.date}; {duration(report.hours)}.",
            *(f"- {machine}" for machine in sorted(machines)),
            "",
        ]
    )


def cell(metric: str, numbers: Sequence[float], fractions: Sequence[str]) -> str:
    """Formats the values of a metric: fractions in percent, numbers above a million in millions, years as they are."""
    if metric == "year":
        return f"{numbers[0]:.0f}"
    if is_fraction(metric, fractions):
        percent = [100 * number for number in numbers]
        return f"{percent[0]:.2f} %" if len(percent) == 1 else f"{mean_and_sd(percent)} %"
    unit = " M" if numbers and min(numbers) >= 1e6 else ""
    scaled = [number / 1e6 for number in numbers] if unit else numbers
    if len(scaled) == 1 and scaled[0] < 999.5:
        return f"{scaled[0]:.3g}{unit}"
    return mean_and_sd(scaled) + unit


def _machine(versions: Mapping[str, str]) -> str:
    """Describes what a run ran on, as in 'AMD EPYC; python 3.11.2, jax 0.10.2'."""
    names = [name for name in versions if name not in ("processor", "devices")]
    where = ", ".join(versions[name] for name in ("processor", "devices") if name in versions)
    return (
        "; ".join(filter(None, [where, ", ".join(f"{name} {versions[name]}" for name in names)])) or "unknown machine"
    )
