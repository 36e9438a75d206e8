"""Original files to TFDS data sets and back: pixels and labels bit for bit, and a clear word for what is broken."""

import functools
import gzip
import hashlib
import io
import json
import os
import pathlib
import pickle
import shutil
import struct
import subprocess
import sys
import tarfile
import threading
import time
import zlib
from typing import Any

import numpy as np
import pytest
import scipy.io
from PIL import Image, ImageOps

from cnnjax import spec
from cnnjax.data import build as build_module
from cnnjax.data import catalog, download, folders, images, readers, safe_pickle
from cnnjax.data.build import build, load
from cnnjax.data.images import HOST_OPS
from cnnjax.data.store import available, data_dir
from cnnjax.errors import InputError

SIZES = {"train": 10, "test": 4}
CIFAR = {"cifar10": (10, ["label"]), "cifar100": (100, ["coarse_label", "label"])}


def silent(line: str) -> None:
    del line


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    """The data sets of the catalog, a few images each, unless a test is about the real ones."""
    if "test_real" not in request.node.name:
        for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
            monkeypatch.setitem(catalog.CATALOG, name, catalog.CATALOG[name]._replace(splits=SIZES))
        few = catalog.CATALOG["imagenet2012"]._replace(splits={"train": 6, "validation": 4})
        monkeypatch.setitem(catalog.CATALOG, "imagenet2012", few)


def pixels(split: str, shape: tuple) -> np.ndarray:
    return np.random.default_rng(len(split)).integers(0, 256, (SIZES[split], *shape), np.uint8)


def labels(split: str, classes: int) -> np.ndarray:
    return np.random.default_rng(len(split) + 1).integers(0, classes, SIZES[split]).astype(np.uint8)


def write_idx(folder: pathlib.Path, gz: bool = False) -> dict[str, tuple]:
    """MNIST's four files, written by hand from the format's description."""
    truth = {}
    for split, prefix in (("train", "train"), ("test", "t10k")):
        truth[split] = pixels(split, (28, 28, 1)), labels(split, 10)
        for kind, array in (("images-idx3", truth[split][0][..., 0]), ("labels-idx1", truth[split][1])):
            sides = b"".join(int(side).to_bytes(4, "big") for side in array.shape)
            data = bytes([0, 0, 8, array.ndim]) + sides + array.tobytes()
            path = folder / f"{prefix}-{kind}-ubyte"
            path.with_name(path.name + ".gz" * gz).write_bytes(gzip.compress(data) if gz else data)
    return truth


def write_cifar(folder: pathlib.Path, name: str, form: str) -> dict[str, tuple]:
    """CIFAR's files, binary or as Python 2 pickled them, in the folder their archive has."""
    digits, kinds = name.removeprefix("cifar"), CIFAR[name][1]
    place = folder / {"bin": f"cifar-{digits}-b" + ("atches-bin" if digits == "10" else "inary"),
                      "py": f"cifar-{digits}-" + ("batches-py" if digits == "10" else "python")}[form]  # fmt: skip
    place.mkdir(parents=True)
    truth = {}
    for split in SIZES:
        image = pixels(split, (32, 32, 3))
        label = {kind: labels(split, 20 if kind == "coarse_label" else CIFAR[name][0]) for kind in kinds}
        truth[split] = image, label["label"]
        names = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
        names = names if digits == "10" else [split]
        for rows, file in zip(np.array_split(np.arange(SIZES[split]), len(names)), names, strict=True):
            planes = image[rows].transpose(0, 3, 1, 2).reshape(len(rows), -1)
            if form == "bin":
                records = np.concatenate([*(label[kind][rows, None] for kind in kinds), planes], axis=1)
                (place / f"{file}.bin").write_bytes(records.tobytes())
            else:
                keys = {"label": b"labels" if digits == "10" else b"fine_labels", "coarse_label": b"coarse_labels"}
                batch = {b"data": planes} | {keys[kind]: label[kind][rows].tolist() for kind in kinds}
                (place / file).write_bytes(pickle.dumps(batch, protocol=2))
    return truth


def encoded(size: tuple[int, int], mode: str, kind: str, seed: int = 0, **options) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def write_tree(folder: pathlib.Path, splits: tuple[str, ...] = ("train", "val")) -> dict[str, bytes]:
    """Class folders of images of several sizes, modes and spellings; returns path -> bytes."""
    files = {}
    for split in splits:
        for i, name in enumerate(["ants/b.jpg", "ants/a.JPEG", "bees/c.PNG", "bees/d.png"]):
            mode, kind = [("RGB", "JPEG"), ("L", "JPEG"), ("RGB", "PNG"), ("P", "PNG")][i]
            files[f"{split}/{name}".lstrip("/")] = encoded((20 + i, 30 - i), mode, kind, i)
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return files


