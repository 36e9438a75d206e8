"""Deletes data sets from the disk."""

import pathlib
import re
import shutil

from cnnjax import cache
from cnnjax.data.build import VERSION, disk_error
from cnnjax.data.store import data_dir as resolve_data_dir
from cnnjax.data.store import find_damaged, find_prepared
from cnnjax.errors import InputError, nearest

LOCK = "lock"  # of the folder where a data set is built; it stays


def find_removable(name: str, data_dir: str = "") -> list[pathlib.Path]:
    """Returns the folders that `remove` deletes for a data set: its versions, and its downloaded original files.

    `name` is 'name', 'name/config' or 'name:version'; with a version, the downloaded files stay. Raises InputError if
    there is no such data set.
    """
    root = resolve_data_dir(data_dir)
    prepared = find_prepared(root) if root.is_dir() else []
    base, _, version = name.partition(":")
    paths = [
        row.path for row in prepared if base in (row.name, row.name.partition("/")[0]) and version in ("", row.version)
    ]
    if damaged := find_damaged(base, root, version or VERSION):
        paths.append(damaged)
    if re.fullmatch(r"\w+", base) and not version and _content(work := _work_folder(root, base)):
        paths.append(work)
    if not paths:
        raise InputError(f"no data set {name!r} in {root}; {nearest(name, {row.name for row in prepared})}")
    return paths


def remove(name: str, data_dir: str = "") -> int:
    """Deletes the folders of `find_removable`, and returns how many bytes that freed.

    A data set is removed atomically: a removal that is killed leaves nothing that could be read. Raises InputError
    if there is none of this name, and if another process is building it.
    """
    root = resolve_data_dir(data_dir)
    work = _work_folder(root, re.split("[/:]", name)[0])

    def refuse() -> None:
        raise InputError(f"{name} is being built by another process: remove it when that has ended")

    try:
        paths = find_removable(name, data_dir)
        work.mkdir(parents=True, exist_ok=True)
        with cache.locked(work / LOCK, refuse):
            freed, staging = sum(map(size_of, paths)), work / "staging"
            for path in paths:
                if path != work:
                    shutil.rmtree(staging, ignore_errors=True)
                    staging.mkdir()
                    path.rename(staging / path.name)
                    if not any(path.parent.iterdir()):
                        path.parent.rmdir()
                    shutil.rmtree(staging)
            for left in _content(work) if work in paths else ():
                shutil.rmtree(left) if left.is_dir() else left.unlink()
        return freed
    except OSError as error:
        raise disk_error(name, error, root) from error


def size_of(folder: pathlib.Path) -> int:
    """Returns the size of all files below a folder, in bytes."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _work_folder(root: pathlib.Path, base: str) -> pathlib.Path:
    """Returns where `build` downloads and writes the data set `base`."""
    return root / "downloads" / "cnnjax" / base


def _content(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns what is in a folder besides its lock; nothing if there is no such folder."""
    return [path for path in folder.iterdir() if path.name != LOCK] if folder.is_dir() else []
