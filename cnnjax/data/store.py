"""What is on disk: TFDS data sets found by name, and read as images and labels without TensorFlow."""

import contextlib
import fnmatch
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data import images
from cnnjax.data.catalog import CATALOG
from cnnjax.errors import InputError, unknown

FORMAT = "array_record"  # the one of TFDS's formats that gives any example at once, and needs no TensorFlow


def data_dir(given: str = "") -> pathlib.Path:
    """Where data sets live: `given`, or else where TFDS itself would keep them."""
    return pathlib.Path(given or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


class Found(NamedTuple):
    """A prepared data set, as its two JSON files describe it."""

    name: str  # 'name' or 'name/config'
    version: str
    path: pathlib.Path
    formats: tuple[str, ...]
    splits: dict[str, int]


def find_all(root: pathlib.Path, name: str = "*") -> list[Found]:
    """The data sets under `root`, or those called `name`, oldest version first. Reads one small file for each."""
    infos = [*root.glob(f"{name}/*/dataset_info.json"), *root.glob(f"{name}/*/*/dataset_info.json")]
    found = [_describe(path) for path in infos if not path.parent.name.startswith("incomplete.")]  # TFDS still writes
    return sorted((one for one in found if one), key=lambda one: (one.name, _order(one.version)))


def _describe(path: pathlib.Path) -> Found | None:
    """None when it is not what TFDS writes: a folder of somebody's own with a file of that name."""
    try:
        info = json.loads(path.read_text())
        splits = {
            split["name"]: sum(int(length) for length in split.get("shardLengths", []))
            for split in info.get("splits", [])
        }
        config = f"/{info['configName']}" if info.get("configName") else ""
        formats = (info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", []))
        return Found(info["name"] + config, info["version"], path.parent, formats, splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _order(version: str) -> list[int]:
    return [int(part) if part.isdigit() else 0 for part in version.split(".")]


def find(name: str, root: pathlib.Path) -> Found | None:
    """The newest array_record version of 'name', 'name/config', 'name:1.2.3' or 'name:1.*.*'; None if there is none.

    Raises InputError when there is one in another format only, or when a config must be chosen.
    """
    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\d.*]+)?", name):
        return None
    asked, _, version = name.partition(":")
    matches = [
        one
        for one in find_all(root, asked.partition("/")[0])
        if asked in (one.name, one.name.partition("/")[0]) and fnmatch.fnmatch(one.version, version or "*")
    ]
    if not matches:
        return None
    usable = [one for one in matches if FORMAT in one.formats]
    if not usable:
        one = matches[-1]
        raise InputError(
            f"{one.path} is stored as {one.formats[0]}, which needs TensorFlow to read; "
            f"prepare it again with TFDS's file_format={FORMAT!r}"
        )
    configs = sorted({one.name for one in usable})
    if len(configs) > 1:
        default = f"{asked}/{_default_config(root / asked)}"
        if default not in configs:
            raise InputError(f"data set {name!r} has several configs; choose one of {', '.join(configs)}")
        usable = [one for one in usable if one.name == default]
    return usable[-1]


def _default_config(path: pathlib.Path) -> str:
    """What TFDS noted when it prepared a data set that has several configs."""
    try:
        return json.loads((path / ".config" / "metadata.json").read_text())["default_config_name"]
    except (OSError, ValueError, KeyError):
        return ""


class Split:
    """A split of a data set, or a part of one: `len(split)` examples, read by index in any order, from any thread.

    Attributes: name (as it was asked for), split (TFDS's syntax), classes, shape: [height, width, channels] with
    None for a side that differs from image to image, ranges: of which examples of which split it is made, and identity:
    what tells it from another, as far as TFDS knows.
    """

    def __init__(self, name: str, split: str, path: pathlib.Path) -> None:
        """Opens it. Raises InputError for a split that does not exist or is empty, or features of another kind."""
        import tensorflow_datasets as tfds  # costs a second
        from tensorflow_datasets.proto import tf_example_pb2

        self.name, self.split, self._path = name, split, path
        try:
            builder: Any = tfds.builder_from_directory(path, file_format=FORMAT)
        except (ValueError, KeyError, AttributeError, ImportError, OSError) as error:
            raise InputError(f"data set {name!r} ({path}) is damaged, or not one of TFDS's: {error}") from error
        features: Any = builder.info.features
        kinds = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
        image: Any = kinds.get("image")
        label: Any = kinds.get("label")
        if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
            raise InputError(
                f"data set {name!r} ({path}) is not for classification: expected an Image called 'image' and a "
                f"ClassLabel called 'label', not {_kinds(kinds)}"
            )
        shape: Any = image.shape
        if image.np_dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3):
            kind = f"{image.np_dtype} {shape}"
            raise InputError(f"data set {name!r}: images are {kind}, expected uint8 (H, W, 1) or (H, W, 3)")
        self.shape: tuple[int | None, int | None, int] = shape
        self.classes: list[str] = list(label.names)
        records: Any = tf_example_pb2
        self._parse = records.Example.FromString  # TFDS's own decoder takes as long for a record as PNG does
        splits = builder.info.splits
        for part in split.split("+"):
            base = part.partition("[")[0].strip()
            if base not in (*splits, "all"):
                raise unknown(f"split of data set {name!r}:", base, splits)
            try:
                count = splits[part.strip()].num_examples if base in splits else splits.total_num_examples
            except (ValueError, AssertionError) as error:
                raise InputError(
                    f"{part!r} is not a part of data set {name!r}; expected TFDS's syntax, as in 'train[:90%]' or "
                    f"'train[100:200]': {str(error).splitlines()[-1]}"
                ) from error
            if count <= 0:
                raise InputError(f"split {part!r} of data set {name!r} is empty; it has {_counts(splits)}")
        size = {part: int(one.num_bytes) for part, one in splits.items()}
        self.ranges = [
            (part.splitname, part.from_ or 0, splits[part.splitname].num_examples if part.to is None else part.to)
            for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        ]
        self.identity = {"dataset": builder.info.full_name, "bytes": size, "split": split}
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        self._source: Any = builder.as_data_source(split, deserialize_method=raw)

    def __len__(self) -> int:
        return len(self._source)

    def files(self) -> list[tuple[str, int, int]]:
        """The path, size and time of change of each file of the data set."""
        files = [(path, path.stat()) for path in sorted(self._path.resolve().iterdir())]
        return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files]

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.split, self._path)  # a worker opens the files itself

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {self.split!r}): {len(self)} images {self.shape}, {len(self.classes)} classes"

    def read(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """The examples at `indices`: uint8 images [H, W, C], int32 labels. Raises InputError for a broken image."""
        encoded, labels = self.read_encoded(indices)
        read = []
        for index, data in zip(indices, encoded, strict=True):
            with self.naming(index):
                read.append(self.decode(data))
        return read, labels

    def read_encoded(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """The same as they are stored: JPEGs and PNGs."""
        rows = [int(index) for index in indices]
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(f"indices {min(rows)} to {max(rows)} of {self!r}")
        try:
            raw = self._source.__getitems__(rows)
        except (RuntimeError, OSError) as error:  # a file is gone, cut or altered: its records carry checksums
            raise InputError(f"data set {self.name!r} ({self._path}) is damaged; build it again: {error}") from error
        records = [self._parse(record).features.feature for record in raw]
        labels = np.array([record["label"].int64_list.value[0] for record in records], np.int32)
        return [record["image"].bytes_list.value[0] for record in records], labels

    def decode(self, data: bytes, by: Callable[..., Any] | None = None) -> Any:
        """The uint8 image [H, W, C] of an encoded example, or what `by` makes of it. Raises InputError for no image."""
        image = (by or images.decode)(data, self.shape[2])
        if any(side not in (None, got) for side, got in zip(self.shape, image.shape, strict=True)):
            raise InputError(f"the image is {image.shape}, expected {self.shape}")
        return image

    @contextlib.contextmanager
    def naming(self, index: int) -> Iterator[None]:
        """Says of an InputError which example it is about."""
        try:
            yield
        except InputError as error:
            raise InputError(f"data set {self.name!r}, split {self.split!r}, index {index}: {error}") from error


def _kinds(features: dict[str, Any]) -> str:
    return ", ".join(f"{name!r} ({type(feature).__name__})" for name, feature in features.items()) or "a nameless one"


def _counts(splits: Any) -> str:
    return ", ".join(f"{name} ({split.num_examples:,})" for name, split in splits.items())


class Row(NamedTuple):
    """A line of `cnnjax data list`."""

    name: str
    version: str
    splits: dict[str, int]
    path: pathlib.Path | None  # None: known, but not built here
    note: str


def available(given: str = "") -> list[Row]:
    """The data sets of the catalog, built or not, and then any others on disk. Costs a directory listing."""
    found = find_all(data_dir(given))
    rows, listed = [], set()
    for name, entry in CATALOG.items():
        one = next((one for one in reversed(found) if one.name == name and FORMAT in one.formats), None)
        version, path = (one.version, one.path) if one else ("", None)
        listed.add(path)
        rows.append(Row(name, version, entry.splits, path, entry.description))
    for one in found:
        if one.path not in listed:
            note = "" if FORMAT in one.formats else f"stored as {one.formats[0]}: not readable without TensorFlow"
            rows.append(Row(one.name, one.version, one.splits, one.path, note))
    return rows
