"""Helpers of the tests of weight files."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cnnjax.errors import InputError
from cnnjax.pretrained import cards, catalog


def refusal(read: Callable[[pathlib.Path], Any], path: pathlib.Path) -> str:
    """Returns the one-line error of a reader, without the file's name at its beginning."""
    with pytest.raises(InputError) as error:
        read(path)
    text = str(error.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@contextlib.contextmanager
def packaged_weights(folder: pathlib.Path) -> Iterator[pathlib.Path]:
    """The weights and cards in `folder` in place of those that come with the package."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cards, "FOLDER", folder)
        forget_weights()
        yield folder
    forget_weights()


def forget_weights() -> None:
    """Lets the catalog read the cards again."""
    cards.packaged.cache_clear()
    catalog.rows.cache_clear()
