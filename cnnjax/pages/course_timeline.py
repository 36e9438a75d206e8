"""The timeline of the course: families of networks, with the result of the paper, and what was new."""

import csv
import dataclasses
import pathlib
import re
import statistics
import tomllib
from collections.abc import Mapping

from cnnjax.errors import InputError
from cnnjax.pages.course_text import Row
from cnnjax.pages.course_words import Words
from cnnjax.pages.page import Bar

RESULTS = "table_cifar10-standard.csv"  # of experiments/table_cifar10.py, in the folder of the reports


@dataclasses.dataclass(frozen=True)
class Family:
    """An entry of experiments/course/timeline.toml.

    Attributes:
      model: name of the network, as in `cnnjax models`.
      title: name of the family, as its paper has it.
      claims: names of the claims that measure what was new.
      new: language -> what was new, in a sentence or two.
      accuracy: test accuracy of its small form in our table of results, the mean over the seeds; None if it has none.
    """

    model: str
    title: str
    claims: tuple[str, ...]
    new: Mapping[str, str]
    accuracy: float | None = None


@dataclasses.dataclass(frozen=True)
class ShownNetwork:
    """A network on the page: the texts of its entry, and the numbers of the package."""

    name: str
    title: str
    year: int
    new: str
    parameters: str
    macs: str
    input: str
    published: str
    ours: str
    paper: str
    claims: tuple[Row, ...]


def read(path: pathlib.Path) -> tuple[Family, ...]:
    """Reads the families of a timeline; none if there is no such file. Raises InputError if it is not valid."""
    if not path.is_file():
        return ()
    accuracies = _accuracies(path.parent.parent / "reports" / RESULTS)
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["networks"]
        return tuple(
            Family(
                row["model"],
                row["title"],
                tuple(row["claims"]),
                {lang: row[lang] for lang in ("en", "ko")},
                accuracies.get(row.get("result", "")),
            )
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a timeline: {error}") from error


def _accuracies(path: pathlib.Path) -> dict[str, float]:
    """Returns the mean test accuracy of each row in our table of results; none without the file.

    Raises InputError if the file is damaged.
    """
    errors: dict[str, list[float]] = {}
    if path.is_file():
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                try:
                    errors.setdefault(row["arm"], []).append(float(row["test_error"]))
                except (KeyError, TypeError, ValueError) as error:
                    raise InputError(f"{path} is damaged: it has no test error in a row: {error}") from error
    return {arm: 1 - statistics.fmean(values) for arm, values in errors.items()}


def networks(families: tuple[Family, ...], rows: Mapping[str, Row], words: Words) -> tuple[ShownNetwork, ...]:
    """Returns the networks as they are shown. `rows` are the claims of the course, by name; others are left out."""
    from cnnjax.models import MODELS

    shown = []
    for family in families:
        variant = MODELS[family.model]
        shown.append(
            ShownNetwork(
                name=family.model,
                title=family.title,
                year=variant.year,
                new=" ".join(family.new[words.code].split()),
                parameters=f"{variant.params:,}",
                macs=f"{variant.macs:,}",
                input="x".join(map(str, variant.input_shape)),
                published=_in_language(variant.published, words),
                ours="" if family.accuracy is None else words.sentences["ours"].format(f"{family.accuracy:.1%}"[:-1]),
                paper=variant.paper,
                claims=tuple(rows[name] for name in family.claims if name in rows),
            )
        )
    return tuple(shown)


def _in_language(published: str, words: Words) -> str:
    """Returns the published result of a network in a language."""
    for pattern, term in words.terms.items():
        published = re.sub(pattern, term, published)
    return published


def bars(shown: tuple[ShownNetwork, ...]) -> tuple[Bar, ...]:
    """Returns the parameters of networks as bars."""
    counts = [int(network.parameters.replace(",", "")) for network in shown]
    most = max(counts, default=1)
    return tuple(
        Bar(f"{network.title} ({network.year})", network.parameters, count / most, f"#{network.name}")
        for network, count in zip(shown, counts, strict=True)
    )
