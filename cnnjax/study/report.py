"""A study's report: verdicts from the metrics of its runs, and the files with them."""

import csv
import dataclasses
import io
import pathlib
from collections import Counter
from collections.abc import Sequence

from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.study import Study, results_table
from cnnjax.study.conduct import RUN_COLUMNS
from cnnjax.study.figure import draw
from cnnjax.study.page import page
from cnnjax.study.plan import changes, make_plan
from cnnjax.study.record import VERDICTS, ClaimReport, Plan, StudyReport, read_report, write_report
from cnnjax.study.sequence import Results, values_of
from cnnjax.study.verdict import Values, judge_claim, looks
from cnnjax.study.words import headline, is_fraction


def judge_study(study: Study, values: Values, plan: Plan) -> tuple[ClaimReport, ...]:
    """Returns the verdict on each claim of a study.

    `values` is arm -> metric -> one value for each run, and `plan` is the plan from before the first run; deviations
    are noted.
    """
    schedule, now = looks(study.seeds, study.max_seeds), make_plan(study)
    reports = []
    for claim in study.claims:
        verdict, judged = judge_claim(claim, values, schedule)
        findings = tuple(
            dataclasses.replace(finding, percentage=is_fraction(finding.comparison.metric, study.fractions))
            for finding in judged
        )
        reports.append(
            ClaimReport(
                name=claim.name,
                chapter=claim.chapter,
                statement=" ".join(claim.statement.split()),
                source=" ".join(claim.source.split()),
                verdict=verdict,
                headline=headline(verdict, findings, study.metrics),
                findings=findings,
                seeds=max(finding.seeds for finding in findings),
                needed=max(finding.needed for finding in findings),
                changes=changes(plan, now, claim.name, study.fractions),
            )
        )
    return tuple(reports)


def write(path: pathlib.Path, study: Study, results: Results, report: StudyReport, command: str) -> StudyReport:
    """Writes a study's report: `path`.md, .csv (a row for each run), .png, .svg and .json. Returns the record.

    `results` is arm -> one `Result` for each complete run; `report` is the record without its verdicts. `command` is
    the command line that makes the report.
    """
    values = values_of(study, results)
    write_values(path.with_name(f"{path.name}.csv"), study, values, results)
    if not study.claims:
        return results_table.write(path, study, results, values, report, command)
    report = dataclasses.replace(report, claims=judge_study(study, values, report.plan))
    draw(path, study, results, _figure_title(path.name, report.claims))
    write_page(path, study, values, report, command)
    return report


def rewrite(path: pathlib.Path, study: Study, command: str) -> StudyReport:
    """Rewrites `path`.md and .json from `path`.csv and the saved record. Returns the new record. Needs no runs.

    Applies new wording or rules on a machine without the runs. Keeps the figure and the numbers. Raises InputError if
    `read_values` or `read_report` does.
    """
    values = read_values(path.with_name(f"{path.name}.csv"), study)
    report = read_report(path.with_name(f"{path.name}.json"))
    report = dataclasses.replace(report, claims=judge_study(study, values, report.plan))
    write_page(path, study, values, report, command)
    return report


def _figure_title(name: str, claims: Sequence[ClaimReport]) -> str:
    """Returns each claim with its verdict or, for more than three, the name of the study and counts by verdict."""
    if len(claims) <= 3:
        return " ".join(f"{_in_words(claim.name)}: {claim.verdict}." for claim in claims)
    counts = Counter(claim.verdict for claim in claims)
    listed = ", ".join(f"{counts[verdict]} {verdict}" for verdict in VERDICTS if counts[verdict])
    return f"{_in_words(name.rpartition('-')[0])}: {listed}"


def _in_words(name: str) -> str:
    """Returns a name with spaces and a capital letter. A term with a digit, such as bfloat16, stays as it is."""
    words = name.replace("_", " ")
    return words if any(map(str.isdigit, words.split(" ")[0])) else words.capitalize()


def write_page(path: pathlib.Path, study: Study, values: Values, report: StudyReport, command: str) -> None:
    """Writes `path`.md and `path`.json of a judged study. `values` is arm -> metric -> one value for each run."""
    text = page(path.name, study, report, values, command)
    workdir.write_atomically(path.with_name(f"{path.name}.md"), text.encode(errors="surrogateescape"))
    write_report(path.with_name(f"{path.name}.json"), report)


def write_values(path: pathlib.Path, study: Study, values: Values, results: Results | None = None) -> None:
    """Writes the metrics of all runs as a CSV file with the columns 'arm', 'run' (from 0) and the study's metrics.

    For a study without claims, `results` gives `RUN_COLUMNS`, too: machine, versions, hours and config of each run.
    """
    text = io.StringIO()
    rows = csv.writer(text)
    columns = RUN_COLUMNS if results and not study.claims else ()
    rows.writerow(["arm", "run", *study.metrics, *columns])
    for arm, metrics in values.items():
        for i, row in enumerate(zip(*metrics.values(), strict=True)):
            rows.writerow([arm, i, *row, *(results[arm][i].column(name) for name in columns if results)])
    path.parent.mkdir(parents=True, exist_ok=True)
    workdir.write_atomically(path, text.getvalue().encode(errors="surrogateescape"))


def count_runs(path: pathlib.Path) -> int:
    """Returns the number of runs in the CSV file of the report `path`, 0 without the file."""
    file = path.with_name(f"{path.name}.csv")
    return max(0, len(file.read_text(errors="surrogateescape").splitlines()) - 1) if file.exists() else 0


def read_values(path: pathlib.Path, study: Study) -> Values:
    """Reads what `write_values` wrote. Raises InputError if the file has other columns or arms than the study."""
    with path.open(newline="", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    columns = ["arm", "run", *study.metrics]
    if header[: len(columns)] != columns or not {row[0] for row in rows} <= study.arms.keys():
        raise InputError(f"{path} belongs to another study: its columns or arms are not those of this one")
    values: dict[str, dict[str, list[float]]] = {arm: {name: [] for name in study.metrics} for arm in study.arms}
    for arm, _, *numbers in rows:
        for metric, number in zip(study.metrics, numbers[: len(study.metrics)], strict=True):
            values[arm][metric].append(float(number))
    return values
