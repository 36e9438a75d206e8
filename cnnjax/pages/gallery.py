"""The page of a folder of pictures, as `cnnjax visualize` writes it: the pictures by kind, and what else there is."""

import dataclasses
import pathlib
import urllib.parse
from collections.abc import Sequence

from cnnjax.pages import page, pictures
from cnnjax.pages.pictures import Picture

TEMPLATE = "gallery.html"


@dataclasses.dataclass(frozen=True)
class Drawn:
    """A picture of the page.

    Attributes:
      name: name of its files without suffix.
      network: what it was drawn from.
      picture: the first of its files, not embedded.
      files: each of its files, as a pair of a link and the suffix without the dot.
    """

    name: str
    network: str
    picture: Picture
    files: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True)
class Kind:
    """The pictures of a kind: the kind's name, what it shows, and the pictures."""

    name: str
    shows: str
    drawn: tuple[Drawn, ...]

    @property
    def title(self) -> str:
        """Returns the name as a heading."""
        return self.name.replace("_", " ").capitalize()


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Holds what the page shows.

    Attributes:
      title: title of the page.
      kinds: the pictures by kind.
      others: the kinds of which there is no picture, as pairs of a name and what it shows.
      command: the shell command that draws the first of these; '' if there are none.
    """

    title: str
    kinds: tuple[Kind, ...]
    others: tuple[tuple[str, str], ...]
    command: str

    def sections(self) -> list[tuple[str, str]]:
        """Returns the id and the name of each section."""
        return [*((kind.name, kind.title) for kind in self.kinds), *([("more", "More pictures")] * bool(self.others))]


def drawn(folder: pathlib.Path, name: str, network: str, note: str, suffixes: Sequence[str]) -> Drawn:
    """Returns a picture of a folder, with links to its files; `note` tells what is seen."""
    links = tuple((urllib.parse.quote(f"{name}{suffix}"), suffix[1:]) for suffix in suffixes)
    picture = pictures.linked(folder / f"{name}{suffixes[0]}", links[0][0], note or name)
    return Drawn(name, network, picture, links)


def html(gallery: Gallery) -> str:
    """Returns the page."""
    return page.render(TEMPLATE, page=gallery)
