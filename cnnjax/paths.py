"""Paths that users choose: workarounds for libraries that misread them, and the splitting of 'FILE:argument'."""

import functools
import glob
import os
import pathlib
from collections.abc import Iterator
from typing import Any

from cnnjax.errors import InputError


def check_utf8(path: pathlib.Path, what: str) -> None:
    """Raises InputError if the absolute path of `what`, such as 'a data set', is not UTF-8, as TFDS and Orbax need."""
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError:
        raise InputError(f"{str(path)!r}: the path of {what} has to be UTF-8; choose another folder") from None


def check_run_folder(path: pathlib.Path) -> None:
    """Raises InputError if no checkpoint can be saved in a folder of this path, before anything is trained.

    Tensorstore, which writes the arrays, takes a backslash for a slash.
    """
    check_utf8(path, "a run")
    if "\\" in str(path.absolute()):
        raise InputError(f"{str(path)!r}: the path of a run cannot have a backslash; choose another folder")


@functools.cache
def make_epath_literal() -> None:
    """Makes `etils.epath` search a folder whose own path has *, ? or [ in it. Stays in effect.

    Its `Path.glob` takes the folder's path for a part of the pattern. Orbax would find nothing to restore in 'run [1]',
    and TFDS would refuse 'a**b'.
    """
    from etils import epath
    from etils.epath import gpath

    original = gpath.PosixGPath.glob

    def search(self: Any, pattern: str) -> Iterator[epath.Path]:
        """Stands in for `Path.glob`: yields the paths below the folder that match `pattern`."""
        return original(type(self)(glob.escape(str(self))), pattern)

    gpath.PosixGPath.glob = search  # pyright: ignore[reportAttributeAccessIssue]


def split_argument(location: str) -> tuple[str, str]:
    """Splits 'FILE:argument' into the file and the argument, '' without one. A path with a colon is kept whole.

    The file is the longest part before a colon that exists; if none does, that before the first colon.
    """
    parts = location.split(":")
    for count in range(len(parts), 0, -1):
        name = ":".join(parts[:count])
        if os.path.isfile(name):
            return name, ":".join(parts[count:])
    name, _, argument = location.partition(":")
    return name, argument
