"""The files of CIFAR: how its binary and its pickled version are packed, and what is in one of their batches."""

import dataclasses
import math
import pathlib
from typing import Any

import numpy as np

from cnnjax import limits
from cnnjax.data import pickled_arrays, safe_pickle
from cnnjax.errors import InputError

_EXTRA_BYTES = 1 << 20  # allowed besides the pixels, for labels; file names may take half as much as the pixels


@dataclasses.dataclass(frozen=True)
class CifarFormat:
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

    def max_bytes(self, splits: dict[str, int], shape: tuple[int, ...]) -> dict[str, int]:
        """Returns the most bytes that each file may have, for the number of images of each split and their shape."""
        return {
            name: _EXTRA_BYTES + splits[split] // len(names) * math.prod(shape) * 3 // 2
            for split, names in self.files.items()
            for name in names
        }


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))

CIFAR10_FORMATS = (
    CifarFormat("cifar-10-batches-bin", "cifar-10-binary.tar.gz",
          {"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)}, (), ("label",)),
    CifarFormat("cifar-10-batches-py", "cifar-10-python.tar.gz",
          {"train": _BATCHES, "test": ("test_batch",)}, ("labels",), ("label",)),
)  # fmt: skip
CIFAR100_FORMATS = (
    CifarFormat("cifar-100-binary", "cifar-100-binary.tar.gz",
          {"train": ("train.bin",), "test": ("test.bin",)}, (), ("coarse_label", "label")),
    CifarFormat("cifar-100-python", "cifar-100-python.tar.gz",
          {"train": ("train",), "test": ("test",)}, ("coarse_labels", "fine_labels"), ("coarse_label", "label")),
)  # fmt: skip


def read_file(path: pathlib.Path, max_bytes: int) -> bytes:
    """Returns the bytes of a file. Raises InputError if it has more than `max_bytes`."""
    limits.check_size(str(path), path.stat().st_size, max_bytes)
    return path.read_bytes()


def parse(
    where: pathlib.Path, data: bytes, cifar_format: CifarFormat, count: int, pixels_per_image: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Returns the pixels, uint8 [count, pixels_per_image], and the integer labels by feature of one file's `data`.

    Runs no code in a pickle. Raises InputError, starting with `where`, for a file of another kind or size.
    """
    parse_file = _parse_pickle if cifar_format.label_keys else _parse_binary
    return parse_file(where, data, cifar_format, count, pixels_per_image)


def _parse_binary(
    where: pathlib.Path, data: bytes, cifar_format: CifarFormat, count: int, pixels_per_image: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Parses `count` records of label bytes, then pixels."""
    num_labels = len(cifar_format.features)
    record = num_labels + pixels_per_image
    if len(data) != count * record:
        kind = "truncated" if len(data) < count * record else "too long"
        raise InputError(
            f"{where} is {kind}: {len(data):,} bytes, expected {count * record:,} ({count:,} records of {record:,})"
        )
    records = np.frombuffer(data, np.uint8).reshape(count, record)
    return records[:, num_labels:], {feature: records[:, i] for i, feature in enumerate(cifar_format.features)}


def _parse_pickle(
    where: pathlib.Path, data: bytes, cifar_format: CifarFormat, count: int, pixels_per_image: int
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Parses a pickled dict of pixels and lists of labels."""
    try:
        batch = safe_pickle.loads(data)
        if not isinstance(batch, dict):
            raise InputError("the pickle is not a dict of pixels and labels")
        batch = {key.decode(errors="replace") if isinstance(key, bytes) else key: batch[key] for key in batch}
        if absent := [key for key in ("data", *cifar_format.label_keys) if key not in batch]:
            raise InputError(f"the pickle has no {absent[0]!r}")
        pixels = pickled_arrays.to_array(batch["data"])
        labels = [_labels(batch[key], key) for key in cifar_format.label_keys]
    except InputError as error:
        raise InputError(f"{where} ({len(data):,} bytes) is truncated or not a CIFAR batch: {error}") from error
    if pixels.shape != (count, pixels_per_image) or pixels.dtype != np.uint8:
        shape = "x".join(map(str, pixels.shape))
        raise InputError(f"{where} holds {shape} {pixels.dtype}, expected {count}x{pixels_per_image} uint8")
    return pixels, dict(zip(cifar_format.features, labels, strict=True))


def _labels(value: Any, key: str) -> np.ndarray:
    """Converts a list of integers, or an array of them, to an array. Raises InputError for anything else."""
    if isinstance(value, list) and all(type(label) is int and 0 <= label < 256 for label in value):
        return np.array(value, np.int64)
    array = pickled_arrays.to_array(value) if pickled_arrays.is_array(value) else np.zeros(())
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise InputError(f"{key!r}: labels that are not integers from 0 to 255")
    return array
