"""The evaluations of a run, read from its folder: the result, and what the network gets wrong."""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import sealed
from cnnjax.config import Config
from cnnjax.data.imagenet import readable
from cnnjax.errors import InputError
from cnnjax.evaluation import image_scores, mistakes, report
from cnnjax.evaluation.classification import CURVE_GRID, classification_metrics
from cnnjax.evaluation.figures import CHANCE, MAX_CLASS_CURVES
from cnnjax.evaluation.image_scores import ImageScores
from cnnjax.evaluation.significance import LEVEL, accuracy_interval
from cnnjax.metrics import METRICS
from cnnjax.pages import pictures
from cnnjax.pages.charts import Chart, Line
from cnnjax.pages.pictures import Picture
from cnnjax.pages.tiles import Tiles, tiles_of
from cnnjax.tables import Table

MAX_CLASSES_IN_MATRIX = 20  # a matrix of more is no table to read
MAX_PAIRS = 10  # of classes that are confused
MISTAKES = "mistakes"  # name of the picture that is a sheet of images; all others are charts
LONG_NAME = 4  # characters; longer names of columns are turned


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of a run: its folder, and the content of its metrics.json."""

    folder: pathlib.Path
    content: Mapping[str, Any]

    @property
    def title(self) -> str:
        """Returns what was evaluated, as in 'cifar10 test, step 400, protocol ten_crop(28)'."""
        return report.title(self.content)

    def file(self, name: str) -> pathlib.Path:
        """Returns the path of a file of the evaluation, which may not exist."""
        return self.folder / name


@dataclasses.dataclass(frozen=True)
class Result:
    """The result of a run.

    Attributes:
      accuracy: top-1 accuracy, in [0, 1].
      sentence: what it is the accuracy of, and how sure it is.
      facts: further metrics, each a name and a formatted value.
      others: a row for each evaluation of the run if there are several.
    """

    accuracy: float
    sentence: str
    facts: tuple[tuple[str, str], ...]
    others: Table


@dataclasses.dataclass(frozen=True)
class Cell:
    """A cell of a confusion matrix: `count` of the `total` images of its row; `is_hit` on the diagonal."""

    count: int
    total: int
    is_hit: bool

    @property
    def strength(self) -> float:
        """Returns the strength of the cell's color, in [0, 1]: the root of the fraction, so that 1% is visible."""
        return math.sqrt(self.count / self.total) if self.count else 0.0


@dataclasses.dataclass(frozen=True)
class Mistakes:
    """Holds what a network gets wrong.

    Attributes:
      classes: names of the classes, in the order of the confusion matrix.
      confusion: the confusion matrix; () with more than MAX_CLASSES_IN_MATRIX classes.
      pairs: the pairs of classes that are confused most.
      per_class: a row for each class, those of the lowest accuracy first.
      curves: ROC curves of the classes against the rest; () with many classes.
      pictures: reliability diagram, and what else `evaluate` drew that is not shown in another form.
      images: the most confident mistakes; None if there are none, or if the data set is not there.
    """

    classes: tuple[str, ...]
    confusion: tuple[tuple[Cell, ...], ...]
    pairs: Table
    per_class: Table
    curves: tuple[Chart, ...]
    pictures: tuple[Picture, ...]
    images: Tiles | None

    @property
    def has_long_names(self) -> bool:
        """Returns whether the names above the columns have to be turned."""
        return max(map(len, self.classes), default=0) > LONG_NAME


def read_evaluations(folder: pathlib.Path) -> list[Evaluation]:
    """Reads the evaluations of a run's own weights, the newest first. Raises InputError for a damaged metrics.json.

    Ensembles and other weights, whose evaluations may be in the folder, are left out.
    """
    found = []
    for path in (folder / "evaluations").glob("*/metrics.json"):
        try:
            found.append((path.stat().st_mtime, Evaluation(path.parent, report.read(path))))
        except FileNotFoundError:  # another process replaces it
            continue
    newest_first = sorted(found, key=lambda pair: (-pair[0], pair[1].folder.name))
    return [evaluation for _, evaluation in newest_first if report.is_of_run(evaluation.content)]


