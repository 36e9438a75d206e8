"""Per-image scores of an evaluation: scores.npz beside metrics.json, from which single images can be looked up."""

import dataclasses
import functools
import io
import json
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import metrics, sealed
from cnnjax.data import build
from cnnjax.data.store import ExampleRange, Split
from cnnjax.errors import InputError

FILE = "scores.npz"
MAX_BYTES = 2**36  # of a file that is read
ROWS_PER_CHUNK = 4096  # converted to float64 at a time
SPLIT_SIZE = 2**40  # more than the examples of any split
TOLERANCE = 1e-3  # of probabilities that differ by rounding alone, such as on another machine


@dataclasses.dataclass(frozen=True, eq=False)
class ImageScores:
    """The scores of all images of an evaluation, in the order of the split.

    Attributes:
      log_probabilities: float [N, K]. A NaN score of the network is -inf.
      predictions: int32 [N], the class with the highest score; -1 where all scores are NaN.
      labels: int32 [N].
      classes: K names.
      description: what was evaluated: "dataset", "split", "step" and other options, as in metrics.json.
      identity: `Split.identity` of the split.
      ranges: the examples that form the split: image i is the i-th of these.
    """

    log_probabilities: np.ndarray
    predictions: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    description: Mapping[str, Any]
    identity: Mapping[str, Any]
    ranges: tuple[ExampleRange, ...]

    def __len__(self) -> int:
        return len(self.labels)

    @functools.cached_property
    def probabilities(self) -> np.ndarray:
        """Returns the class probabilities, float32 [N, K]; rows sum to 1 up to the precision of the file."""
        return np.exp(self.log_probabilities.astype(np.float32))

    @functools.cached_property
    def confidence(self) -> np.ndarray:
        """Returns the probability of the predicted class, float32 [N]; 0 without a prediction."""
        return np.where(self.predictions < 0, 0, self._probability_of(self.predictions))

    @functools.cached_property
    def self_confidence(self) -> np.ndarray:
        """Returns the probability of the label, float32 [N]."""
        return self._probability_of(self.labels)

    @property
    def is_correct(self) -> np.ndarray:
        """Returns whether the prediction is the label, bool [N]."""
        return self.predictions == self.labels

    def _probability_of(self, classes: np.ndarray) -> np.ndarray:
        """Returns the probability of one class for each image, float32 [N]."""
        return np.exp(self.log_probabilities[np.arange(len(self)), classes].astype(np.float32))


def from_scores(
    scores: np.ndarray, labels: np.ndarray, classes: Sequence[str], description: Mapping[str, Any], examples: Split
) -> ImageScores:
    """Returns the ImageScores of logits or log-probabilities, float32 [N, K], of the images of a split.

    `labels` [N] and `classes` are those of the network, which may differ from those of the split.
    """
    rounded = np.empty(scores.shape, np.float16)
    with np.errstate(over="ignore"):  # below float16's range: -inf
        for start in range(0, len(scores), ROWS_PER_CHUNK):
            rounded[start : start + ROWS_PER_CHUNK] = log_softmax(scores[start : start + ROWS_PER_CHUNK])
    return ImageScores(
        rounded, metrics.predictions(scores).astype(np.int32), labels.astype(np.int32), tuple(classes),
        dict(description), dict(examples.identity), tuple(examples.ranges),
    )  # fmt: skip


def log_softmax(scores: np.ndarray) -> np.ndarray:
    """Returns log-probabilities float64 [N, K] of scores [N, K]; -inf for NaN, and for a row without a finite score."""
    exact = np.nan_to_num(
        scores.astype(np.float64), nan=-np.inf, posinf=float(np.finfo(np.float32).max), neginf=-np.inf
    )
    highest = exact.max(axis=1, keepdims=True, initial=-np.inf)
    shifted = exact - np.where(np.isneginf(highest), 0, highest)
    with np.errstate(divide="ignore"):
        total = np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted - np.where(np.isneginf(total), 0, total)


def write(scores: ImageScores, folder: pathlib.Path) -> pathlib.Path:
    """Writes scores.npz into an existing folder, atomically, and returns its path. `read` reads it.

    Log-probabilities are float16: a probability p is exact to 2e-4, and near 1 to 5e-4 of 1 - p. Predictions are kept
    as well, because rounding may make two classes equal. The file has (2 K + 8) N bytes: 0.3 MB for 10,000 images of
    10 classes, 100 MB for 50,000 of 1,000.
    """
    text = {"description": scores.description, "identity": scores.identity, "ranges": scores.ranges}
    with sealed.replacing(folder / FILE) as file:
        np.savez(
            file,
            log_probabilities=scores.log_probabilities.astype(np.float16),
            predictions=scores.predictions,
            labels=scores.labels,
            classes=np.array(scores.classes, np.str_),
            about=np.array(json.dumps(text)),
        )
    return folder / FILE


