"""Paths: where 'FILE:argument' is split, and that a pattern's signs in a folder's name are none."""

import pathlib

import pytest
from etils import epath

from cnnjax import paths
from cnnjax.errors import InputError


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("file.py", ("file.py", "")),
        ("file.py:x", ("file.py", "x")),
        ("a:b/file.py", ("a:b/file.py", "")),
        ("a:b/file.py:x", ("a:b/file.py", "x")),
        ("file.py:x:y", ("file.py", "x:y")),
        ("a:b/file.py:x:y:z", ("a:b/file.py", "x:y:z")),
        ("missing.py:x", ("missing.py", "x")),
        ("mnist_lenet5:fashion_mnist", ("mnist_lenet5", "fashion_mnist")),
    ],
)
def test_a_file_may_have_a_colon_in_its_path(
    location: str, expected: tuple[str, str], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a:b").mkdir()
    for name in ("file.py", "a:b/file.py"):
        (tmp_path / name).touch()
    assert paths.split_argument(location) == expected


@pytest.mark.parametrize("name", ["plain", "[x]", "[!x]", "*", "a**b", "?", "{a,b}"])
def test_a_folder_is_searched_by_its_very_name(name: str, tmp_path: pathlib.Path) -> None:
    paths.make_epath_literal()
    folder = tmp_path / name / "inner"
    folder.mkdir(parents=True)
    for file in ("a.txt", "b.txt", "c.csv"):
        (folder / file).touch()
    assert sorted(map(str, epath.Path(folder).glob("*.txt"))) == [str(folder / "a.txt"), str(folder / "b.txt")]
    assert sorted(map(str, epath.Path(tmp_path).glob("*/*/a.*"))) == [str(folder / "a.txt")]


def test_a_path_that_is_not_utf8_is_refused_where_libraries_need_it(tmp_path: pathlib.Path) -> None:
    paths.check_utf8(tmp_path / "été", "a data set")
    with pytest.raises(InputError, match=r"udcff': the path of a data set has to be UTF-8; choose another folder"):
        paths.check_utf8(tmp_path / "\udcff", "a data set")
