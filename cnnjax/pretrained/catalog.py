"""Catalog of published weights for our networks, and the download of their files.

The rows are in catalog.toml, whose head explains each field.
"""

import dataclasses
import functools
import pathlib
import re
import tomllib
import urllib.parse
from collections.abc import Callable

from cnnjax import cache
from cnnjax.data import download, imagenet
from cnnjax.data.catalog import DATASETS
from cnnjax.errors import unknown


@dataclasses.dataclass(frozen=True)
class DataSet:
    """The data set that published weights were trained on."""

    name: str  # our name of the data set
    split: str  # the split on which accuracies were measured
    mean: tuple[float, float, float]  # RGB mean of the training images, in [0, 1]
    std: tuple[float, float, float]  # their RGB standard deviation

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the class names of our data set, in the order of the logits."""
        return DATASETS[self.name].classes or tuple(imagenet.names())


DATA_SETS = {
    "imagenet": DataSet("imagenet2012", "validation", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "cifar10": DataSet("cifar10", "test", (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
}


@dataclasses.dataclass(frozen=True)
class PublishedWeights:
    """A row of the catalog."""

    name: str  # source and name, 'torchvision:resnet50.v1'
    model: str  # call string of our network
    params: int  # its number of parameters
    classes: str  # key of `DATA_SETS`
    preprocess: str  # config.preprocess
    normalize: str  # config.normalize
    top1: float | None  # published accuracy in %; None if there is none
    top5: float | None
    license: str
    library: str  # key of `cnnjax.pretrained.names.LIBRARIES`
    url: str
    digest: str  # 'sha256:0676ba61', the first hexadecimal digits or all; '' if none was published
    about: str  # origin of the weights, in a sentence

    @property
    def path(self) -> pathlib.Path:
        """Returns the place of the file in the cache, whether or not it was downloaded."""
        source, name = self.name.split(":")
        file = pathlib.PurePosixPath(urllib.parse.urlparse(self.url).path).name
        return cache.folder("weights") / source / name / file


@functools.cache
def rows() -> dict[str, PublishedWeights]:
    """Returns all published weights by name."""
    with pathlib.Path(__file__).with_name("catalog.toml").open("rb") as file:
        groups = tomllib.load(file)
    weights = {}
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


def is_name(text: str) -> bool:
    """Returns True for a text that begins with a source of the catalog and a colon, even if there is no such row."""
    source, colon, _ = text.partition(":")
    return bool(colon) and any(name.startswith(f"{source}:") for name in rows())


def find(name: str) -> PublishedWeights:
    """Returns a row by name. Raises InputError that suggests the nearest name."""
    if name not in rows():
        raise unknown("weights", name, rows())
    return rows()[name]


def fetch(row: PublishedWeights, log: Callable[[str], None]) -> pathlib.Path:
    """Returns the file of published weights, downloaded unless it is in the cache, after checking its digest.

    Without a published digest, that of the first download is stored beside the file and checked from then on. Raises
    InputError as `data.download.fetch` does, with the folder in which to put a file obtained elsewhere.
    """
    path = row.path
    digest_file = path.with_name(f"{path.name}.sha256")
    path.parent.mkdir(parents=True, exist_ok=True)
    with cache.locked(path.parent / "lock", lambda: log(f"{row.name}: waiting for another process that downloads it")):
        digest = row.digest or (digest_file.read_text().strip() if digest_file.exists() else "sha256:")
        download.fetch([row.url], path, digest, log, hint=f"Without a network, put that file into {path.parent}")
        if digest == "sha256:":
            digest = download.digest_of(path, digest)
            partial = digest_file.with_name(f"{digest_file.name}.part")
            partial.write_text(f"{digest}\n")
            partial.replace(digest_file)
            log(f"{row.name}: no digest was published; from now on {path} must have {digest}")
    return path
