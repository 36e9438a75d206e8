"""The list of all claims of experiments/ with their verdicts, read from the reports beside them."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cnnjax import config_files, tables
from cnnjax.study import BUDGETS, CHAPTERS, Claim
from cnnjax.study import facts as study_facts
from cnnjax.study.facts import Fact
from cnnjax.study.record import VERDICTS, ClaimReport, read_report

NO_REPORT = "no report yet"
EXACT = "exact"  # in place of a budget: a calculation
HEADINGS = ("claim", "verdict", "finding", "evidence")
STRONG = ("contradicted", "refuted")  # verdicts in bold


@dataclasses.dataclass(frozen=True)
class Entry:
    """A claim of a file of experiments/, with its verdict.

    Attributes:
        claim: the claim of a study, or a fact.
        file: the file of experiments/.
        verdict: as in its report; NO_REPORT without one.
        finding: what its report says: effect and interval of a claim, what is right of a fact; '' without a report.
        budget: of the report, EXACT for a fact; '' without a report.
        seeds: number of runs of each arm; 0 for a fact, and without a report.
        report: the page of the report; None without one.
    """

    claim: Claim | Fact
    file: pathlib.Path
    verdict: str = NO_REPORT
    finding: str = ""
    budget: str = ""
    seeds: int = 0
    report: pathlib.Path | None = None

    @property
    def evidence(self) -> str:
        """Returns the budget with the number of runs: 'standard, 8 seeds'."""
        return f"{self.budget}, {self.seeds} seed{'s' * (self.seeds != 1)}" if self.seeds else self.budget


def read_entries(files: Iterable[pathlib.Path]) -> list[Entry]:
    """Lists the claims of files of experiments/ by chapter, each with the verdict of its report with most runs.

    That is the report of the budget 'full', else of 'standard', else of 'quick'. Raises InputError for a file that is
    neither a study nor facts, and for a damaged report.
    """
    entries: list[Entry] = []
    for file in files:
        facts = config_files.read_facts(str(file))
        entries += _facts(file, facts) if facts else _claims(file)
    return sorted(entries, key=lambda entry: CHAPTERS.index(entry.claim.chapter))


def _facts(file: pathlib.Path, facts: Sequence[Fact]) -> Iterator[Entry]:
    """Yields the facts of a file."""
    path = file.parent / "reports" / f"{file.stem}.json"
    reports = {report.name: report for report in study_facts.read(path)} if path.exists() else {}
    for fact in facts:
        if report := reports.get(fact.name):
            yield Entry(fact, file, report.verdict, report.why, EXACT, 0, path.with_suffix(".md"))
        else:
            yield Entry(fact, file)


def _claims(file: pathlib.Path) -> Iterator[Entry]:
    """Yields the claims of a study."""
    found: dict[str, tuple[ClaimReport, str]] = {}
    for budget in BUDGETS:  # a later one takes the place of an earlier one
        path = file.parent / "reports" / f"{file.stem}-{budget}.json"
        if path.exists():
            found |= {report.name: (report, budget) for report in read_report(path).claims}
    claims = {claim.name: claim for budget in BUDGETS for claim in config_files.read_study(str(file), budget).claims}
    for name, claim in claims.items():
        if name not in found:
            yield Entry(claim, file)
            continue
        report, budget = found[name]
        page = file.parent / "reports" / f"{file.stem}-{budget}.md"
        finding = report.headline.partition(": ")[2]  # without the verdict
        yield Entry(claim, file, report.verdict, finding, budget, report.seeds, page)


def count_verdicts(entries: Sequence[Entry]) -> str:
    """Counts claims by verdict, as in '104 claims: 60 held, 5 equal, 30 refuted, 9 no report yet'."""
    counts = Counter(entry.verdict for entry in entries)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*VERDICTS, NO_REPORT) if counts[verdict])
    return f"{len(entries)} claim{'s' * (len(entries) != 1)}: {verdicts}"


def by_chapter(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Groups entries by chapter, in the order of `CHAPTERS`, without empty ones."""
    groups = {chapter: [entry for entry in entries if entry.claim.chapter == chapter] for chapter in CHAPTERS}
    return {chapter: group for chapter, group in groups.items() if group}


def statement(entry: Entry) -> str:
    """Returns the statement of a claim as one line."""
    return " ".join(entry.claim.statement.split())


def as_markdown(entries: Sequence[Entry]) -> list[str]:
    """Returns a table for each chapter. Links to reports are relative to the folder of the experiments."""
    lines = [f"{count_verdicts(entries)}."]
    for chapter, group in by_chapter(entries).items():
        rows = []
        for entry in group:
            target = f"reports/{entry.report.name}" if entry.report else entry.file.name
            verdict = f"**{entry.verdict}**" if entry.verdict in STRONG else entry.verdict
            rows.append([f"[{statement(entry)}]({target})", verdict, entry.finding, entry.evidence])
        lines += ["", f"### {chapter.capitalize()}", "", *tables.as_markdown(_table(HEADINGS, rows))]
    return lines


def as_csv(entries: Sequence[Entry]) -> list[str]:
    """Returns a row for each claim. A claim without a report has no verdict."""
    headings = ("chapter", "claim", "statement", "verdict", "finding", "budget", "seeds", "experiment")
    rows = [
        [
            entry.claim.chapter,
            entry.claim.name,
            statement(entry),
            entry.verdict if entry.report else "",
            entry.finding,
            entry.budget,
            str(entry.seeds or ""),
            entry.file.stem,
        ]
        for entry in entries
    ]
    return tables.as_csv(_table(headings, rows))


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> tables.Table:
    """Builds a table of columns of text."""
    return tables.Table(headings, rows, frozenset(headings))
