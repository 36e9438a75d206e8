"""The page of a study: its claims with their verdicts, the figure, the arms, and the numbers of all runs."""

import csv
import dataclasses
import datetime
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence

from cnnjax import __version__, config_files, sealed, tables
from cnnjax.errors import InputError
from cnnjax.pages import page, pictures
from cnnjax.pages.pictures import Picture
from cnnjax.shell import command_line
from cnnjax.study import BUDGETS, Study, results_table
from cnnjax.study import page as markdown
from cnnjax.study.conduct import RUN_COLUMNS
from cnnjax.study.record import ClaimReport, StudyReport, read_report

TEMPLATE = "study.html"
BUDGET_SUFFIXES = tuple(f"-{budget}" for budget in BUDGETS)
LONG_SETTING = 60  # characters
RUNS_FOLDER = "experiments/reports"  # where the report of a folder of runs is looked for
FIGURES = (".svg", ".png")


@dataclasses.dataclass(frozen=True)
class ShownClaim:
    """A claim on the page.

    Attributes:
      verdict: the verdict.
      outcome: what follows the verdict, such as the parts that decided it: ' in 1 of 2 parts'; '' for nothing.
      finding: effect and interval, as a sentence.
      statement: the claim.
      source: where it is made.
      changes: what was changed in its plan after the first run, in sentences; '' for nothing.
      findings: table of its comparisons.
      remarks: what was controlled, and why the margins are as large as they are; '' if the study's file is not here.
    """

    verdict: str
    outcome: str
    finding: str
    statement: str
    source: str
    changes: str
    findings: tables.Table
    remarks: str


