"""Readers of original files, as the authors of a data set publish them.

A reader takes a folder and the data set's row in the catalog. It returns the row, completed with the classes if only
the files name them, and for each split an iterator over its examples in their original order: pairs
(key, {"image": encoded bytes, "label": int}), with a "box" if the row has_boxes. It raises InputError for files that
are missing, truncated or of another kind. Other code may add rows to `READERS`.
"""

import dataclasses
import gzip
import io
import math
import os
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from cnnjax.data import archives, cifar_batches, clutter, images
from cnnjax.data.catalog import Dataset
from cnnjax.data.cifar_batches import CIFAR10_FORMATS, CIFAR100_FORMATS, CifarFormat
from cnnjax.errors import InputError

Examples = Iterator[tuple[str, dict[str, Any]]]
Splits = dict[str, Examples]
Reader = Callable[[pathlib.Path, Dataset], tuple[Dataset, Splits]]


def _encode(split: str, pixels: Iterable[np.ndarray], labels: dict[str, np.ndarray], first: int = 0) -> Examples:
    """Yields (key, {"image": PNG bytes, **labels}) for uint8 images [H, W, C]; keys, 'train_000000', from `first`."""
    for index, image in enumerate(pixels):
        example = {name: int(values[index]) for name, values in labels.items()}
        yield f"{split}_{first + index:06d}", {"image": images.encode_png(image), **example}


def inspect_image(where: object, data: bytes, inspect: Callable[[bytes], Any] = images.verify) -> Any:
    """Returns `inspect(data)`, and adds `where` (a path) to the InputError that it raises for a broken image."""
    try:
        return inspect(data)
    except InputError as error:
        raise InputError(f"{where} ({len(data):,} bytes): {error}") from error


