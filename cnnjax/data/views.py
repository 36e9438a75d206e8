"""The views that a test protocol cuts out of an image: operations of the host that return several crops."""

from collections.abc import Callable

import numpy as np

from cnnjax.data.images import center_crop, resize
from cnnjax.errors import InputError


def _fitting(image: np.ndarray, size: int) -> None:
    """Raises InputError unless crops of `size` are smaller than the image."""
    height, width = image.shape[:2]
    if size < 1:
        raise InputError(f"crops of {size!r}: expected at least 1 pixel")
    if min(height, width) < size or height == width == size:
        raise InputError(
            f"crops of {size}x{size} need a larger image than {height}x{width}: give a preprocess that leaves more, "
            f"as in --preprocess='resize({max(size + 1, round(size * 8 / 7))})'"
        )


def corners_and_center(image: np.ndarray, size: int) -> np.ndarray:
    """The four corners, row by row, and the centre: uint8 [H, W, C] -> [5, size, size, C]."""
    _fitting(image, size)
    bottom, right = image.shape[0] - size, image.shape[1] - size
    corners = [image[y : y + size, x : x + size] for y in (0, bottom) for x in (0, right)]
    return np.stack([*corners, center_crop(image, size)])


def crops_of_squares(image: np.ndarray, size: int) -> np.ndarray:
    """Szegedy et al. 2015, sec. 7: uint8 [H, W, C] -> [72, size, size, C].

    The image in four sizes, its shorter side 8, 9, 10 and 11 sevenths of `size` (256 to 352 for 224); of each, the
    squares at both ends and in the middle; of each of these the corners, the centre, and the whole of it.
    """
    views = []
    for sevenths in (8, 9, 10, 11):
        scaled = resize(image, round(size * sevenths / 7))
        side, rest = min(scaled.shape[:2]), max(scaled.shape[:2]) - min(scaled.shape[:2])
        for start in (0, rest // 2, rest):
            along = slice(start, start + side)
            square = scaled[along] if scaled.shape[0] > scaled.shape[1] else scaled[:, along]
            views += [corners_and_center(square, size), resize(square, (size, size))[None]]
    return np.concatenate(views)


VIEWS: dict[str, Callable[..., np.ndarray]] = {
    "corners_and_center": corners_and_center,
    "crops_of_squares": crops_of_squares,
}