def read(folder: pathlib.Path | str) -> ImageScores:
    """Reads the per-image scores of an evaluation from its folder, RUN/evaluations/NAME, or from its scores.npz.

    Raises InputError if there is no such file, or if it is damaged.
    """
    path = pathlib.Path(folder)
    path = path if path.name == FILE else path / FILE
    try:
        content = sealed.read(path, MAX_BYTES)
    except FileNotFoundError:
        raise InputError(f"{path.parent} has no {FILE}: evaluate the network again to write it") from None
    try:
        with np.load(io.BytesIO(content)) as arrays:
            about = json.loads(str(arrays["about"]))
            return ImageScores(
                arrays["log_probabilities"].astype(np.float32),
                arrays["predictions"],
                arrays["labels"],
                tuple(map(str, arrays["classes"])),
                about["description"],
                about["identity"],
                tuple(ExampleRange(*each) for each in about["ranges"]),
            )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged ({error}): evaluate the network again") from error


def are_equal(a: ImageScores, b: ImageScores) -> bool:
    """Returns whether two evaluations of the same images in the same way have the same scores, up to rounding."""

    def about(scores: ImageScores) -> Any:
        return json.loads(json.dumps([scores.description, scores.identity, scores.ranges, scores.classes]))

    return (
        about(a) == about(b)
        and np.array_equal(a.labels, b.labels)
        and np.array_equal(a.predictions, b.predictions)
        and np.allclose(a.probabilities, b.probabilities, rtol=0, atol=TOLERANCE)
    )


def open_images(scores: ImageScores, data_dir: str = "") -> Split:
    """Opens the split that was scored: `open_images(scores).read(indices)` are its images and labels.

    Raises InputError if the data set is not there, or if it was rebuilt from other files since the evaluation.
    """
    examples = build.load(scores.description["dataset"], scores.description["split"], data_dir)
    if json.loads(json.dumps(examples.identity)) != dict(scores.identity):
        raise InputError(f"the data set {examples.name!r} is not the one evaluated: evaluate the network again")
    return examples


def join(several: Sequence[ImageScores]) -> ImageScores:
    """Joins the scores of several parts of a data set, such as those of all folds of a cross-validation.

    Each image occurs once in the result, in the order of the data set; of an image that several parts have, the
    probabilities are averaged. Raises InputError for parts of different data sets or with different classes.
    """
    first = several[0]
    content = {name: value for name, value in first.identity.items() if name != "split"}
    for other in several[1:]:
        if {name: value for name, value in other.identity.items() if name != "split"} != content:
            names = f"{first.identity['dataset']} {first.description['split']}", f"{other.identity['dataset']}"
            raise InputError(f"scores of different data sets cannot be joined: {names[0]} and {names[1]}")
        if other.classes != first.classes:
            raise InputError(f"scores of {len(first.classes)} and {len(other.classes)} classes, or of other names")
    splits = sorted({each.split for scores in several for each in scores.ranges})
    positions = np.concatenate([_positions(scores.ranges, splits) for scores in several])
    unique, rows, counts = np.unique(positions, return_inverse=True, return_counts=True)
    total = np.zeros((len(unique), len(first.classes)))
    labels = np.empty(len(unique), np.int32)
    start = 0
    for scores in several:
        here = rows[start : start + len(scores)]
        total[here] += scores.probabilities
        labels[here] = scores.labels
        start += len(scores)
    with np.errstate(divide="ignore"):
        averaged = np.log(total / counts[:, None]).astype(np.float32)
    ranges = _ranges(unique, splits)
    split = "+".join(f"{name}[{start}:{stop}]" for name, start, stop in ranges)
    predictions = np.where(total.any(axis=1), averaged.argmax(axis=1), -1).astype(np.int32)
    description = {"dataset": first.description["dataset"], "split": split, "step": first.description["step"]}
    return ImageScores(averaged, predictions, labels, first.classes, description, content | {"split": split}, ranges)


def _positions(ranges: Sequence[ExampleRange], splits: Sequence[str]) -> np.ndarray:
    """Returns a number for each example of some ranges, int64, in the order of `splits` and then of the examples."""
    return np.concatenate([splits.index(split) * SPLIT_SIZE + np.arange(start, stop) for split, start, stop in ranges])


def _ranges(positions: np.ndarray, splits: Sequence[str]) -> tuple[ExampleRange, ...]:
    """Returns the fewest ranges that have the examples of ascending `positions`: the inverse of `_positions`."""
    runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
    starts = [divmod(int(run[0]), SPLIT_SIZE) for run in runs]
    return tuple(
        ExampleRange(splits[number], start, start + len(run)) for (number, start), run in zip(starts, runs, strict=True)
    )