def _check_labels(where: object, labels: np.ndarray, classes: int, count: int) -> None:
    """Raises InputError, starting with `where`, unless there are `count` labels from 0 to `classes` - 1."""
    if labels.shape != (count,):
        raise InputError(f"{where}: {len(labels):,} labels, expected {count:,}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        wrong = int(labels.max()) if labels.max() >= classes else int(labels.min())
        raise InputError(f"{where}: label {wrong}, expected 0 to {classes - 1}")


def idx(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads the four idx files of MNIST or alike, gzipped or not; returns `entry` and an example iterator per split."""
    paths = {
        (split, kind): _find_idx(folder, f"{prefix}-{kind}", f"idx{rank}-ubyte")
        for split, prefix in (("train", "train"), ("test", "t10k"))
        for kind, rank in (("images", 3), ("labels", 1))
    }

    def examples(split: str) -> Examples:
        count = entry.splits[split]
        pixels = _read_idx(paths[split, "images"], (count, *entry.shape[:2]))
        labels = _read_idx(paths[split, "labels"], (count,))
        _check_labels(paths[split, "labels"], labels, len(entry.classes), count)
        yield from _encode(split, pixels, {"label": labels})

    return entry, {split: examples(split) for split in ("train", "test")}


def _find_idx(folder: pathlib.Path, stem: str, suffix: str) -> pathlib.Path:
    """Finds a file in `folder`, with a hyphen or a dot between `stem` and `suffix`, gzipped or not."""
    for name in (f"{stem}-{suffix}", f"{stem}.{suffix}"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"{folder} has no {stem}-{suffix} or {stem}-{suffix}.gz")


def _read_idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """Reads an idx file of `shape`: two zeros, the type 8 (uint8), the rank, the sides (big-endian), the values."""
    start = 4 + 4 * len(shape)
    expected = start + int(np.prod(shape))
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read(expected + 1)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is truncated or not gzip: {error}") from error
    if data[:4] != bytes((0, 0, 8, len(shape))) or len(data) < start:
        magic = f"{0x800 + len(shape):08x}"
        raise InputError(f"{path} is not the idx file expected: it starts with {data[:4].hex()}, not {magic}")
    sides = tuple(np.frombuffer(data[4:start], ">u4").tolist())
    if sides != shape:
        raise InputError(f"{path} holds {_format_shape(sides)} values, expected {_format_shape(shape)}")
    if len(data) < expected:
        raise InputError(f"{path} is truncated: {len(data):,} bytes unpacked, expected {expected:,}")
    if len(data) > expected:
        raise InputError(f"{path} is too long: more than the {expected:,} bytes expected")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# CIFAR: a binary and a Python version of the same pixels, in a folder or still in the archive.


def cifar10(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads CIFAR-10, binary or pickled, unpacked or as .tar.gz; returns `entry` and an example iterator per split."""
    return _cifar(folder, entry, CIFAR10_FORMATS)


def cifar100(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads CIFAR-100 like `cifar10`. "label" is one of 100 classes, "coarse_label" one of 20 superclasses."""
    return _cifar(folder, entry, CIFAR100_FORMATS)


def _cifar(folder: pathlib.Path, entry: Dataset, formats: tuple[CifarFormat, ...]) -> tuple[Dataset, Splits]:
    """Reads CIFAR in the first of `formats` that `folder` has; returns `entry` and an example iterator per split."""
    cifar_format, place = _find_cifar(folder, formats)
    max_bytes = cifar_format.max_bytes(entry.splits, entry.shape)
    if place.is_dir():
        for name in max_bytes:
            if not (place / name).is_file():
                raise InputError(f"{place} has no {name}; expected {', '.join(max_bytes)}")
        contents: dict[str, bytes] = {}
    else:
        contents = archives.read_tar_gz(place, max_bytes)

    def examples(split: str) -> Examples:
        count = entry.splits[split] // len(cifar_format.files[split])
        for number, name in enumerate(cifar_format.files[split]):
            data = contents.pop(name) if contents else cifar_batches.read_file(place / name, max_bytes[name])
            pixels, labels = cifar_batches.parse(place / name, data, cifar_format, count, math.prod(entry.shape))
            for feature, values in labels.items():
                classes = entry.extra_labels.get(feature, entry.classes)
                _check_labels(place / name, values, len(classes), count)
            yield from _encode(split, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, number * count)

    return entry, {split: examples(split) for split in cifar_format.files}


def _find_cifar(folder: pathlib.Path, formats: tuple[CifarFormat, ...]) -> tuple[CifarFormat, pathlib.Path]:
    """Returns the first format that `folder` has, and where: a folder with any of its files, or else its archive."""
    for cifar_format in formats:
        for place in (folder, folder / cifar_format.folder):
            if any((place / name).is_file() for files in cifar_format.files.values() for name in files):
                return cifar_format, place
    for cifar_format in formats:
        if (folder / cifar_format.archive).is_file():
            return cifar_format, folder / cifar_format.archive
    expected = " or ".join(f"{row.folder}/ or {row.archive}" for row in formats)
    raise InputError(f"{folder} has none of the original files; expected {expected}")


# ImageNet: an archive with an archive per class, an archive of numbered images, and a development kit with labels.

_TRAIN, _VAL, _DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"
_MAX_DEVKIT_BYTES = 1 << 25  # of each of these two


def imagenet(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads the three archives of image-net.org without unpacking them; the JPEGs are not encoded again.

    Returns `entry` with its classes, and an example iterator per split. The classes are the WordNet ids, sorted: the
    order of published weights, not of the development kit.
    """
    for name in (_TRAIN, _VAL, _DEVKIT):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}; register at image-net.org to get it, and give its folder as --source"
            )
    ids, truth = _read_devkit(folder / _DEVKIT)
    classes = tuple(sorted(ids.values()))
    _check_labels(f"{folder / _DEVKIT}, {_TRUTH}", truth - 1, len(classes), entry.splits["validation"])

    def train() -> Examples:
        with archives.open_tar(folder / _TRAIN) as archive:
            members = sorted(archive.members, key=lambda member: member.name)
            if wrong := {member.name for member in members} ^ {f"{name}.tar" for name in classes}:
                expected = f"should have {len(classes):,} archives named after classes, and differs in {min(wrong)!r}"
                raise InputError(f"{folder / _TRAIN} {expected}")
            for label, member in enumerate(members):
                for key, data in _read_images(archive.nested(member)):
                    yield key, {"image": data, "label": label}

    def validation() -> Examples:
        with archives.open_tar(folder / _VAL) as archive:
            for key, data in _read_images(archive):
                number = key.removeprefix("ILSVRC2012_val_").removesuffix(".JPEG")
                if not (number.isdecimal() and 1 <= int(number) <= len(truth)):
                    raise InputError(
                        f"{folder / _VAL}: {key}: expected ILSVRC2012_val_00000001.JPEG to {len(truth):08}"
                    )
                yield key, {"image": data, "label": classes.index(ids[int(truth[int(number) - 1])])}

    return dataclasses.replace(entry, classes=classes), {"train": train(), "validation": validation()}


def _read_devkit(path: pathlib.Path) -> tuple[dict[int, str], np.ndarray]:
    """Returns WordNet ids by class number, from 1, and the class number of each validation image, int64 [N]."""
    from scipy.io import loadmat

    files = archives.read_tar_gz(path, dict.fromkeys((_META, _TRUTH), _MAX_DEVKIT_BYTES))
    try:
        synsets = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are their hypernyms
        ids = {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
        truth = np.array(files[_TRUTH].split(), np.int64)
        if sorted(ids) != list(range(1, len(ids) + 1)):
            raise ValueError(f"{len(ids)} classes, which are not numbered from 1")
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is not ImageNet's: {str(error)[:200]}") from error
    return ids, truth


def _read_images(archive: archives.Tar) -> Iterator[tuple[str, bytes]]:
    """Yields the file name and the bytes of each image in an archive, after decoding it as a check."""
    for member in archive.members:
        data = archive.read(member)
        inspect_image(archive.where / member.name, data)
        yield os.path.basename(member.name), data


def digits(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Returns scikit-learn's digits, scaled from 0..16 to 0..255; every fifth is a test image. `folder` is unused."""
    return entry, {
        split: _encode(split, pixels, {"label": labels}) for split, (pixels, labels) in _bundled_digits().items()
    }


def digits_clutter(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Makes images of digits in clutter, several from each digit of the same split of `digits`. `folder` is unused."""
    return entry, {
        split: clutter.examples(split, pixels, labels, entry.splits[split])
        for split, (pixels, labels) in _bundled_digits().items()
    }


def _bundled_digits() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Returns uint8 images [N, 8, 8] and labels of scikit-learn's digits by split; every fifth is a test image."""
    from sklearn.datasets import load_digits  # costs a second

    bundle: Any = load_digits()
    pixels = np.round(bundle.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(pixels)) % 5 == 4
    return {split: (pixels[rows], bundle.target[rows]) for split, rows in (("train", ~test), ("test", test))}


READERS: dict[str, Reader] = {
    "digits": digits,
    "digits_clutter": digits_clutter,
    "idx": idx,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
}
