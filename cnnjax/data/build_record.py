"""The record that a build leaves beside a data set: digests of its examples and of its small files, in cnnjax.json."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from cnnjax import sealed
from cnnjax.errors import InputError

FILE = "cnnjax.json"


@dataclasses.dataclass(frozen=True)
class BuildRecord:
    """Describes the content of a data set that was built here.

    Attributes:
        digests: split name -> SHA-256 of its examples, in hexadecimal digits: their keys, labels and encoded images, in
            the order of the original files.
        bit_depth: see `images.decode`; None if no original image has more than 8 bits per channel.
        files: name -> SHA-256 of each file of the data set that describes the examples, such as dataset_info.json.
    """

    digests: Mapping[str, str]
    bit_depth: int | None
    files: Mapping[str, str]


class ExamplesDigest:
    """Computes the digest of the examples of a split, one after another."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def add(self, key: str, example: Mapping[str, Any]) -> None:
        """Adds an example: {"image": encoded bytes, label name: int, ...}."""
        labels = sorted((name, value) for name, value in example.items() if name != "image")
        head = json.dumps([key, labels, len(example["image"])]).encode()
        self._hash.update(len(head).to_bytes(4, "big") + head)
        self._hash.update(example["image"])

    def hexdigest(self) -> str:
        """Returns the digest of the examples so far."""
        return self._hash.hexdigest()


def write(folder: pathlib.Path, digests: Mapping[str, str], bit_depth: int | None) -> None:
    """Writes the record into the folder of a data set whose other files are complete."""
    content = dataclasses.asdict(BuildRecord(digests, bit_depth, _file_digests(folder)))
    sealed.write_json(folder / FILE, content)


def read(folder: pathlib.Path) -> BuildRecord | None:
    """Reads the record of a data set; None if it was built elsewhere, or by an earlier version.

    Raises InputError if the record or a file that it lists is damaged.
    """
    path = folder / FILE
    try:
        content = sealed.read_json(path)
        record = BuildRecord(dict(content["digests"]), content["bit_depth"], dict(content["files"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is damaged") from error
    actual = _file_digests(folder)
    if wrong := sorted(name for name, digest in record.files.items() if actual.get(name) != digest):
        raise InputError(f"{folder / wrong[0]} is damaged, or was changed since it was built")
    return record


def _file_digests(folder: pathlib.Path) -> dict[str, str]:
    """Returns the SHA-256 of each file in a folder except the record and the example files, which have checksums."""
    paths = [path for path in sorted(folder.iterdir()) if path.name != FILE and ".array_record" not in path.name]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}
