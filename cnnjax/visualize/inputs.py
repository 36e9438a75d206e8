"""The images of a request: from files, or a fixed choice of a data set's examples."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

import numpy as np

from cnnjax.data import image_formats, images
from cnnjax.data.build import Split
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.evaluation.image_paths import find_image_files


@dataclasses.dataclass(frozen=True)
class Images:
    """Images with a name for each, and with its class or None; see `kinds.Request`."""

    images: tuple[np.ndarray, ...] = ()
    names: tuple[str, ...] = ()
    labels: tuple[int | None, ...] = ()


def file_name(text: str) -> str:
    """Returns `text` with every run of characters that do not suit a file name, spaces included, as one '_'."""
    return re.sub(r"[^\w.+=-]+", "_", text).strip("_.") or "_"


def read_files(words: Sequence[str], data: DataInfo, log: Callable[[str], None]) -> Images:
    """Reads the image files that `words` name, which are files and folders, as a network of `data` takes them.

    Raises InputError for a file that does not exist or is no image.
    """
    paths, failures = find_image_files(words, log)
    if failures:
        raise InputError(f"{failures[0].path}: {failures[0].error}")
    names = unique([file_name(path.stem) for path in paths])
    return Images(tuple(_read(path, data) for path in paths), names, (None,) * len(paths))


def _read(path: pathlib.Path, data: DataInfo) -> np.ndarray:
    """Reads an image file. Raises InputError, with its path, if it cannot be decoded."""
    try:
        content = image_formats.read_file(path)
        images.verify(content)
        return images.decode(content, data.shape[-1], data.bit_depth)
    except InputError as error:
        message = str(error)
        raise InputError(message if str(path) in message else f"{path}: {message}") from error


def equally_spaced(total: int, count: int) -> np.ndarray:
    """Returns `count` of the indices 0 to total - 1, ascending and equally spaced; all if there are fewer."""
    return np.linspace(0, total - 1, min(count, total)).astype(int)


def choose_examples(split: Split, count: int) -> Images:
    """Returns `count` examples of a split, equally spaced, so that every call has the same.

    They are named by index and class. Raises InputError if the split has fewer.
    """
    if not 1 <= count <= len(split):
        raise InputError(f"--examples={count}: expected 1 to {len(split):,}, the images of {split.name} {split.split}")
    indices = equally_spaced(len(split), count)
    pixels, labels = split.read(indices)
    names = [file_name(f"{i}_{split.classes[label]}") for i, label in zip(indices, labels, strict=True)]
    return Images(tuple(pixels), tuple(names), tuple(map(int, labels)))


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """Appends a number to each name that occurred before: a, b, a -> a, b, a_2."""
    result: list[str] = []
    for name in names:
        candidate, number = name, 1
        while candidate in result:
            number += 1
            candidate = f"{name}_{number}"
        result.append(candidate)
    return tuple(result)
