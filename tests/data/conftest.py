"""Fixtures for data sets."""

import dataclasses
import pathlib
import shutil

import pytest

from cnnjax.data import catalog
from tests.data.original_files import SIZES


@pytest.fixture(autouse=True)
def small(monkeypatch, request):
    """The data sets of the catalog, a few images each, unless a test is about the real ones."""
    if "test_real" not in request.node.name:
        for name in ("mnist", "fashion_mnist", "cifar10", "cifar100"):
            monkeypatch.setitem(catalog.DATASETS, name, dataclasses.replace(catalog.DATASETS[name], splits=SIZES))
        few = dataclasses.replace(catalog.DATASETS["imagenet2012"], splits={"train": 6, "validation": 4})
        monkeypatch.setitem(catalog.DATASETS, "imagenet2012", few)


@pytest.fixture(scope="session")
def made(tmp_path_factory, digits_dir) -> pathlib.Path:
    """A folder of data sets that holds the digits alone."""
    root = tmp_path_factory.mktemp("made")
    shutil.copytree(pathlib.Path(digits_dir) / "digits", root / "digits")
    return root
