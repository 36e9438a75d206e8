"""The texts of the course that are not in the studies: experiments/course/CHAPTER.toml, in both languages.

A claim has a table under its name:

    [padding_strengthens_the_border]
    verdict = "held"              # the verdict that the text was written for; with another one it is not shown

    [padding_strengthens_the_border.ko]
    statement = "..."             # the claim in Korean; the English one is in the study
    answer = "... {findings[0].size} ... ({findings[0].evidence})"
    why = "..."
    vary = "..."                  # the study's `vary` in Korean
    exercises = [{ question = "...", answer = "..." }]

and one in `.en` without `statement` and `vary`. Numbers of a result are never typed: a placeholder is filled from the
data of the report. The table `labels` has the Korean names of arms, metrics and numbers.
"""

import dataclasses
import math
import pathlib
import tomllib
from collections.abc import Mapping
from typing import Any

from cnnjax.errors import InputError
from cnnjax.pages.course_words import Words
from cnnjax.study import words as study_words
from cnnjax.study.facts import FactReport, Value, show
from cnnjax.study.record import ClaimReport, Finding

Labels = Mapping[str, str]


@dataclasses.dataclass(frozen=True)
class Exercise:
    """A question, and its answer, which is folded."""

    question: str
    answer: str


@dataclasses.dataclass(frozen=True)
class Text:
    """Holds what is written about a claim in one language, with placeholders; '' for what is missing.

    Attributes:
      statement: the claim; '' in English, where the study has it.
      answer: what came out, in one or two sentences.
      why: a paragraph on the reason.
      vary: one thing to change, and how; '' for that of the study.
      exercises: questions with answers.
    """

    statement: str = ""
    answer: str = ""
    why: str = ""
    vary: str = ""
    exercises: tuple[Exercise, ...] = ()


@dataclasses.dataclass(frozen=True)
class Entry:
    """Holds what is written about a claim: the verdict that it was written for, and a text for each language."""

    verdict: str
    texts: Mapping[str, Text]


@dataclasses.dataclass(frozen=True)
class Phrase:
    """A text of a page, with its language where that is not the page's: 'en', or ''."""

    text: str
    lang: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """A claim in a list: relative path of its page from the index, verdict, statement, and what came out."""

    path: str
    verdict: str
    statement: Phrase
    answer: Phrase


@dataclasses.dataclass(frozen=True)
class Chapter:
    """The content of a file: labels, and the entries by name of the claim."""

    labels: Labels
    entries: Mapping[str, Entry]


@dataclasses.dataclass(frozen=True)
class Numbers:
    """A finding in words of a language, for placeholders.

    Attributes:
      size: the difference without its sign, with unit: '2.3 points'.
      interval: its interval, in the same direction.
      effect: effect size; '' if unknown.
      seeds: number of seeds, with the noun.
      evidence: interval, effect size and seeds.
      direction: 'higher' or 'lower'; in Korean as the end of a sentence.
      margin: the margin of the comparison, with unit.
    """

    size: str
    interval: str
    effect: str
    seeds: str
    evidence: str
    direction: str
    margin: str


def read(path: pathlib.Path) -> Chapter:
    """Reads a chapter's texts; a file that does not exist has none. Raises InputError if it is not valid."""
    if not path.is_file():
        return Chapter({}, {})
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        labels = content.pop("labels", {})
        return Chapter(labels, {name: _entry(table) for name, table in content.items()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a chapter of the course: {error}") from error


def _entry(table: Mapping[str, Any]) -> Entry:
    """Returns what is written about a claim, from its table."""
    texts = {}
    for language, row in table.items():
        if language == "verdict":
            continue
        exercises = tuple(Exercise(_line(each["question"]), _line(each["answer"])) for each in row.get("exercises", ()))
        texts[language] = Text(**{k: _line(v) for k, v in row.items() if k != "exercises"}, exercises=exercises)
    return Entry(table["verdict"], texts)


def fill(template: str, report: ClaimReport | FactReport, words: Words) -> str:
    """Returns a text with its placeholders replaced by numbers of a report.

    Those of a study are '{findings[0].size}' and the other fields of `Numbers`; those of a fact '{computed[NAME]}' and
    '{taught[NAME]}'. Raises InputError for any other one.
    """
    values: dict[str, Any]
    if isinstance(report, ClaimReport):
        values = {"findings": [numbers(finding, words) for finding in report.findings]}
    else:
        values = {
            kind: {name: value_text(value, words) for name, value in row.items()}
            for kind, row in (("computed", report.computed), ("taught", report.taught))
        }
    try:
        return template.format(**values)
    except (KeyError, IndexError, AttributeError, ValueError) as error:
        raise InputError(f"{report.name}: {template!r} has a placeholder without a number: {error}") from error


def numbers(finding: Finding, words: Words) -> Numbers:
    """Returns the numbers of a finding as texts."""
    sentences = words.sentences
    size = amount(finding, abs(finding.difference), words) if math.isfinite(finding.difference) else "-"
    effect = study_words.effect(finding)
    between = interval_of_size(finding, words)
    seeds = sentences["seeds"].format(seeds=finding.seeds)
    evidence = sentences["evidence"].format(
        interval=between, effect=sentences["effect"].format(effect=effect) if effect else "", seeds=seeds
    )
    direction = sentences["higher" if finding.difference > 0 else "lower"]
    margin = study_words.margin_amount(finding.comparison, study_words.is_percentage(finding), words.points)
    return Numbers(size, between, effect, seeds, evidence, direction, margin)


def amount(finding: Finding, value: float, words: Words) -> str:
    """Formats a difference as `cnnjax.study.words.amount`, with the unit of a language."""
    return study_words.amount(finding, value, words.points)


def interval_of_size(finding: Finding, words: Words) -> str:
    """Returns the interval that follows a size and 'higher' or 'lower', as `cnnjax.study.words.evidence` has it."""
    if not study_words.both_ways(finding):
        return interval(finding, words, math.copysign(1, finding.difference))
    bounds = [amount(finding, abs(bound), words) for bound in (finding.low, finding.high)]
    return words.sentences["both ways"].format(level=f"{finding.level * 100:.0f}", low=bounds[0], high=bounds[1])


def interval(finding: Finding, words: Words, sign: float = 1) -> str:
    """Returns the interval of a finding's difference, times `sign` (1 or -1), in a language."""
    if not math.isfinite(finding.low):
        return words.sentences["unknown"]
    if finding.low == finding.high:
        return words.sentences["same"]
    level = f"{finding.level * 100:.0f}"
    low, high = sorted((sign * finding.low, sign * finding.high))
    first = study_words.amount(finding, low, points="")
    return words.sentences["interval"].format(level=level, low=first, high=amount(finding, high, words))


def value_text(value: Value, words: Words) -> str:
    """Formats a value of a fact, with 'yes' and 'no' in a language."""
    return words.headings["yes" if value else "no"] if isinstance(value, bool) else show(value)


def _line(text: str) -> str:
    """Joins the lines of a text to one line."""
    return " ".join(text.split())
