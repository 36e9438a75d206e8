"""Prepared TFDS data sets on disk: found by name, and read as images and labels without TensorFlow."""

import contextlib
import dataclasses
import fnmatch
import json
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnnjax.data import build_record, images
from cnnjax.data.info import FULL_DEPTH
from cnnjax.errors import InputError, unknown
from cnnjax.paths import make_epath_literal

EXAMPLES_PER_READ = 1000  # of `Split.read_extra_label`
FORMAT = "array_record"  # of TFDS's formats, the one with random access that needs no TensorFlow


def data_dir(folder: str = "") -> pathlib.Path:
    """Returns the folder of all data sets: `folder`; for '', $TFDS_DATA_DIR or else ~/tensorflow_datasets."""
    return pathlib.Path(folder or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


@dataclasses.dataclass(frozen=True)
class PreparedDataset:
    """Describes a data set on disk, as its dataset_info.json does.

    Attributes:
        name: 'name', or 'name/config'.
        version: such as '1.0.0'.
        path: folder of this version.
        formats: file formats, such as 'array_record'; the main one first.
        splits: split name -> number of examples.
    """

    name: str
    version: str
    path: pathlib.Path
    formats: tuple[str, ...]
    splits: dict[str, int]


def find_prepared(root: pathlib.Path, name: str = "*") -> list[PreparedDataset]:
    """Returns the data sets below `root`, sorted by name and version. Reads a small file for each.

    `name` is a glob pattern for the part of the name before '/config'. Those that TFDS is still writing are left out.
    """
    infos = [*root.glob(f"{name}/*/dataset_info.json"), *root.glob(f"{name}/*/*/dataset_info.json")]
    complete = [path for path in infos if not path.parent.name.startswith("incomplete.")]  # TFDS is still writing
    datasets = filter(None, map(_read_info, complete))
    return sorted(datasets, key=lambda dataset: (dataset.name, _version_key(dataset.version)))


def _read_info(path: pathlib.Path) -> PreparedDataset | None:
    """Reads a dataset_info.json; returns None for a file of that name that TFDS did not write."""
    try:
        info = json.loads(path.read_text())
        splits = {
            split["name"]: sum(int(length) for length in split.get("shardLengths", []))
            for split in info.get("splits", [])
        }
        config = f"/{info['configName']}" if info.get("configName") else ""
        formats = (info.get("fileFormat", "tfrecord"), *info.get("alternativeFileFormats", []))
        return PreparedDataset(info["name"] + config, info["version"], path.parent, formats, splits)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_damaged(name: str, root: pathlib.Path, version: str) -> pathlib.Path | None:
    """Returns the folder of a data set that was built here, if its dataset_info.json cannot be read any more.

    Returns None if it can be read, or if there is no such data set below `root`.
    """
    folder = root / name / version
    has_record = re.fullmatch(r"\w+", name) and (folder / build_record.FILE).exists()
    return folder if has_record and not _read_info(folder / "dataset_info.json") else None


def _version_key(version: str) -> list[int]:
    """Converts a version to a sort key: '1.10.0' to [1, 10, 0]."""
    return [int(number) if number.isdecimal() else 0 for number in version.split(".")]


def find_newest(name: str, root: pathlib.Path) -> PreparedDataset | None:
    """Finds the newest array_record version of 'name', 'name/config', 'name:1.2.3' or 'name:1.*.*' below `root`.

    Returns None if there is none. Raises InputError if it exists in other formats only, or has several configs and no
    default.
    """
    if not re.fullmatch(r"\w+(/[\w.+-]+)?(:[\d.*]+)?", name):
        return None
    base, _, version = name.partition(":")
    matches = [
        dataset
        for dataset in find_prepared(root, base.partition("/")[0])
        if base in (dataset.name, dataset.name.partition("/")[0]) and fnmatch.fnmatch(dataset.version, version or "*")
    ]
    if not matches:
        return None
    readable = [dataset for dataset in matches if FORMAT in dataset.formats]
    if not readable:
        newest = matches[-1]
        raise InputError(
            f"{newest.path} is stored as {newest.formats[0]}, which needs TensorFlow to read; "
            f"prepare it again with TFDS's file_format={FORMAT!r}"
        )
    configs = sorted({dataset.name for dataset in readable})
    if len(configs) > 1:
        default = f"{base}/{_default_config(root / base)}"
        if default not in configs:
            raise InputError(f"data set {name!r} has several configs; choose one of {', '.join(configs)}")
        readable = [dataset for dataset in readable if dataset.name == default]
    return readable[-1]


def _default_config(path: pathlib.Path) -> str:
    """Returns the default config's name that TFDS recorded in a data set's folder `path`; '' if there is none."""
    try:
        return json.loads((path / ".config" / "metadata.json").read_text())["default_config_name"]
    except (OSError, ValueError, KeyError):
        return ""


class ExampleRange(NamedTuple):
    """Identifies the examples `start` to `stop` - 1 of a split, such as 'train'."""

    split: str
    start: int
    stop: int


def overlap(some: Sequence[ExampleRange], others: Sequence[ExampleRange]) -> bool:
    """Returns whether two lists of ranges of one data set have an example in common."""
    return any(a.split == b.split and a.start < b.stop and b.start < a.stop for a in some for b in others)


class Split:
    """Gives random access to the examples of a split, or of a slice of one, from any thread: see `read`.

    `len(split)` is the number of examples; there is no `split[i]`.

    Attributes:
        name: name of the data set, as given to `load`.
        split: the split in TFDS's syntax, such as 'train[:90%]'.
        classes: names of the classes, in the order of the labels.
        shape: (height, width, channels) of the images; height and width are None if the images differ in size.
        ranges: list of the ExampleRanges that form the split, in order.
        identity: dict that identifies the content: 'dataset' (full name), 'bytes' (bytes of each split), 'split' and,
            if the data set was built here, 'digests' of the examples of each split. Can be encoded as JSON.
        bit_depth: bits of the original images with more than 8 bits per channel: see `images.decode`.
        extra_labels: dict of further labels of each image: feature name -> class names. See `read_extra_label`.
    """

    def __init__(self, name: str, split: str, path: pathlib.Path) -> None:
        """Opens the split `split` (in TFDS's syntax) of the data set in the folder `path`, called `name`.

        Raises InputError for a split that does not exist or is empty, and for a data set without an image and a label.
        """
        import tensorflow_datasets as tfds  # costs a second
        from tensorflow_datasets.proto import tf_example_pb2

        self.name, self.split, self._path = name, split, path
        make_epath_literal()
        try:
            record = build_record.read(path)
            builder: Any = tfds.builder_from_directory(path, file_format=FORMAT)
        except Exception as error:  # on damaged files TFDS and protobuf raise nearly anything
            reason = str(error).partition("\n")[0] or type(error).__name__
            raise InputError(
                f"data set {name!r} ({path}) is damaged or not from TFDS: {reason}; build it again with --overwrite"
            ) from error
        self.bit_depth = (record and record.bit_depth) or FULL_DEPTH
        self.shape, self.classes = _check_features(name, path, builder.info.features)
        self.extra_labels = {
            key: list(feature.names)
            for key, feature in builder.info.features.items()
            if key != "label" and isinstance(feature, tfds.features.ClassLabel)
        }
        records: Any = tf_example_pb2
        self._parse = records.Example.FromString  # TFDS's own decoder takes as long for a record as PNG does
        splits = builder.info.splits
        _check_split(name, split, splits)
        num_bytes = {key: int(info.num_bytes) for key, info in splits.items()}
        self.ranges = [
            ExampleRange(
                part.splitname, part.from_ or 0, splits[part.splitname].num_examples if part.to is None else part.to
            )
            for part in tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
        ]
        self.identity = {"dataset": builder.info.full_name, "bytes": num_bytes, "split": split}
        if record:
            self.identity["digests"] = dict(record.digests)
        raw = tfds.decode.DeserializeMethod.RAW_BYTES
        with self._file_errors():
            self._source: Any = builder.as_data_source(split, deserialize_method=raw)

    def __len__(self) -> int:
        return len(self._source)

    def files(self) -> list[tuple[str, int, int]]:
        """Returns the path, size (bytes) and modification time (ns) of each file of the data set, in all its splits."""
        files = [(path, path.stat()) for path in sorted(self._path.resolve().iterdir())]
        return [(str(path), stat.st_size, stat.st_mtime_ns) for path, stat in files]

    def __reduce__(self) -> tuple:
        return type(self), (self.name, self.split, self._path)  # each process opens the files itself

    def __repr__(self) -> str:
        return f"Split({self.name!r}, {self.split!r}): {len(self)} images {self.shape}, {len(self.classes)} classes"

    def read(self, indices: np.ndarray) -> tuple[list[np.ndarray], np.ndarray]:
        """Returns the examples at `indices` [N]: a list of N decoded images, uint8 [H, W, C], and int32 labels [N].

        Raises InputError for a broken image, IndexError for an index out of range.
        """
        encoded, labels = self.read_encoded(indices)
        decoded = []
        for index, data in zip(indices, encoded, strict=True):
            with self.input_errors(index):
                decoded.append(self.decode(data))
        return decoded, labels

    def read_encoded(self, indices: np.ndarray) -> tuple[list[bytes], np.ndarray]:
        """Returns the images at `indices` [N] as a list of N JPEG or PNG files (bytes), and their int32 labels [N].

        Raises InputError for a damaged file or a label that is no class, IndexError for an index out of range.
        """
        records = self._records(indices)
        labels = np.array([record["label"].int64_list.value[0] for record in records], np.int32)
        for place in np.flatnonzero((labels < 0) | (labels >= len(self.classes))):
            expected = f"expected 0 to {len(self.classes) - 1}; TFDS gives -1 to images without a label"
            with self.input_errors(indices[place]):
                raise InputError(f"label {labels[place]}, {expected}")
        return [record["image"].bytes_list.value[0] for record in records], labels

    def read_boxes(self, indices: np.ndarray) -> np.ndarray:
        """Returns the boxes at `indices` [N], float32 [N, 4]: top, left, bottom and right as fractions of the sides.

        Raises InputError if the data set has no boxes, which are TFDS's feature "box".
        """
        records = self._records(indices)
        if any("box" not in record for record in records):
            raise InputError(
                f"data set {self.name!r} has no boxes: expected a TFDS feature 'box', as digits_clutter has"
            )
        return np.array([record["box"].float_list.value for record in records], np.float32).reshape(-1, 4)

    def _records(self, indices: np.ndarray) -> list[Any]:
        """Returns the features of the examples at `indices` [N], by name."""
        rows = [int(index) for index in indices]
        if rows and not 0 <= min(rows) <= max(rows) < len(self):
            raise IndexError(f"indices {min(rows)} to {max(rows)} out of range of {self!r}")
        with self._file_errors():
            raw = self._source.__getitems__(rows)
        return [self._parse(record).features.feature for record in raw]

    def read_extra_label(self, name: str) -> np.ndarray:
        """Returns one of the `extra_labels` of all examples, int32 [N]."""
        labels = []
        for start in range(0, len(self), EXAMPLES_PER_READ):
            records = self._records(np.arange(start, min(start + EXAMPLES_PER_READ, len(self))))
            labels += [record[name].int64_list.value[0] for record in records]
        return np.array(labels, np.int32)

    def decode(self, data: bytes, decoder: Callable[..., Any] | None = None) -> Any:
        """Decodes the bytes of an image with `decoder(data, channels)`, by default `images.decode`; checks the shape.

        Returns what the decoder does: uint8 [H, W, C], or an `images.LazyJpeg`. Raises InputError for no image or a
        shape that is not the split's.
        """
        image = (decoder or images.decode)(data, self.shape[2])
        if any(side not in (None, actual) for side, actual in zip(self.shape, image.shape, strict=True)):
            raise InputError(f"the image is {image.shape}, expected {self.shape}")
        return image

    @contextlib.contextmanager
    def _file_errors(self) -> Iterator[None]:
        """Turns the errors about a missing, truncated or altered file (by its checksums) into an InputError."""
        try:
            yield
        except (RuntimeError, OSError, ValueError) as error:
            raise InputError(f"data set {self.name!r} ({self._path}) is damaged; build it again: {error}") from error

    @contextlib.contextmanager
    def input_errors(self, index: int) -> Iterator[None]:
        """Adds the data set, the split and the example's `index` to the message of an InputError raised inside."""
        try:
            yield
        except InputError as error:
            raise InputError(f"data set {self.name!r}, split {self.split!r}, index {index}: {error}") from error


def _check_features(name: str, path: pathlib.Path, features: Any) -> tuple[tuple[Any, Any, int], list[str]]:
    """Returns the image shape and the class names of a data set, as its TFDS `features` describe them.

    Raises InputError unless it has uint8 images of 1 or 3 channels and class labels.
    """
    import tensorflow_datasets as tfds

    by_name = dict(features.items()) if isinstance(features, tfds.features.FeaturesDict) else {}
    image: Any = by_name.get("image")
    label: Any = by_name.get("label")
    if not isinstance(image, tfds.features.Image) or not isinstance(label, tfds.features.ClassLabel):
        raise InputError(
            f"data set {name!r} ({path}) is not for classification: expected an Image called 'image' and a "
            f"ClassLabel called 'label', not {_feature_types(by_name)}"
        )
    shape: Any = image.shape
    if image.np_dtype != np.uint8 or len(shape) != 3 or shape[2] not in (1, 3):
        actual = f"{image.np_dtype} {shape}"
        raise InputError(f"data set {name!r}: images are {actual}, expected uint8 (H, W, 1) or (H, W, 3)")
    return shape, list(label.names)


def _check_split(name: str, split: str, splits: Any) -> None:
    """Raises InputError unless each term of a split such as 'train[:90%]+test' exists and has examples.

    `splits` are TFDS's, by name.
    """
    for term in split.split("+"):
        base = term.partition("[")[0].strip()
        if base not in (*splits, "all"):
            raise unknown(f"split of data set {name!r}:", base, splits)
        try:
            count = splits[term.strip()].num_examples if base in splits else splits.total_num_examples
        except (ValueError, AssertionError) as error:
            raise InputError(
                f"{term!r} is not a split of data set {name!r}; expected TFDS's syntax, as in 'train[:90%]' or "
                f"'train[100:200]': {str(error).splitlines()[-1]}"
            ) from error
        if count <= 0:
            raise InputError(f"split {term!r} of data set {name!r} is empty; it has {_counts(splits)}")


def _feature_types(features: dict[str, Any]) -> str:
    """Formats the names and types of features for a message."""
    return ", ".join(f"{name!r} ({type(feature).__name__})" for name, feature in features.items()) or "a nameless one"


def _counts(splits: Any) -> str:
    """Formats the names of splits and their numbers of examples for a message."""
    return ", ".join(f"{name} ({split.num_examples:,})" for name, split in splits.items())
