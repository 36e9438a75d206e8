"""Catalog of published weights for our networks, and the download of their files.

The rows of libraries and authors are in catalog.toml, whose head explains each field. Those of weights that are trained
here, 'cnnjax:NAME', are the cards of `cnnjax.pretrained.cards`.
"""

import dataclasses
import functools
import pathlib
import re
import tomllib
import urllib.parse
from collections.abc import Callable

from cnnjax import cache, sealed
from cnnjax.data import download, imagenet
from cnnjax.data.catalog import DATASETS
from cnnjax.errors import InputError, unknown
from cnnjax.pretrained import cards
from cnnjax.pretrained.cards import Card


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The data set that published weights were trained on.

    Attributes:
      name: our name of the data set, as in config.dataset.
      split: the split on which accuracies were measured.
      mean: mean of the training images per channel, RGB, in [0, 1].
      std: standard deviation of the training images, likewise.
    """

    name: str
    split: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of the logits."""
        return DATASETS[self.name].classes or tuple(imagenet.names())


DATA_SETS = {
    "imagenet": DataSet("imagenet2012", "validation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": DataSet("cifar10", "test", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """Weights that a library, an author or this package has published.

    Attributes:
      name: source and name, as in 'torchvision:resnet50.v1'.
      model: call string of our network.
      params: number of parameters of our network.
      classes: key of `DATA_SETS`: 'imagenet' or 'cifar10'; with a `card`, the name of the data set.
      preprocess: value of config.preprocess.
      normalize: value of config.normalize.
      top1: published top-1 accuracy in %; None if none was published.
      top5: published top-5 accuracy in %, likewise.
      license: license of the weights.
      library: key of `cnnjax.pretrained.names.LIBRARIES`, for the names and layouts of the arrays; '' for our own.
      url: address of the file; '' if it comes with the package.
      digest: algorithm and all or the first hexadecimal digits, as in 'sha256:0676ba61'; '' if none was published.
      about: origin of the weights, in a sentence.
      card: how weights of this package were trained, and their results; None for others.
    """

    name: str
    model: str
    params: int
    classes: str
    preprocess: str
    normalize: str
    top1: float | None
    top5: float | None
    license: str
    library: str
    url: str
    digest: str
    about: str
    card: Card | None = None

    @property
    def path(self) -> pathlib.Path:
        """Returns the path of the weight file, in the package or in the cache. It may not be downloaded yet."""
        source, name = self.name.split(":")
        if not self.url:
            return cards.FOLDER / f"{name}.safetensors"
        file = pathlib.PurePosixPath(urllib.parse.urlparse(self.url).path).name
        return cache.folder("weights") / source / name / file


@functools.cache
def rows() -> dict[str, PublishedWeights]:
    """Returns all published weights by name, as in 'torchvision:resnet50.v1'; first those that are trained here."""
    with pathlib.Path(__file__).with_name("catalog.toml").open("rb") as file:
        groups = tomllib.load(file)
    trained_here = (_card_row(f"{cards.SOURCE}:{name}", card) for name, card in cards.packaged().items())
    weights = {row.name: row for row in trained_here}
    for source, group in groups.items():
        for name, row in group.pop("weights").items():
            row = {"library": source, "digest": "", "top": ["", ""], "file": ""} | group | row
            row["url"] = row["url"].format(name=name, file=row.pop("file"))
            suffix = re.search(r"-([0-9a-f]{8,})\.\w+$", row["url"])
            if (algorithm := row.pop("digest_in_name", "")) and suffix and not row["digest"]:
                row["digest"] = f"{algorithm}:{suffix[1]}"
            row["top1"], row["top5"] = (value or None for value in row.pop("top"))
            weights[f"{source}:{name}"] = PublishedWeights(name=f"{source}:{name}", **row)
    return weights


def _card_row(name: str, card: Card) -> PublishedWeights:
    """Returns the row of weights that are trained here."""
    return PublishedWeights(
        name=name,
        model=card.config.model,
        params=card.params,
        classes=card.config.dataset,
        preprocess=card.preprocess,
        normalize=card.config.normalize,
        top1=100 * card.accuracy(),
        top5=None,
        license=card.license,
        library="",
        url=card.url,
        digest=card.digest,
        about=card.about,
        card=card,
    )


def is_name(text: str) -> bool:
    """Returns whether a text begins with a source of the catalog and a colon. The weights may not exist."""
    source, colon, _ = text.partition(":")
    return bool(colon) and any(name.startswith(f"{source}:") for name in rows())


def find(name: str) -> PublishedWeights:
    """Returns the published weights of this name. Raises InputError that suggests the nearest name."""
    if name not in rows():
        raise unknown("weights", name, rows())
    return rows()[name]


def find_card(name: str) -> Card:
    """Returns the card of weights that are trained here. Raises InputError for other names, with the valid ones."""
    trained_here = {row.name: row.card for row in rows().values() if row.card}
    if name not in trained_here:
        if name in rows():
            raise InputError(f"{name} was not trained here, so there is no recipe; valid: {', '.join(trained_here)}")
        raise unknown("weights", name, trained_here)
    return trained_here[name]


def fetch(row: PublishedWeights, log: Callable[[str], None]) -> pathlib.Path:
    """Downloads the file of published weights into the cache, unless it is there, and returns its path.

    Checks the file's digest. If none was published, the digest of the first download is stored beside the file and
    checked from then on. Raises InputError as `data.download.fetch` does, with the folder in which to put a file that
    was obtained elsewhere, and if a file that comes with the package is damaged.
    """
    path = row.path
    if not row.url:
        if not path.is_file() or download.digest_of(path, row.digest) != row.digest:
            raise InputError(f"{path} is missing or damaged, and comes with the package: install cnnjax again")
        return path
    digest_file = path.with_name(f"{path.name}.sha256")
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked(path.parent / "lock", lambda: log(f"{row.name}: waiting for another process that downloads it")):
        digest = row.digest or (digest_file.read_text().strip() if digest_file.exists() else "sha256:")
        download.fetch([row.url], path, digest, log, hint=f"Without a network, put that file into {path.parent}")
        if digest == "sha256:":
            digest = download.digest_of(path, digest)
            sealed.write_atomically(digest_file, f"{digest}\n".encode())
            log(f"{row.name}: no digest was published; from now on {path} must have {digest}")
    return path
