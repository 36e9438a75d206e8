"""The page of a file of facts: each sentence as it is taught, its verdict, its numbers as taught and as computed."""

import dataclasses
import datetime
import pathlib
from collections.abc import Iterator

from cnnjax import __version__, tables
from cnnjax.errors import InputError
from cnnjax.pages import page
from cnnjax.shell import command_line
from cnnjax.study import facts
from cnnjax.study.facts import FactReport

TEMPLATE = "facts.html"
HEADINGS = ("number", "as taught", "computed")


@dataclasses.dataclass(frozen=True)
class ShownFact:
    """A fact on the page: its report, and the table of its numbers."""

    report: FactReport
    numbers: tables.Table


@dataclasses.dataclass(frozen=True)
class FactsPage:
    """Holds what the page of a file of facts shows.

    Attributes:
      name: name of the file, without suffix.
      counts: how many facts hold and how many do not: '5 held, 3 refuted'.
      facts: the facts.
      rule: what makes a number right.
      command: the shell command that computes the numbers again.
      version: of cnnjax.
      written: date and time.
    """

    name: str
    counts: str
    facts: tuple[ShownFact, ...]
    rule: str
    command: str
    version: str
    written: str

    @property
    def title(self) -> str:
        """Returns the title: 'Facts: arithmetic vgg'."""
        return f"Facts: {self.name.replace('_', ' ')}"

    def sections(self) -> Iterator[tuple[str, str]]:
        """Yields the id and name of each section."""
        yield "facts", "Facts"
        yield "again", "Do it again"


def find_report(source: pathlib.Path) -> pathlib.Path | None:
    """Returns the record NAME.json of a file of facts NAME.py or of one of its reports; None if there is none."""
    folder = source.parent / "reports" if source.suffix == ".py" else source.parent
    path = folder / f"{source.stem}.json"
    if not path.is_file():
        return None
    try:
        return path if facts.read(path) else None
    except InputError:
        return None


def report(source: pathlib.Path | str, to: pathlib.Path | str = "") -> pathlib.Path:
    """Writes the page of a file of facts, and returns the path of the file.

    `source` is as in `find_report`. `to` is the file, whose name ends in .html; '' for NAME.html beside the record.
    Raises InputError without a record, and for a name that cannot be written.
    """
    source = pathlib.Path(source)
    path = find_report(source)
    if path is None:
        raise InputError(f"{source}: there is no report of these facts yet; `cnnjax study` writes it")
    to = pathlib.Path(to or path.with_suffix(page.SUFFIX))
    page.check_path(to)
    page.write(to, page.render(TEMPLATE, page=facts_page(path)))
    return to


def facts_page(path: pathlib.Path) -> FactsPage:
    """Gathers what the page shows, from the record NAME.json. Raises InputError if it is damaged."""
    reports = facts.read(path)
    return FactsPage(
        name=path.stem,
        counts=facts.count_verdicts(reports),
        facts=tuple(ShownFact(report, _numbers(report)) for report in reports),
        rule=facts.RULE,
        command=command_line("study", str(path.parent.parent / f"{path.stem}.py")),
        version=__version__,
        written=f"{datetime.datetime.now():%Y-%m-%d %H:%M}",
    )


def _numbers(report: FactReport) -> tables.Table:
    """Builds the table of a fact's numbers; one that the sentence does not state has '-' as taught."""
    rows = [
        [name, facts.show(report.taught[name]) if name in report.taught else "-", facts.show(value)]
        for name, value in report.computed.items()
    ]
    return tables.Table(HEADINGS, rows, frozenset(HEADINGS))
