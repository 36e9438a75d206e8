"""The measurements of trained runs, against the reports of `evaluate`."""

import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax.config import Config
from cnnjax.evaluation import image_scores
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.study import measure
from cnnjax.training.loop import train


@pytest.fixture(scope="module")
def run(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("measured") / "run"
    config = Config(
        model="perceptron", train_split="train[:100]", preprocess="shift(0, 1)", duration="30 steps", batch_size=20
    )
    train(config, folder, data_dir=digits_dir)
    return folder


def test_accuracies_are_those_of_evaluate(run: pathlib.Path, digits_dir: str) -> None:
    def reported(**options: Any) -> float:
        return evaluate(run, data_dir=digits_dir, log=lambda line: None, **options)["accuracy"]

    assert measure.accuracy(run, digits_dir) == pytest.approx(reported())
    assert measure.accuracy(run, digits_dir, "") == pytest.approx(reported(preprocess=""))
    assert measure.train_accuracy(run, digits_dir) == pytest.approx(reported(split="train[:100]"))
    assert len({reported(), reported(preprocess=""), reported(split="train[:100]")}) == 3  # so that they can be told


def test_consistency_is_the_fraction_of_predictions_that_stay(run: pathlib.Path, digits_dir: str) -> None:
    def predictions(preprocess: str) -> np.ndarray:
        result = evaluate(run, data_dir=digits_dir, preprocess=preprocess, log=lambda line: None)
        return image_scores.read(pathlib.Path(result["folder"])).predictions

    expected = np.mean(predictions("") == predictions("shift(0, 2)"))
    assert 0 < expected < 1
    assert measure.consistency(run, digits_dir, "shift(0, 2)") == pytest.approx(expected)
    assert measure.consistency(run, digits_dir, "") == 1
