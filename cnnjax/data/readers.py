"""Readers of original files, as the authors of a data set publish them.

A reader takes a folder and the data set's row in the catalog. It returns the row, completed with the classes if only
the files name them, and for each split an iterator over its examples in their original order: pairs
(key, {"image": encoded bytes, "label": int}). It raises InputError for files that are missing, truncated or of another
kind. Other code may add rows to `READERS`.
"""

import contextlib
import dataclasses
import gzip
import io
import os
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np

from cnnjax.data import images, safe_pickle
from cnnjax.data.catalog import Dataset
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
        raise InputError(f"{where} ({len(data):,} bytes) is {error}, or is truncated") from error


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
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            data = file.read()
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is truncated or not gzip: {error}") from error
    start = 4 + 4 * len(shape)
    if data[:4] != bytes((0, 0, 8, len(shape))) or len(data) < start:
        magic = f"{0x800 + len(shape):08x}"
        raise InputError(f"{path} is not the idx file expected: it starts with {data[:4].hex()}, not {magic}")
    sides = tuple(np.frombuffer(data[4:start], ">u4").tolist())
    if sides != shape:
        raise InputError(f"{path} holds {_format_shape(sides)} values, expected {_format_shape(shape)}")
    expected = start + int(np.prod(shape))
    if len(data) != expected:
        kind = "truncated" if len(data) < expected else "too long"
        raise InputError(f"{path} is {kind}: {len(data):,} bytes unpacked, expected {expected:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _format_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


# CIFAR: a binary and a Python version of the same pixels, in a folder or still in the archive.
@dataclasses.dataclass(frozen=True)
class _CifarFormat:
    """Describes how one version of CIFAR, binary or pickled, is packed.

    Attributes:
        folder: name of the folder inside the archive.
        archive: name of the archive.
        files: split name -> names of its files, in order.
        label_keys: keys of the labels in a pickled dict, in the order of `features`; () for the binary version.
        features: names of our labels, in the order of the label bytes of a binary record.
    """

    folder: str
    archive: str
    files: dict[str, tuple[str, ...]]
    label_keys: tuple[str, ...]
    features: tuple[str, ...]


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

_CIFAR10_FORMATS = (
    _CifarFormat("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
          {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, (), ("label",)),
    _CifarFormat("cifar-10-batches-py", "cifar-10-python.tar.gz",
          {"train": _BATCHES, "test": ("test_batch",)}, ("labels",), ("label",)),
)  # fmt: skip
_CIFAR100_FORMATS = (
    _CifarFormat("cifar-100-binary", "cifar-100-binary.tar.gz",
          {"train": ("train.bin",), "test": ("test.bin",)}, (), ("coarse_label", "label")),
    _CifarFormat("cifar-100-python", "cifar-100-python.tar.gz",
          {"train": ("train",), "test": ("test",)}, ("coarse_labels", "fine_labels"), ("coarse_label", "label")),
)  # fmt: skip


def cifar10(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads CIFAR-10, binary or pickled, unpacked or as .tar.gz; returns `entry` and an example iterator per split."""
    return _cifar(folder, entry, _CIFAR10_FORMATS)


def cifar100(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads CIFAR-100 like `cifar10`. "label" is one of 100 classes, "coarse_label" one of 20 superclasses."""
    return _cifar(folder, entry, _CIFAR100_FORMATS)


def _cifar(folder: pathlib.Path, entry: Dataset, formats: tuple[_CifarFormat, ...]) -> tuple[Dataset, Splits]:
    """Reads CIFAR in the first of `formats` that `folder` has; returns `entry` and an example iterator per split."""
    cifar_format, place = _find_cifar(folder, formats)
    names = [name for files in cifar_format.files.values() for name in files]
    if place.is_dir():
        for name in names:
            if not (place / name).is_file():
                raise InputError(f"{place} has no {name}; expected {', '.join(names)}")
        contents: dict[str, bytes] = {}
    else:
        contents = _read_tar(place, names)

    def examples(split: str) -> Examples:
        count = entry.splits[split] // len(cifar_format.files[split])
        for number, name in enumerate(cifar_format.files[split]):
            data = contents.pop(name) if contents else (place / name).read_bytes()
            parse = _parse_pickle if cifar_format.label_keys else _parse_binary
            pixels, labels = parse(place / name, data, cifar_format, entry, count)
            for feature, values in labels.items():
                classes = entry.extra_labels.get(feature, entry.classes)
                _check_labels(place / name, values, len(classes), count)
            yield from _encode(split, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, number * count)

    return entry, {split: examples(split) for split in cifar_format.files}


def _find_cifar(folder: pathlib.Path, formats: tuple[_CifarFormat, ...]) -> tuple[_CifarFormat, pathlib.Path]:
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


def _read_tar(path: pathlib.Path, names: list[str]) -> dict[str, bytes]:
    """Reads the files with these names, in any folder of a .tar.gz, in one pass: going back would decompress again."""
    contents: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if name in names and member.isfile() and (file := archive.extractfile(member)):
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is truncated or no tar.gz: {error}") from error
    for name in names:
        if name not in contents:
            raise InputError(f"{path} has no {name}; expected {', '.join(names)}")
    return contents


def _parse_binary(
    where: pathlib.Path, data: bytes, cifar_format: _CifarFormat, entry: Dataset, count: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Parses `count` records of label bytes, then pixels: returns uint8 [count, 3072] pixels and labels by feature."""
    num_labels = len(cifar_format.features)
    record = num_labels + int(np.prod(entry.shape))
    if len(data) != count * record:
        kind = "truncated" if len(data) < count * record else "too long"
        raise InputError(
            f"{where} is {kind}: {len(data):,} bytes, expected {count * record:,} ({count:,} records of {record:,})"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    return records[:, num_labels:], {feature: records[:, i] for i, feature in enumerate(cifar_format.features)}


def _parse_pickle(
    where: pathlib.Path, data: bytes, cifar_format: _CifarFormat, entry: Dataset, count: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Parses a pickled dict of pixels and lists of labels. Returns the same as `_parse_binary`."""
    try:
        batch = safe_pickle.loads(data)
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels = np.asarray(batch["data"])
        names = zip(cifar_format.label_keys, cifar_format.features, strict=True)
        labels = {name: np.asarray(batch[key]) for key, name in names}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{where} ({len(data):,} bytes) is truncated or no CIFAR batch: {error!r}") from error
    shape = (count, int(np.prod(entry.shape)))
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise InputError(
            f"{where} holds {_format_shape(pixels.shape)} {pixels.dtype}, expected {_format_shape(shape)} uint8"
        )
    if any(values.dtype.kind not in "iu" for values in labels.values()):
        raise InputError(f"{where}: labels that are not integers")
    return pixels, labels


# ImageNet: an archive with an archive per class, an archive of numbered images, and a development kit with labels.

_TRAIN, _VAL, _DEVKIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"


def imagenet(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Reads the three archives of image-net.org without unpacking them; the JPEGs are not encoded anew.

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
        with _open_tar(folder / _TRAIN) as archive:
            members = sorted(archive.getmembers(), key=lambda member: member.name)
            if wrong := {member.name for member in members} ^ {f"{name}.tar" for name in classes}:
                expected = f"should have {len(classes):,} archives named after classes, and differs in {min(wrong)}"
                raise InputError(f"{folder / _TRAIN} {expected}")
            for label, member in enumerate(members):
                where = folder / _TRAIN / member.name
                with _open_tar(where, archive.extractfile(member)) as inner:
                    for key, data in _read_images(where, inner):
                        yield key, {"image": data, "label": label}

    def validation() -> Examples:
        with _open_tar(folder / _VAL) as archive:
            for key, data in _read_images(folder / _VAL, archive):
                number = key.removeprefix("ILSVRC2012_val_").removesuffix(".JPEG")
                if not (number.isdigit() and 1 <= int(number) <= len(truth)):
                    raise InputError(
                        f"{folder / _VAL}: {key}: expected ILSVRC2012_val_00000001.JPEG to {len(truth):08}"
                    )
                yield key, {"image": data, "label": classes.index(ids[int(truth[int(number) - 1])])}

    return dataclasses.replace(entry, classes=classes), {"train": train(), "validation": validation()}


def _read_devkit(path: pathlib.Path) -> tuple[dict[int, str], np.ndarray]:
    """Returns WordNet ids by class number, from 1, and the class number of each validation image, int64 [N]."""
    from scipy.io import loadmat

    files = _read_tar(path, [_META, _TRUTH])
    try:
        synsets = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are their hypernyms
        ids = {int(leaf["ILSVRC2012_ID"]): str(leaf["WNID"]) for leaf in leaves}
        truth = np.array(files[_TRUTH].split(), np.int64)
        if sorted(ids) != list(range(1, len(ids) + 1)):
            raise ValueError(f"{len(ids)} classes, which are not numbered from 1")
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is not ImageNet's: {error!r}") from error
    return ids, truth


@contextlib.contextmanager
def _open_tar(where: pathlib.Path, file: Any = None) -> Iterator[tarfile.TarFile]:
    """Opens an uncompressed tar: `file`, or else the path `where`. Errors start with `where`."""
    try:
        with tarfile.open(None if file else where, "r:", file) as archive:
            yield archive
    except tarfile.TarError as error:
        raise InputError(f"{where} is truncated or no tar: {error}") from error


def _read_images(where: pathlib.Path, archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """Yields the file name and the bytes of each image in an archive, after decoding it as a check."""
    for member in archive:
        if file := archive.extractfile(member):
            data = file.read()
            inspect_image(where / member.name, data)
            yield os.path.basename(member.name), data


def digits(folder: pathlib.Path, entry: Dataset) -> tuple[Dataset, Splits]:
    """Returns scikit-learn's digits, scaled from 0..16 to 0..255; every fifth is a test image. `folder` is unused."""
    from sklearn.datasets import load_digits  # costs a second

    bundle: Any = load_digits()
    pixels = np.round(bundle.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(pixels)) % 5 == 4
    return entry, {
        split: _encode(split, pixels[chosen], {"label": bundle.target[chosen]})
        for split, chosen in (("train", ~test), ("test", test))
    }


READERS: dict[str, Reader] = {
    "digits": digits,
    "idx": idx,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
}
