"""Published weights that fit networks of ours: what is known of them, and the way to get their files.

The rows are in catalog.toml, which says what each entry means.
"""

import functools
import pathlib
import re
import tomllib
import urllib.parse
from collections.abc import Callable
from typing import NamedTuple

from cnnjax import cache
from cnnjax.data import download, imagenet
from cnnjax.data.catalog import DATASETS
from cnnjax.errors import unknown


class DataSet(NamedTuple):
    """What weights were trained for."""

    name: str  # of our data set
    split: str  # that accuracies are of
    mean: tuple[float, float, float]  # of its training images, in [0, 1]
    std: tuple[float, float, float]

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names in our data set, in order."""
        return DATASETS[self.name].classes or tuple(imagenet.names())


DATA_SETS = {
    "imagenet": DataSet("imagenet2012", "validation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": DataSet("cifar10", "test", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


class Published(NamedTuple):
    """Published weights of a network, under the name of their source and their own: 'torchvision:resnet50.v1'."""

    name: str
    model: str  # our call string
    params: int  # of it
    classes: str  # of `DATA_SETS`
    preprocess: str  # our call strings, as a config has them
    normalize: str
    top1: float | None  # accuracy in %
    top5: float | None
    licence: str
    library: str  # whose names the arrays have: of `cnnjax.pretrained.names`
    url: str
    digest: str  # 'sha256:0676ba61', which may be its beginning; '' where none was published
    about: str

    @property
    def path(self) -> pathlib.Path:
        """Where its file is kept on this machine."""
        source, own = self.name.split(":")
        file = pathlib.PurePosixPath(urllib.parse.urlparse(self.url).path).name
        return cache.folder("weights") / source / own / file


@functools.cache
def rows() -> dict[str, Published]:
    """All published weights, by name."""
    with pathlib.Path(__file__).with_name("catalog.toml").open("rb") as file:
        groups = tomllib.load(file)
    found = {}
    for source, group in groups.items():
        for own, row in group.pop("weights").items():
            row = {"library": source, "digest": "", "top": ["", ""], "file": ""} | group | row
            row["url"] = row["url"].format(name=own, file=row.pop("file"))
            in_name = re.search(r"-([0-9a-f]{8,})\.\w+$", row["url"])
            if (algorithm := row.pop("digest_in_name", "")) and in_name and not row["digest"]:
                row["digest"] = f"{algorithm}:{in_name[1]}"
            row["top1"], row["top5"] = (value or None for value in row.pop("top"))
            found[f"{source}:{own}"] = Published(name=f"{source}:{own}", **row)
    return found


def is_name(text: str) -> bool:
    """Whether a text is meant to name published weights: it has the name of a source before a colon."""
    source, colon, _ = text.partition(":")
    return bool(colon) and any(name.startswith(f"{source}:") for name in rows())


def find(name: str) -> Published:
    """The published weights of that name. Raises InputError that names the nearest."""
    if name not in rows():
        raise unknown("weights", name, rows())
    return rows()[name]


def fetch(row: Published, say: Callable[[str], None]) -> pathlib.Path:
    """The file of published weights, downloaded unless it is here already, and checked.

    Where no digest was published, that of the first download is kept beside it. Raises InputError as
    `data.download.fetch` does, saying where to put a file from elsewhere.
    """
    path = row.path
    kept = path.with_name(f"{path.name}.sha256")
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked(path.parent / "lock", lambda: say(f"{row.name}: waiting for another process that downloads it")):
        digest = row.digest or (kept.read_text().strip() if kept.exists() else "sha256:")
        download.fetch([row.url], path, digest, say, hint=f"Without a network, put that file into {path.parent}")
        if digest == "sha256:":
            digest = download.digest_of(path, digest)
            part = kept.with_name(f"{kept.name}.part")
            part.write_text(f"{digest}\n")
            part.replace(kept)
            say(f"{row.name}: no digest was published; from now on it has to be {digest}, as of {path}")
    return path
