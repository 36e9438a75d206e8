"""Facts: sentences about networks that a calculation decides, without training."""

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnnjax import sealed, tables
from cnnjax.errors import InputError, unknown
from cnnjax.study import CHAPTERS

HELD, REFUTED = "held", "refuted"
ROUNDED = re.compile(r"(\d+)(?:\.(\d+))? ?([kMG]?)(?:B|%| times)?")
UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9}
RULE = (
    "Each number is computed from the network itself; nothing is trained. A rounded number, such as 61 M, is right if "
    "it differs from the exact one by less than one unit of its last digit."
)

Value = bool | int | float | str | Sequence[int]
Numbers = Mapping[str, Value]  # name of a number -> its value


@dataclasses.dataclass(frozen=True)
class Number:
    """One number of a fact.

    Attributes:
        name: what it counts, with the unit in which a percentage or a ratio is computed.
        right: its value, worked out by hand.
        taught: its value as it is taught; None if the sentence does not state it.
    """

    name: str
    right: Value
    taught: Value | None = None


@dataclasses.dataclass(frozen=True)
class Fact:
    """A sentence as it is taught, and the calculation that decides it, as get_facts() of a file in experiments/ has it.

    The sentence holds if every number that it states agrees with the computed one, as `agrees` says.

    Attributes:
        name: its name in snake case, such as 'vgg_memory', unique over all files of experiments/.
        chapter: one of `cnnjax.study.CHAPTERS`.
        statement: the sentence, as it is taught.
        source: where it is made: paper, section, table; 'taught so in lectures' if no paper makes it.
        numbers: the numbers that decide it, and others that explain it.
        compute: returns the name of each number -> its value, computed by this package.
        why: what is right, and where a wrong number comes from.
    """

    name: str
    chapter: str
    statement: str
    source: str
    numbers: Sequence[Number]
    compute: Callable[[], Numbers]
    why: str


@dataclasses.dataclass(frozen=True)
class FactReport:
    """The verdict on a fact, HELD or REFUTED, with what decides it.

    Attributes:
        name: its name, chapter, statement, source and reason, as in `Fact`.
        chapter: see `name`.
        statement: see `name`.
        source: see `name`.
        verdict: HELD or REFUTED.
        taught: name of a number -> its value as it is taught.
        computed: name of a number -> its value as computed.
        why: see `name`.
    """

    name: str
    chapter: str
    statement: str
    source: str
    verdict: str
    taught: Numbers
    computed: Numbers
    why: str


def agrees(stated: Value, exact: Value) -> bool:
    """Returns whether a number as it is stated agrees with the exact one.

    Text, such as '24 M', '0.27 M', '93 MB', '89 %' or '12 times', is a rounded number: it agrees with every number that
    is less than one unit of its last digit away. Any other value has to be the same. Raises InputError for other text.
    """
    if not isinstance(stated, str):
        return stated == exact
    match = ROUNDED.fullmatch(stated)
    if not match or not isinstance(exact, int | float):
        raise InputError(f"{stated!r}: expected a rounded number, such as '24 M', '89 %' or '12 times'")
    whole, decimals, unit = match[1], match[2] or "", UNITS[match[3]]
    return abs(exact / unit - float(f"{whole}.{decimals}")) < 10 ** -len(decimals)


def check(fact: Fact) -> FactReport:
    """Computes the numbers of a fact, and judges its sentence by them.

    Raises InputError for an unknown chapter, for a fact without a number as taught, for computed numbers other than
    those that the fact lists, and for a computed number that differs from the right one.
    """
    if fact.chapter not in CHAPTERS:
        raise unknown("chapter", fact.chapter, CHAPTERS)
    computed = fact.compute()
    if list(computed) != (names := [number.name for number in fact.numbers]):
        raise InputError(f"{fact.name} computes {', '.join(computed)}; expected {', '.join(names)}")
    for number in fact.numbers:
        if not agrees(number.right, value := computed[number.name]):
            raise InputError(f"{fact.name}: {number.name} is {show(value)} as computed, {show(number.right)} by hand")
    taught = {number.name: number.taught for number in fact.numbers if number.taught is not None}
    if not taught:
        raise InputError(f"{fact.name}: none of its numbers has a value as taught; expected at least one")
    holds = all(agrees(value, computed[name]) for name, value in taught.items())
    texts = fact.name, fact.chapter, fact.statement, fact.source, HELD if holds else REFUTED
    return FactReport(*texts, taught, computed, fact.why)


def show(value: Value) -> str:
    """Formats a value: 1,000; yes or no; 55, 27, 13; fractions with four digits."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
    return value if isinstance(value, str) else ", ".join(map(show, value))


def count_verdicts(reports: Sequence[FactReport]) -> str:
    """Counts the verdicts, as in '5 held, 3 refuted'."""
    counts = Counter(report.verdict for report in reports)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in (HELD, REFUTED) if counts[verdict])


def table(reports: Sequence[FactReport], newline: str = "\n", bold: str = "") -> tables.Table:
    """Builds the table of several facts: the sentence, its numbers as taught and as computed, the verdict, the reason.

    `newline` separates the numbers in a cell, and `bold` encloses the verdict REFUTED.
    """
    headings = ("as taught", "number taught", "number computed", "verdict", "what is right")
    rows = []
    for report in reports:
        numbers = (
            newline.join(f"{name}: {show(value)}" for name, value in values.items())
            for values in (report.taught, report.computed)
        )
        verdict = f"{bold}{report.verdict}{bold}" if report.verdict == REFUTED else report.verdict
        rows.append([f"{report.statement} ({report.source})", *numbers, verdict, report.why])
    return tables.Table(headings, rows, frozenset(headings))


def write(path: pathlib.Path, reports: Sequence[FactReport], command: str) -> None:
    """Writes the report of a file of facts: a page, `path`.md, and the same as data, `path`.json.

    `command` is the command that writes it.
    """
    name = path.name
    page = [
        f"# {name}: {count_verdicts(reports)}", "", RULE, "", *tables.as_markdown(table(reports, "<br>", "**")), "",
        f"Written by `{command}`. [{name}.py](../{name}.py) has a function for each row: change the network there.", "",
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    sealed.write_plain_json(path.with_name(f"{name}.json"), {"facts": list(map(dataclasses.asdict, reports))})
    sealed.write_atomically(path.with_name(f"{name}.md"), "\n".join(page).encode())


def read(path: pathlib.Path) -> tuple[FactReport, ...]:
    """Reads the data that `write` wrote into `path`. Raises InputError if the file is missing or damaged."""
    try:
        content: dict[str, Any] = sealed.read_json(path)
        return tuple(FactReport(**row) for row in content["facts"])
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged: {error}") from error
