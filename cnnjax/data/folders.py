"""Class folders, the usual layout of users' images: DIR/<split>/<class>/*.jpg, or DIR/<class>/*.jpg."""

import collections
import concurrent.futures
import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Callable, Iterable

from cnnjax.data import images
from cnnjax.data.image_formats import SUFFIXES, read_file
from cnnjax.data.info import FULL_DEPTH
from cnnjax.data.readers import Examples, Splits
from cnnjax.errors import InputError, nearest

SPLITS = ("train", "val", "validation", "test")
# What file managers and storage systems leave behind, besides hidden files; compared in lower case.
LITTER = frozenset((
    "__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "@recycle", "#recycle", "#snapshot",
    "$recycle.bin", "system volume information", "lost+found",
))  # fmt: skip
MAX_NAMED = 5  # broken images in a message


@dataclasses.dataclass(frozen=True)
class ClassFolders:
    """Lists the image files in a tree of class folders.

    Attributes:
        folder: root of the tree.
        classes: class names, sorted; a label is an index into them.
        files: split name -> (path, label) of each image.
        skipped: files that are not read: those outside class folders, and those without the suffix of an image.
    """

    folder: pathlib.Path
    classes: tuple[str, ...]
    files: dict[str, list[tuple[pathlib.Path, int]]]
    skipped: list[pathlib.Path]


@dataclasses.dataclass(frozen=True)
class CheckedImages:
    """Describes the images of a tree after all were decoded as a check.

    Attributes:
        shape: (height, width, channels) that all share, or (None, None, 3) if their sizes differ. Channels are 1 if all
            images are gray.
        bit_depth: bits, 8 to 16, that hold all values of the images with more than 8 bits per channel: see
            `images.decode`. None if there are no such images.
    """

    shape: tuple[int | None, int | None, int]
    bit_depth: int | None


def scan(folder: pathlib.Path) -> ClassFolders:
    """Lists the images of <folder>/<split>/<class>/*, or of <folder>/<class>/* as a single split 'train'.

    Splits are called train, val, validation or test. The classes are the folders of the split 'train', or of all splits
    if there is no 'train'. A class is named as its folder, in Unicode's form NFC and without spaces around it. No image
    is opened. Raises InputError for any other layout, naming the folder that does not fit; for a name that cannot be a
    class, or is that of two folders; and for a class without an image to train on.
    """
    top = _folders_in(folder)
    roots = {path.name: path for path in top if path.name in SPLITS}
    if roots and (others := [path for path in top if path.name not in roots]):
        raise InputError(f"{printable(others[0])} is not a split as {', '.join(roots)}; expected {', '.join(SPLITS)}")
    roots = {split: roots[split] for split in SPLITS if split in roots} or {"train": folder}
    class_folders = {split: _class_folders(root) for split, root in roots.items()}
    names = class_folders.get("train") or {name for paths in class_folders.values() for name in paths}
    classes = tuple(sorted(names))
    files: dict[str, list[tuple[pathlib.Path, int]]] = {split: [] for split in roots}
    skipped = [path for root in roots.values() for path in _files_in(root)]
    for split, paths in class_folders.items():
        for name, path in paths.items():
            if name not in names:
                raise InputError(f"{printable(path)} is not a class of the split train; {nearest(name, classes)}")
            if deeper := _folders_in(path):
                raise InputError(
                    f"{printable(deeper[0])} is a folder inside a class folder; expected <split>/<class>/ or <class>/, "
                    f"with splits called {', '.join(SPLITS)}"
                )
            for file in _files_in(path):
                if _is_image_name(file):
                    files[split].append((file, classes.index(name)))
                else:
                    skipped.append(file)
        if not files[split]:
            raise InputError(
                f"{printable(roots[split])} has no class folders with images ({', '.join(SUFFIXES)}) in them"
            )
    tree = ClassFolders(folder, classes, files, skipped)
    _check_that_each_class_has_images(tree, class_folders)
    return tree


