"""Reader of safetensors files."""

import pathlib

import ml_dtypes  # noqa: F401 - registers bfloat16 with numpy
import safetensors

from cnnjax.errors import InputError
from cnnjax.pretrained.formats import Arrays


def read(path: pathlib.Path) -> Arrays:
    """Reads the arrays of a .safetensors file, in the order of their data. Raises InputError for a damaged file."""
    try:
        with safetensors.safe_open(path, framework="np") as file:
            return {name: file.get_tensor(name) for name in file.offset_keys()}
    except (safetensors.SafetensorError, TypeError) as error:  # a dtype that numpy does not have
        raise InputError(f"{path} ({path.stat().st_size:,} bytes) is damaged: {error}") from error
