"""Files of `safetensors`: names, types, shapes, and the numbers."""

import pathlib

import ml_dtypes  # noqa: F401 - with it, numpy knows bfloat16
import safetensors

from cnnjax.errors import InputError
from cnnjax.pretrained.formats import Arrays


def read(path: pathlib.Path) -> Arrays:
    """The arrays of a file, in the order of their numbers there. Raises InputError for a damaged one."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.offset_keys()}
    except (safetensors.SafetensorError, TypeError) as error:  # of a type that numpy does not have
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is damaged: {error}") from error