@dataclasses.dataclass(frozen=True)
class StudyPage:
    """Holds what the page of a study shows.

    Attributes:
      name: name of the study.
      budget: 'quick', 'standard' or 'full'.
      has_claims: False for a table of results, whose plan has none.
      claims: the claims; () before the verdicts.
      figure: the study's figure; None without one.
      shared: the settings of all arms, in a line; '' if the study's file is not here.
      arms: table of the settings in which the arms differ; None if the study's file is not here.
      means: table of the mean and standard deviation of each metric by arm; None without the numbers.
      runs: table of the numbers of all runs; None without them.
      controlled: what was and was not controlled.
      vary: one thing that a reader can change, and how; ''.
      reading: sentences that explain the verdicts.
      facts: names and values about the runs: plan, date, machine, versions.
      command: the shell command that makes the report.
      version: of cnnjax.
      written: date and time.
    """

    name: str
    budget: str
    has_claims: bool
    claims: tuple[ShownClaim, ...]
    figure: Picture | None
    shared: str
    arms: tables.Table | None
    means: tables.Table | None
    runs: tables.Table | None
    controlled: str
    vary: str
    reading: tuple[str, ...]
    facts: tables.Table
    command: str
    version: str
    written: str

    @property
    def title(self) -> str:
        """Returns the title: 'Study: kernel size'."""
        return f"Study: {self.name.replace('_', ' ')}"

    @property
    def has_long_settings(self) -> bool:
        """Returns whether a setting of an arm is so long that the table of arms is folded."""
        return self.arms is not None and any(len(cell) > LONG_SETTING for row in self.arms.rows for cell in row)

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yields the id and name of each section."""
        if self.has_claims:
            yield "claims", "Claims"
        if self.figure:
            yield "figure", "Figure"
        if self.arms or self.means:
            yield "arms", "Arms"
        yield "reading", "How sure it is"
        yield "again", "Do it again"


def find_report(source: pathlib.Path) -> pathlib.Path | None:
    """Returns the record of a study, NAME-BUDGET.json: from a report, a study's file or the folder of its runs.

    Of several budgets, the largest counts: 'full', else 'standard', else 'quick'. A folder NAME of runs is
    looked up in ./experiments/reports. Returns None if there is no report.
    """
    if source.is_file() and source.suffix != ".py":
        record = source.with_suffix(".json")
        return record if record.is_file() and record.stem.endswith(BUDGET_SUFFIXES) else None
    folder = source.parent / "reports" if source.suffix == ".py" else pathlib.Path(RUNS_FOLDER)
    candidates = [folder / f"{source.resolve().stem}-{budget}.json" for budget in reversed(BUDGETS)]
    return next((path for path in candidates if path.is_file()), None)


def report(source: pathlib.Path | str, to: pathlib.Path | str = "") -> pathlib.Path:
    """Writes the page of a study, and returns the path of the file.

    `source` is as in `find_report`. `to` is the file, whose name ends in .html; '' for report.html in a folder of runs,
    else NAME-BUDGET.html beside the record. Raises InputError without a report, for a damaged one, and for a name that
    cannot be written.
    """
    source = pathlib.Path(source)
    path = find_report(source)
    if path is None:
        raise InputError(f"{source}: there is no report of this study yet; `cnnjax study` writes it")
    to = pathlib.Path(to or (source / "report.html" if source.is_dir() else path.with_suffix(page.SUFFIX)))
    page.check_path(to)
    page.write(to, page.render(TEMPLATE, page=study_page(path)))
    return to


def study_page(path: pathlib.Path) -> StudyPage:
    """Gathers what the page of a study shows, from its record NAME-BUDGET.json and the files beside it.

    The study's own file, in the folder above, gives settings and remarks. Raises InputError if a file is damaged.
    """
    record = read_report(path)
    file = path.parent.parent / f"{record.study}.py"
    study = _study(file, record.budget)
    metrics = study.metrics if study else {}
    numbers = _read_csv(path.with_suffix(".csv"))
    settings = markdown.arm_settings(study) if study else None
    remarks = {claim.name: claim.remarks for claim in study.claims} if study else {}
    return StudyPage(
        name=record.study,
        budget=record.budget,
        has_claims=bool(record.plan.claims),
        claims=tuple(_claim(claim, metrics, remarks.get(claim.name, "")) for claim in record.claims),
        figure=find_figure(path, _alternative(record)),
        shared="; ".join(f"{name} {_setting(value)}" for name, value in settings.shared.items()) if settings else "",
        arms=_arms(settings) if settings else None,
        means=_means(numbers, metrics, study.fractions if study else ()) if numbers else None,
        runs=_rounded(numbers) if numbers else None,
        controlled=_line(f"{markdown.PAIRED if record.plan.claims else ''} {study.remarks if study else ''}"),
        vary=_line(study.vary) if study else "",
        reading=tuple(
            _line(text).replace("*", "") for text in f"\n{markdown.VERDICTS}".split("\n- ")[1:] if record.plan.claims
        ),
        facts=_facts(record),
        command=command_line("study", str(file), f"--budget={record.budget}"),
        version=__version__,
        written=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    )


def _study(file: pathlib.Path, budget: str) -> Study | None:
    """Returns the study of a file; None if it is not there or does not load."""
    if not file.is_file():
        return None
    try:
        return config_files.read_study(str(file), budget)
    except InputError:
        return None


def _arms(settings: markdown.ArmSettings) -> tables.Table:
    """Builds the table of the settings in which the arms differ."""
    headings = ("arm", *settings.columns)
    rows = [[arm, *map(_setting, values)] for arm, values in settings.rows.items()]
    return tables.Table(headings, rows, frozenset(headings))


def _claim(claim: ClaimReport, metrics: Mapping[str, str], remarks: str) -> ShownClaim:
    """Returns a claim as it is shown."""
    findings = _findings(claim, metrics)
    outcome, _, finding = claim.headline.removeprefix(claim.verdict.capitalize()).partition(": ")
    return ShownClaim(
        claim.verdict, outcome, finding, _line(claim.statement), _line(claim.source), " ".join(claim.changes),
        findings, _line(remarks),
    )  # fmt: skip


def _findings(claim: ClaimReport, metrics: Mapping[str, str]) -> tables.Table:
    """Builds the table of a claim's comparisons. Has each interval after its difference, so that the table fits."""
    headings = [name for name in markdown.FINDING if name != "interval"]
    rows = []
    for finding in claim.findings:
        cells = dict(zip(markdown.FINDING, markdown.finding_cells(metrics, finding), strict=True))
        cells["difference"] += f" ({cells.pop('interval')})"
        rows.append(list(cells.values()))
    return tables.Table(headings, rows, frozenset(headings) - {"seeds", "effect size"})


