"""Confident learning by hand and on planted errors; scores of folds joined; the command that shows the errors."""

import csv
import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax import cli
from cnnjax.data.build import load
from cnnjax.data.store import ExampleRange
from cnnjax.errors import InputError
from cnnjax.evaluation import confident_learning, image_scores, label_errors
from tests import tiny

FOLD: dict[str, Any] = {"train_split": "train[:90]", "val_split": "", "test_split": "", "duration": "8 steps"}


# -------------------------------------------------------------------------------------------------- confident learning


def test_the_confident_joint_is_counted_by_hand() -> None:
    p = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.1, 0.9], [0.4, 0.6], [0.45, 0.55]])
    labels = np.array([0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(confident_learning.class_thresholds(p, labels), [0.6, (0.9 + 0.6 + 0.55) / 3])
    counts = confident_learning.confident_joint(p, labels)  # the last two reach no threshold
    assert counts.tolist() == [[2, 1], [0, 1]]
    np.testing.assert_allclose(confident_learning.estimated_joint(counts, labels), [[1 / 3, 1 / 6], [0, 1 / 2]])
    unequal = confident_learning.estimated_joint(counts, np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(unequal, [[1 / 6, 1 / 12], [0, 3 / 4]])
    found = confident_learning.find_label_issues(p, labels)
    assert (found.indices.tolist(), found.suggestions.tolist()) == ([2], [1])
    assert found.noise_rate == pytest.approx(1 / 6)


def test_an_example_above_two_thresholds_counts_for_the_more_probable_class() -> None:
    p = np.array([[0.4, 0.6], [0.3, 0.7], [0.45, 0.55], [0.5, 0.5]])  # thresholds 0.35 and 0.525
    assert confident_learning.confident_joint(p, np.array([0, 0, 1, 1])).tolist() == [[0, 2], [1, 1]]


def test_classes_without_examples_or_confidence_are_left_out() -> None:
    p = np.array([[0.5, 0.4, 0.1], [0.5, 0.4, 0.1]])
    found = confident_learning.find_label_issues(p, np.array([0, 0]))
    assert (found.indices.tolist(), found.noise_rate) == ([], 0)
    assert found.thresholds.tolist() == [0.5, np.inf, np.inf]


@pytest.mark.parametrize("classes", [2, 10])
def test_planted_label_errors_are_found_and_their_rate_is_estimated(classes: int) -> None:
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, 4000)
    logits = rng.normal(size=(4000, classes)) + 9 * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels, wrong = truth.copy(), rng.permutation(4000)[:200]
    labels[wrong] = (truth[wrong] + rng.integers(1, classes, 200)) % classes
    found = confident_learning.find_label_issues(p, labels)
    hits = np.isin(found.indices, wrong)
    assert hits.mean() > 0.95
    assert hits.sum() > 0.95 * 200
    assert (found.suggestions == truth[found.indices]).mean() > 0.95
    assert found.noise_rate == pytest.approx(0.05, abs=0.005)
    own = p[found.indices, labels[found.indices]]
    assert own.tolist() == sorted(own)


# --------------------------------------------------------------------------------------------------- joining of scores


def part(digits_dir: str, split: str, seed: int) -> image_scores.ImageScores:
    """Returns random scores of a split of digits."""
    examples = load("digits", split, digits_dir)
    scores = np.random.default_rng(seed).normal(size=(len(examples), 10)).astype(np.float32)
    labels = examples.read(np.arange(len(examples)))[1]
    return image_scores.from_scores(
        scores, labels, examples.classes, {"dataset": "digits", "split": split, "step": 1}, examples
    )


def test_scores_of_parts_are_joined_in_the_order_of_the_data_set(digits_dir: str) -> None:
    parts = [
        part(digits_dir, "train[20:30]", 0),
        part(digits_dir, "test[:5]+train[10:20]", 1),
        part(digits_dir, "train[25:30]", 2),
    ]
    joined = image_scores.join(parts)
    assert joined.ranges == (("test", 0, 5), ("train", 10, 30))
    assert joined.description["split"] == "test[0:5]+train[10:30]"
    labels = image_scores.open_images(joined, digits_dir).read(np.arange(25))[1]
    np.testing.assert_array_equal(joined.labels, labels)
    p = [each.probabilities for each in parts]
    np.testing.assert_allclose(joined.probabilities, np.concatenate([p[1], p[0][:5], (p[0][5:] + p[2]) / 2]), rtol=1e-5)
    np.testing.assert_array_equal(joined.predictions, joined.probabilities.argmax(axis=1))


def test_parts_of_other_data_or_classes_are_not_joined(digits_dir: str) -> None:
    one = part(digits_dir, "train[:5]", 0)
    other = dataclasses.replace(one, identity={**one.identity, "dataset": "letters/1.0.0"})
    with pytest.raises(InputError, match="different data sets cannot be joined"):
        image_scores.join([one, other])
    with pytest.raises(InputError, match="10 and 2 classes"):
        image_scores.join([one, dataclasses.replace(one, classes=("a", "b"))])


# --------------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def runs(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> list[pathlib.Path]:
    """Returns the folders of the two runs of a cross-validation."""
    folders = [tmp_path_factory.mktemp("folds") / f"fold{k}" for k in (1, 2)]
    for k, folder in enumerate(folders, 1):
        tiny.run(folder, digits_dir, **FOLD, fold=f"{k}/2")
    return folders


def test_the_command_judges_each_image_by_the_run_that_did_not_train_on_it(
    runs: list[pathlib.Path], digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["data", "label_errors", *map(str, runs), f"--data_dir={digits_dir}", f"--out={out}"]
    assert cli.main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    with (out / "label_errors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert f"digits train[0:90]: {len(rows)} of 90 labels are suspected (" in shown
    assert rows
    halves = [image_scores.read(next(run.glob("evaluations/*"))) for run in runs]
    assert [half.ranges for half in halves] == [(ExampleRange("train", 0, 45),), (ExampleRange("train", 45, 90),)]
    for row in rows:
        half = halves[int(row["index"]) >= 45]
        i = int(row["index"]) % 45
        assert float(row["label_probability"]) == pytest.approx(half.self_confidence[i], rel=1e-5)
        assert (row["split"], row["label"]) == ("train", half.classes[half.labels[i]])
        assert row["suggestion"] == half.classes[half.predictions[i]] != row["label"]
    assert (out / "label_errors.png").read_bytes().startswith(b"\x89PNG")
    evaluations = [next(run.glob("evaluations/*")) for run in runs]
    again = label_errors.label_errors(evaluations, data_dir=digits_dir)
    assert [str(index) for _, index in again.places] == [row["index"] for row in rows]


def test_a_run_does_not_judge_images_that_it_was_trained_on(
    runs: list[pathlib.Path], digits_dir: str, tmp_path: pathlib.Path
) -> None:
    with pytest.raises(InputError, match=r"fold1 was trained on images of 'train\[40:60\]': it cannot judge"):
        label_errors.label_errors(runs[:1], split="train[40:60]", data_dir=digits_dir)
    config = tiny.config(val_split="", test_split="")
    tiny.train(config, tmp_path / "run", digits_dir)
    with pytest.raises(InputError, match="has no validation split: train it with --config"):
        label_errors.label_errors([tmp_path / "run"], data_dir=digits_dir)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["label_errors"], "the folder of a run is missing: cnnjax data label_errors RUN [RUN ...]"),
        (["duplicates"], "the data set's name is missing: cnnjax data duplicates NAME"),
        (["build", "mnist", "cifar10"], "unexpected argument 'cifar10': expected cnnjax data build NAME"),
    ],
)
def test_missing_and_further_names_are_errors(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["data", *arguments]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("action", ["duplicates", "label_errors"])
def test_results_do_not_go_into_a_file(action: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["data", action, "name", f"--out={__file__}"]) == 1
    assert capsys.readouterr().err == f"error: --out={__file__}: expected the name of a folder, not of a file\n"
