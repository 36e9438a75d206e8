"""Builds standard TFDS data sets from original files, without TensorFlow, and loads any by name."""

import errno
import io
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cnnjax import cache, paths
from cnnjax.data import build_record, download, folders
from cnnjax.data.available import available
from cnnjax.data.catalog import DATASETS, Dataset
from cnnjax.data.readers import READERS, Examples, Splits
from cnnjax.data.store import FORMAT, Split, data_dir, find_damaged, find_newest
from cnnjax.errors import InputError, nearest, unknown

__all__ = ["VERSION", "Split", "available", "build", "data_dir", "load", "load_dataset"]

VERSION = "1.0.0"  # of the data sets written: to be raised when the same original files give other examples

_REPORT_SECONDS = 10


def load(name: str, split: str, data_dir: str = "", log: Callable[[str], None] = print) -> Split:
    """Opens a split of a data set by its name and TFDS's split syntax: load('mnist', 'train[:90%]').

    `name` may include a config and a version: 'name/config:1.0.0'. Data sets are in the folder `data_dir` ('': see
    `store.data_dir`). A data set of the catalog that is not there is built first, and `log` gets the lines on its
    progress. Raises InputError for a data set or a split that does not exist, or that has no labeled images.
    """
    root = _data_dir(data_dir)
    paths.check_utf8(root, "a data set")
    try:
        prepared = find_newest(name, root)
    except InputError:
        if name not in DATASETS:
            raise
        prepared = None  # only in a format that we cannot read: ours is built beside it
    if prepared:
        return Split(name, split, prepared.path)
    base, _, version = name.partition(":")
    if damaged := find_damaged(base, root, version or VERSION):
        return Split(name, split, damaged)  # raises the error that says what is damaged
    if base not in DATASETS or version not in ("", VERSION):
        on_disk = {row.name for row in available(data_dir) if row.path}
        raise InputError(f"no data set {name!r} in {root}; {nearest(name, on_disk | DATASETS.keys())}")
    return Split(name, split, build(base, data_dir=data_dir, log=log))


def load_dataset(name: str, split: str = "train", data_dir: str = "") -> tuple[np.ndarray, np.ndarray]:
    """Loads a whole split into memory: images, labels = load_dataset('cifar10', 'test').

    Returns uint8 images [N, H, W, C] (C = 1 or 3) and int32 labels [N], in the order stored. If the images differ in
    size, they are an object array [N] of uint8 arrays [H, W, C]. Arguments and errors are those of `load`. Decoded
    images take N * H * W * C bytes: 150 MB for CIFAR-10's training split, but hundreds of GB for ImageNet's, so load a
    slice of a large data set: 'train[:1000]'. `load(...).classes` are the names of the classes.
    """
    images, labels = (examples := load(name, split, data_dir)).read(np.arange(len(examples)))
    if len({image.shape for image in images}) == 1:
        return np.stack(images), labels
    array = np.empty(len(images), object)
    for i, image in enumerate(images):  # one by one: NumPy would broadcast images of the same height
        array[i] = image
    return array, labels


