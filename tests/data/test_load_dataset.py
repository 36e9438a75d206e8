"""load_dataset: whole splits as arrays."""

import pathlib

import numpy as np
import pytest

from cnnjax.data import build, catalog, readers
from cnnjax.data.store import Split
from cnnjax.errors import InputError


def test_a_split_comes_as_arrays(digits_dir: str) -> None:
    images, labels = build.load_dataset("digits", "test[:40]", digits_dir)
    expected, expected_labels = build.load("digits", "test[:40]", digits_dir).read(np.arange(40))
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((40, 8, 8, 1), np.uint8, (40,), np.int32)
    np.testing.assert_array_equal(images, np.stack(expected))
    np.testing.assert_array_equal(labels, expected_labels)
    assert len(build.load_dataset("digits", data_dir=digits_dir)[0]) == 1438  # the training split


def test_images_of_different_sizes_come_as_an_array_of_arrays(photographs: Split) -> None:
    images, labels = build.load_dataset("photographs", "train", str(photographs._path.parents[1]))
    assert (images.shape, images.dtype, labels.shape) == ((12,), object, (12,))
    assert {image.shape for image in images} == {(20 + i, 30 - i, 3) for i in range(12)}
    assert all(image.dtype == np.uint8 for image in images)


@pytest.mark.parametrize(("name", "split"), [("digitz", "train"), ("digits", "tran")])
def test_a_wrong_name_is_refused(name: str, split: str, digits_dir: str) -> None:
    with pytest.raises(InputError, match=r"did you mean|unknown split of data set"):
        build.load_dataset(name, split, digits_dir)


def test_a_data_set_from_outside_is_two_rows(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    def read_stripes(folder: pathlib.Path, entry: catalog.Dataset) -> tuple[catalog.Dataset, readers.Splits]:
        pixels = np.zeros((6, 4, 4, 1), np.uint8)
        pixels[::2, :, ::2] = pixels[1::2, ::2] = 255
        examples = [(f"{i}", {"image": readers.images.encode_png(pixels[i]), "label": i % 2}) for i in range(6)]
        return entry, {"train": iter(examples)}

    row = catalog.Dataset("stripes", (4, 4, 1), {"train": 6}, ("upright", "level"), "Stripes.")
    monkeypatch.setitem(catalog.DATASETS, "stripes", row)
    monkeypatch.setitem(readers.READERS, "stripes", read_stripes)
    images, labels = build.load_dataset("stripes", data_dir=str(tmp_path))
    assert sorted(labels) == [0, 0, 0, 1, 1, 1]
    assert all((image[0, 0, 0] == image[0, 1, 0]) == label for image, label in zip(images, labels, strict=True))
