"""Paths of the image files that a person names: files, and folders of them."""

import pathlib
from collections.abc import Callable, Iterable

from cnnjax.data import folders
from cnnjax.evaluation.predict import Prediction


def find_image_files(
    names: Iterable[str], log: Callable[[str], None] = print
) -> tuple[list[pathlib.Path], list[Prediction]]:
    """Expands names of files and folders to the image files, in order.

    Returns these, and a Prediction with an error for each name that does not exist or is a folder without images. `log`
    gets a line for each folder with files that do not have image names.
    """
    paths: list[pathlib.Path] = []
    failures: list[Prediction] = []
    for path in map(pathlib.Path, names):
        if not path.is_dir():
            paths += [path] if path.exists() else []
            failures += [] if path.exists() else [Prediction(path, (), "there is no such file or folder")]
            continue
        inside, others = folders.find_images(path)
        paths += inside
        if others:
            log(
                f"{folders.printable(path)}: {len(others):,} other files are not images and are skipped "
                f"({folders.summarize_files(others)}), such as {folders.printable(others[0])}"
            )
        if not inside:
            reason = f"there are no images ({', '.join(folders.SUFFIXES)}) in this folder"
            failures.append(Prediction(path, (), reason))
    return paths, failures
