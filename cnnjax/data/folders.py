"""Trees of class folders, the form most people have their own images in: DIR/<split>/<class>/*.jpg."""

import pathlib
from typing import NamedTuple

from cnnjax.data import images
from cnnjax.data.readers import Examples, Splits, examine
from cnnjax.errors import InputError

SPLITS = ("train", "val", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png")  # in any case


class Tree(NamedTuple):
    """What a folder holds."""

    folder: pathlib.Path
    classes: tuple[str, ...]  # sorted: the label is the place
    files: dict[str, list[tuple[pathlib.Path, int]]]  # split -> (image, label)
    skipped: list[pathlib.Path]  # neither JPEG nor PNG by their names


def scan(folder: pathlib.Path) -> Tree:
    """Finds DIR/<split>/<class>/* or, as one split 'train', DIR/<class>/*; train says what the classes are.

    Raises InputError for a tree of another form, naming the folder that does not fit.
    """
    top = _folders(folder)
    roots = {path.name: path for path in top if path.name in SPLITS}
    if roots and (strange := [path for path in top if path.name not in roots]):
        raise InputError(f"{strange[0]} is no split, beside {', '.join(roots)}; expected {', '.join(SPLITS)}")
    roots = {split: roots[split] for split in SPLITS if split in roots} or {"train": folder}
    inside = {split: {path.name: path for path in _folders(root)} for split, root in roots.items()}
    classes = tuple(sorted(inside.get("train") or {name for found in inside.values() for name in found}))
    files: dict[str, list[tuple[pathlib.Path, int]]] = {split: [] for split in roots}
    skipped: list[pathlib.Path] = [path for root in roots.values() for path in _files(root)]
    for split, found in inside.items():
        for name, path in found.items():
            if name not in classes:
                raise InputError(f"{path} is no class of the split train, which has {', '.join(classes)}")
            if deeper := _folders(path):
                raise InputError(
                    f"{deeper[0]} is a folder inside a class folder; expected <split>/<class>/ or <class>/, "
                    f"with splits called {', '.join(SPLITS)}"
                )
            fits = [file.suffix.lower() in SUFFIXES for file in _files(path)]
            files[split] += [(file, classes.index(name)) for file, fit in zip(_files(path), fits, strict=True) if fit]
            skipped += [file for file, fit in zip(_files(path), fits, strict=True) if not fit]
        if not files[split]:
            raise InputError(f"{roots[split]} has no class folders with images ({', '.join(SUFFIXES)}) in them")
    return Tree(folder, classes, files, skipped)


def images_below(folder: pathlib.Path) -> list[pathlib.Path]:
    """The images in a folder and in the folders in it, however deep, by name."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(map(_is_litter, map(pathlib.Path, path.relative_to(folder).parts)))
    ]


def _folders(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_dir() and not _is_litter(path)]


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return [path for path in sorted(folder.iterdir()) if path.is_file() and not _is_litter(path)]


def _is_litter(path: pathlib.Path) -> bool:
    """What file managers leave behind."""
    return path.name.startswith(".") or path.name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def shape(tree: Tree) -> tuple[int | None, int | None, int]:
    """The shape that all images have, with 1 channel if all are grey; (None, None, 3) if their sizes differ.

    Reads headers only, and no further than the first image that differs.
    """
    size, channels = None, 1
    for found in tree.files.values():
        for path, _ in found:
            *this, here = examine(path, path.read_bytes(), images.header)
            if this != (size := size or this):
                return None, None, 3
            channels = max(channels, here)
    assert size is not None  # `scan` gives no empty split
    return size[0], size[1], channels


def read(tree: Tree) -> Splits:
    """The images, byte for byte as they are; each is decoded once, to know that it can be.

    Raises InputError with the path of a broken one.
    """

    def examples(split: str) -> Examples:
        for path, label in tree.files[split]:
            data = path.read_bytes()
            examine(path, data)
            yield path.relative_to(tree.folder).as_posix(), {"image": data, "label": label}

    return {split: examples(split) for split in tree.files}
