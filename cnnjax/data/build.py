"""Original files to standard TFDS data sets, without TensorFlow; and any of them by name, built on first use."""

import errno
import io
import pathlib
import re
import shutil
import time
from collections.abc import Callable
from typing import Any

from cnnjax import cache
from cnnjax.data import download, folders
from cnnjax.data.catalog import CATALOG, Entry
from cnnjax.data.readers import READERS, Examples, Splits
from cnnjax.data.store import FORMAT, Split, available, data_dir, find
from cnnjax.errors import InputError, nearest, unknown

__all__ = ["VERSION", "Split", "available", "build", "data_dir", "load"]

VERSION = "1.0.0"  # of what we write: raise it when the same original files give other examples

_REPORT_SECONDS = 10


def load(name: str, split: str, data_dir: str = "", say: Callable[[str], None] = print) -> Split:
    """A split of a data set by TFDS name, in TFDS's split syntax: load('mnist', 'train[:90%]').

    Looks in `data_dir` (see `cnnjax.data.data_dir`), and builds what is in the catalog and not there yet.
    Raises InputError when there is no such data set, or no such split, or it is not one of labelled images.
    """
    root = _data_dir(data_dir)
    try:
        found = find(name, root)
    except InputError:
        if name not in CATALOG:
            raise
        found = None  # only in a format we cannot read: ours goes beside it
    if found:
        return Split(name, split, found.path)
    asked, _, version = name.partition(":")
    if asked not in CATALOG or version not in ("", VERSION):
        here = {row.name for row in available(data_dir) if row.path}
        raise InputError(f"no data set {name!r} in {root}; {nearest(name, here | CATALOG.keys())}")
    return Split(name, split, build(asked, data_dir=data_dir, say=say))


def build(
    name: str,
    source: str = "",
    data_dir: str = "",
    say: Callable[[str], None] = print,
    overwrite: bool = False,
) -> pathlib.Path:
    """Writes the data set `name` from its original files in the folder `source`, and returns where it is.

    A name of the catalog without a source is downloaded. Any other name is a tree of class folders. A data set that
    is there already is left alone unless `overwrite`. It appears whole or not at all: a build that is killed leaves
    nothing that could be read, and of two at the same time the second finds what the first made.
    Raises InputError for files that are missing, truncated or not what they should be.
    """
    root = _data_dir(data_dir)
    final = root / name / VERSION
    if name not in CATALOG:
        if not source and not final.exists():
            raise InputError(f"{unknown('data set', name, CATALOG)}; for your own class folders, give their source")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise InputError(f"{name!r} cannot name a data set; expected lower-case letters, digits and _")
    folder = pathlib.Path(source).expanduser() if source else None
    if folder and not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected the one that holds the original files of {name!r}")
    work = root / "downloads" / "cnnjax" / name
    try:
        work.mkdir(parents=True, exist_ok=True)
        with cache.locked(work / "lock", lambda: say(f"{name}: waiting for another process that builds it")):
            if final.exists() and not overwrite:
                if not (final / "dataset_info.json").is_file():
                    raise InputError(f"{final} is in the way: it is not a data set. Move it or build with overwrite")
                say(f"{name} is in {final} already")
                return final
            staging = work / "staging"
            shutil.rmtree(staging, ignore_errors=True)  # of a build that was killed; we hold the lock
            try:
                started = time.monotonic()
                made, count = _prepare(name, folder, work, staging, say)
                final.parent.mkdir(parents=True, exist_ok=True)
                if final.exists():
                    final.rename(staging / "old")
                made.rename(final)
            finally:
                shutil.rmtree(staging, ignore_errors=True)
            say(f"{name}: {count:,} images in {final} ({time.monotonic() - started:.0f} s)")
    except OSError as error:
        reason = "no space left on the disk" if error.errno == errno.ENOSPC else error.strerror or error
        raise InputError(f"{name}: {error.filename or root}: {reason}") from error
    return final


_data_dir = data_dir  # the functions here have an argument of that name


def _prepare(
    name: str, folder: pathlib.Path | None, work: pathlib.Path, staging: pathlib.Path, say: Callable[[str], None]
) -> tuple[pathlib.Path, int]:
    """Writes the data set below `staging`; returns its folder there and the number of images."""
    if name in CATALOG:
        entry = CATALOG[name]
        if folder is None:
            for file in entry.files:
                download.fetch(file.urls, work / file.name, file.digest, say, _every_few_seconds(name, "bytes", say))
            folder = work
        say(f"{name}: reading the original files" + (f" in {folder}" if entry.files else ""))
        entry, splits = READERS[entry.reader](folder, entry)
        shape, counts = entry.shape, entry.splits
    else:
        assert folder is not None
        tree = folders.scan(folder)
        shape, counts = folders.shape(tree), {split: len(files) for split, files in tree.files.items()}
        entry = Entry("", (0, 0, 0), counts, tree.classes, f"Images in the class folders of {folder.name}.")
        say(f"{name}: reading {sum(counts.values()):,} images of {len(tree.classes)} classes in {folder}")
        if tree.skipped:
            say(f"{name}: {len(tree.skipped)} other files are left out, such as {tree.skipped[0]}")
        splits = folders.read(tree)
    watched = {split: _watch(name, split, examples, counts[split], say) for split, examples in splits.items()}
    return _write(name, entry, shape, watched, staging), sum(counts.values())


def _watch(name: str, split: str, examples: Examples, expected: int, say: Callable[[str], None]) -> Examples:
    """The same examples, encoded images as TFDS takes them, counted, with a line every few seconds."""
    count, report = 0, _every_few_seconds(f"{name} {split}", "images", say)
    for key, example in examples:
        yield key, example | {"image": io.BytesIO(example["image"])}
        count += 1
        report(count, expected)
    if count != expected:
        raise InputError(f"{name}: split {split!r} has {count:,} images, expected {expected:,}")


def _every_few_seconds(what: str, unit: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A progress callback of (done, in all) that says a line now and then."""
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > _REPORT_SECONDS:
            last = time.monotonic()
            say(f"{what}: {done:,} of {total:,} {unit}" if total else f"{what}: {done:,} {unit}")

    return report


def _write(name: str, entry: Entry, shape: tuple, splits: Splits, staging: pathlib.Path) -> pathlib.Path:
    """Lets TFDS write the splits. The order on disk comes from a hash of the keys: it is the same everywhere."""
    import tensorflow_datasets as tfds

    labels = {"label": entry.classes, **entry.extra_labels}
    features: dict[str, Any] = {key: tfds.features.ClassLabel(names=list(names)) for key, names in labels.items()}
    features["image"] = tfds.features.Image(shape=shape)

    class Info(tfds.core.DatasetInfo):
        def initialize_from_bucket(self) -> None:
            """Instead of asking Google's bucket what a data set of this name holds."""

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
        """Instead of what TFDS prints to stdout."""

    # A class for each data set, since TFDS takes the name from the class; not registered, so that it can be made again.
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
    maker = type(name, (tfds.core.GeneratorBasedBuilder,), members, skip_registration=True)
    tfds.disable_progress_bar()
    builder = maker(data_dir=staging, file_format=FORMAT)
    builder.download_and_prepare(
        download_dir=staging / "downloads",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return pathlib.Path(builder.data_dir)
