"""The timeline of the course: families of networks, with the result of the paper, and what was new."""

import dataclasses
import pathlib
import tomllib
from collections.abc import Mapping

from cnnjax.errors import InputError
from cnnjax.pages.course_text import Row
from cnnjax.pages.course_words import Words
from cnnjax.pages.page import Bar


@dataclasses.dataclass(frozen=True)
class Family:
    """An entry of experiments/course/timeline.toml.

    Attributes:
      model: name of the network, as in `cnnjax models`.
      title: name of the family, as its paper has it.
      claims: names of the claims that measure what was new.
      new: language -> what was new, in a sentence or two.
    """

    model: str
    title: str
    claims: tuple[str, ...]
    new: Mapping[str, str]


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
    paper: str
    claims: tuple[Row, ...]


def read(path: pathlib.Path) -> tuple[Family, ...]:
    """Reads the families of a timeline; none if there is no such file. Raises InputError if it is not valid."""
    if not path.is_file():
        return ()
    try:
        rows = tomllib.loads(path.read_text(encoding="utf-8"))["networks"]
        return tuple(
            Family(row["model"], row["title"], tuple(row["claims"]), {lang: row[lang] for lang in ("en", "ko")})
            for row in rows
        )
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not a timeline: {error}") from error


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
                published=variant.published,
                paper=variant.paper,
                claims=tuple(rows[name] for name in family.claims if name in rows),
            )
        )
    return tuple(shown)


def bars(shown: tuple[ShownNetwork, ...]) -> tuple[Bar, ...]:
    """Returns the parameters of networks as bars."""
    counts = [int(network.parameters.replace(",", "")) for network in shown]
    most = max(counts, default=1)
    return tuple(
        Bar(f"{network.title} ({network.year})", network.parameters, count / most)
        for network, count in zip(shown, counts, strict=True)
    )
