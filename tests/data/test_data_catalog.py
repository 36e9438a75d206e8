"""The catalog of data sets."""

import subprocess
import sys

import pytest

from cnnjax.data import catalog, readers


@pytest.mark.parametrize("name", catalog.DATASETS)
def test_every_row_of_the_catalog_is_whole(name):
    entry = catalog.DATASETS[name]
    assert entry.reader in readers.READERS
    assert len(set(entry.classes)) == len(entry.classes) == {"cifar100": 100, "imagenet2012": 0}.get(name, 10)
    assert set(entry.splits) == {"train", "validation" if name == "imagenet2012" else "test"}
    assert entry.description
    assert entry.citation
    for file in entry.files:
        assert file.urls
        assert all(url.endswith("/" + file.name) for url in file.urls)
        assert len(file.digest.removeprefix("md5:")) == 32


def test_the_catalog_costs_nothing_to_import():
    code = "import sys, cnnjax.data.catalog; print(sorted({'numpy', 'cv2', 'PIL', 'jax'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
