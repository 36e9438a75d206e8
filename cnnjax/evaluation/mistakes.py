"""Mistakes of networks: most confident mistakes, least confident hits, confused classes, disagreements."""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from cnnjax import style
from cnnjax.data.imagenet import readable
from cnnjax.data.store import Split
from cnnjax.evaluation.image_scores import ImageScores
from cnnjax.evaluation.report import Section, title, write_csv

IMAGES_SHOWN, COLUMNS = 24, 8  # on a sheet
PAIRS_SHOWN, IMAGES_PER_PAIR = 5, 8
PAIRS_RECORDED = 20  # in metrics.json


@dataclasses.dataclass(frozen=True, eq=False)
class RankedImages:
    """Images of a split in a ranking, with a network's predictions.

    Attributes:
      indices: int [M], the places of the images in the split, the first of the ranking first.
      images: M images, uint8 [H, W, C], as the data set has them.
      captions: M captions.
      title: title of the sheet.
      note: a line that says what the ranking shows, in numbers.
    """

    indices: np.ndarray
    images: Sequence[np.ndarray]
    captions: Sequence[str]
    title: str
    note: str

    def figure(self) -> Any:
        """Draws the images and their captions as a sheet: a matplotlib Figure."""
        return style.sheet(self.images, self.captions, columns=COLUMNS, title=self.title, note=self.note, cell=1)


def confident_mistakes(scores: ImageScores, examples: Split, count: int = IMAGES_SHOWN) -> RankedImages:
    """Ranks the wrong predictions by their confidence, the highest first, and loads the first `count`.

    `scores` are those of the split `examples`. A caption has the label, the predicted class and its probability. Some
    of these images may have a wrong label: see `label_errors`.
    """
    wrong = np.flatnonzero(~scores.is_correct & (scores.predictions >= 0))
    indices = wrong[np.argsort(-scores.confidence[wrong], kind="stable")][:count]
    names = readable(scores.classes)
    captions = [
        f"{names[scores.labels[i]]}\n→ {names[scores.predictions[i]]}\n{scores.confidence[i]:.2%}" for i in indices
    ]
    note = (
        f"{title(scores.description)}: {len(wrong):,} of {len(scores):,} images are classified wrongly. "
        "Label → prediction, probability of the prediction."
    )
    return RankedImages(indices, _images(examples, indices), captions, "The most confident mistakes", note)


def unsure_hits(scores: ImageScores, examples: Split, count: int = IMAGES_SHOWN) -> RankedImages:
    """Ranks the right predictions by their confidence, the lowest first, and loads the first `count`.

    `scores` are those of the split `examples`. A caption has the label and the second choice.
    """
    right = np.flatnonzero(scores.is_correct)
    indices = right[np.argsort(scores.confidence[right], kind="stable")][:count]
    names = readable(scores.classes)
    captions = []
    for i in indices:
        others = np.where(np.arange(len(names)) == scores.labels[i], -1, scores.probabilities[i])
        second = f"\n{names[others.argmax()]}: {others.max():.0%}" if len(names) > 1 else ""
        captions.append(f"{names[scores.labels[i]]}: {scores.confidence[i]:.0%}{second}")
    below = (scores.confidence[right] < 0.5).sum()
    note = (
        f"{title(scores.description)}: {below:,} of {len(right):,} right predictions have a probability below 50%. "
        "The label and its probability, then the second choice."
    )
    return RankedImages(indices, _images(examples, indices), captions, "The least confident hits", note)


@dataclasses.dataclass(frozen=True, eq=False)
class ConfusedPairs:
    """Pairs (label, predicted class) ranked by their number of images, with examples.

    Attributes:
      labels: int [P], the class of the label.
      predictions: int [P], the class that is predicted instead.
      counts: int [P], number of images of the pair, in descending order.
      fractions: float [P], `counts` divided by the number of images with the label.
      indices: for each of the first pairs, the indices in the split of some images, the most confident mistake first.
      images: these images, uint8 [H, W, C] each.
      classes: names of the classes.
      title: title of the sheet.
      note: a line that says what the ranking shows, in numbers.
    """

    labels: np.ndarray
    predictions: np.ndarray
    counts: np.ndarray
    fractions: np.ndarray
    indices: Sequence[np.ndarray]
    images: Sequence[Sequence[np.ndarray]]
    classes: Sequence[str]
    title: str
    note: str

    def name(self, pair: int) -> str:
        """Returns the classes of a pair: 'cat → dog'."""
        return f"{self.classes[self.labels[pair]]} → {self.classes[self.predictions[pair]]}"

    def figure(self) -> Any:
        """Draws a row of images for each of the first pairs: a matplotlib Figure."""
        columns = max(map(len, self.images), default=1)
        cells = [image for row in self.images for image in (*row, *[None] * (columns - len(row)))]
        rows = [f"{self.name(i)}\n{self.counts[i]:,} ({self.fractions[i]:.1%})" for i in range(len(self.images))]
        return style.sheet(cells, columns=columns, row_titles=rows, title=self.title, note=self.note, cell=0.72)


