"""Localization: boxes, their overlap and the pointing game, by hand and on maps whose scores are known."""

import pathlib

import numpy as np
import pytest

import cnnjax
from cnnjax.data.build import load
from cnnjax.errors import InputError
from cnnjax.visualize.localization import Localization, boxes_of, iou, localize, points_of, prepare_maps, score_maps


def test_overlap_by_hand() -> None:
    box = [10.0, 10, 20, 30]
    others = {
        (10, 10, 20, 30): 1, (10, 10, 20, 20): 0.5, (15, 10, 25, 30): 1 / 3, (0, 0, 10, 10): 0, (40, 40, 50, 50): 0,
        (0, 0, 40, 40): 200 / 1600,
    }  # fmt: skip
    pairs = np.array([box] * len(others)), np.array([*others], float)
    np.testing.assert_allclose(iou(*pairs), [*others.values()])
    np.testing.assert_allclose(iou(*pairs[::-1]), [*others.values()])


def test_the_box_is_around_the_largest_region_above_the_fraction() -> None:
    values = np.zeros((20, 30), np.float32)
    values[2:4, 3:5] = 1.0  # the maximum, but small
    values[10:14, 12:20] = 0.5
    values[14, 20] = 0.5  # touches at a corner
    values[16:18, 0:3] = 0.3
    assert boxes_of(values[None], 0.6).tolist() == [[2, 3, 4, 5]]
    assert boxes_of(values[None], 0.4).tolist() == [[10, 12, 15, 21]]
    assert points_of(values[None]).tolist() == [[2.5, 3.5]]
    assert boxes_of(np.zeros((1, 20, 30)), 0.4).tolist() == [[0, 0, 20, 30]]


def test_what_speaks_against_the_class_does_not_count() -> None:
    values = np.zeros((1, 64, 64), np.float32)
    values[0, 10, 10], values[0, 40:44, 40:44] = -9, 1
    prepared = prepare_maps(values)
    assert prepared.min() >= 0
    assert np.abs(points_of(prepared) - 42).max() <= 1


def scene(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Images of one bright rectangle each, and its box in pixels."""
    rng = np.random.default_rng(0)
    images, boxes = np.zeros((count, 48, 64, 1), np.uint8), np.zeros((count, 4))
    for image, box in zip(images, boxes, strict=True):
        top, left, height, width = rng.integers(0, 28), rng.integers(0, 40), rng.integers(12, 20), rng.integers(12, 24)
        image[top : top + height, left : left + width] = 255
        box[:] = top, left, top + height, left + width
    return images, boxes


def scores(images: np.ndarray, boxes: np.ndarray, *maps: np.ndarray) -> Localization:
    names = ("cam", "gradient", "guided")[: len(maps)]
    stack = np.stack([np.asarray(values, np.float32) for values in maps])
    return score_maps(names, images, boxes, stack, stack[::-1])


def test_exact_maps_score_one_and_others_as_chance() -> None:
    images, boxes = scene()
    bright = images[..., 0]
    result = scores(images, boxes, bright, np.roll(bright, (24, 32), (1, 2)), np.ones(bright.shape))
    assert result.count == 30
    np.testing.assert_array_equal(result.trained.iou, result.shuffled.iou[::-1])
    assert (result.trained.located[0], result.trained.pointing[0]) == (1, 1)
    assert result.trained.iou[0] > 0.9
    assert result.trained.pointing[1] < 0.2
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / (48 * 64)
    scored = np.arange(40) % 4 != 3
    assert result.trained.iou[2] == pytest.approx(areas[scored].mean())  # the box is the whole image
    assert result.chance.iou[1] < result.chance.iou[0] < 0.4
    assert "30 images. Best: class activation map, IoU 1.00, pointing 100%; with shuffled weights" in result.note
    assert result.figure().get_size_inches()[0] > 3


def test_the_threshold_is_chosen_on_images_that_do_not_count() -> None:
    """The images that are scored would want a high one, those that choose it a low one."""
    images, boxes = scene()
    maps = np.where(images[..., 0] > 0, 1.0, 0.5)
    maps[3::4] = np.where(images[3::4, ..., 0] > 0, 0.3, 0)
    for values, box in zip(maps[3::4], boxes[3::4].astype(int), strict=True):
        values[box[0] + 2 : box[0] + 9, box[1] + 2 : box[1] + 9] = 1
    result = scores(images, boxes, maps)
    assert result.fractions[0] < 0.4
    assert result.trained.iou[0] < 0.2


def test_chance_is_what_random_boxes_score() -> None:
    images, boxes = scene(400)
    result = scores(images, boxes, images[..., 0])
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / (48 * 64)
    assert result.chance.pointing[1] == pytest.approx(areas[np.arange(400) % 4 != 3].mean(), abs=0.03)


def test_a_data_set_without_boxes_and_too_few_images_are_errors(conv_run: pathlib.Path, digits_dir: str) -> None:
    net, split = cnnjax.load(conv_run), load("digits", "test[:20]", digits_dir)
    with pytest.raises(InputError, match="data set 'digits' has no boxes"):
        localize(net, split, count=8)
    with pytest.raises(InputError, match="images = 30: expected 4 to 20, the images of digits"):
        localize(net, split, count=30)
