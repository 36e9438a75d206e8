"""Where what can be made again at any time is kept, for all runs of a user."""

import os
import pathlib


def folder(name: str) -> pathlib.Path:
    """The folder `name` of the project's cache; it may not exist yet."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "cnnjax", name)
