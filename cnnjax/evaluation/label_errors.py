"""Suspected label errors of a data set: confident learning on scores of networks that did not train on the images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from cnnjax import config as configs
from cnnjax import style
from cnnjax.data import build, folds
from cnnjax.data.imagenet import readable
from cnnjax.data.store import overlap
from cnnjax.errors import InputError
from cnnjax.evaluation import image_scores
from cnnjax.evaluation.confident_learning import LabelIssues, find_label_issues
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.evaluation.image_scores import ImageScores
from cnnjax.evaluation.report import write_csv

IMAGES_SHOWN, COLUMNS = 24, 8  # on the sheet


@dataclasses.dataclass(frozen=True, eq=False)
class LabelErrors:
    """The images of a data set whose labels may be wrong.

    Where networks are sure of another class, confident learning assumes a wrong label. So their own confident
    mistakes are among the suspected labels, few if a network is nearly always right, many otherwise.

    Attributes:
      scores: the scores of all judged images.
      issues: the suspected ones; `issues.indices` are indices in `scores`.
      images: the first suspected images, uint8 [H, W, C] each.
    """

    scores: ImageScores
    issues: LabelIssues
    images: Sequence[np.ndarray]

    @functools.cached_property
    def places(self) -> list[tuple[str, int]]:
        """Returns the split and the index in the split of each suspected image, as in `load_dataset(name, split)`."""
        all_places = [(split, i) for split, start, stop in self.scores.ranges for i in range(start, stop)]
        return [all_places[i] for i in self.issues.indices]

    @property
    def note(self) -> str:
        """Returns a line with the number of suspected labels and the networks' accuracy."""
        found, total = len(self.issues.indices), len(self.scores)
        where = f"{self.scores.description['dataset']} {self.scores.description['split']}"
        return (
            f"{where}: {found:,} of {total:,} labels are suspected ({found / total:.2%}). The networks' accuracy is "
            f"{self.scores.is_correct.mean():.2%}; the lower it is, the more of these are their own mistakes"
        )

    def figure(self) -> Any:
        """Draws the first suspected images, with the label, the suggested class and its probability: a Figure."""
        names = readable(self.scores.classes)
        shown = list(zip(self.issues.indices, self.issues.suggestions, strict=True))[: len(self.images)]
        captions = [
            f"{names[self.scores.labels[i]]}\n→ {names[k]}\n{self.scores.probabilities[i, k]:.1%}" for i, k in shown
        ]
        note = f"{self.note}. Label → suggestion, its probability."
        return style.sheet(self.images, captions, columns=COLUMNS, title="Suspected label errors", note=note, cell=1)

    def save(self, folder: pathlib.Path) -> None:
        """Writes label_errors.csv, the most suspected first, and label_errors.png and .svg into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        scores, indices, classes = self.scores, self.issues.indices, np.array(self.scores.classes)
        columns = {
            "split": [split for split, _ in self.places],
            "index": [index for _, index in self.places],
            "label": classes[scores.labels[indices]],
            "suggestion": classes[self.issues.suggestions],
            "label_probability": scores.self_confidence[indices],
            "suggestion_probability": scores.probabilities[indices, self.issues.suggestions],
        }
        write_csv(folder / "label_errors.csv", columns)
        if self.images:
            style.save(self.figure(), folder / "label_errors")


def find_in_scores(scores: ImageScores, data_dir: str = "", count: int = IMAGES_SHOWN) -> LabelErrors:
    """Finds suspected label errors among images that were scored, and loads the first `count`.

    `scores` have to be of networks that were not trained on these images. Raises InputError if a score is NaN.
    """
    if (scores.predictions < 0).any():
        raise InputError("label errors: some scores are NaN; the network's weights may be too large")
    issues = find_label_issues(scores.probabilities, scores.labels)
    shown = issues.indices[:count]
    images = image_scores.open_images(scores, data_dir).read(shown)[0] if len(shown) else []
    return LabelErrors(scores, issues, images)


def label_errors(
    runs: Sequence[pathlib.Path | str],
    *,
    step: str | int = "last",
    split: str = "",
    data_dir: str = "",
    log: Callable[[str], None] = print,
) -> LabelErrors:
    """Finds suspected label errors of a data set from the runs of a cross-validation (config.fold = '1/5' to '5/5').

    Each run scores its validation split, and confident learning judges all of them together: see `find_label_issues`.
    The probabilities of images in several validation splits are averaged.

    Args:
      runs: folders of runs, usually one per fold; or of evaluations (runs/NAME/evaluations/...), of published weights
        for instance. Their scores are taken as they are: it is not checked if the network was trained on the images.
      step: checkpoint of every run: 'last', 'best' or a step number.
      split: a split to score instead of each run's validation split, such as 'test'.
      data_dir: folder of the data sets; '' for the default one.
      log: called with lines of text.

    Raises:
      InputError: a run without a validation split, one that was trained on images of the split, or runs on different
        data sets.
    """
    several = []
    for run in dict.fromkeys(map(pathlib.Path, runs)):
        is_evaluation = (run / image_scores.FILE).exists()
        folder = run if is_evaluation else _evaluate_held_out(run, step, split, data_dir, log)
        several.append(image_scores.read(folder))
    return find_in_scores(image_scores.join(several), data_dir)


def _evaluate_held_out(
    run: pathlib.Path, step: str | int, split: str, data_dir: str, log: Callable[[str], None]
) -> pathlib.Path:
    """Evaluates a run on `split`, '' for its validation split, and returns the folder of the evaluation.

    Raises InputError if the run has no validation split, or was trained on images of the split.
    """
    config = configs.load(run / "config.json")
    train, held_out = folds.resolve_splits(config, data_dir)
    if not (judged := split or held_out):
        raise InputError(f"{run} has no validation split: train it with --config.fold=1/5, the others with 2/5, ...")
    trained_on, images = (build.load(config.dataset, name, data_dir).ranges for name in (train, judged))
    if overlap(trained_on, images):
        raise InputError(f"{run} was trained on images of {judged!r}: it cannot judge their labels")
    result = evaluate(run, split=judged, step=step, data_dir=data_dir, log=log)
    log(f"{run}: accuracy {result['accuracy']:.2%} on {result['count']:,} images of {judged}")
    return pathlib.Path(result["folder"])