def main_evaluation(evaluations: Sequence[Evaluation], config: Config) -> Evaluation | None:
    """Returns the evaluation that is the run's result: the latest step of its own test split and protocol.

    If there is none, the newest of the others; None if there are none at all. Probes are not results of the run.
    """
    own = [each for each in evaluations if "probe" not in each.content]

    def order(each: Evaluation) -> tuple[bool, int]:
        plain = each.content.keys().isdisjoint(("protocol", "preprocess", "average", "match_classes"))
        split = config.test_split or config.val_split
        is_own = (each.content["dataset"], each.content["split"]) == (config.dataset, split)
        return plain and is_own, each.content["step"]

    return max(own, key=order, default=None)


def result_of(evaluation: Evaluation, evaluations: Sequence[Evaluation], protocol: str) -> Result:
    """Converts an evaluation to a Result. `protocol` is the run's own, where the evaluation names no other."""
    content = evaluation.content
    count, right = content["count"], content["top1_right"]
    low, high = accuracy_interval(right, count)
    is_told = "protocol" in content or protocol == "single"
    scored = evaluation.title if is_told else f"{evaluation.title}, protocol {protocol}"
    sentence = (
        f"of {count:,} images are classified correctly ({scored}). {LEVEL:.0%} interval by the bootstrap over these "
        f"images: {low:.2%} to {high:.2%}; another seed would give another network."
    )
    numbers = [(row.heading, row.format(content[name])) for name, row in METRICS.items() if name in content]
    dull = {"accuracy", *(["top-5"] if len(content["per_class"]) <= 5 else [])}  # is above; is always 100%
    facts = [(name, value) for name, value in numbers if name not in dull]
    others = {"macro F1": ("f1_macro", ".4f"), "ROC AUC": ("roc_auc_macro", ".4f"), "calibration error": ("ece", ".2%")}
    facts += [
        (name, format(content[key], form)) for name, (key, form) in others.items() if content.get(key) is not None
    ]
    facts.append(("wrong", f"{count - right:,} image{'s' * (count - right != 1)}"))
    rows = [[each.title, f"{each.content['count']:,}", f"{each.content['accuracy']:.2%}"] for each in evaluations]
    table = Table(["evaluation", "images", "accuracy"], rows if len(rows) > 1 else [])
    return Result(content["accuracy"], sentence, tuple(facts), table)


def mistakes_of(evaluation: Evaluation, data_dir: str | None) -> Mistakes:
    """Returns what the network gets wrong in an evaluation, from the files of its folder.

    The images of mistakes are those of the data set in `data_dir`. If that is None, or is another data set than was
    evaluated, the sheet is shown that `evaluate --mistakes` drew. Raises InputError for a damaged file.
    """
    classes = tuple(readable(evaluation.content["per_class"]))
    matrix = np.array(evaluation.content["confusion"])
    try:
        scores = image_scores.read(evaluation.folder)
    except InputError:
        if evaluation.file(image_scores.FILE).exists():
            raise
        scores = None  # an evaluation of an earlier version
    shown, images = [_calibration(evaluation)], _mistaken_images(scores, data_dir)
    if not images:
        alt = f"The most confident mistakes of {evaluation.title}"
        shown.append(_picture(evaluation, MISTAKES, alt, suffixes=(".png",)))
    curves = _roc(scores, classes) if scores is not None and len(classes) <= MAX_CLASS_CURVES else None
    if not curves:
        shown.insert(0, _picture(evaluation, "roc", f"ROC curves of {evaluation.title}"))
    return Mistakes(
        classes,
        _cells(matrix) if len(classes) <= MAX_CLASSES_IN_MATRIX else (),
        _pairs(matrix, classes),
        _per_class(evaluation),
        (curves,) if curves else (),
        tuple(filter(None, shown)),
        images,
    )


def _cells(matrix: np.ndarray) -> tuple[tuple[Cell, ...], ...]:
    """Returns the cells of a confusion matrix, int [K, K]."""
    return tuple(
        tuple(Cell(int(count), int(row.sum()), i == j) for j, count in enumerate(row)) for i, row in enumerate(matrix)
    )


