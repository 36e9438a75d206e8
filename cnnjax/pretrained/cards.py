"""Cards of weights that are trained here: recipe, data, test results of several seeds, machine and versions.

A card is a JSON file, NAME.json. Those in the folder `weights` beside this module make the rows 'cnnjax:NAME' of the
catalog. A card without a URL is of weights that come with the package, in NAME.safetensors there.
"""

import dataclasses
import functools
import json
import math
import pathlib
import statistics
from collections.abc import Mapping
from typing import Any

from cnnjax import config as configs
from cnnjax import sealed
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError

SOURCE = "cnnjax"  # of names in the catalog, as in 'cnnjax:lenet5.mnist'
FOLDER = pathlib.Path(__file__).with_name("weights")
MIN_SEEDS = 2  # of one there is no spread; more make `Card.interval` narrower
LEVEL = 0.95  # probability that one more run is in `Card.interval`

# Entries of versions.json on which the bits of a training may depend.
STACK = ("processor", "devices", "convolutions", "jax", "jaxlib", "flax", "optax", "numpy")


@dataclasses.dataclass(frozen=True)
class Score:
    """The test result of one run by one protocol.

    Attributes:
      seed: config.seed of the run.
      protocol: test protocol, as config.protocol.
      correct: number of test images that are classified correctly.
    """

    seed: int
    protocol: str
    correct: int


@dataclasses.dataclass(frozen=True)
class Card:
    """Describes trained weights: what it takes to use them and to train them again.

    Attributes:
      about: network, data and recipe in a sentence.
      license: license of the weights.
      url: address of the file; '' if it comes with the package.
      digest: of the file, as in 'sha256:...'.
      params: number of parameters of the network.
      config: settings of the training, with the seed of these weights.
      preprocess: operations on each image before the network; those of the training, or more, for images of any size.
      data: description of the training data.
      images: number of test images.
      scores: test results of these weights and of runs that differ in their seed alone.
      stack: what the training ran on: the entries `STACK` of its versions.json, and further ones.
      minutes: duration of the training.
      date: day of the training, as in '2026-11-29'.
    """

    about: str
    license: str
    url: str
    digest: str
    params: int
    config: Config
    preprocess: str
    data: DataInfo
    images: int
    scores: tuple[Score, ...]
    stack: Mapping[str, str]
    minutes: float
    date: str

    @property
    def protocols(self) -> tuple[str, ...]:
        """Returns the protocols of the scores, that of the config first."""
        return tuple(dict.fromkeys([self.config.protocol, *(score.protocol for score in self.scores)]))

    def correct(self, protocol: str) -> dict[int, int]:
        """Returns the number of correct test images by seed, for one protocol."""
        return {score.seed: score.correct for score in self.scores if score.protocol == protocol}

    def accuracy(self) -> float:
        """Returns the test accuracy of these weights by the protocol of the config, in [0, 1]."""
        return self.correct(self.config.protocol)[self.config.seed] / self.images

    def interval(self) -> tuple[int, int]:
        """Returns the numbers of correct test images between which one more run lies with 95 % probability.

        This is Student's prediction interval for a run of another seed. It reaches at least one image beyond all runs.
        """
        from scipy.stats import t  # costs a second

        counts = list(self.correct(self.config.protocol).values())
        mean, deviation = statistics.fmean(counts), statistics.stdev(counts)
        half = t.ppf((1 + LEVEL) / 2, len(counts) - 1) * deviation * math.sqrt(1 + 1 / len(counts))
        low, high = math.floor(mean - half), math.ceil(mean + half)
        return max(0, min(low, min(counts) - 1)), min(self.images, max(high, max(counts) + 1))


def write(path: pathlib.Path, card: Card) -> None:
    """Writes a card as a JSON file, atomically."""
    content = dataclasses.asdict(card) | {"data": card.data.to_dict()}
    sealed.write_plain_json(path, content)


def read(path: pathlib.Path) -> Card:
    """Reads what `write` wrote. Raises InputError if the file is missing or damaged."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
        settings = {configs.current_name(name): value for name, value in content["config"].items()}
        typed = {
            "config": configs.check(Config(**settings)),
            "data": DataInfo.from_dict(content["data"]),
            "scores": tuple(Score(**score) for score in content["scores"]),
        }
        return Card(**content | typed)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is not a card of weights: {error}") from error


@functools.cache
def packaged() -> dict[str, Card]:
    """Returns the cards in `FOLDER` by name, as in 'lenet5.mnist'."""
    return {path.stem: read(path) for path in sorted(FOLDER.glob("*.json"))}
