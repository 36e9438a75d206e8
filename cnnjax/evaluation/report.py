"""The files of an evaluation: metrics.json, CSV tables and figures in the run's folder."""

import csv
import dataclasses
import json
import pathlib
import re
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from cnnjax import sealed
from cnnjax.errors import InputError
from cnnjax.evaluation import image_scores
from cnnjax.evaluation.classification import classification_metrics
from cnnjax.evaluation.figures import save_figures

MAX_FOLDER_NAME = 120  # characters
MAX_BYTES = 1 << 31  # of metrics.json, which has the confusion matrix


@dataclasses.dataclass(frozen=True)
class Section:
    """An extra part of a report.

    Attributes:
      entries: {name: value} for metrics.json.
      save: writes files into the report's folder, whose path it is given. Only process 0 calls it.
    """

    entries: Mapping[str, Any]
    save: Callable[[pathlib.Path], Any]


def write(
    scores: np.ndarray,
    labels: np.ndarray,
    means: Mapping[str, float],
    workdir: pathlib.Path,
    description: Mapping[str, Any],
    class_names: list[str],
    sections: Sequence[Section] = (),
) -> dict[str, Any]:
    """Writes the report of one evaluation: metrics.json, per_class.csv, confusion.csv, calibration.csv and the figures.

    The folder is `workdir`/evaluations/NAME, where NAME is derived from `description`. It gets its name once it is
    complete, in place of an earlier one, so no report is ever incomplete. What an earlier report of the same scores has
    and this one has not is kept: files, and entries of metrics.json. Only process 0 writes.

    Args:
      scores: float32 [N, K], logits or log-probabilities.
      labels: int [N].
      means: the value of each metric of `METRICS`, recorded as it is.
      workdir: folder of the run.
      description: what was evaluated: "dataset", "split", "step", and the options that differ from the run's config.
      class_names: K names.
      sections: what else to record.

    Returns:
      The contents of metrics.json without the confusion matrix and what is kept. A number that is not finite is None
      there, and empty in the CSV files.

    Raises InputError if the folder cannot be written.
    """
    result = classification_metrics(scores, labels)
    folder = workdir / "evaluations" / folder_name(**description)
    overall = {name: _to_json(value) for name, value in result.overall.items()}
    per_class = dict(zip(class_names, map(_to_json, result.per_class["accuracy"]), strict=True))
    content = {
        **description,
        **{name: _to_json(value) for name, value in means.items()},
        **overall,
        "per_class": per_class,
        **{name: _to_json(value) for section in sections for name, value in section.entries.items()},
        "folder": str(folder),
    }
    if jax.process_index() == 0:
        sealed.check_no_link(folder.parent)
        with sealed.replacing_folder(folder) as new:
            write_csv(new / "per_class.csv", {"class": class_names, **result.per_class})
            write_csv(new / "calibration.csv", result.calibration)
            columns = dict(zip(class_names, result.confusion.T, strict=True))
            write_csv(new / "confusion.csv", {"label \\ prediction": class_names, **columns})
            save_figures(result, class_names, title(description), new)
            for section in sections:
                section.save(new)
            kept = _keep(folder, new)
            sealed.write_plain_json(new / "metrics.json", kept | content | {"confusion": result.confusion.tolist()})
    return content


def _keep(earlier: pathlib.Path, new: pathlib.Path) -> dict[str, Any]:
    """Copies the files of an earlier report that a new one lacks, and returns the content of the earlier metrics.json.

    Without such files, or if the two are not of the same scores, as after another training, does nothing and returns
    {}.
    """
    names = {path.name for path in new.iterdir()} | {"metrics.json"}
    files = (path for path in earlier.glob("*") if path.is_file() and not path.is_symlink())
    lacking = [path for path in files if path.name not in names]
    try:
        if not lacking or not image_scores.are_equal(image_scores.read(earlier), image_scores.read(new)):
            return {}
        content = read(earlier / "metrics.json")
    except (FileNotFoundError, InputError):  # one is missing or damaged
        return {}
    for path in lacking:
        shutil.copy2(path, new)
    return content


def read(path: pathlib.Path) -> dict[str, Any]:
    """Reads metrics.json or robustness.json. Raises FileNotFoundError if there is none, InputError if it is damaged."""
    try:
        return dict(json.loads(sealed.read(path, MAX_BYTES)))
    except (ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: {error}; evaluate the run again") from error


def is_of_run(description: Mapping[str, Any]) -> bool:
    """Returns whether a report is about the weights of the run in whose folder it is, and of no other network."""
    return description.keys().isdisjoint(("init", "ensemble"))


def title(description: Mapping[str, Any]) -> str:
    """Formats a description as one line, such as 'cifar10 test, step 400, protocol ten_crop(28)'.

    Paths of weight files and runs are cut to their last part.
    """
    names = (
        "init", "preprocess", "protocol", "average", "match_classes", "ensemble", "probe", "layer", "train_split", "k"
    )  # fmt: skip
    texts = {name: str(description[name]) or "none" for name in names if name in description}
    for name in {"init", "ensemble"} & set(texts):
        texts[name] = re.sub(r"[^,\s][^,]*/(?=.)", "", texts[name])
    options = [f"{name} {text}" for name, text in texts.items()]
    return ", ".join([f"{description['dataset']} {description['split']}", f"step {description['step']}", *options])


def folder_name(dataset: str, split: str, step: int, **options: str) -> str:
    """Returns a folder name that contains all arguments, so that different evaluations do not overwrite each other.

    A colon becomes '-', so that [:64] and [64:] differ, and a percent sign 'pct'. Other characters that do not suit a
    file name become '_'. A name over MAX_FOLDER_NAME characters is cut and gets a checksum.
    """
    name = "-".join([dataset, split, f"step{step}", *(f"{key}={value}" for key, value in options.items())])
    safe = re.sub(r"[^\w.=-]+", "_", name.replace(":", "-").replace("%", "pct"))
    return safe if len(safe) <= MAX_FOLDER_NAME else f"{safe[:110]}-{zlib.crc32(name.encode()):08x}"


def _to_json(value: Any) -> Any:
    """Converts a numpy scalar to a Python number, and NaN or infinity, which JSON does not have, to None."""
    return sealed.finite(value.item() if isinstance(value, np.generic) else value)


def write_csv(path: pathlib.Path, columns: Mapping[str, Iterable]) -> None:
    """Writes columns of equal length as a CSV file with a header row; NaN and infinity become empty cells."""
    with path.open("w", newline="") as file:
        rows = zip(*(map(_to_json, column) for column in columns.values()), strict=True)
        csv.writer(file).writerows([columns, *rows])
