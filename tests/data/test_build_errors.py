"""Broken original files: what is done to a good set of files -> the words of the error."""

import dataclasses
import gzip
import itertools
import pathlib
import pickle
import shutil
import tarfile

import pytest

from cnnjax.data import catalog, readers
from cnnjax.data.build import build
from cnnjax.errors import InputError
from tests.data.original_files import (
    BIN,
    PY,
    encoded,
    packed,
    silent,
    write_cifar,
    write_idx,
    write_imagenet,
    write_tree,
)


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
    ("py", cut(f"{PY}/test_batch", 100), ["test_batch (", "is truncated or not a CIFAR batch"]),
    ("py", repickle(f"{PY}/test_batch", data=lambda a: a[1:]), ["holds 3x3072 uint8, expected 4x3072 uint8"]),
    ("py", repickle(f"{PY}/test_batch", data=lambda a: a / 2), ["4x3072 float64, expected 4x3072 uint8"]),
    ("py", repickle(f"{PY}/test_batch", labels=lambda a: a[1:]), ["test_batch: 3 labels, expected 4"]),
    ("py", repickle(f"{PY}/test_batch", labels=lambda a: ["x"] * 4), ["labels that are not integers"]),
    ("tar", cut("cifar-10-binary.tar.gz", 2000), ["cifar-10-binary.tar.gz (", "is truncated or not a tar.gz"]),
    ("tree", cut("train/ants/b.jpg", 40), ["train/ants/b.jpg (", "not a readable JPEG", "or truncated"]),
    ("tree", cut("val/bees/c.PNG", 400), ["val/bees/c.PNG (", "not a readable JPEG", "or truncated"]),
    ("tree", put("val/bees/d.png", 900, 1), ["val/bees/d.png (", "not a readable JPEG"]),
    ("tree", lambda folder: (folder / "train/ants/b.jpg").write_bytes(b""), ["train/ants/b.jpg (0 bytes: not"]),
    (
        "tree",
        lambda folder: (folder / "val/ants").rename(folder / "val/Ants"),
        ["val/Ants is not a class of the", "ants, "],
    ),
    (
        "tree",
        lambda folder: (folder / "val").rename(folder / "valid"),
        ["valid is not a split", "train, val, validation"],
    ),
    ("tree", lambda folder: (folder / "train/ants/x").mkdir(), ["train/ants/x is a folder inside a class folder"]),
    ("tree", image_of("PPM"), ["train/ants/b.jpg (", "not a readable JPEG"]),
    ("imagenet", remove(VAL), ["has no ILSVRC2012_img_val.tar; register at image-net.org to get it"]),
    ("imagenet", cut(TRAIN, 15_000), ["ILSVRC2012_img_train.tar", "is truncated or not a tar"]),
    ("imagenet", put(VAL, 0, 7), ["ILSVRC2012_img_val.tar is truncated or not a tar"]),
    (
        "imagenet",
        lambda folder: write_imagenet(folder, "n02_1.JPEG"),
        [f"{TRAIN}/n02.tar/n02_1.JPEG (", "not a rea"],
    ),
    ("imagenet", lambda folder: (folder / TRAIN).write_bytes(packed({"n01.tar": b""})), ["3 archives", "in 'n02.tar'"]),
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
    def few(folder, entry, whole=readers.READERS["digits"]):
        entry, splits = whole(folder, entry)
        return entry, {split: itertools.islice(examples, 3) for split, examples in splits.items()}

    monkeypatch.setitem(readers.READERS, "digits", few)
    entry = dataclasses.replace(catalog.DATASETS["digits"], splits={"train": 4, "test": 3})
    monkeypatch.setitem(catalog.DATASETS, "digits", entry)
    with pytest.raises(InputError, match="split 'train' has 3 images, expected 4"):
        build("digits", data_dir=str(tmp_path), log=silent)


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
        build(*(*arguments, *("", str(tmp_path))[len(arguments) - 1 :]), log=silent)
    for word in words:
        assert word in str(error.value)
