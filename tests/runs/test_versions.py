"""versions.json: the folder of data sets that a training was given is found again."""

import pathlib
from typing import Any

import pytest

from cnnjax.runs import workdir
from tests import tiny

COMMANDS: dict[str, tuple[dict[str, Any], str]] = {
    "recorded": ({"command": ["cnnjax", "train", "--data_dir=other"], "data_dir": "/data"}, "/data"),
    "none": ({"command": ["cnnjax", "train"], "data_dir": ""}, ""),
    "old, one word": ({"command": ["cnnjax", "train", "--data_dir=/my data", "--workdir=run"]}, "/my data"),
    "old, two words": ({"command": ["cnnjax", "train", "--data_dir", "/my data", "--workdir=run"]}, "/my data"),
    "old, none": ({"command": ["cnnjax", "train", "--data_dir"]}, ""),
    "older": ({"python": "3.12"}, ""),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_folder_of_data_sets_is_read_from_the_field_or_the_command(case: str) -> None:
    content, folder = COMMANDS[case]
    assert workdir.recorded_data_dir(content) == folder


def test_a_training_from_python_records_the_absolute_folder_of_its_data_sets(
    tmp_path: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(pathlib.Path(digits_dir).parent)
    tiny.run(tmp_path, pathlib.Path(digits_dir).name)
    assert workdir.recorded_data_dir(workdir.read_json(tmp_path / "versions.json")) == digits_dir
