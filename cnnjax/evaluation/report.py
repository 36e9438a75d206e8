"""What an evaluation leaves behind: numbers, tables and pictures in the run's folder."""

import csv
import math
import pathlib
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

from cnnjax.evaluation import classification, figures
from cnnjax.runs import workdir as workdirs


def write(
    scores: np.ndarray,
    label: np.ndarray,
    means: Mapping[str, float],
    workdir: pathlib.Path,
    of: dict[str, Any],
    classes: list[str],
) -> dict[str, Any]:
    """Writes metrics.json, per_class.csv, confusion.csv, calibration.csv and the figures.

    `scores` is float32 [N, K], logits or log-probabilities, `label` int [N], `means` the value of each metric of
    `METRICS`, `of` what was evaluated. Returns what metrics.json holds, but for the confusion matrix. A number that
    there is no saying is None there, and nothing in a table.
    """
    found = classification.measure(scores, label)
    folder = workdir / "evaluations" / _name(**of)
    overall = {name: _plain(value) for name, value in found.overall.items()}
    per_class = dict(zip(classes, map(_plain, found.classes["accuracy"]), strict=True))
    result = {
        **of,
        **{name: _plain(value) for name, value in means.items()},
        **overall,
        "per_class": per_class,
        "folder": str(folder),
    }
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        workdirs.write_json(folder / "metrics.json", result | {"confusion": found.confusion.tolist()})
        _write_csv(folder / "per_class.csv", {"class": classes, **found.classes})
        _write_csv(folder / "calibration.csv", found.calibration)
        _write_csv(
            folder / "confusion.csv",
            {"label \\ prediction": classes, **dict(zip(classes, found.confusion.T, strict=True))},
        )
        figures.draw(found, classes, title(of), folder)
    return result


def title(of: Mapping[str, Any]) -> str:
    """What was evaluated, in words."""
    names = ("init", "preprocess", "protocol", "average", "ensemble")
    seen = [f"{name} {of[name] or 'none'}" for name in names if name in of]
    return ", ".join([f"{of['dataset']} {of['split']}", f"step {of['step']}", *seen])


def _name(dataset: str, split: str, step: int, **seen: str) -> str:
    """The folder of an evaluation, by all that it is of: nothing overwrites what another left."""
    name = "-".join([dataset, split, f"step{step}", *(f"{key}={value}" for key, value in seen.items())])
    short = re.sub(r"[^\w.=-]+", "_", name)
    return short if len(short) <= 120 else f"{short[:110]}-{zlib.crc32(name.encode()):08x}"


def _plain(value: Any) -> Any:
    """A number as JSON has it: None for one that is not finite."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_csv(path: pathlib.Path, columns: Mapping[str, Iterable]) -> None:
    with path.open("w", newline="") as file:
        rows = zip(*(map(_plain, column) for column in columns.values()), strict=True)
        csv.writer(file).writerows([columns, *rows])
