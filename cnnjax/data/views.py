"""Multi-crop views of evaluation protocols: host operations that return several crops of an image."""

from collections.abc import Callable

import numpy as np

from cnnjax.data.transforms import center_crop, resize
from cnnjax.errors import InputError
from cnnjax.spec import Pixels


def _check_crop_size(image: np.ndarray, size: int) -> None:
    """Raises InputError if the image is smaller than `size` x `size` pixels, or exactly of that size."""
    height, width = image.shape[:2]
    if min(height, width) < size or height == width == size:
        raise InputError(
            f"crops of {size}x{size} need a larger image than {height}x{width}: give a preprocess that leaves more, "
            f"as in --preprocess='resize({max(size + 1, round(size * 8 / 7))})'"
        )


def corners_and_center(image: np.ndarray, size: Pixels) -> np.ndarray:
    """Crops the four corners (upper left, upper right, lower left, lower right), then the center of an image.

    Maps uint8 [H, W, C] to [5, size, size, C]. Raises InputError unless the image is larger than the crops.
    """
    _check_crop_size(image, size)
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [image[y : y + size, x : x + size] for y in (0, bottom) for x in (0, right)]
    return np.stack([*corners, center_crop(image, size)])


def crops_of_squares(image: np.ndarray, size: Pixels) -> np.ndarray:
    """Makes half of GoogLeNet's 144 crops (Szegedy et al. 2015, sec. 7): uint8 [H, W, C] -> [72, size, size, C].

    The image is resized to four scales, its shorter side 8/7, 9/7, 10/7 and 11/7 of `size` (256 to 352 for 224). Each
    scale gives three squares (both ends and the middle). Each square gives its corners, its center, and the whole
    square resized to `size`. The other half of the 144 are the mirror images, which are not made here.
    """
    views = []
    for sevenths in (8, 9, 10, 11):
        scaled = resize(image, round(size * sevenths / 7))
        side, margin = min(scaled.shape[:2]), max(scaled.shape[:2]) - min(scaled.shape[:2])
        for start in (0, margin // 2, margin):
            along = slice(start, start + side)
            square = scaled[along] if scaled.shape[0] > scaled.shape[1] else scaled[:, along]
            views += [corners_and_center(square, size), resize(square, (size, size))[None]]
    return np.concatenate(views)


def diagonal_shifts(image: np.ndarray, pixels: Pixels = 1) -> np.ndarray:
    """Returns the image, then the image shifted up and left, then down and right, by `pixels` each: [3, H, W, C].

    Uncovered pixels mirror the image at its border. Takes uint8 [H, W, C]. Raises InputError for a side that is not
    longer than the shift.
    """
    height, width = image.shape[:2]
    if pixels >= min(height, width):
        raise InputError(f"diagonal_shifts: pixels = {pixels!r}: expected less than the sides of {height}x{width}")
    padded = np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)), mode="reflect")
    return np.stack([padded[start : start + height, start : start + width] for start in (pixels, 2 * pixels, 0)])


VIEWS: dict[str, Callable[..., np.ndarray]] = {
    "corners_and_center": corners_and_center,
    "crops_of_squares": crops_of_squares,
    "diagonal_shifts": diagonal_shifts,
}