def packed(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


WNIDS = ("n03", "n01", "n02")  # in the order of the kit's numbers
TRUTH = (2, 1, 3, 3)


def write_imagenet(folder: pathlib.Path, broken: str = "") -> dict[str, tuple[bytes, int]]:
    """ImageNet's three archives of three classes; returns name -> (bytes, label), of both splits."""
    truth, train = {}, {}
    for label, wnid in enumerate(sorted(WNIDS)):
        mode = ("RGB", "L", "CMYK")[label]
        inside = {f"{wnid}_{i}.JPEG": encoded((9 + i, 12 - label), mode, "JPEG", i) for i in range(2)}
        inside = {name: data[:-60] if name == broken else data for name, data in inside.items()}
        train[f"{wnid}.tar"] = packed(inside)
        truth |= {name: (data, label) for name, data in inside.items()}
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(i, wnid, "a, b", 0) for i, wnid in enumerate(WNIDS, 1)]
    meta = io.BytesIO()
    scipy.io.savemat(meta, {"synsets": np.array([*rows, (4, "n99", "above", 3)], kinds)[:, None]})
    numbers = "".join(f"{number}\n" for number in TRUTH).encode()
    data = "ILSVRC2012_devkit_t12/data/"
    kit = {data + "meta.mat": meta.getvalue(), data + "ILSVRC2012_validation_ground_truth.txt": numbers}
    val = {f"ILSVRC2012_val_{i:08}.JPEG": encoded((8, 8 + i), "RGB", "JPEG", i) for i in (1, 2, 4, 3)}
    for name, one in val.items():
        truth[name] = one, sorted(WNIDS).index(WNIDS[TRUTH[int(name[15:23]) - 1] - 1])
    (folder / "ILSVRC2012_img_train.tar").write_bytes(packed(train))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(packed(val))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(packed(kit)))
    return truth


def assert_holds(root: pathlib.Path, name: str, truth: dict[str, tuple]) -> None:
    """The data set has exactly these images with these labels (TFDS keeps them in the order of a hash)."""
    for split, (image, label) in truth.items():
        data = load(name, split, str(root), silent)
        got, got_label = data.read(np.arange(len(data)))
        assert got_label.dtype == np.int32
        assert all(one.dtype == np.uint8 and one.shape == data.shape for one in got)
        assert sorted((a.tobytes(), int(b)) for a, b in zip(got, got_label, strict=True)) == sorted(
            (a.tobytes(), int(b)) for a, b in zip(image, label, strict=True)
        )


def everything(root: pathlib.Path, name: str, split: str = "train") -> tuple:
    data = load(name, split, str(root), silent)
    image, label = data.read(np.arange(len(data)))
    return np.stack(image), label


# Readers


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
        assert {image.shape[2] for image in data.read(np.arange(len(data)))[0]} == {3}  # also of grey ones and CMYK
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


# Splits


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> pathlib.Path:
    root = tmp_path_factory.mktemp("made")
    build("digits", data_dir=str(root), say=silent)
    return root


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
    assert rows.keys() == catalog.CATALOG.keys()
    assert rows["digits"].path == made / "digits" / "1.0.0"
    assert rows["digits"].splits == {"train": 1438, "test": 359}
    assert (rows["mnist"].path, rows["mnist"].version) == (None, "")


def test_data_dir_is_tfdss(monkeypatch):
    assert data_dir("x") == pathlib.Path("x")
    monkeypatch.setenv("TFDS_DATA_DIR", "/a/b")
    assert data_dir() == pathlib.Path("/a/b")
    monkeypatch.delenv("TFDS_DATA_DIR")
    assert data_dir() == pathlib.Path("~/tensorflow_datasets").expanduser()


# Builds that go wrong, or twice


def test_an_existing_data_set_is_left_alone_unless_told(tmp_path):
    write_idx(tmp_path)
    path = build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    before = (path / "dataset_info.json").stat().st_mtime_ns
    lines = []
    assert build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append) == path
    assert "already" in lines[0]
    assert (path / "dataset_info.json").stat().st_mtime_ns == before
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent, overwrite=True)
    assert (path / "dataset_info.json").stat().st_mtime_ns > before
    assert_nothing_left(tmp_path / "data", "mnist")


def assert_nothing_left(root: pathlib.Path, name: str) -> None:
    assert [path.name for path in (root / "downloads" / "cnnjax" / name).iterdir()] == ["lock"]
    assert [path.name for path in (root / name).iterdir()] == ["1.0.0"]


def test_building_prints_nothing_of_its_own(tmp_path, capfd):
    write_idx(tmp_path)
    lines = []
    build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append)
    assert capfd.readouterr() == ("", "")
    assert len(lines) == 2


def test_a_failed_build_is_not_read_and_is_built_again(tmp_path):
    truth = write_idx(tmp_path)
    whole = (tmp_path / "t10k-images-idx3-ubyte").read_bytes()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole[:-1])  # the training split is fine and comes first
    with pytest.raises(InputError, match="truncated"):
        build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert not (tmp_path / "data" / "mnist").exists()
    assert [row for row in available(str(tmp_path / "data")) if row.path] == []
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(whole)
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert_holds(tmp_path / "data", "mnist", truth)
    assert_nothing_left(tmp_path / "data", "mnist")


KILLED = """
import os, signal, sys
from cnnjax.data import build, readers
def dying(folder, entry, whole=readers.READERS["digits"]):
    def examples(split):
        for i, example in enumerate(whole(folder, entry)[1][split]):
            if split == "test" and i == 100:
                os.kill(os.getpid(), signal.SIGKILL)
            yield example
    return entry, {split: examples(split) for split in ("train", "test")}
readers.READERS["digits"] = dying
build.build("digits", data_dir=sys.argv[1])
"""