def confused_pairs(
    scores: ImageScores, examples: Split, pairs: int = PAIRS_SHOWN, per_pair: int = IMAGES_PER_PAIR
) -> ConfusedPairs:
    """Ranks the pairs (label, predicted class) of all mistakes, and loads images of the first `pairs` of them.

    `scores` are those of the split `examples`. `per_pair` is the largest number of images of a pair.
    """
    wrong = np.flatnonzero(~scores.is_correct & (scores.predictions >= 0))
    keys = scores.labels[wrong].astype(np.int64) * len(scores.classes) + scores.predictions[wrong]
    found, counts = np.unique(keys, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    labels, predictions = np.divmod(found[order], len(scores.classes))
    by_confidence = wrong[np.argsort(-scores.confidence[wrong], kind="stable")]
    indices = [
        by_confidence[(scores.labels[by_confidence] == a) & (scores.predictions[by_confidence] == b)][:per_pair]
        for a, b in zip(labels[:pairs], predictions[:pairs], strict=True)
    ]
    fractions = counts[order] / np.bincount(scores.labels, minlength=len(scores.classes))[labels]
    shown = counts[order][:pairs].sum() / max(len(wrong), 1)
    note = (
        f"{title(scores.description)}: {len(indices)} of {len(found)} pairs, with {shown:.0%} of all mistakes. "
        "Label → prediction, images, fraction of the label's images."
    )
    images = [_images(examples, each) for each in indices]
    names = readable(scores.classes)
    return ConfusedPairs(
        labels,
        predictions,
        counts[order],
        fractions,
        indices,
        images,
        names,
        "The classes that are confused most",
        note,
    )


def disagreements(a: ImageScores, b: ImageScores, examples: Split, names: Sequence[str]) -> Iterator[RankedImages]:
    """Yields the images that only the first network gets right, then those that only the second does.

    Both are ranked by the product of the two networks' confidences in their answers, the highest first.
    `examples` is the split that was scored, and `names` are those of the networks, such as 'A' and 'B'.
    """
    classes = readable(a.classes)

    def answer(scores: ImageScores, i: int) -> str:
        chosen = scores.predictions[i]
        return f"{classes[chosen]} ({scores.confidence[i]:.0%})" if chosen >= 0 else "no answer"

    for right, wrong, name, other in ((a, b, *names), (b, a, *reversed(names))):
        found = np.flatnonzero(right.is_correct & ~wrong.is_correct)
        sureness = right.confidence[found] * wrong.confidence[found]
        indices = found[np.argsort(-sureness, kind="stable")][:IMAGES_SHOWN]
        captions = [f"{name}: {answer(right, i)}\n{other}: {answer(wrong, i)}" for i in indices]
        images = examples.read(indices)[0] if len(indices) else []
        surest = f", the surest {len(indices)}" if len(indices) < len(found) else ""
        note = f"{len(found):,} of {len(right):,} images{surest}. The answer of {name} is right."
        yield RankedImages(indices, images, captions, f"Only {name} is right", note)


def mistakes_section(scores: ImageScores, examples: Split) -> Section:
    """Returns the part of a report on mistakes. `scores` are those of the split `examples`.

    metrics.json gets "confused_pairs". The files are mistakes.csv with all mistakes, confused_pairs.csv with all pairs,
    and three sheets of images: mistakes, unsure_hits and confused_pairs, as .png and .svg.
    """
    pairs = confused_pairs(scores, examples, 0)
    rows = zip(pairs.labels, pairs.predictions, pairs.counts, pairs.fractions, strict=True)
    recorded = [
        {"label": scores.classes[a], "prediction": scores.classes[b], "images": int(count), "fraction": float(fraction)}
        for a, b, count, fraction in list(rows)[:PAIRS_RECORDED]
    ]
    return Section({"confused_pairs": recorded}, functools.partial(_save, scores, examples))


def _save(scores: ImageScores, examples: Split, folder: pathlib.Path) -> None:
    """Writes the files of `mistakes_section`."""
    classes = np.array(scores.classes)
    wrong = np.flatnonzero(~scores.is_correct)
    wrong = wrong[np.argsort(-scores.confidence[wrong], kind="stable")]
    predicted = [classes[k] if k >= 0 else "" for k in scores.predictions[wrong]]
    columns = {"index": wrong, "label": classes[scores.labels[wrong]], "prediction": predicted}
    numbers = {"confidence": scores.confidence[wrong], "label_probability": scores.self_confidence[wrong]}
    write_csv(folder / "mistakes.csv", columns | numbers)
    pairs = confused_pairs(scores, examples)
    columns = {"label": classes[pairs.labels], "prediction": classes[pairs.predictions], "images": pairs.counts}
    write_csv(folder / "confused_pairs.csv", columns | {"fraction": pairs.fractions})
    sheets = {"mistakes": confident_mistakes, "unsure_hits": unsure_hits}
    for name, shown in {name: rank(scores, examples) for name, rank in sheets.items()}.items():
        if len(shown.indices):
            style.save(shown.figure(), folder / name)
    if len(pairs.indices):
        style.save(pairs.figure(), folder / "confused_pairs")


def _images(examples: Split, indices: np.ndarray) -> list[np.ndarray]:
    """Returns the images of a split at these indices, uint8 [H, W, C] each."""
    return examples.read(indices)[0] if len(indices) else []
