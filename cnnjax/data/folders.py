"""Class folders, the usual form of one's own images: DIR/<split>/<class>/*.jpg, or DIR/<class>/*.jpg."""

import dataclasses
import pathlib

from cnnjax.data import images
from cnnjax.data.readers import Examples, Splits, inspect_image
from cnnjax.errors import InputError

SPLITS = ("train", "val", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")  # case-insensitive


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


def scan(folder: pathlib.Path) -> ClassFolders:
    """Lists the images of <folder>/<split>/<class>/*, or of <folder>/<class>/* as a single split 'train'.

    Splits are called train, val, validation or test. The classes are the folders of the split 'train', or of all splits
    if there is no 'train'. No image is opened. Raises InputError for any other layout, naming the folder that does not
    fit.
    """
    top = _folders_in(folder)
    roots = {path.name: path for path in top if path.name in SPLITS}
    if roots and (others := [path for path in top if path.name not in roots]):
        raise InputError(f"{others[0]} is no split, beside {', '.join(roots)}; expected {', '.join(SPLITS)}")
    roots = {split: roots[split] for split in SPLITS if split in roots} or {"train": folder}
    class_folders = {split: {path.name: path for path in _folders_in(root)} for split, root in roots.items()}
    names = class_folders.get("train") or {name for paths in class_folders.values() for name in paths}
    classes = tuple(sorted(names))
    files: dict[str, list[tuple[pathlib.Path, int]]] = {split: [] for split in roots}
    skipped: list[pathlib.Path] = [path for root in roots.values() for path in _files_in(root)]
    for split, paths in class_folders.items():
        for name, path in paths.items():
            if name not in classes:
                raise InputError(f"{path} is no class of the split train, which has {', '.join(classes)}")
            if deeper := _folders_in(path):
                raise InputError(
                    f"{deeper[0]} is a folder inside a class folder; expected <split>/<class>/ or <class>/, "
                    f"with splits called {', '.join(SPLITS)}"
                )
            for file in _files_in(path):
                if file.suffix.lower() in SUFFIXES:
                    files[split].append((file, classes.index(name)))
                else:
                    skipped.append(file)
        if not files[split]:
            raise InputError(f"{roots[split]} has no class folders with images ({', '.join(SUFFIXES)}) in them")
    return ClassFolders(folder, classes, files, skipped)


def find_images(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files anywhere below a folder that have the suffix of a JPEG or PNG, sorted by path.

    Hidden files and folders are left out.
    """
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(map(_is_litter, map(pathlib.Path, path.relative_to(folder).parts)))
    ]


def _folders_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the folders directly in a folder, sorted, without hidden ones and those of file managers."""
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_litter(path)]


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the files directly in a folder, sorted, without hidden ones and those of file managers."""
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_litter(path)]


def _is_litter(path: pathlib.Path) -> bool:
    """Returns True for a hidden file or folder, or one that a file manager leaves behind, such as Thumbs.db."""
    return path.name.startswith(".") or path.name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def common_shape(tree: ClassFolders) -> tuple[int | None, int | None, int]:
    """Returns the (height, width, channels) that all images share, or (None, None, 3) if their sizes differ.

    Channels are 1 if all images are gray, else 3. Reads headers only, and stops at the first image of another size.
    """
    size, channels = None, 1
    for files in tree.files.values():
        for path, _ in files:
            *image_size, image_channels = inspect_image(path, path.read_bytes(), images.read_shape)
            if image_size != (size := size or image_size):
                return None, None, 3
            channels = max(channels, image_channels)
    assert size is not None  # `scan` returns no empty split
    return size[0], size[1], channels


def read_examples(tree: ClassFolders) -> Splits:
    """Returns, for each split, an iterator over (key, {"image": encoded bytes, "label": int}).

    The bytes are those of the file, after one decoding as a check; the key is the path below the tree's root. The
    iterator raises InputError, with the path, for a broken image.
    """

    def examples(split: str) -> Examples:
        for path, label in tree.files[split]:
            data = path.read_bytes()
            inspect_image(path, data)
            yield path.relative_to(tree.folder).as_posix(), {"image": data, "label": label}

    return {split: examples(split) for split in tree.files}