def test_a_killed_build_is_not_read_and_is_cleared_away(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    left = [path for path in tmp_path.rglob("*.array_record*") if "staging" in path.parts]
    assert left  # it died in the midst of writing
    assert [row for row in available(str(tmp_path)) if row.path] == []
    assert len(load("digits", "train", str(tmp_path), silent)) == 1438
    assert_nothing_left(tmp_path, "digits")


def test_what_a_killed_build_left_is_not_taken_over(made, tmp_path):
    truth = write_idx(tmp_path)
    left = tmp_path / "data/downloads/cnnjax/mnist/staging/mnist/1.0.0"
    shutil.copytree(made / "digits" / "1.0.0", left)  # complete, but who knows of what
    build("mnist", str(tmp_path), str(tmp_path / "data"), silent)
    assert_holds(tmp_path / "data", "mnist", truth)


def test_two_builds_at_once_make_one_data_set(tmp_path, monkeypatch):
    truth = write_idx(tmp_path)
    calls, lines, paths = [], [], []

    def slow(folder, entry, idx=readers.idx):
        calls.append(folder)
        time.sleep(0.5)
        return idx(folder, entry)

    monkeypatch.setitem(readers.READERS, "idx", slow)
    threads = [
        threading.Thread(
            target=lambda: paths.append(build("mnist", str(tmp_path), str(tmp_path / "data"), lines.append))
        )
        for _ in range(2)
    ]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert (len(calls), paths) == (1, [tmp_path / "data" / "mnist" / "1.0.0"] * 2)
    assert any("waiting" in line for line in lines)
    assert any("already" in line for line in lines)
    assert_holds(tmp_path / "data", "mnist", truth)


# Errors: what is done to a good set of files -> the words of the message


def cut(name: str, by: int = 1):
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-by])


def put(name: str, at: int, value: int):
    def change(folder: pathlib.Path) -> None:
        data = bytearray((folder / name).read_bytes())
        data[at] = value
        (folder / name).write_bytes(bytes(data))

    return change


def remove(name: str):
    return lambda folder: (folder / name).unlink()


def repickle(name: str, **changes):
    def change(folder: pathlib.Path) -> None:
        batch = pickle.loads((folder / name).read_bytes(), encoding="bytes")
        for key, value in changes.items():
            batch[key.encode()] = value(batch[key.encode()])
        (folder / name).write_bytes(pickle.dumps(batch, protocol=2))

    return change


def image_of(suffix: str):
    """Puts a picture of another format under the name of a JPEG."""
    return lambda folder: (folder / "train/ants/b.jpg").write_bytes(encoded((9, 9), "RGB", suffix))


def repacked(name: str, **changes):
    """Alters members of a .tar.gz: a value instead of its content, None for none."""

    def change(folder: pathlib.Path) -> None:
        with tarfile.open(folder / name) as archive:
            files = {member.name: file.read() for member in archive if (file := archive.extractfile(member))}
        for part, value in changes.items():
            full = next(full for full in files if part in full)
            files[full] = value
        (folder / name).write_bytes(gzip.compress(packed({k: v for k, v in files.items() if v is not None})))

    return change


