"""Helpers of the tests of weight files."""

import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from cnnjax.errors import InputError


def refusal(read: Callable[[pathlib.Path], Any], path: pathlib.Path) -> str:
    """Returns the one-line error of a reader, without the file's name at its beginning."""
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")
