"""Fixtures for data sets."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pytest

from cnnjax.data import build, catalog
from cnnjax.data.images import encode_png
from cnnjax.data.store import Split
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


@pytest.fixture(scope="session")
def digits(digits_dir: str) -> Split:
    return build.load("digits", "train[:100]", digits_dir)


@pytest.fixture(scope="session")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Split:
    """Twelve pictures of different sizes."""
    root = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for i in range(12):
        path = root / "source" / "train" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_png(rng.integers(0, 256, (20 + i, 30 - i, 3), np.uint8)))
    build.build("photographs", str(root / "source"), str(root), log=lambda _: None)
    return build.load("photographs", "train", str(root))