TRAIN, VAL, KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
BIN, PY = "cifar-10-batches-bin", "cifar-10-batches-py"
BROKEN_FILES = [
    ("idx", cut("train-images-idx3-ubyte"), ["train-images-idx3-ubyte is truncated: 7,855 bytes", "expected 7,856"]),
    ("idx", put("train-images-idx3-ubyte", 2, 9), ["it starts with 00000903, not 00000803"]),
    ("idx", put("train-images-idx3-ubyte", 11, 27), ["holds 10x27x28 values, expected 10x28x28"]),
    ("idx", put("t10k-labels-idx1-ubyte", 7, 3), ["t10k-labels-idx1-ubyte holds 3 values, expected 4"]),
    ("idx", put("t10k-labels-idx1-ubyte", 8, 10), ["t10k-labels-idx1-ubyte: label 10, expected 0 to 9"]),
    ("idx", remove("t10k-labels-idx1-ubyte"), ["has no t10k-labels-idx1-ubyte or t10k-labels-idx1-ubyte.gz"]),
    ("gz", cut("train-labels-idx1-ubyte.gz", 9), ["train-labels-idx1-ubyte.gz (", "is truncated or not gzip"]),
    ("gz", put("train-labels-idx1-ubyte.gz", 0, 0), ["is truncated or not gzip"]),
    ("bin", cut(f"{BIN}/data_batch_3.bin"), ["data_batch_3.bin is truncated: 6,145 bytes", "2 records of 3,073"]),
    ("bin", put(f"{BIN}/test_batch.bin", 0, 10), ["test_batch.bin: label 10, expected 0 to 9"]),
    ("bin", remove(f"{BIN}/data_batch_2.bin"), [BIN, "has no data_batch_2.bin; expected data_batch_1.bin, data_b"]),
    ("bin", lambda folder: shutil.rmtree(folder / BIN), ["has none of the original files; expected", BIN, PY]),
    ("py", cut(f"{PY}/test_batch", 100), ["test_batch (", "is truncated or no CIFAR batch"]),
    ("py", repickle(f"{PY}/test_batch", data=lambda a: a[1:]), ["holds 3x3072 uint8, expected 4x3072 uint8"]),
    ("py", repickle(f"{PY}/test_batch", data=lambda a: a / 2), ["4x3072 float64, expected 4x3072 uint8"]),
    ("py", repickle(f"{PY}/test_batch", labels=lambda a: a[1:]), ["test_batch: 3 labels, expected 4"]),
    ("py", repickle(f"{PY}/test_batch", labels=lambda a: ["x"] * 4), ["labels that are no whole numbers"]),
    ("tar", cut("cifar-10-binary.tar.gz", 2000), ["cifar-10-binary.tar.gz (", "is truncated or no tar.gz"]),
    ("tree", cut("train/ants/b.jpg", 40), ["train/ants/b.jpg (", "not a readable JPEG or PNG, or is truncated"]),
    ("tree", cut("val/bees/c.PNG", 400), ["val/bees/c.PNG (", "not a readable JPEG or PNG, or is truncated"]),
    ("tree", put("val/bees/d.png", 900, 1), ["val/bees/d.png (", "not a readable JPEG or PNG"]),
    ("tree", lambda folder: (folder / "train/ants/b.jpg").write_bytes(b""), ["train/ants/b.jpg (0 bytes) is not"]),
    (
        "tree",
        lambda folder: (folder / "val/ants").rename(folder / "val/Ants"),
        ["val/Ants is no class of the", "ants, "],
    ),
    ("tree", lambda folder: (folder / "val").rename(folder / "valid"), ["valid is no split", "train, val, validation"]),
    ("tree", lambda folder: (folder / "train/ants/x").mkdir(), ["train/ants/x is a folder inside a class folder"]),
    ("tree", image_of("GIF"), ["train/ants/b.jpg (", "not a readable JPEG or PNG"]),
    ("imagenet", remove(VAL), ["has no ILSVRC2012_img_val.tar; those who register at image-net.org get it"]),
    ("imagenet", cut(TRAIN, 15_000), ["ILSVRC2012_img_train.tar", "is truncated or no tar"]),
    ("imagenet", put(VAL, 0, 7), ["ILSVRC2012_img_val.tar is truncated or no tar"]),
    (
        "imagenet",
        lambda folder: write_imagenet(folder, "n02_1.JPEG"),
        [f"{TRAIN}/n02.tar/n02_1.JPEG (", "is not a rea"],
    ),
    ("imagenet", lambda folder: (folder / TRAIN).write_bytes(packed({"n01.tar": b""})), ["3 archives", "in n02.tar"]),
    (
        "imagenet",
        lambda folder: (folder / VAL).write_bytes(packed({"5.JPEG": encoded((9, 9), "L", "JPEG")})),
        ["5.JPEG: "],
    ),
    ("imagenet", repacked(KIT, truth=b"1\n2\n"), [f"{KIT}, ILSVRC2012_validation_gr", "2 labels, expected 4"]),
    ("imagenet", repacked(KIT, truth=b"1 2 3 4"), ["label 3, expected 0 to 2"]),
    ("imagenet", repacked(KIT, meta=b"no matrix"), [f"{KIT} is not ImageNet's: "]),
    ("imagenet", repacked(KIT, meta=None), [f"{KIT} has no meta.mat"]),
    ("tree", lambda folder: shutil.rmtree(folder / "train"), ["train", "is not a folder"]),
]


@pytest.mark.parametrize(("kind", "harm", "words"), BROKEN_FILES, ids=lambda value: value if type(value) is str else "")
def test_a_broken_file_is_named(tmp_path, kind, harm, words):
    name = {"idx": "mnist", "gz": "mnist", "tree": "insects", "imagenet": "imagenet2012"}.get(kind, "cifar10")
    source = tmp_path / "raw"
    source.mkdir()
    if kind in ("idx", "gz"):
        write_idx(source, gz=kind == "gz")
    elif kind == "tree":
        write_tree(source)
    elif kind == "imagenet":
        write_imagenet(source)
    else:
        write_cifar(source, "cifar10", "py" if kind == "py" else "bin")
    if kind == "tar":
        with tarfile.open(source / "cifar-10-binary.tar.gz", "w:gz") as tar:
            tar.add(source / BIN, BIN)
        shutil.rmtree(source / BIN)
    harm(source)
    gone = words[-1] == "is not a folder"
    with pytest.raises(InputError) as error:
        build(name, str(source / "train" if gone else source), str(tmp_path / "data"), silent)
    for word in words:
        assert word in str(error.value)
    assert not (tmp_path / "data" / name).exists()


def test_a_split_of_the_wrong_size_is_refused(tmp_path, monkeypatch):
    entry = catalog.CATALOG["digits"]._replace(splits={"train": 1439, "test": 359})
    monkeypatch.setitem(catalog.CATALOG, "digits", entry)
    with pytest.raises(InputError, match="split 'train' has 1,438 images, expected 1,439"):
        build("digits", data_dir=str(tmp_path), say=silent)


