"""The original files of a data set, as their authors publish them, to encoded images and labels.

A reader takes the folder and the data set's row of the catalog. It gives the row, with the classes if the files alone
name them, and each split's examples in their original order as pairs (key, {"image": encoded bytes, "label": int}).
Examples are read as they are asked for. What is missing, truncated or not what it should be is an InputError that names
the file, what it has and what was expected.
"""

import contextlib
import gzip
import io
import os
import pathlib
import tarfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data import images, safe_pickle
from cnnjax.data.catalog import Entry
from cnnjax.errors import InputError

Examples = Iterator[tuple[str, dict[str, Any]]]
Splits = dict[str, Examples]


def _encode(split: str, pixels: Iterable[np.ndarray], labels: dict[str, np.ndarray], first: int = 0) -> Examples:
    for index, image in enumerate(pixels):
        example = {name: int(values[index]) for name, values in labels.items()}
        yield f"{split}_{first + index:06d}", {"image": images.encode_png(image), **example}


def examine(where: object, data: bytes, by: Callable[[bytes], Any] = images.check) -> Any:
    """What `by` says of an encoded image. Raises InputError with the place where it is for a broken one."""
    try:
        return by(data)
    except InputError as error:
        raise InputError(f"{where} ({len(data):,} bytes) is {error}, or is truncated") from error


def _check_labels(where: object, labels: np.ndarray, classes: int, count: int) -> None:
    if labels.shape != (count,):
        raise InputError(f"{where}: {len(labels):,} labels, expected {count:,}")
    if labels.size and not 0 <= labels.min() <= labels.max() < classes:
        wrong = int(labels.max()) if labels.max() >= classes else int(labels.min())
        raise InputError(f"{where}: label {wrong}, expected 0 to {classes - 1}")


# idx: MNIST and the data sets made in its image.


def idx(folder: pathlib.Path, entry: Entry) -> tuple[Entry, Splits]:
    """{train,t10k}-{images-idx3,labels-idx1}-ubyte, gzipped or not, also with a dot for the second hyphen."""
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
    for name in (f"{stem}-{suffix}", f"{stem}.{suffix}"):
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return path
    raise InputError(f"{folder} has no {stem}-{suffix} or {stem}-{suffix}.gz")


