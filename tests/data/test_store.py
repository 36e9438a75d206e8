"""Splits of data sets on disk: found by name, read in any order, with a clear error for what is broken."""

import json
import os
import pathlib
import pickle
import shutil
import threading

import numpy as np
import pytest

from cnnjax.data import build_record, catalog, images
from cnnjax.data.available import available
from cnnjax.data.build import build, load
from cnnjax.data.store import data_dir
from cnnjax.errors import InputError
from tests.data.original_files import everything, silent, write_idx, write_tree


@pytest.mark.parametrize(
    ("split", "count"),
    [("train", 1438), ("train[:50%]", 719), ("test[100:200]", 100), ("train+test", 1797), ("test[-10:]", 10)],
)
def test_split_syntax(made, split, count):
    data = load("digits", split, str(made))
    assert len(data) == count == len(data.read(np.arange(count))[1])


def test_parts_are_parts_of_the_whole_in_order(made):
    whole, _ = everything(made, "digits", "test")
    np.testing.assert_array_equal(whole[100:200], everything(made, "digits", "test[100:200]")[0])


def test_any_indices_in_any_order_from_threads_and_after_pickling(made):
    data = load("digits", "train", str(made))
    whole, label = everything(made, "digits")
    rows = np.array([5, 0, 1437, 5])
    for copy in (data, pickle.loads(pickle.dumps(data))):
        got, got_label = copy.read(rows)
        np.testing.assert_array_equal(np.stack(got), whole[rows])
        np.testing.assert_array_equal(got_label, label[rows])
    results = [None] * 8

    def read(i):
        results[i] = np.stack(data.read(np.arange(i, 1438, 8))[0])

    threads = [threading.Thread(target=read, args=(i,)) for i in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for i, part in enumerate(results):
        np.testing.assert_array_equal(part, whole[i::8])
    with pytest.raises(IndexError, match="1438"):
        data.read(np.array([1438]))
    assert data.read(np.array([], int))[0] == []


def test_available_says_what_is_known_and_what_is_there(made):
    rows = {row.name: row for row in available(str(made))}
    assert rows.keys() == catalog.DATASETS.keys()
    assert rows["digits"].path == made / "digits" / "1.0.0"
    assert rows["digits"].splits == {"train": 1438, "test": 359}
    assert (rows["mnist"].path, rows["mnist"].version) == (None, "")


def test_data_dir_is_tfdss(monkeypatch):
    assert data_dir("x") == pathlib.Path("x")
    monkeypatch.setenv("TFDS_DATA_DIR", "/a/b")
    assert data_dir() == pathlib.Path("/a/b")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_dir() == pathlib.Path("~/tensorflow_datasets").expanduser()


def edit(name: str, change):
    """Alters a JSON file of the digits, as if they were built elsewhere."""

    def harm(root: pathlib.Path) -> None:
        (root / "digits" / "1.0.0" / build_record.FILE).unlink(missing_ok=True)
        path = root / "digits" / "1.0.0" / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return harm


def replaced(name: str, old: str, new: str):
    """Replaces a text in a file of the digits, wherever it is."""

    def harm(root: pathlib.Path) -> None:
        path = root / "digits" / "1.0.0" / name
        path.write_text(path.read_text().replace(old, new))

    return harm


def shard(harm):
    return lambda root: harm(next((root / "digits" / "1.0.0").glob("*-train.array_record*")))


def rename_feature(content: dict) -> None:
    features = content["featuresDict"]["features"]
    features["picture"] = features.pop("image")


def nothing(root: pathlib.Path) -> None:
    del root


LOADS = [
    ("digits", "tran", nothing, ["unknown split of data set 'digits': 'tran'", "'train'", "test"]),
    ("digits", "train[:0]", nothing, ["split 'train[:0]' of data set 'digits' is empty", "train (1,438)"]),
    ("digits", "train[5:3]", nothing, ["is empty"]),
    ("digits", "train[:90%", nothing, ["'train[:90%' is not a split of data set 'digits'", "'train[:90%]'"]),
    ("digits", "train[2000:]", nothing, ["1438 examples"]),
    ("digitz", "train", nothing, ["no data set 'digitz' in ", "did you mean 'digits'?", "cifar10, cifar100, digits"]),
    ("digits:7.0.0", "train", nothing, ["no data set 'digits:7.0.0' in "]),
    ("../digits", "train", nothing, ["no data set '../digits' in "]),
    ("", "train", nothing, ["no data set ''"]),
    ("mine", "train", lambda root: (root / "digits").rename(root / "mine"), ["mine"]),
    ("digits:1.0.0", "train", edit("features.json", rename_feature), ["not for classification", "'picture' (Image)"]),
    ("digits", "train", lambda root: (root / "digits/1.0.0/features.json").unlink(), ["digits/1.0.0) is damaged"]),
    (
        "digits",
        "train",
        replaced("dataset_info.json", '"name"', '"name'),
        ["dataset_info.json is damaged, or was changed"],
    ),
    (
        "digits",
        "train",
        replaced("dataset_info.json", '"1438"', '"1338"'),
        ["dataset_info.json is damaged, or was chan"],
    ),
    ("digits", "train", replaced("label.labels.txt", "7", "b"), ["label.labels.txt is damaged, or was changed"]),
    ("digits", "train", replaced(build_record.FILE, "{", "["), ["cnnjax.json is damaged; build it again"]),
    ("digits", "train", replaced(build_record.FILE, "null", "12"), ["cnnjax.json is damaged; build it again"]),
    ("digits", "train", edit("dataset_info.json", lambda info: info.update(splits=3)), ["is damaged"]),
    ("digits", "train", shard(lambda path: os.truncate(path, 70_000)), ["'digits' (", "is damaged; build it again"]),
    ("digits", "train", shard(lambda path: path.unlink()), ["is damaged; build it again", "No such file"]),
]


@pytest.mark.parametrize(("name", "split", "harm", "words"), LOADS, ids=lambda v: v if type(v) is str else "")
def test_what_cannot_be_loaded(made, tmp_path, name, split, harm, words):
    shutil.copytree(made, tmp_path / "data")
    harm(tmp_path / "data")
    if name == "mine":  # TFDS's files say what they are called; a renamed folder is no data set of that name
        with pytest.raises(InputError, match="no data set 'mine'"):
            load(name, split, str(tmp_path / "data"), silent)
        return
    with pytest.raises(InputError) as error:
        load(name, split, str(tmp_path / "data"), silent).read(np.arange(3))
    for word in words:
        assert word in str(error.value)


def test_another_format_is_explained_and_ours_can_stand_beside_it(made, tmp_path):
    stock = tmp_path / "digits" / "3.0.1"
    shutil.copytree(made / "digits" / "1.0.0", stock)
    info = json.loads((stock / "dataset_info.json").read_text()) | {"version": "3.0.1"}
    del info["fileFormat"]  # the default, and how most data sets that TFDS prepared are stored
    (stock / "dataset_info.json").write_text(json.dumps(info))
    assert len(load("digits", "train", str(tmp_path), silent)) == 1438
    assert (tmp_path / "digits" / "1.0.0").is_dir()
    shutil.copytree(stock, tmp_path / "other" / "3.0.1")
    info = json.dumps(info | {"name": "other"})
    (tmp_path / "other" / "3.0.1" / "dataset_info.json").write_text(info)
    with pytest.raises(
        InputError, match=r"stored as tfrecord.*prepare it again with TFDS's file_format='array_record'"
    ):
        load("other", "train", str(tmp_path))
    assert "tfrecord" in {row.name: row.note for row in available(str(tmp_path))}["other"]


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_that_is_no_class_is_an_error(made, monkeypatch, label):
    data = load("digits", "test", str(made))
    parse = data._parse

    def relabeled(raw):
        record = parse(raw)
        record.features.feature["label"].int64_list.value[0] = label
        return record

    monkeypatch.setattr(data, "_parse", relabeled)
    with pytest.raises(InputError, match=f"'digits', split 'test', index 4: label {label}, expected 0 to 9; TFDS"):
        data.read(np.array([4, 5]))


def test_an_image_that_does_not_decode_is_named(tmp_path, monkeypatch):
    build("insects", str(write_tree(tmp_path / "t") and tmp_path / "t"), str(tmp_path / "data"), silent)
    data = load("insects", "val", str(tmp_path / "data"))

    def broken(*args):
        raise InputError("not a readable JPEG or PNG")

    monkeypatch.setattr(images, "decode", broken)
    with pytest.raises(InputError, match="data set 'insects', split 'val', index 2: not a readable"):
        data.read(np.array([2]))


def test_an_image_of_another_size_than_declared_is_named(tmp_path, monkeypatch):
    write_idx(tmp_path)
    monkeypatch.setattr(images, "encode_png", lambda image, whole=images.encode_png: whole(image[1:]))
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    with pytest.raises(
        InputError, match=r"'mnist', split 'test', index 3: the image is \(27, 28, 1\), expected \(28, "
    ):
        load("mnist", "test", str(tmp_path / "data")).read(np.array([3]))
