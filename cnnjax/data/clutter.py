"""Digits in clutter: images whose class is in one place, with the box around it, made from scikit-learn's digits.

The task is that of Cluttered MNIST (Mnih et al. 2014, "Recurrent Models of Visual Attention"), with boxes, to measure
whether a network's explanations are where the digit is.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from cnnjax.data import images

SIDE = 64  # pixels of an image
DIGIT_SIDES = (20, 33)  # smallest side of a digit's square, and one more than the largest
FRAGMENTS = 14  # pieces of other digits in an image
FRAGMENT_SIDES = (6, 11)  # of these squares, as in DIGIT_SIDES
VISIBLE = 64  # pixels of the digit that are brighter lie in its box


def compose(digit: np.ndarray, others: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, ...]]:
    """Puts a digit among fragments of others, on black.

    `digit` is uint8 [8, 8], `others` are uint8 [N, 8, 8]. Returns the image, uint8 [SIDE, SIDE, 1], and the box of the
    digit: top, left, bottom and right, in pixels, the last two exclusive.
    """
    canvas = np.zeros((SIDE, SIDE), np.uint8)
    for _ in range(FRAGMENTS):
        whole = _enlarged(others[rng.integers(len(others))], int(rng.integers(*DIGIT_SIDES)))
        side = int(rng.integers(*FRAGMENT_SIDES))
        y, x = rng.integers(0, len(whole) - side + 1, 2)
        _paste(canvas, whole[y : y + side, x : x + side], rng)
    enlarged = _enlarged(digit, int(rng.integers(*DIGIT_SIDES)))
    top, left = _paste(canvas, enlarged, rng)
    rows, columns = (np.flatnonzero((enlarged > VISIBLE).any(axis=axis)) for axis in (1, 0))
    box = (top + rows[0], left + columns[0], top + rows[-1] + 1, left + columns[-1] + 1)
    return canvas[:, :, None], tuple(map(int, box))


def _enlarged(digit: np.ndarray, side: int) -> np.ndarray:
    """Resizes uint8 [8, 8] to [side, side], by Pillow's bicubic filter, so that all machines make the same pixels."""
    return np.asarray(Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC))


def _paste(canvas: np.ndarray, piece: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Puts a square piece at a random place inside the canvas, the brighter of both; returns its top and left."""
    top, left = map(int, rng.integers(0, SIDE - len(piece) + 1, 2))
    window = canvas[top : top + len(piece), left : left + len(piece)]
    np.maximum(window, piece, out=window)
    return top, left


def examples(split: str, digits: np.ndarray, labels: np.ndarray, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields `count` examples of a split: pairs (key, {"image": PNG bytes, "label", "box"}), with each digit in turn.

    `digits` are uint8 [N, 8, 8]. A box is (top, left, bottom, right) divided by SIDE, as in TFDS's BBoxFeature. Each
    example has random numbers of its own, from the split's name and its number.
    """
    seed = int.from_bytes(split.encode(), "big") % 2**63
    for number in range(count):
        rng = np.random.Generator(np.random.Philox(key=np.array([seed, number], np.uint64)))
        index = number % len(digits)
        image, box = compose(digits[index], digits, rng)
        example = {"image": images.encode_png(image), "label": int(labels[index])}
        yield f"{split}_{number:06d}", example | {"box": [side / SIDE for side in box]}
