"""A data set whose classes are not those of the training: refused, or matched as the user says."""

import pathlib
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnjax import pretrained
from cnnjax.data.build import build
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.evaluation import image_scores
from cnnjax.evaluation.evaluate import evaluate, matching_classes
from tests import tiny
from tests.evaluation.networks import mesh_of, random_network


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the data sets 'abc', 'bcd' and 'bc', of images whose gray says which letter they are."""
    root = tmp_path_factory.mktemp("folders")
    for name in ("abc", "bcd", "bc"):
        for split, count in (("train", 16), ("test", 4)):
            for letter in name:
                for number in range(count):
                    path = root / name / split / letter / f"{number}.png"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    pixels = np.full((8, 8), 20 + 60 * "abcd".index(letter), np.uint8)
                    pixels[number % 8] += 5
                    Image.fromarray(pixels).save(path)
        build(name, str(root / name), str(root), log=lambda line: None)
    return str(root)


def test_a_set_with_other_classes_is_scored_by_name_on_request(folders: str, tmp_path: pathlib.Path) -> None:
    run = tmp_path / "run"
    splits: dict[str, Any] = {"train_split": "train", "val_split": "", "test_split": "test"}
    tiny.run(run, folders, dataset="abc", duration="60 steps", checkpoint_every="60 steps", lr=0.3, **splits)
    score: Any = lambda dataset, **options: evaluate(run, dataset=dataset, data_dir=folders, log=print, **options)  # noqa: E731
    assert score("abc")["accuracy"] == 1
    with pytest.raises(
        InputError,
        match=r"class 0 is 'b' in the data set 'bcd', but 'a' in the data that .* was trained on; "
        "give --match_classes=position to ignore",
    ):
        score("bcd")
    with pytest.raises(InputError, match=r"bcd has classes that .* was not trained on: .d."):
        score("bcd", match_classes="name")
    with pytest.raises(InputError, match=r"bc has 2 classes, but the network of .* has 3"):
        score("bc")
    assert score("bc", match_classes="name")["accuracy"] == 1
    assert score("bcd", match_classes="position")["accuracy"] < 0.5


def test_a_network_without_class_names_is_reported_by_those_of_the_data(
    folders: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataInfo(("0", "1", "2"), (8, 8, 1), {"mean": [0.5], "std": [0.2]}, has_class_names=False)
    network = random_network("mlp(features=(4,))", data)
    monkeypatch.setattr(pretrained, "load", lambda *args: network)
    for match in ("", "name", "position"):
        result = evaluate(tmp_path, dataset="abc", split="test", match_classes=match, data_dir=folders, mesh=mesh_of())
        assert image_scores.read(pathlib.Path(result["folder"])).classes == ("a", "b", "c")


@pytest.mark.parametrize(
    ("theirs", "ours", "named", "match", "expected"),
    [
        ("abc", "abc", True, "", [0, 1, 2]),
        ("abc", "xyz", False, "", [0, 1, 2]),
        ("abc", "xyz", False, "name", [0, 1, 2]),
        ("abc", "cab", True, "name", [1, 2, 0]),
        ("ca", "abc", True, "name", [2, 0]),
        ("abc", "cab", True, "position", [0, 1, 2]),
        (
            "abc",
            "cab",
            True,
            "",
            "class 0 is 'a' in the data set 'set', but 'c' in the data that net was trained on; "
            "give --match_classes=name to match equal names, or --match_classes=position to ignore",
        ),
        ("ab", "abc", True, "position", "set has 2 classes, but the network of net has 3"),
        ("ab", "ab", True, "nam", "match_classes = 'nam'; did you mean 'name'"),
    ],
)
def test_classes_are_matched(theirs: str, ours: str, named: bool, match: str, expected: Any) -> None:
    split: Any = types.SimpleNamespace(name="set", classes=list(theirs))
    data = DataInfo(tuple(ours), (1, 1, 1), has_class_names=named)
    if isinstance(expected, str):
        with pytest.raises(InputError, match=expected):
            matching_classes(split, "net", data, match)
    else:
        assert matching_classes(split, "net", data, match).tolist() == expected
