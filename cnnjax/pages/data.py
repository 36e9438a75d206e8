"""The data of a run on its page: splits, class counts, examples, and what augmentation makes of them."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from cnnjax import style
from cnnjax.config import Config
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.data.imagenet import readable
from cnnjax.data.info import DataInfo
from cnnjax.data.store import data_dir as data_root
from cnnjax.data.store import find_newest
from cnnjax.errors import InputError
from cnnjax.pages import pictures
from cnnjax.pages.page import Bar
from cnnjax.pages.pictures import Picture
from cnnjax.summarize.parts import TIMES
from cnnjax.training import preview

MAX_COUNTED_BYTES = 1 << 30  # of a split whose labels are read, to count the images of each class
MAX_CLASS_BARS = 20  # with more classes, their smallest and largest counts are shown
LABELS_PER_READ = 1000
EXAMPLES, AUGMENTED = 24, 6  # images on the sheets


@dataclasses.dataclass(frozen=True)
class DataSection:
    """Holds what a run was trained and tested on.

    Attributes:
      facts: pairs of a name and a formatted value.
      counts: the training images of each class; () with more than MAX_CLASS_BARS, or where they are unknown.
      counts_caption: what the counts are of.
      pictures: a sheet of examples or, with an augmentation, of images and what it makes of them.
    """

    facts: tuple[tuple[str, str], ...]
    counts: tuple[Bar, ...]
    counts_caption: str
    pictures: tuple[Picture, ...]


def is_there(name: str, data_dir: str) -> bool:
    """Returns whether a data set is in the folder `data_dir`, so that opening it builds and downloads nothing."""
    try:
        return find_newest(name, data_root(data_dir)) is not None
    except InputError:
        return False


def describe(config: Config, data: DataInfo, data_dir: str | None, with_pictures: bool) -> DataSection:
    """Returns the section of a run's data. Without a `data_dir` that has them (None), what data.json tells.

    Raises InputError if the data set cannot be read.
    """
    name, _, version = str(data.source.get("dataset", config.dataset)).rpartition("/")
    height, width, channels = data.shape
    color = "color" if channels == 3 else "gray"
    facts = [("data set", name or version)] + ([("version", version)] if name else [])
    counts: tuple[Bar, ...] = ()
    shown: list[Picture] = []
    if data_dir is not None:
        train, val = folds.resolve_splits(config, data_dir)
        opened = load(config.dataset, train, data_dir)
        others = (("validation images", val), ("test images", config.test_split))
        facts += [("training images", f"{len(opened):,}")]
        facts += [(what, f"{len(load(config.dataset, split, data_dir)):,}") for what, split in others if split]
        if opened.identity["bytes"].get(opened.ranges[0].split, 0) <= MAX_COUNTED_BYTES:
            numbers = class_counts(opened)
            facts.append(("images of a class", _range(numbers)))
            counts = _bars(numbers, readable(opened.classes)) if len(numbers) <= MAX_CLASS_BARS else ()
        if with_pictures:
            shown.append(_sheet(config, train, opened, data_dir))
    facts += [("classes", f"{len(data.classes):,}"), ("the network sees", f"{height} {TIMES} {width} pixels, {color}")]
    return DataSection(tuple(facts), counts, f"Training images of each class of {config.dataset}", tuple(shown))


def example(config: Config, data_dir: str) -> np.ndarray:
    """Returns the first image of the test split, or of the training split if there is none: uint8 [H, W, C]."""
    images, _ = load(config.dataset, config.test_split or config.train_split, data_dir).read(np.arange(1))
    return images[0]


def class_counts(split: Split) -> np.ndarray:
    """Returns the number of images of each class, int [K]. Reads all records of the split, but decodes no image."""
    labels = [
        split.read_encoded(np.arange(start, min(start + LABELS_PER_READ, len(split))))[1]
        for start in range(0, len(split), LABELS_PER_READ)
    ]
    return np.bincount(np.concatenate(labels), minlength=len(split.classes))


def _range(counts: np.ndarray) -> str:
    """Returns the smallest and the largest count as text."""
    low, high = counts.min(), counts.max()
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _bars(counts: np.ndarray, classes: Sequence[str]) -> tuple[Bar, ...]:
    """Returns a bar for each class, relative to the largest."""
    most = max(int(counts.max()), 1)
    return tuple(Bar(name, f"{count:,}", int(count) / most) for name, count in zip(classes, counts, strict=True))


def _sheet(config: Config, train: str, opened: Split, data_dir: str) -> Picture:
    """Draws examples of the training split, chosen at random, and beside each what the augmentation makes of it."""
    if config.augment:
        figure = preview.draw(
            config.dataset, config.augment, split=train, count=min(AUGMENTED, len(opened)), data_dir=data_dir
        )
        alt = f"Training images of {config.dataset} and what augmentation makes of them: {config.augment}"
        return pictures.from_figure(figure, alt)
    chosen = pipeline.permutation(0, 0, len(opened))[:EXAMPLES]
    images, labels = opened.read(chosen)
    names = readable(opened.classes)
    title = f"{config.dataset} {train}: {len(images)} images, chosen at random; training does not change them"
    figure = style.sheet(images, [names[label] for label in labels], columns=12 if opened.shape[0] else 8, title=title)
    return pictures.from_figure(figure, f"{len(images)} training images of {config.dataset} with their labels")
