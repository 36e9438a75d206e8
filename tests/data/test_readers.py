"""Original files to TFDS data sets and back: pixels and labels bit for bit."""

import io
import json
import os
import pathlib
import shutil
import sys
import tarfile
from typing import Any

import numpy as np
import pytest

from cnnjax.data import catalog, folders, images
from cnnjax.data.build import build, load
from cnnjax.errors import InputError
from cnnjax.evaluation import groups
from tests.data.original_files import (
    CIFAR,
    assert_holds,
    encoded,
    everything,
    labels,
    silent,
    write_cifar,
    write_idx,
    write_imagenet,
    write_tree,
)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
def test_idx_round_trip(tmp_path, dotted, gz):
    truth = write_idx(tmp_path, gz)
    for path in list(tmp_path.iterdir()) if dotted else []:
        path.rename(path.with_name(path.name.replace("-idx", ".idx")))
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert_holds(tmp_path / "data", "mnist", truth)
    assert load("mnist", "train", str(tmp_path / "data"), silent).classes == list("0123456789")


@pytest.mark.parametrize("name", CIFAR)
def test_cifar_forms_and_places_give_the_same_in_the_same_order(tmp_path, name):
    truth, made = {}, {}
    for form in ("bin", "py"):
        truth = write_cifar(tmp_path / form, name, form)
        inside = next((tmp_path / form).iterdir())
        archive = tmp_path / f"{form}tar" / {"bin": f"cifar-{name[5:]}-binary", "py": f"cifar-{name[5:]}-python"}[form]
        archive.parent.mkdir()
        with tarfile.open(f"{archive}.tar.gz", "w:gz") as tar:
            tar.add(inside, inside.name)
        for place, source in {form: tmp_path / form, f"{form}in": inside, f"{form}tar": archive.parent}.items():
            build(name, str(source), str(tmp_path / "data" / place), silent)
            made[place] = everything(tmp_path / "data" / place, name)
    assert len(made) == 6
    for place, (image, label) in made.items():
        np.testing.assert_array_equal(image, made["bin"][0], err_msg=place)
        np.testing.assert_array_equal(label, made["bin"][1], err_msg=place)
    assert_holds(tmp_path / "data" / "bin", name, truth)


def test_digits_are_scikit_learns(tmp_path):
    from sklearn.datasets import load_digits

    bundle: Any = load_digits()
    scaled = np.array([[round(v * 255 / 16) for v in row] for row in bundle.data]).astype(np.uint8)
    truth = {
        split: (scaled[rows].reshape(-1, 8, 8, 1), bundle.target[rows])
        for split, rows in {
            "train": [i for i in range(1797) if i % 5 != 4],
            "test": [i for i in range(1797) if i % 5 == 4],
        }.items()
    }
    lines = []
    data = load("digits", "test", str(tmp_path), lines.append)  # not there: built at once, and said so
    assert (len(data), data.shape, data.name) == (359, (8, 8, 1), "digits")
    assert any("1,797 images" in line for line in lines)
    assert_holds(tmp_path, "digits", truth)
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "validation", "test"), ("",)])
def test_class_folders_keep_their_bytes(tmp_path, splits):
    files = write_tree(tmp_path / "tree", splits)
    (tmp_path / "tree" / ".DS_Store").write_bytes(b"x")
    (tmp_path / "tree" / splits[0] / "ants" / "readme.txt").write_text("x")
    lines = []
    path = build("insects", str(tmp_path / "tree"), str(tmp_path / "data"), lines.append)
    assert [line for line in lines if "readme.txt" in line]
    assert not [line for line in lines if ".DS_Store" in line]
    assert set(json.loads((path / "features.json").read_text())["featuresDict"]["features"]) == {"image", "label"}
    for split in splits:
        data = load("insects", split or "train", str(tmp_path / "data"))
        assert data.classes == ["ants", "bees"]
        assert data.shape == (None, None, 3)
        mine = {name: raw for name, raw in files.items() if name.startswith(split)}
        want = sorted((images.decode(raw, 3).tobytes(), int("bees" in name)) for name, raw in mine.items())
        got = zip(*data.read(np.arange(len(data))), strict=True)
        assert sorted((image.tobytes(), int(label)) for image, label in got) == want
    import tensorflow_datasets as tfds

    skip = {"image": tfds.decode.SkipDecoding()}
    builder: Any = tfds.builder_from_directory(path)
    source = builder.as_data_source(splits[0] or "train", decoders=skip)
    assert {one["image"] for one in source} <= set(files.values())


def test_imagenets_archives_keep_their_bytes_and_get_the_labels_of_published_weights(tmp_path):
    truth = write_imagenet(tmp_path)
    build("imagenet2012", str(tmp_path), str(tmp_path / "data"), silent)
    found = set()
    for split in ("train", "validation"):
        data = load("imagenet2012", split, str(tmp_path / "data"))
        assert (data.classes, data.shape) == (["n01", "n02", "n03"], (None, None, 3))
        found |= set(zip(*map(list, data.read_encoded(np.arange(len(data)))), strict=True))
        assert {image.shape[2] for image in data.read(np.arange(len(data)))[0]} == {3}  # also of gray ones and CMYK
    assert found == set(truth.values())


