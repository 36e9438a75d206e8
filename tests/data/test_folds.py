"""Cross-validation: the folds of a split are disjoint, and together they are all of it."""

import itertools
import json
import pathlib
import re
from typing import Any

import pytest

from cnnjax.config import Config, check
from cnnjax.data.build import load
from cnnjax.data.folds import resolve_splits
from cnnjax.errors import InputError
from cnnjax.evaluation.evaluate import evaluate
from tests import tiny


def places(split: str, digits_dir: str) -> list[tuple[str, int]]:
    """The examples of a split of the digits, by the split and the place in it that they are stored in."""
    return [(name, i) for name, start, stop in load("digits", split, digits_dir).ranges for i in range(start, stop)]


@pytest.mark.parametrize("count", [2, 5, 7])
@pytest.mark.parametrize(
    "split", ["train", "train[:80%]", "train[13:40]", "train[-50:]+test[5%:10%]", "train[90%:]+train[:10]", "all"]
)
def test_every_example_is_in_one_fold_and_in_all_other_trainings(split: str, count: int, digits_dir: str) -> None:
    whole, folds = places(split, digits_dir), []
    for number in range(1, count + 1):
        train, val = resolve_splits(Config(train_split=split, fold=f"{number}/{count}"), digits_dir)
        assert sorted(places(train, digits_dir) + places(val, digits_dir)) == sorted(whole)
        assert len(load("digits", val, digits_dir)) == len(places(val, digits_dir))
        folds.append(places(val, digits_dir))
    assert list(itertools.chain(*folds)) == whole
    assert max(map(len, folds)) - min(map(len, folds)) <= 1


def test_a_fold_is_trained_on_the_others_and_scored(digits_dir: str, tmp_path: pathlib.Path) -> None:
    """With no test split, it is what `cnnjax evaluate` scores, too."""
    tiny.run(tmp_path / "run", digits_dir, train_split="train[:80]", val_split="", fold="2/4", test_split="")
    found = evaluate(tmp_path / "run", data_dir=digits_dir)
    assert (found["split"], found["count"]) == ("train[20:40]", 20)
    assert found["accuracy"] == tiny.metrics_of(tmp_path / "run")[-1]["val/accuracy"]
    assert json.loads((tmp_path / "run" / "data.json").read_text())["of"]["split"] == "train[0:20]+train[40:80]"


def test_without_a_fold_the_splits_are_the_configs() -> None:
    config = Config(dataset="nothing", train_split="train[:90%]", val_split="train[90%:]")
    assert resolve_splits(config) == ("train[:90%]", "train[90%:]")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"fold": "2"}, "config.fold = '2': expected one of at least two folds, as in '2/5'"),
        ({"fold": "0/5"}, "config.fold = '0/5': expected one of"),
        ({"fold": "6/5"}, "config.fold = '6/5': expected one of"),
        ({"fold": "1/1"}, "config.fold = '1/1': expected one of"),
        ({"fold": "a/5"}, "config.fold = 'a/5': expected one of"),
        (
            {"fold": "2/5", "val_split": "test"},
            "config.fold = '2/5' is the validation split; pass --config.val",
        ),
        ({"fold": "1/11", "train_split": "train[:10]"}, "config.fold = '1/11': 'train[:10]' has only 10 examples"),
        ({"fold": "1/2", "train_split": "training"}, "did you mean 'train'?"),
    ],
)
def test_what_is_no_fold_is_refused(settings: dict[str, Any], message: str, digits_dir: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        resolve_splits(check(Config(**settings)), digits_dir)