def _read_idx(path: pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """The array in an idx file of bytes: two zeros, the type 8, the rank, the sides (big-endian), the values."""
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
        raise InputError(f"{path} holds {_times(sides)} values, expected {_times(shape)}")
    expected = start + int(np.prod(shape))
    if len(data) != expected:
        kind = "truncated" if len(data) < expected else "too long"
        raise InputError(f"{path} is {kind}: {len(data):,} bytes unpacked, expected {expected:,}")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _times(sides: tuple[int, ...]) -> str:
    return "x".join(str(side) for side in sides)


# CIFAR: two forms of the same pixels, in a folder or still in the archive.


class _Form(NamedTuple):
    folder: str  # inside the archive
    archive: str
    files: dict[str, tuple[str, ...]]
    labels: tuple[str, ...]  # binary: the order of a record's label bytes; pickle: the keys, in our features' order
    features: tuple[str, ...]


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

_CIFAR10_FORMS = (
    _Form("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
          {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, (), ("label",)),
    _Form("cifar-10-batches-py", "cifar-10-python.tar.gz",
          {"train": _BATCHES, "test": ("test_batch",)}, ("labels",), ("label",)),
)  # fmt: skip
_CIFAR100_FORMS = (
    _Form("cifar-100-binary", "cifar-100-binary.tar.gz",
          {"train": ("train.bin",), "test": ("test.bin",)}, (), ("coarse_label", "label")),
    _Form("cifar-100-python", "cifar-100-python.tar.gz",
          {"train": ("train",), "test": ("test",)}, ("coarse_labels", "fine_labels"), ("coarse_label", "label")),
)  # fmt: skip


def cifar10(folder: pathlib.Path, entry: Entry) -> tuple[Entry, Splits]:
    """The binary or the Python form, in `folder`, in its subfolder, or in the .tar.gz it comes in."""
    return _cifar(folder, entry, _CIFAR10_FORMS)


def cifar100(folder: pathlib.Path, entry: Entry) -> tuple[Entry, Splits]:
    """As `cifar10`. The label is the fine one; the coarse one comes beside it."""
    return _cifar(folder, entry, _CIFAR100_FORMS)


def _cifar(folder: pathlib.Path, entry: Entry, forms: tuple[_Form, ...]) -> tuple[Entry, Splits]:
    form, place = _find_cifar(folder, forms)
    names = [name for files in form.files.values() for name in files]
    if place.is_dir():
        for name in names:
            if not (place / name).is_file():
                raise InputError(f"{place} has no {name}; expected {', '.join(names)}")
        contents: dict[str, bytes] = {}
    else:
        contents = _read_tar(place, names)

    def examples(split: str) -> Examples:
        count = entry.splits[split] // len(form.files[split])
        for part, name in enumerate(form.files[split]):
            data = contents.pop(name) if contents else (place / name).read_bytes()
            parse = _parse_pickle if form.labels else _parse_binary
            pixels, labels = parse(place / name, data, form, entry, count)
            for feature, values in labels.items():
                classes = entry.extra_labels.get(feature, entry.classes)
                _check_labels(place / name, values, len(classes), count)
            yield from _encode(split, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), labels, part * count)

    return entry, {split: examples(split) for split in form.files}


def _find_cifar(folder: pathlib.Path, forms: tuple[_Form, ...]) -> tuple[_Form, pathlib.Path]:
    """The first place that has any of a form's files: a folder, or the archive."""
    for form in forms:
        for place in (folder, folder / form.folder):
            if any((place / name).is_file() for files in form.files.values() for name in files):
                return form, place
    for form in forms:
        if (folder / form.archive).is_file():
            return form, folder / form.archive
    expected = " or ".join(f"{form.folder}/ or {form.archive}" for form in forms)
    raise InputError(f"{folder} has none of the original files; expected {expected}")


def _read_tar(path: pathlib.Path, names: list[str]) -> dict[str, bytes]:
    """The members of those names, wherever in the archive, in one pass (going back would unpack it again)."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                name = os.path.basename(member.name)
                if name in names and member.isfile() and (file := archive.extractfile(member)):
                    found[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is truncated or no tar.gz: {error}") from error
    for name in names:
        if name not in found:
            raise InputError(f"{path} has no {name}; expected {', '.join(names)}")
    return found


def _parse_binary(
    where: pathlib.Path, data: bytes, form: _Form, entry: Entry, count: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Records of label bytes and then 3072 pixels, plane after plane."""
    width = len(form.features)
    record = width + int(np.prod(entry.shape))
    if len(data) != count * record:
        kind = "truncated" if len(data) < count * record else "too long"
        raise InputError(
            f"{where} is {kind}: {len(data):,} bytes, expected {count * record:,} ({count:,} records of {record:,})"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    return records[:, width:], {feature: records[:, at] for at, feature in enumerate(form.features)}


def _parse_pickle(
    where: pathlib.Path, data: bytes, form: _Form, entry: Entry, count: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """A pickled dict of the pixels, plane after plane, and lists of labels."""
    try:
        batch = safe_pickle.loads(data)
        batch = {key.decode() if isinstance(key, bytes) else key: value for key, value in batch.items()}
        pixels = np.asarray(batch["data"])
        labels = {name: np.asarray(batch[key]) for key, name in zip(form.labels, form.features, strict=True)}
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise InputError(f"{where} ({len(data):,} bytes) is truncated or no CIFAR batch: {error!r}") from error
    shape = (count, int(np.prod(entry.shape)))
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise InputError(f"{where} holds {_times(pixels.shape)} {pixels.dtype}, expected {_times(shape)} uint8")
    if any(values.dtype.kind not in "iu" for values in labels.values()):
        raise InputError(f"{where}: labels that are no whole numbers")
    return pixels, labels


# ImageNet: an archive of an archive for each class, one of numbered images, and the kit that says what is on them.

_TRAIN, _VAL, _KIT = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar", "ILSVRC2012_devkit_t12.tar.gz"
_META, _TRUTH = "meta.mat", "ILSVRC2012_validation_ground_truth.txt"


def imagenet(folder: pathlib.Path, entry: Entry) -> tuple[Entry, Splits]:
    """The three archives as image-net.org gives them out, packed; images keep their bytes.

    The classes are WordNet's ids in the order of the alphabet, which is that of published weights, and not the kit's.
    """
    for name in (_TRAIN, _VAL, _KIT):
        if not (folder / name).is_file():
            raise InputError(
                f"{folder} has no {name}; those who register at image-net.org get it: give its folder as --source"
            )
    ids, truth = _read_kit(folder / _KIT)
    classes = tuple(sorted(ids.values()))
    _check_labels(f"{folder / _KIT}, {_TRUTH}", truth - 1, len(classes), entry.splits["validation"])

    def train() -> Examples:
        with _tar(folder / _TRAIN) as archive:
            members = sorted(archive.getmembers(), key=lambda member: member.name)
            if wrong := {member.name for member in members} ^ {f"{name}.tar" for name in classes}:
                what = f"should have {len(classes):,} archives named after classes, and differs in {min(wrong)}"
                raise InputError(f"{folder / _TRAIN} {what}")
            for label, member in enumerate(members):
                where = folder / _TRAIN / member.name
                with _tar(where, archive.extractfile(member)) as inner:
                    for key, data in _members(where, inner):
                        yield key, {"image": data, "label": label}

    def validation() -> Examples:
        with _tar(folder / _VAL) as archive:
            for key, data in _members(folder / _VAL, archive):
                number = key.removeprefix("ILSVRC2012_val_").removesuffix(".JPEG")
                if not (number.isdigit() and 1 <= int(number) <= len(truth)):
                    raise InputError(
                        f"{folder / _VAL}: {key}: expected ILSVRC2012_val_00000001.JPEG to {len(truth):08}"
                    )
                yield key, {"image": data, "label": classes.index(ids[int(truth[int(number) - 1])])}

    return entry._replace(classes=classes), {"train": train(), "validation": validation()}


def _read_kit(path: pathlib.Path) -> tuple[dict[int, str], np.ndarray]:
    """The WordNet id of each class by the kit's number for it, from 1 on, and the numbers of the validation images."""
    from scipy.io import loadmat

    files = _read_tar(path, [_META, _TRUTH])
    try:
        synsets = loadmat(io.BytesIO(files[_META]), squeeze_me=True)["synsets"]
        leaves = synsets[synsets["num_children"] == 0]  # the others are what WordNet has above them
        ids = {int(one["ILSVRC2012_ID"]): str(one["WNID"]) for one in leaves}
        truth = np.array(files[_TRUTH].split(), np.int64)
        if sorted(ids) != list(range(1, len(ids) + 1)):
            raise ValueError(f"{len(ids)} classes, which are not numbered from 1 on")
    except Exception as error:  # a damaged file can raise nearly anything
        raise InputError(f"{path} is not ImageNet's: {error!r}") from error
    return ids, truth


@contextlib.contextmanager
def _tar(where: pathlib.Path, file: Any = None) -> Iterator[tarfile.TarFile]:
    """An archive that is not compressed, of that path or in that file."""
    try:
        with tarfile.open(None if file else where, "r:", file) as archive:
            yield archive
    except tarfile.TarError as error:
        raise InputError(f"{where} is truncated or no tar: {error}") from error


def _members(where: pathlib.Path, archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    """The name and bytes of each image."""
    for member in archive:
        if file := archive.extractfile(member):
            data = file.read()
            examine(where / member.name, data)
            yield os.path.basename(member.name), data


# What scikit-learn carries.


def digits(folder: pathlib.Path, entry: Entry) -> tuple[Entry, Splits]:
    """scikit-learn's digits, 0..16 stretched to 0..255. Every fifth is a test image; `folder` is not used."""
    from sklearn.datasets import load_digits  # costs a second, and only here

    bundle: Any = load_digits()
    pixels = np.round(bundle.images * (255 / 16)).astype(np.uint8)
    test = np.arange(len(pixels)) % 5 == 4
    return entry, {
        split: _encode(split, pixels[chosen], {"label": bundle.target[chosen]})
        for split, chosen in (("train", ~test), ("test", test))
    }


READERS: dict[str, Callable[[pathlib.Path, Entry], tuple[Entry, Splits]]] = {
    "digits": digits,
    "idx": idx,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "imagenet": imagenet,
}