def build(
    name: str,
    source: str = "",
    data_dir: str = "",
    log: Callable[[str], None] = print,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the data set `name` in TFDS's format, from its original files, and returns the folder written.

    `source` is the folder of the original files. '' downloads those of a data set of the catalog. For a name that is
    not in the catalog, `source` is a tree of class folders: see `folders.scan`. The data set is written to
    <data_dir>/<name>/<VERSION>; '' is the default of `store.data_dir`. `log` gets lines on the progress.

    An existing data set is returned as it is, unless `overwrite`. A data set appears only when complete: a killed build
    leaves nothing that could be read, and of two concurrent builds the second returns the first one's result. Raises
    InputError for files that are missing, truncated or of another kind, and for a disk that is full.
    """
    root = _data_dir(data_dir)
    paths.check_utf8(root, "a data set")
    final = root / name / VERSION
    if name not in DATASETS:
        if not source and not final.exists():
            raise InputError(f"{unknown('data set', name, DATASETS)}; for your own class folders, give their source")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InputError(f"{name!r} cannot name a data set; expected lower-case letters, digits and _")
    folder = pathlib.Path(source).expanduser() if source else None
    if folder and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected the one that holds the original files of {name!r}")
    work = root / "downloads" / "cnnjax" / name
    staging, former = work / "staging", work / "former"
    try:
        work.mkdir(parents=True, exist_ok=True)
        with cache.locked(work / "lock", lambda: log(f"{name}: waiting for another process that builds it")):
            shutil.rmtree(staging, ignore_errors=True)  # left by a killed build; we hold the lock
            _restore(final, former)
            if final.exists() and not overwrite:
                if not (final / "dataset_info.json").is_file():
                    raise InputError(f"{final} is in the way: it is not a data set. Move it or build with overwrite")
                log(f"{name} is in {final} already")
                return final
            try:
                started = time.monotonic()
                built, count = _prepare(name, folder, work, staging, log)
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists():
                    final.rename(former)
                built.rename(final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
                _restore(final, former)
            log(f"{name}: {count:,} images in {final} ({time.monotonic() - started:.0f} s)")
    except OSError as error:
        raise disk_error(name, error, root) from error
    return final


def _restore(final: pathlib.Path, former: pathlib.Path) -> None:
    """Moves the `former` data set back to the folder `final` if nothing has replaced it, or else deletes it."""
    if former.exists() and not final.exists():  # ended between the two renames of a build
        final.parent.mkdir(parents=True, exist_ok=True)
        former.rename(final)
    shutil.rmtree(former, ignore_errors=True)


def disk_error(name: str, error: OSError, root: pathlib.Path) -> InputError:
    """Returns, without raising it, the error for an OSError that keeps data set `name` from being built in `root`."""
    full = "no space left on the disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return InputError(f"{name}: {folders.printable(error.filename or root)}: {full or error.strerror or error}")


_data_dir = data_dir  # the functions above have an argument of that name


def _prepare(
    name: str, folder: pathlib.Path | None, work: pathlib.Path, staging: pathlib.Path, log: Callable[[str], None]
) -> tuple[pathlib.Path, int]:
    """Writes the data set below the folder `staging`. Returns its folder there and the number of images.

    `folder` has the original files; None downloads them to the folder `work`.
    """
    bit_depth = None
    if name in DATASETS:
        entry = DATASETS[name]
        if folder is None:
            for file in entry.files:
                download.fetch(file.urls, work / file.name, file.digest, log, _progress_logger(name, "bytes", log))
            folder = work
        log(f"{name}: reading the original files" + (f" in {folder}" if entry.files else ""))
        entry, splits = READERS[entry.reader](folder, entry)
        shape, counts = entry.shape, entry.splits
    else:
        assert folder is not None
        tree = folders.scan(folder)
        counts = {split: len(files) for split, files in tree.files.items()}
        log(f"{name}: reading {sum(counts.values()):,} images of {len(tree.classes)} classes in {folder}")
        _log_remarks(name, tree, log)
        checked = folders.check(tree, _progress_logger(f"{name}: checking", "images", log))
        shape, bit_depth = checked.shape, checked.bit_depth
        if bit_depth:
            log(f"{name}: images with more than 8 bits per channel use up to {bit_depth}; the upper 8 are kept")
        entry = Dataset(
            "", (0, 0, 0), counts, tree.classes, f"Images in the class folders of {folders.printable(folder.name)}."
        )
        splits = folders.read_examples(tree, bit_depth)
    digests = {split: build_record.ExamplesDigest() for split in splits}
    counted = {
        split: _count_examples(name, split, examples, counts[split], digests[split], log)
        for split, examples in splits.items()
    }
    try:
        built = _write(name, entry, shape, counted, staging)
    except RuntimeError as error:  # of array_record's writer, which reports all of the disk's errors in this way
        reason = re.search(r"failed: ([^;]*)", str(error)) or re.match("(.*)", str(error))
        raise InputError(f"{name}: {staging.parent}: the examples cannot be written: {reason and reason[1]}") from error
    build_record.write(built, {split: digest.hexdigest() for split, digest in digests.items()}, bit_depth)
    return built, sum(counts.values())


def _log_remarks(name: str, tree: folders.ClassFolders, log: Callable[[str], None]) -> None:
    """Logs what may surprise a user about a tree of class folders: skipped files, or a single class."""
    if tree.skipped:
        log(
            f"{name}: {len(tree.skipped):,} other files are not images and are skipped "
            f"({folders.summarize_files(tree.skipped)}), such as {folders.printable(tree.skipped[0])}"
        )
    if len(tree.classes) == 1:
        log(f"{name}: there is a single class, {tree.classes[0]!r}: any network scores 100 % on it")


def _count_examples(
    name: str,
    split: str,
    examples: Examples,
    expected: int,
    digest: build_record.ExamplesDigest,
    log: Callable[[str], None],
) -> Examples:
    """Yields the examples, with the bytes of each image in a BytesIO and boxes as TFDS takes them, and logs progress.

    Adds each example to `digest`. Raises InputError at the end unless there were `expected` examples. `name` and
    `split` are for messages.
    """
    from tensorflow_datasets.core.features import BBox

    count, report = 0, _progress_logger(f"{name} {split}", "images", log)
    for key, example in examples:
        digest.add(key, example)
        box = {"box": BBox(*example["box"])} if "box" in example else {}
        yield key, example | {"image": io.BytesIO(example["image"])} | box
        count += 1
        report(count, expected)
    if count != expected:
        raise InputError(f"{name}: split {split!r} has {count:,} images, expected {expected:,}")


def _progress_logger(label: str, unit: str, log: Callable[[str], None]) -> Callable[[int, int], None]:
    """Returns a callback (done, total) that logs a line every `_REPORT_SECONDS` at most, such as 'mnist: 5 of 9 bytes'.

    A `total` of 0 is unknown, and left out. In the example, `label` is 'mnist' and `unit` is 'bytes'.
    """
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_SECONDS:
            last = time.monotonic()
            log(f"{label}: {done:,} of {total:,} {unit}" if total else f"{label}: {done:,} {unit}")

    return report


def _write(name: str, entry: Dataset, shape: tuple, splits: Splits, staging: pathlib.Path) -> pathlib.Path:
    """Writes a data set with TFDS below the folder `staging`, and returns its folder there.

    `shape` is that of the images, [H, W, C], with None for sides that differ. `splits` are the examples by split; TFDS
    orders them by a hash of their keys. The rest of the description is from `entry`.
    """
    import tensorflow_datasets as tfds

    paths.make_epath_literal()

    labels = {"label": entry.classes, **entry.extra_labels}
    features: dict[str, Any] = {key: tfds.features.ClassLabel(names=list(names)) for key, names in labels.items()}
    features["image"] = tfds.features.Image(shape=shape)
    if entry.has_boxes:
        features["box"] = tfds.features.BBoxFeature()

    class Info(tfds.core.DatasetInfo):
        def initialize_from_bucket(self) -> None:
            """Does nothing; TFDS's own method asks Google's storage about a data set of this name."""

    def info(self: Any) -> Any:
        return Info(
            builder=self,
            description=entry.description,
            features=tfds.features.FeaturesDict(features),
            supervised_keys=("image", "label"),
            homepage=entry.homepage or None,
            citation=entry.citation or None,
        )

    def silent(self: Any) -> None:
        """Does nothing; TFDS's own method prints to stdout."""

    # TFDS takes the data set's name from the class. Unregistered classes can be created again.
    members = {
        "__module__": __name__,
        "name": name,
        "VERSION": tfds.core.Version(VERSION),
        "_info": info,
        "_split_generators": lambda self, manager: splits,
        "_generate_examples": lambda self: iter(()),
        "_log_download_bytes": silent,
        "_log_download_done": silent,
    }
    builder_class = type(name, (tfds.core.GeneratorBasedBuilder,), members, skip_registration=True)
    tfds.disable_progress_bar()
    builder = builder_class(data_dir=staging, file_format=FORMAT)
    builder.download_and_prepare(
        download_dir=staging / "downloads",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return pathlib.Path(builder.data_dir)