def edit(name: str, change):
    """Alters a JSON file of the built digits."""

    def harm(root: pathlib.Path) -> None:
        path = root / "digits" / "1.0.0" / name
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

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
    ("digits", "train[:90%", nothing, ["'train[:90%' is not a part of data set 'digits'", "'train[:90%]'"]),
    ("digits", "train[2000:]", nothing, ["1438 examples"]),
    ("digitz", "train", nothing, ["no data set 'digitz' in ", "did you mean 'digits'?", "cifar10, cifar100, digits"]),
    ("digits:7.0.0", "train", nothing, ["no data set 'digits:7.0.0' in "]),
    ("../digits", "train", nothing, ["no data set '../digits' in "]),
    ("", "train", nothing, ["no data set ''"]),
    ("mine", "train", lambda root: (root / "digits").rename(root / "mine"), ["mine"]),
    ("digits:1.0.0", "train", edit("features.json", rename_feature), ["not for classification", "'picture' (Image)"]),
    ("digits", "train", lambda root: (root / "digits/1.0.0/features.json").unlink(), ["digits/1.0.0) is damaged"]),
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


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("mnits",), ["unknown data set 'mnits'; did you mean 'mnist'?", "give their source"]),
        (("mnist", "/nowhere/at/all"), ["/nowhere/at/all is not a folder", "'mnist'"]),
        (("My-Birds", "."), ["'My-Birds' cannot name a data set", "lower-case"]),
        (("mnist", ".", "/dev/null/x"), ["mnist: /dev/null/x"]),
    ],
)
def test_what_cannot_be_built(tmp_path, arguments, words):
    with pytest.raises(InputError) as error:
        build(*(*arguments, *("", str(tmp_path))[len(arguments) - 1 :]), say=silent)
    for word in words:
        assert word in str(error.value)


# Pickles


