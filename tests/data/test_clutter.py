"""Digits in clutter: where they are is known, and every build makes the same images."""

import dataclasses
import pathlib

import numpy as np
import pytest

from cnnjax.data import build, catalog, clutter
from cnnjax.data.store import Split
from cnnjax.errors import InputError


def test_the_box_is_tight_around_the_digit() -> None:
    digit = np.zeros((8, 8), np.uint8)
    digit[1:7, 2:5] = 255
    blank = np.zeros((3, 8, 8), np.uint8)
    for seed in range(30):
        image, (top, left, bottom, right) = clutter.compose(digit, blank, np.random.default_rng(seed))
        rows, columns = (np.flatnonzero((image[:, :, 0] > clutter.VISIBLE).any(axis=axis)) for axis in (1, 0))
        assert (top, left, bottom, right) == (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1)
        assert 12 <= bottom - top <= 32
    full = np.full((3, 8, 8), 255, np.uint8)
    image, (top, left, bottom, right) = clutter.compose(digit, full, np.random.default_rng(0))
    outside = np.ones(image.shape, bool)
    outside[top:bottom, left:right] = False
    assert 0.05 < (image[outside] > clutter.VISIBLE).mean() < 0.5  # fragments of others


def test_the_built_data_set_has_boxes(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    small = dataclasses.replace(catalog.DATASETS["digits_clutter"], splits={"train": 30, "test": 12})
    monkeypatch.setitem(catalog.DATASETS, "digits_clutter", small)
    digests = []
    for folder in ("a", "b"):
        split = build.load("digits_clutter", "train", str(tmp_path / folder), log=lambda line: None)
        digests.append(split.identity["digests"])
    assert digests[0] == digests[1]
    images, labels = split.read(np.arange(30))
    boxes = split.read_boxes(np.arange(30))
    assert (split.shape, boxes.shape, boxes.dtype) == ((64, 64, 1), (30, 4), np.float32)
    assert len(split.classes) == 10
    assert len(set(labels)) > 7
    for image, box in zip(images, boxes, strict=True):
        top, left, bottom, right = np.round(box * 64).astype(int)
        np.testing.assert_array_equal(box * 64, [top, left, bottom, right])
        assert image[top:bottom, left:right].mean() > 1.2 * image.mean()
    test = build.load("digits_clutter", "test[:5]", str(tmp_path / "a"), log=lambda line: None)
    np.testing.assert_array_equal(test.read_boxes(np.array([3, 1])), test.read_boxes(np.arange(5))[[3, 1]])


def test_a_data_set_without_boxes_says_so(digits: Split) -> None:
    with pytest.raises(InputError, match="data set 'digits' has no boxes: expected a TFDS feature 'box'"):
        digits.read_boxes(np.arange(2))