def _class_folders(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Returns {class name: folder} of the folders in `root`. Raises InputError for a name that cannot be a class."""
    paths: dict[str, pathlib.Path] = {}
    for path in _folders_in(root):
        name = unicodedata.normalize("NFC", path.name).strip()  # TFDS strips the names of classes
        if len(name.splitlines()) != 1 or any(unicodedata.category(sign) in ("Cc", "Cs") for sign in name):
            raise InputError(
                f"the folder '{printable(path)}' cannot name a class: its name has a line break or control character, "
                "is empty, or is not UTF-8. Rename it"
            )
        if other := paths.get(name):
            raise InputError(
                f"the folders '{printable(other)}' and '{printable(path)}' are one class, {name!r}: their names differ "
                "only in spaces around them or in how an accent is encoded. Merge or rename them"
            )
        paths[name] = path
    return paths


def _check_that_each_class_has_images(tree: ClassFolders, class_folders: dict[str, dict[str, pathlib.Path]]) -> None:
    """Raises InputError if a class has no image in the split train or, without such a split, in any."""
    splits = ["train"] if "train" in tree.files else list(tree.files)
    counts = collections.Counter(label for split in splits for _, label in tree.files[split])
    empty = [name for label, name in enumerate(tree.classes) if not counts[label]]
    if empty:
        path = next(paths[empty[0]] for paths in class_folders.values() if empty[0] in paths)
        inside = summarize_files([file for file in tree.skipped if file.parent == path])
        others = f", nor have {len(empty) - 1} other classes" if len(empty) > 1 else ""
        raise InputError(
            f"the class folder {printable(path)} has no images ({', '.join(SUFFIXES)}) in it"
            f"{f', only {inside}' if inside else ''}{others}; add some, or remove the folder"
        )


def find_images(folder: pathlib.Path) -> tuple[list[pathlib.Path], list[pathlib.Path]]:
    """Returns the image files anywhere below a folder, and all other files, each sorted by path.

    Image files are those with one of `SUFFIXES`. Links to folders are followed. A folder that cannot be read is among
    the other files. Hidden files and `LITTER` are in neither list.
    """
    paths, visited = [], set()
    add_unreadable = lambda error: paths.append(pathlib.Path(error.filename))  # noqa: E731
    for root, subfolders, files in os.walk(folder, onerror=add_unreadable, followlinks=True):
        visited.add(_identity(root))
        subfolders[:] = [
            name for name in sorted(subfolders)
            if not _is_litter(name) and _identity(os.path.join(root, name)) not in visited
        ]  # fmt: skip
        paths += [pathlib.Path(root, name) for name in files if not _is_litter(name)]
    paths.sort()
    return [path for path in paths if _is_image_name(path)], [path for path in paths if not _is_image_name(path)]


def _identity(folder: str) -> tuple[int, int]:
    """Returns an id of a folder that is the same for all paths to it."""
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def summarize_files(paths: Iterable[pathlib.Path]) -> str:
    """Formats how many files there are of each suffix, as in '8 .heic, 2 .txt, 1 without a suffix'."""
    counts = collections.Counter(path.suffix.lower() or "without a suffix" for path in paths)
    return ", ".join(f"{count:,} {printable(suffix)}" for suffix, count in counts.most_common(MAX_NAMED))


def printable(text: object) -> str:
    """Replaces each character that cannot be printed in a line, such as a line break, by an escape such as '\\n'."""
    return "".join(
        sign if sign.isprintable() else sign.encode("unicode_escape", "surrogatepass").decode() for sign in str(text)
    )


def _folders_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the subfolders of a folder, sorted, without hidden ones and `LITTER`. Does not descend."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_litter(path.name)]


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files of a folder, broken links included, sorted, without hidden ones and `LITTER`."""
    return [path for path in sorted(folder.iterdir()) if not path.is_dir() and not _is_litter(path.name)]


def _is_litter(name: str) -> bool:
    """Returns True for the name of a hidden file or folder, or of a file of the operating system, such as Thumbs.db."""
    return name.startswith(".") or name.lower() in LITTER


def _is_image_name(path: pathlib.Path) -> bool:
    """Returns True for the name of an image file."""
    return path.suffix.lower() in SUFFIXES


def check(tree: ClassFolders, report: Callable[[int, int], None]) -> CheckedImages:
    """Decodes all images of a tree, in threads, and returns what they have in common.

    `report` is called with the number of images done and the total. Raises InputError that names the first images that
    cannot be read, and says how many there are.
    """
    paths = [path for files in tree.files.values() for path, _ in files]
    shapes, broken, deepest = set(), [], -1
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (path, result) in enumerate(zip(paths, pool.map(_check_image, paths), strict=True), 1):
            report(done, len(paths))
            if isinstance(result, str):
                broken.append(f"{printable(path.relative_to(tree.folder))} {result}")
            else:
                shapes.add(result[0])
                deepest = max(deepest, -1 if result[1] is None else result[1])
    if broken:
        more = f"; and {len(broken) - MAX_NAMED:,} more" if len(broken) > MAX_NAMED else ""
        raise InputError(
            f"{len(broken):,} of {len(paths):,} images in {printable(tree.folder)} cannot be read: "
            f"{'; '.join(broken[:MAX_NAMED])}{more}. Replace or remove them"
        )
    sizes, channels = {shape[:2] for shape in shapes}, max(shape[2] for shape in shapes)
    (height, width), channels = (sizes.pop(), channels) if len(sizes) == 1 else ((None, None), 3)
    return CheckedImages((height, width, channels), images.fitting_bit_depth(deepest) if deepest >= 0 else None)


def _check_image(path: pathlib.Path) -> tuple[tuple[int, int, int], int | None] | str:
    """Returns the shape of an image and its `images.deep_maximum`; or why it cannot be read, with its size in bytes."""
    data = None
    try:
        data = read_file(path)
        return images.verify(data), images.deep_maximum(data)
    except InputError as error:
        return f"({error})" if data is None else f"({len(data):,} bytes: {error})"


def read_examples(tree: ClassFolders, bit_depth: int | None) -> Splits:
    """Returns, for each split, an iterator over (key, {"image": encoded bytes, "label": int}).

    The bytes are those of the file, or of a PNG of the same pixels: see `images.is_stored_unchanged`. `bit_depth` is
    that of `check`, which has to come first. The key is the path below the tree's root.
    """

    def examples(split: str) -> Examples:
        for path, label in tree.files[split]:
            data = read_file(path)
            if not images.is_stored_unchanged(data):
                data = images.encode_png(images.decode(data, bit_depth=bit_depth or FULL_DEPTH))
            key = os.fsencode(path.relative_to(tree.folder)).decode(errors="backslashreplace")
            yield key, {"image": data, "label": label}

    return {split: examples(split) for split in tree.files}
