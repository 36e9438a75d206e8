"""The list of all claims of experiments/ with their verdicts, read from the reports beside them."""

import dataclasses
import pathlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

from cnnjax import config_files, tables
from cnnjax.study import BUDGETS, CHAPTERS, Claim
from cnnjax.study import facts as study_facts
from cnnjax.study.facts import Fact
from cnnjax.study.record import (
    CONTRADICTED,
    EQUAL,
    HELD,
    REFUTED,
    UNDECIDED,
    VERDICTS,
    ClaimReport,
    read_report,
)

NO_REPORT = "no report yet"
EXACT = "exact"  # in place of a budget: a calculation
HEADINGS = ("claim", "verdict", "finding", "evidence")
STRONG = (CONTRADICTED, REFUTED)  # verdicts in bold
UPDATE = "./launch.sh study --list --markdown > experiments/claims.md"  # writes the page of all claims
HEAD = f"""# All claims

What papers and lectures claim about convolutional networks, by chapter, with our verdicts.
[Experiments](README.md) has the most striking findings, and explains how claims are tested. A command writes this page:

```
{UPDATE}
```"""
MEANINGS = {
    HELD: "The claim is true here. The whole interval is beyond the margin, or the number taught is right",
    EQUAL: "The claim is that there is no difference, and the whole interval is within the margin",
    CONTRADICTED: "The opposite is true. The whole interval is beyond the margin on the other side",
    REFUTED: "The effect is absent or too small, one part of the claim is false, or the number taught is wrong",
    UNDECIDED: "These runs cannot decide, which does not mean that there is no difference",
    NO_REPORT: "The runs are not complete",
}
LEGEND = """## How to read the tables

- **Claim.** The link leads to the report, which has all comparisons, the figure and what was controlled. Without a
  report, it leads to the study.
- **Finding.** For a study, the difference between two *arms*, whose names are in quotes. An arm is a config, trained
  with several seeds. Two arms differ in what the claim is about. If a claim has several comparisons, the table shows
  the one that matters most, such as the first that failed. For a calculation, it says what is right.
- **Expected.** What the claim says, with its margin: the smallest difference that counts, fixed before the first run.
- **Points.** Percentage points: an accuracy of 92 % is 2 points higher than one of 90 %.
- **Interval.** The confidence interval of the mean difference: 95 %, or 90 % where "equal" is tested.
- **Effect size.** The mean difference in units of its standard deviation over the seeds. At 1, about five seeds in six
  show the same direction; at 2, nearly all do.
- **Evidence.** *Exact* is a calculation without training. A study has three budgets: on two cores, *quick* takes
  minutes and *standard* 10 minutes to 2 hours; *full* needs a GPU. Each seed is one run of each arm."""


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
        yield Entry(claim, file, report.verdict, finding[:1].upper() + finding[1:], budget, report.seeds, page)


def count_verdicts(entries: Sequence[Entry]) -> str:
    """Counts claims by verdict, as in '104 claims: 60 held, 5 equal, 30 refuted, 9 no report yet'."""
    counts = Counter(entry.verdict for entry in entries)
    verdicts = ", ".join(f"{counts[verdict]} {verdict}" for verdict in (*VERDICTS, NO_REPORT) if counts[verdict])
    return f"{_count(entries)}: {verdicts}"


def _count(entries: Sequence[Entry]) -> str:
    """Returns the number of claims, as in '104 claims'."""
    return f"{len(entries)} claim{'s' * (len(entries) != 1)}"


def by_chapter(entries: Sequence[Entry]) -> dict[str, list[Entry]]:
    """Groups entries by chapter, in the order of `CHAPTERS`, without empty ones."""
    groups = {chapter: [entry for entry in entries if entry.claim.chapter == chapter] for chapter in CHAPTERS}
    return {chapter: group for chapter, group in groups.items() if group}


def statement(entry: Entry) -> str:
    """Returns the statement of a claim as one line."""
    return " ".join(entry.claim.statement.split())


def as_markdown(entries: Sequence[Entry]) -> list[str]:
    """Returns the page of all claims: their number by verdict, the chapters, a legend, and a table for each chapter.

    Links to reports are relative to the folder of the experiments.
    """
    counts, chapters = Counter(entry.verdict for entry in entries), by_chapter(entries)
    verdicts = [[_bold(verdict), str(counts[verdict]), text] for verdict, text in MEANINGS.items() if counts[verdict]]
    lines = [*HEAD.splitlines(), "", f"{_count(entries)}, by verdict:", ""]
    lines += tables.as_markdown(_table(("verdict", "claims", "meaning"), verdicts))
    lines += ["", "## Chapters", "", *map(_chapter_line, chapters, chapters.values()), "", *LEGEND.splitlines()]
    for chapter, group in chapters.items():
        rows = []
        for entry in group:
            target = f"reports/{entry.report.name}" if entry.report else entry.file.name
            rows.append([f"[{statement(entry)}]({target})", _bold(entry.verdict), entry.finding, entry.evidence])
        lines += ["", f"## {chapter.capitalize()}", "", *tables.as_markdown(_table(HEADINGS, rows))]
    return lines


def _chapter_line(chapter: str, entries: Sequence[Entry]) -> str:
    """Returns the line of a chapter in the list of chapters: a link to its table, with its claims by verdict."""
    return f"- [{chapter.capitalize()}](#{chapter}), {count_verdicts(entries)}."


def _bold(verdict: str) -> str:
    """Returns a verdict in Markdown, in bold for those of `STRONG`."""
    return f"**{verdict}**" if verdict in STRONG else verdict


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