def _alternative(record: StudyReport) -> str:
    """Returns the alternative text of a study's figure."""
    verdicts = "; ".join(claim.headline for claim in record.claims)
    return f"The metrics of the arms of {record.study}. {verdicts}"


def find_figure(path: pathlib.Path, alt: str, caption: str = "") -> Picture | None:
    """Returns the figure beside the record `path`, the SVG where it is small enough; None if there is none.

    `alt` is its alternative text, `caption` the text below it.
    """
    for suffix in FIGURES:
        file = path.with_suffix(suffix)
        if file.is_file() and (suffix != ".svg" or file.stat().st_size <= pictures.MAX_SVG_BYTES):
            return pictures.from_file(file, alt, caption, is_chart=True)
    return None


def _read_csv(path: pathlib.Path) -> tables.Table | None:
    """Reads the numbers of all runs, with the columns 'arm', 'run' and metrics; None if there is no such file."""
    try:
        text = sealed.read(path).decode(errors="surrogateescape")
    except FileNotFoundError:
        return None
    header, *rows = csv.reader(io.StringIO(text))
    if header[:2] != ["arm", "run"] or any(len(row) != len(header) for row in rows):
        raise InputError(f"{path} is not the table of a study: expected the columns arm, run and metrics")
    return tables.Table(header, rows, frozenset(("arm",)))


def _rounded(table: tables.Table) -> tables.Table:
    """Rounds the metrics of all runs to six digits; the file of the runs has all of them."""
    is_metric = [name not in ("arm", "run", *RUN_COLUMNS) for name in table.headings]
    rows = [
        [_digits(cell) if rounds else cell for cell, rounds in zip(row, is_metric, strict=True)] for row in table.rows
    ]
    return dataclasses.replace(table, rows=rows)


def _digits(cell: str) -> str:
    """Formats a number with six digits; an integer with all."""
    value = float(cell)
    return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"


def _means(table: tables.Table, metrics: Mapping[str, str], fractions: Sequence[str]) -> tables.Table:
    """Builds the table of the mean and standard deviation of each metric by arm, `fractions` in percent."""
    names = [name for name in table.headings[2:] if name not in RUN_COLUMNS]
    arms: dict[str, list[Sequence[str]]] = {}
    for arm, _, *values in table.rows:
        arms.setdefault(arm, []).append(values[: len(names)])
    rows = [
        [
            arm,
            *(
                results_table.cell(name, [float(value) for value in column], fractions)
                for name, column in zip(names, zip(*rows, strict=True), strict=True)
            ),
            str(len(rows)),
        ]
        for arm, rows in arms.items()
    ]
    return tables.Table(("arm", *(metrics.get(name, name) for name in names), "runs"), rows, frozenset(("arm",)))


def _facts(record: StudyReport) -> tables.Table:
    """Builds the table of what is known about the runs and the plan."""
    rows = [
        ["budget", f"{record.budget}, of {', '.join(BUDGETS)}"],
        ["plan", f"of {record.plan.written}: {record.plan.rule}"],
        ["verdicts", f"of {record.date}; {markdown.duration(record.hours)}" if record.date else "none yet"],
        ["machine", record.machine or "-"],
        ["versions", ", ".join(f"{package} {version}" for package, version in record.versions.items()) or "-"],
    ]
    return tables.Table(("", "of the study"), rows, frozenset(("", "of the study")))


def _setting(value: object) -> str:
    """Formats the value of a setting; '-' for an empty text."""
    return "-" if value == "" else str(value)


def _line(text: str) -> str:
    """Joins the lines of a text to one line."""
    return " ".join(text.split())