class Evil:
    def __init__(self, call, *args):
        self.call, self.args = call, args

    def __reduce__(self):
        return self.call, self.args


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("call", [os.mkdir, eval, functools.partial], ids=lambda call: call.__name__)
def test_a_malicious_pickle_is_refused_and_nothing_runs(tmp_path, monkeypatch, call, protocol):
    write_cifar(tmp_path / "raw", "cifar10", "py")
    mark = tmp_path / "mark"
    args = {os.mkdir: (str(mark),), eval: (f"__import__('os').mkdir({str(mark)!r})",)}.get(call, (os.mkdir, str(mark)))
    batch = {b"data": Evil(call, *args), b"labels": [0]}
    (tmp_path / "raw" / PY / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    with pytest.raises(InputError, match="test_batch: refused to unpickle"):
        build("cifar10", str(tmp_path / "raw"), str(tmp_path / "data"), silent)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_safe_pickles_come_back(protocol):
    batch = {b"data": np.arange(12, dtype=np.uint8).reshape(3, 4), b"labels": [1, 2], b"batch_label": b"\x80 x"}
    got = safe_pickle.loads(pickle.dumps(batch, protocol=protocol))
    np.testing.assert_array_equal(got.pop(b"data"), batch.pop(b"data"))
    assert got == batch


def test_the_pickles_of_old_numpy_come_back():
    data = pickle.dumps({b"data": np.ones((2, 2), np.uint8)}, protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    np.testing.assert_array_equal(safe_pickle.loads(old)[b"data"], np.ones((2, 2)))


# Images


def with_exif(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded((17, 33), "RGB", kind, exif=exif.tobytes())


def cmyk(transform: int) -> bytes:
    """A JPEG of four inverted colours, as Photoshop writes them: as they are (0), or as luma, chroma and black (2)."""
    data = bytearray(encoded((17, 33), "CMYK", "JPEG"))
    at = data.index(b"Adobe")
    data[at + 11] = transform
    return bytes(data)


def deep_rgb() -> bytes:
    """An RGB PNG of 16 bits, by hand: Pillow writes none."""
    rows = np.random.default_rng(0).integers(0, 65536, (5, 4, 3)).astype(">u2")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep(kind: str) -> bytes:
    image = Image.fromarray((np.arange(35 * 17, dtype=np.uint16) * 100).reshape(35, 17))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


ENCODED = {
    "grey jpeg": (encoded((17, 33), "L", "JPEG"), (17, 33, 1)),
    "rgb jpeg": (encoded((17, 33), "RGB", "JPEG"), (17, 33, 3)),
    "progressive": (encoded((17, 33), "RGB", "JPEG", progressive=True), (17, 33, 3)),
    "cmyk": (encoded((17, 33), "CMYK", "JPEG"), (17, 33, 3)),
    "upright": (with_exif(1), (17, 33, 3)),
    "mirrored": (with_exif(2), (17, 33, 3)),
    "turned": (with_exif(6), (33, 17, 3)),
    "turned back": (with_exif(8), (33, 17, 3)),
    "grey png": (encoded((17, 33), "L", "PNG"), (17, 33, 1)),
    "rgb png": (encoded((17, 33), "RGB", "PNG"), (17, 33, 3)),
    "bilevel": (encoded((17, 33), "1", "PNG"), (17, 33, 1)),
    "palette": (encoded((17, 33), "P", "PNG"), (17, 33, 3)),
    "alpha": (encoded((17, 33), "RGBA", "PNG"), (17, 33, 3)),
    "grey with alpha": (encoded((17, 33), "LA", "PNG"), (17, 33, 3)),
    "palette with transparency": (encoded((17, 33), "P", "PNG", transparency=bytes(range(256))), (17, 33, 3)),
    "16-bit": (deep("PNG"), (35, 17, 1)),
    "16-bit rgb": (deep_rgb(), (5, 4, 3)),
    "cmyk of adobe": (cmyk(0), (17, 33, 3)),
    "ycck of adobe": (cmyk(2), (17, 33, 3)),
    "rgb inside": (encoded((17, 33), "RGB", "JPEG", keep_rgb=True), (17, 33, 3)),
    "turned png": (with_exif(6, "PNG"), (33, 17, 3)),
    "grey with a transparent value": (encoded((17, 33), "L", "PNG", transparency=9), (17, 33, 1)),
    "rgb with a transparent value": (encoded((17, 33), "RGB", "PNG", transparency=(9, 9, 9)), (17, 33, 3)),
    "bilevel with a transparent value": (encoded((17, 33), "1", "PNG", transparency=0), (17, 33, 1)),
}


@pytest.mark.parametrize("name", ENCODED)
def test_decode_agrees_with_pillow_and_its_header(name, monkeypatch):
    data, shape = ENCODED[name]
    image = images.decode(data)
    assert image.dtype == np.uint8
    assert image.shape == images.check(data) == images.header(data) == shape
    assert [images.decode(data, channels).shape[2] for channels in (1, 3)] == [1, 3]
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
        upright = upright.convert("RGBA") if upright.mode == "P" else upright
        wanted = upright.convert("L" if shape[2] == 1 else "RGB") if name != "16-bit" else np.asarray(upright) >> 8
    for backend in (images.cv2, None):
        monkeypatch.setattr(images, "cv2", backend)
        difference = images.decode(data).astype(int) - np.asarray(wanted).reshape(shape)
        assert np.abs(difference).max() <= 1  # two builds of libjpeg may round apart


def photo(**options: Any) -> bytes:
    """A JPEG of several of the largest blocks, with sharp edges in all channels."""
    pixels = np.random.default_rng(0).integers(0, 256, (13, 19, 3), np.uint8).repeat(7, 0).repeat(7, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


WINDOWED = {
    **{name: data for name, (data, _) in ENCODED.items()},
    "4:4:4": photo(subsampling="4:4:4"),
    "4:2:2": photo(subsampling="4:2:2"),
    "4:2:0": photo(subsampling="4:2:0"),
    "4:2:0, progressive": photo(subsampling="4:2:0", progressive=True),
    "4:2:0, with restarts": photo(subsampling="4:2:0", restart_marker_blocks=3),
    "grey": photo(mode="L"),
}


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_is_decoded_to_the_pixels_of_the_whole(name: str, channels: int | None) -> None:
    whole, found = images.decode(WINDOWED[name], channels), images.for_windows(WINDOWED[name], channels)
    assert found.shape == whole.shape
    rng = np.random.default_rng(1)
    for _ in range(30):
        (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in whole.shape[:2])
        np.testing.assert_array_equal(found[top:bottom, left:right], whole[top:bottom, left:right])


def test_a_window_of_what_is_missing_is_an_error() -> None:
    with pytest.raises(InputError, match="not a readable JPEG or PNG"):
        images.for_windows(photo()[:3000], 3)[80:, :]


def test_windows_of_jpegs_alone_are_decoded_where_that_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    if images.jpeg_window() is None:
        pytest.skip("there is no compiler, or there are no headers of libjpeg")
    lazy = {name for name, data in WINDOWED.items() if isinstance(images.for_windows(data), images.Encoded)}
    turned = {"mirrored", "turned", "turned back"}
    assert lazy == set(WINDOWED) - turned - {"cmyk", "cmyk of adobe", "ycck of adobe"} - {
        name for name, data in WINDOWED.items() if data.startswith(b"\x89PNG")
    }
    monkeypatch.setattr(images, "jpeg_window", lambda: None)
    assert isinstance(images.for_windows(WINDOWED["4:2:0"]), np.ndarray)


def test_decode_gets_the_values_right():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb)), rgb)
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb[..., :1])), rgb[..., :1])
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb[..., 0]), 3), rgb[..., [0, 0, 0]])
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb), 1)[..., 0], Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(images.decode(deep("PNG")).ravel(), np.arange(35 * 17) * 100 // 256)


@pytest.mark.parametrize("name", ["rgb jpeg", "grey jpeg", "progressive", "rgb png", "palette", "bilevel"])
def test_every_truncation_is_noticed(name):
    data = ENCODED[name][0]
    end = 4 if data[:2] != b"\xff\xd8" else 0  # of a PNG, the checksum of the empty last chunk may be missing
    for length in [*range(0, len(data) - end, max(1, len(data) // 60)), len(data) - end - 1]:
        with pytest.raises(InputError, match="not a readable JPEG or PNG"):
            images.check(data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x00" * 9]
)
def test_no_image_is_no_image(data):
    for function in (images.decode, images.for_windows, images.check, images.header):
        with pytest.raises(InputError, match="not a readable JPEG or PNG"):
            function(data)


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_sizes(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    rng = np.random.default_rng(0)
    wide = rng.integers(0, 256, (30, 50, 3), np.uint8)
    for call, shape in {
        "resize(15)": (15, 25, 3),
        "resize((15, 60))": (15, 60, 3),
        "center_crop(20)": (20, 20, 3),
        "center_crop((10, 40))": (10, 40, 3),
        "random_crop(30)": (30, 30, 3),
        "random_resize(15, 15)": (15, 25, 3),
        "random_resized_crop(7)": (7, 7, 3),
        "random_resized_crop((9, 5), scale=(0.5, 1.0))": (9, 5, 3),
    }.items():
        for image in (wide, wide[..., :1]):
            got = spec.build("operation", call, HOST_OPS, image=image, rng=rng)
            assert (got.shape, got.dtype) == ((*shape[:2], image.shape[2]), np.uint8), call


def test_a_grey_image_gets_three_channels_and_a_coloured_one_stays():
    image = np.random.default_rng(0).integers(0, 256, (3, 4, 3), np.uint8)
    assert images.rgb(image) is image
    np.testing.assert_array_equal(images.rgb(image[:, :, :1]), image[:, :, [0, 0, 0]])


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_resizing_averages_down_and_interpolates_up(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    image = np.random.default_rng(0).integers(0, 256, (8, 12, 3), np.uint8)
    blocks = image.reshape(4, 2, 4, 3, 3).mean(axis=(1, 3))
    assert np.abs(images.resize(image, (4, 4)) - blocks).max() < (0.6 if images.cv2 else 1.1)  # Pillow rounds twice
    thin = images.resize(image, (4, 24))  # down in one direction, up in the other
    assert np.abs(images.resize(thin, (4, 12)).astype(int) - image.reshape(4, 2, 12, 3).mean(axis=1)).max() < 60
    np.testing.assert_array_equal(images.resize(image, (8, 12)), image)
    ramp = np.tile(np.array([[[0], [100]]], np.uint8), (2, 1, 1))
    np.testing.assert_allclose(images.resize(ramp, (2, 4))[0, :, 0], [0, 25, 75, 100], atol=1)


def test_crops_are_windows_drawn_evenly_from_the_generator():
    image = np.arange(6 * 7, dtype=np.uint8).reshape(6, 7, 1)
    np.testing.assert_array_equal(images.center_crop(image, (4, 3)), image[1:5, 2:5])
    corners = [int(images.random_crop(image, np.random.default_rng(i), 5)[0, 0, 0]) for i in range(600)]
    counts = {corner: corners.count(corner) for corner in set(corners)}
    assert counts.keys() == {0, 1, 2, 7, 8, 9}
    assert min(counts.values()) > 60
    one, two = (images.random_crop(image, np.random.default_rng(3), 5) for _ in range(2))
    np.testing.assert_array_equal(one, two)
    with pytest.raises(InputError, match=r"center_crop\(8\): the image is 6x7; resize it first"):
        images.center_crop(image, 8)


def test_scale_jitter_draws_the_shorter_side_evenly_and_keeps_the_aspect():
    image = np.zeros((10, 20, 3), np.uint8)
    shapes = [images.random_resize(image, np.random.default_rng(i), 4, 7).shape for i in range(400)]
    counts = {side: shapes.count((side, 2 * side, 3)) for side in (4, 5, 6, 7)}
    assert sum(counts.values()) == 400
    assert min(counts.values()) > 60
    for low, high in ((7, 4), (0, 4)):
        with pytest.raises(InputError, match=rf"random_resize\({low}, {high}\): expected two lengths"):
            images.random_resize(image, np.random.default_rng(0), low, high)


@pytest.mark.parametrize("backend", ["cv2", "pillow"])
def test_random_resized_crop_averages_only_what_shrinks_to_less_than_half(backend, monkeypatch):
    if backend == "pillow":
        monkeypatch.setattr(images, "cv2", None)
    image = np.zeros((12, 12, 1), np.uint8)
    image[:, ::3] = 90  # one column of three

    def crop(sides: tuple[int, int]) -> np.ndarray:
        rng = np.random.default_rng(0)
        return images.random_resized_crop(image, rng, sides, scale=(1.0, 1.0), ratio=(1.0, 1.0))[:, :, 0]

    np.testing.assert_array_equal(crop((12, 4)), np.full((12, 4), 30))
    columns = (np.arange(8) + 0.5) * 1.5 - 0.5  # the centres of the new pixels among the old ones
    left, share = np.floor(columns).astype(int), columns % 1
    expected = image[0, left, 0] * (1 - share) + image[0, np.minimum(left + 1, 11), 0] * share
    np.testing.assert_allclose(crop((12, 8)), np.tile(expected, (12, 1)), atol=1)


def test_random_resized_crop_draws_area_and_aspect(monkeypatch):
    windows = []
    monkeypatch.setattr(images, "_scale_fast", lambda image, *sides: windows.append(image.shape[:2]) or image)
    image = np.zeros((100, 100, 1), np.uint8)
    for i in range(500):
        images.random_resized_crop(image, np.random.default_rng(i), 8)
    area = np.array([h * w for h, w in windows]) / 1e4
    aspect = np.array([w / h for h, w in windows])
    assert area.min() < 0.13
    assert area.max() > 0.85
    assert 0.45 < area.mean() < 0.6  # uniform over [0.08, 1], less the largest that do not fit
    assert 0.7 < aspect.min() < 0.8 < 1.25 < aspect.max() < 1.45
    assert abs(np.log(aspect).mean()) < 0.03
    windows.clear()
    images.random_resized_crop(np.zeros((10, 1000, 1), np.uint8), np.random.default_rng(0), 8, scale=(1.0, 1.0))
    assert windows == [(10, 13)]  # nothing of that area fits: the middle, as wide as it may be


# Downloads


def test_download_whole_and_only_once(server, tmp_path):
    seen = []
    path = download.fetch([server.url], tmp_path / "a" / "b", server.digest, silent, lambda *now: seen.append(now))
    assert path.read_bytes() == server.content
    assert seen[-1] == (3_000_000, 3_000_000)
    download.fetch([server.url], path, server.digest, silent)
    assert server.requests == [None]
    assert [child.name for child in path.parent.iterdir()] == ["b"]


@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize("have", [1_000_000, 3_000_000])
def test_download_goes_on_from_a_part(server, tmp_path, ranges, have):
    server.ranges = ranges
    (tmp_path / "file.part").write_bytes(server.content[:have])
    path = download.fetch([server.url], tmp_path / "file", server.digest, silent)
    assert path.read_bytes() == server.content
    assert server.requests == [f"bytes={have}-"]


def test_download_that_is_cut_is_kept_and_goes_on(server, tmp_path):
    server.cut = 1_500_000
    with pytest.raises(InputError, match=r"could not download file \(1,500,000 bytes are kept.*cut after 1,500,000 of"):
        download.fetch([server.url], tmp_path / "file", server.digest, silent)
    assert not (tmp_path / "file").exists()
    server.cut = 0
    assert download.fetch([server.url], tmp_path / "file", server.digest, silent).read_bytes() == server.content
    assert server.requests == [None, "bytes=1500000-"]


def test_download_of_the_wrong_content_is_thrown_away(server, tmp_path):
    with pytest.raises(InputError, match=r"3,000,000 bytes with md5:\w+, expected md5:0000.*give it as the source"):
        download.fetch([server.url], tmp_path / "file", "md5:" + "0" * 32, silent)
    assert list(tmp_path.iterdir()) == []


def test_download_tries_the_mirrors_in_order(server, tmp_path):
    urls = [server.url.replace("/file", "/missing"), "http://127.0.0.1:9/closed", server.url]
    path = download.fetch(urls, tmp_path / "file", server.digest, silent)
    assert path.read_bytes() == server.content
    with pytest.raises(InputError, match=r"Not Found.*refused"):
        download.fetch(urls[:2], tmp_path / "other", server.digest, silent)


def test_a_full_disk_is_said(server, tmp_path):
    (tmp_path / "file.part").symlink_to("/dev/full")
    with pytest.raises(InputError, match=r"file\.part: No space left on device"):
        download.fetch([server.url], tmp_path / "file", server.digest, silent)


def test_a_data_set_is_downloaded_and_built(server, tmp_path, monkeypatch):
    truth = write_cifar(tmp_path, "cifar10", "bin")
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / BIN, BIN)
    server.content = (tmp_path / "x.tar.gz").read_bytes()
    digest = f"md5:{hashlib.md5(server.content).hexdigest()}"
    file = catalog.File("cifar-10-binary.tar.gz", (server.url,), digest)
    monkeypatch.setitem(catalog.CATALOG, "cifar10", catalog.CATALOG["cifar10"]._replace(files=(file,)))
    assert_holds(tmp_path / "data", "cifar10", truth)
    assert (tmp_path / "data/downloads/cnnjax/cifar10/cifar-10-binary.tar.gz").is_file()
    assert server.requests == [None]


# The catalog


@pytest.mark.parametrize("name", catalog.CATALOG)
def test_every_row_of_the_catalog_is_whole(name):
    entry = catalog.CATALOG[name]
    assert entry.reader in readers.READERS
    assert len(set(entry.classes)) == len(entry.classes) == {"cifar100": 100, "imagenet2012": 0}.get(name, 10)
    assert set(entry.splits) == {"train", "validation" if name == "imagenet2012" else "test"}
    assert entry.description
    assert entry.citation
    for file in entry.files:
        assert file.urls
        assert all(url.endswith("/" + file.name) for url in file.urls)
        assert len(file.digest.removeprefix("md5:")) == 32


def test_the_catalog_costs_nothing_to_import():
    code = "import sys, cnnjax.data.catalog; print(sorted({'numpy', 'cv2', 'PIL', 'jax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_folder_that_is_no_tree_is_refused(tmp_path):
    (tmp_path / "ants").mkdir()
    with pytest.raises(InputError, match=r"has no class folders with images \(\.jpg, \.jpeg, \.png\)"):
        folders.scan(tmp_path)


def test_the_report_comes_now_and_then(monkeypatch):
    lines = []
    monkeypatch.setattr(build_module, "_REPORT_SECONDS", 0)
    report = build_module._every_few_seconds("x train", "images", lines.append)
    time.sleep(0.01)
    report(1200, 5000)
    assert lines == ["x train: 1,200 of 5,000 images"]


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
    assert image.shape == (10_000, *catalog.CATALOG[name].shape)
    assert np.bincount(label).tolist() == counts
    image, label = everything(tmp_path, name)
    assert len(image) == catalog.CATALOG[name].splits["train"]
    assert abs(image.mean() - mean) < 0.001