def _pairs(matrix: np.ndarray, classes: Sequence[str]) -> Table:
    """Returns the pairs of classes that are confused most, with the images and the fraction of the label's."""
    labels, predictions = np.argwhere(matrix).T
    is_wrong = labels != predictions
    labels, predictions = labels[is_wrong], predictions[is_wrong]
    counts, totals = matrix[labels, predictions], matrix.sum(axis=1)
    rows = []
    for i in np.argsort(-counts, kind="stable")[:MAX_PAIRS]:
        label, prediction = int(labels[i]), int(predictions[i])
        rows.append([classes[label], classes[prediction], f"{counts[i]:,}", f"{counts[i] / totals[label]:.1%}"])
    return Table(["label", "predicted as", "images", "share of the label"], rows, frozenset(("label", "predicted as")))


def _per_class(evaluation: Evaluation) -> Table:
    """Returns a row for each class from per_class.csv, the lowest accuracy first, those without images last."""
    columns = {"images": ",.0f", "accuracy": ".2%", "precision": ".2%", "f1": ".4f", "roc_auc": ".4f"}
    lines = sealed.read(evaluation.file("per_class.csv")).decode().splitlines(keepends=True)
    rows = []
    for entry in sorted(csv.DictReader(lines), key=lambda entry: float(entry["accuracy"] or math.inf)):
        values = (format(float(entry[key]), form) if entry[key] else "-" for key, form in columns.items())
        rows.append([*readable([entry["class"]]), *values])
    return Table(["class", "images", "accuracy", "precision", "F1", "AUC"], rows)


def _roc(scores: ImageScores, classes: Sequence[str]) -> Chart | None:
    """Returns the ROC curves of all classes against the rest, in the order of their areas; None without any."""
    metrics = classification_metrics(scores.log_probabilities.astype(np.float32), scores.labels)
    areas = metrics.per_class["roc_auc"]
    order = [k for k in np.argsort(areas, kind="stable") if not np.isnan(areas[k])]
    grid = np.unique(np.concatenate([np.arange(0, 60), np.arange(60, len(CURVE_GRID), 10)]))  # most happens near 0
    lines = [
        Line(f"{classes[k]} ({areas[k]:.4f})", CURVE_GRID[grid].tolist(), metrics.roc[k, grid].tolist()) for k in order
    ]
    chance = Line(CHANCE, (0.0, 1.0), (0.0, 1.0), is_reference=True)
    note = (
        "Each class against all others, the lowest area under the curve first; drag to enlarge, double-click to return."
    )
    return Chart(
        "ROC curves", "false positive rate", "recall (true positive rate)", (*lines, chance), "percent", "percent",
        (0.0, 1.0), note,
    ) if lines else None  # fmt: skip


def _calibration(evaluation: Evaluation) -> Picture | None:
    """Returns the reliability diagram."""
    error = evaluation.content.get("ece")
    text = f": the calibration error is {error:.2%}" if error is not None else ""
    return _picture(
        evaluation, "calibration",
        f"Reliability diagram of {evaluation.title}{text}",
        "The fraction of correct predictions at each confidence. It follows the diagonal if the confidences are well "
        "calibrated.",
    )  # fmt: skip


def _mistaken_images(scores: ImageScores | None, data_dir: str | None) -> Tiles | None:
    """Returns the images of the most confident mistakes; None if there are none, or if they cannot be read."""
    if scores is None or data_dir is None or scores.is_correct.all():
        return None
    try:
        ranked = mistakes.confident_mistakes(scores, image_scores.open_images(scores, data_dir))
    except InputError:  # the data set is another than was evaluated
        return None
    return tiles_of(ranked) if len(ranked.indices) else None


def _picture(
    evaluation: Evaluation, name: str, alt: str, caption: str = "", suffixes: Sequence[str] = (".svg", ".png")
) -> Picture | None:
    """Returns a picture of the evaluation's folder, of the first suffix that is there and not too large, or None."""
    for suffix in suffixes:
        path = evaluation.file(name + suffix)
        if path.is_file() and (suffix == ".png" or path.stat().st_size <= pictures.MAX_SVG_BYTES):
            return pictures.from_file(path, alt, caption, is_chart=name != MISTAKES)
    return None