@pytest.mark.parametrize(
    ("modes", "sizes", "shape"),
    [
        (("L", "L"), ((8, 9), (8, 9)), (8, 9, 1)),
        (("L", "RGB"), ((8, 9), (8, 9)), (8, 9, 3)),
        (("L", "L"), ((8, 9), (9, 8)), (None, None, 3)),
    ],
)
def test_class_folders_of_one_size_have_a_shape(tmp_path, modes, sizes, shape):
    for i, (mode, size) in enumerate(zip(modes, sizes, strict=True)):
        (tmp_path / "t" / f"class{i}").mkdir(parents=True)
        (tmp_path / "t" / f"class{i}" / "x.png").write_bytes(encoded(size, mode, "PNG"))
    build("things", str(tmp_path / "t"), str(tmp_path / "data"), silent)
    data = load("things", "train", str(tmp_path / "data"))
    assert data.shape == shape
    assert {image.shape[2] for image in data.read(np.arange(2))[0]} == {shape[2]}


def test_tfds_reads_ours_by_itself(tmp_path):
    import tensorflow_datasets as tfds

    truth = write_cifar(tmp_path / "raw", "cifar100", "bin")
    path = build("cifar100", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
    builder: Any = tfds.builder_from_directory(path)
    assert builder.info.features["coarse_label"].num_classes == 20
    source: Any = builder.as_data_source("test")
    coarse = dict(zip(map(bytes, truth["test"][0]), labels("test", 20), strict=True))
    fine = dict(zip(map(bytes, truth["test"][0]), truth["test"][1], strict=True))
    assert len(source) == 4
    for one in source:
        assert one["label"] == fine[one["image"].tobytes()]
        assert one["coarse_label"] == coarse[one["image"].tobytes()]


def test_further_labels_are_read_and_group_the_images(tmp_path):
    truth = write_cifar(tmp_path / "raw", "cifar100", "bin")
    build("cifar100", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
    split = load("cifar100", "test", str(tmp_path / "data"))
    coarse = dict(zip(map(bytes, truth["test"][0]), labels("test", 20), strict=True))
    expected = [coarse[image.tobytes()] for image in split.read(np.arange(4))[0]]
    names = split.extra_labels["coarse_label"]
    assert (list(split.extra_labels), len(names)) == (["coarse_label"], 20)
    assert split.read_extra_label("coarse_label").tolist() == expected
    found = groups.find_groups("coarse_label", split)
    assert [found.names[k] for k in found.members] == [names[k] for k in expected]
    with pytest.raises(InputError, match="label of cifar100, 'course_label'; did you mean 'coarse_label'"):
        groups.find_groups("course_label", split)


def test_we_read_what_tfds_prepared(tmp_path):
    import tensorflow_datasets as tfds

    class Stock(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = "stock"
        VERSION = tfds.core.Version("2.3.4")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="big"), tfds.core.BuilderConfig(name="tiny")]  # noqa: RUF012

        def _info(self):
            kinds = {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "mask": tfds.features.Image(shape=(None, None, 1)),
                "label": tfds.features.ClassLabel(names=["a", "b"]),
                "file": tfds.features.Text(),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kinds))

        def _split_generators(self, dl_manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i in range(3):
                image = io.BytesIO(encoded((9 + i, 7), "RGB", "PNG", i))
                yield i, {"image": image, "mask": io.BytesIO(b"no image"), "label": i % 2, "file": f"{i}"}

    tfds.disable_progress_bar()
    for config in ("big", "tiny"):
        Stock(config=config, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    for name in ("stock/tiny", "stock/tiny:2.3.4", "stock/tiny:2.*.*", "stock"):  # 'stock': the first config
        data = load(name, "train", str(tmp_path))
        image, label = data.read(np.arange(3))
        assert (data.classes, data.shape) == (["a", "b"], (None, None, 3))
        assert sorted((a.shape[0] - 9, int(b)) for a, b in zip(image, label, strict=True)) == [(0, 0), (1, 1), (2, 0)]
    shutil.rmtree(tmp_path / "stock" / ".config")
    with pytest.raises(InputError, match="several configs; choose one of stock/big, stock/tiny"):
        load("stock", "train", str(tmp_path))


def test_a_folder_that_is_no_tree_is_refused(tmp_path):
    (tmp_path / "ants").mkdir()
    with pytest.raises(InputError, match=r"has no class folders with images \(\.jpg, \.jpeg, "):
        folders.scan(tmp_path)


# The real files: CNNJAX_RAW=<folder with mnist/, fashion_mnist/, cifar10/>

REAL = {
    "mnist": ([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009], 33.3184),
    "fashion_mnist": ([1000] * 10, 72.9404),
    "cifar10": ([1000] * 10, 120.7076),
}


@pytest.mark.parametrize("name", REAL)
def test_real_files(name, tmp_path):
    if not os.environ.get("CNNJAX_RAW"):
        pytest.skip("needs the original files: set CNNJAX_RAW to a folder with mnist/, fashion_mnist/ and cifar10/")
    counts, mean = REAL[name]
    build(name, str(pathlib.Path(os.environ["CNNJAX_RAW"]) / name), str(tmp_path), silent)
    image, label = everything(tmp_path, name, "test")
    assert image.shape == (10_000, *catalog.DATASETS[name].shape)
    assert np.bincount(label).tolist() == counts
    image, label = everything(tmp_path, name)
    assert len(image) == catalog.DATASETS[name].splits["train"]
    assert abs(image.mean() - mean) < 0.001
