"""Folders of runs that were not trained, with scores as an evaluation would leave them."""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from cnnjax import sealed
from cnnjax.data.build import load
from cnnjax.data.info import DataInfo
from cnnjax.evaluation import image_scores, report
from cnnjax.runs import workdir
from tests import tiny

CLASSES = tuple(map(str, range(10)))
STEP, SPLIT = 8, "test[64:101]"  # of 37 images


def right(*wrong: int, count: int = 37) -> np.ndarray:
    """Returns which of some images a network has right: all but these."""
    return ~np.isin(np.arange(count), wrong)


def scores_of(
    right: np.ndarray, digits_dir: str, split: str = SPLIT, classes: tuple[str, ...] = CLASSES
) -> image_scores.ImageScores:
    """Returns the scores of a network that has these images of digits right, and says the next class of others."""
    examples = load("digits", split, digits_dir)
    labels = examples.read(np.arange(len(examples)))[1]
    logits = 3.0 * np.eye(10, dtype=np.float32)[(labels + ~right) % 10]
    description = {"dataset": "digits", "split": split, "step": STEP}
    return image_scores.from_scores(logits, labels, classes, description, examples)


def make_run(
    folder: pathlib.Path, digits_dir: str, right: np.ndarray | None = None, split: str = SPLIT,
    classes: tuple[str, ...] = CLASSES, **changes: Any,
) -> pathlib.Path:  # fmt: skip
    """Makes the folder of a run, with an evaluation if it is given which images are right. Returns the folder."""
    (folder / f"checkpoints/{STEP:08d}").mkdir(parents=True)
    sealed.write_json(folder / "config.json", dataclasses.asdict(tiny.config(test_split=split, **changes)))
    workdir.write_data_info(folder, DataInfo(classes, (8, 8, 1)))
    lines = [
        {"step": step, "epoch": step / 6, "train/loss": 1 / step, "train/images_per_second": speed}
        for step, speed in ((2, 100.0), (4, 50.0), (8, 100.0))
    ]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    if right is not None:
        scores = scores_of(right, digits_dir, split, classes)
        evaluation = folder / "evaluations" / report.folder_name("digits", split, STEP)
        evaluation.mkdir(parents=True)
        image_scores.write(scores, evaluation)
        hits = int(right.sum())
        values = {"accuracy": hits / len(right), "loss": 1.0, "nll": 0.5, "count": len(right), "top1_right": hits}
        sealed.write_plain_json(evaluation / "metrics.json", dict(scores.description) | values)
    return folder
