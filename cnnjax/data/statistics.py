"""What the pixels of a training split are like: the statistics that normalisations and augmentations take.

They come from sums over blocks of images, uint8 [N, H, W, C], so that a split is gone through once and in parts.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import numpy as np

from cnnjax.augment import normalize
from cnnjax.errors import InputError

MOST_WHITENED = 4096  # values of an image: the matrix that whitens it has the square of that

Sums = dict[str, np.ndarray]


def histogram(images: np.ndarray) -> np.ndarray:
    """How often each value occurs in each channel, int64 [C, 256]."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def _products(images: np.ndarray) -> np.ndarray:
    """Of each two channels, over all pixels: [C, C]."""
    pixels = images.reshape(len(images), -1, images.shape[-1])
    each = (image.T @ image for image in (image.astype(np.float64) for image in pixels))  # whole numbers, so exact
    return np.sum([*each], axis=0)


def _places(images: np.ndarray) -> np.ndarray:
    """Of each value of an image, and of its square: [2, H, W, C]."""
    return np.stack(
        [images.sum(axis=0, dtype=np.int64), np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.int64)]
    )


def _contrasts(images: np.ndarray) -> np.ndarray:
    """Of the values of images of one contrast, and below it of the products of each two: [1 + D, D], D = HWC."""
    if images[0].size > MOST_WHITENED:
        raise InputError(
            f"config.normalize whitens, which is for at most {MOST_WHITENED:,} values an image; these are "
            f"{images.shape[1:]}, {images[0].size:,} values"
        )
    values = np.asarray(_gcn(images)).reshape(len(images), -1)
    return np.concatenate([values.sum(axis=0, dtype=np.float64)[None], values.T @ values])


_gcn = jax.jit(jax.vmap(lambda image: normalize.gcn(image.astype(np.float32) / 255)))

_SUMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "histogram": histogram,
    "products": _products,
    "places": _places,
    "contrasts": _contrasts,
}
_SUM_OF = {"mean": "histogram", "std": "histogram", "eigen": "products", "mean_image": "places", "std_image": "places",
           "zca": "contrasts", "zca_mean": "contrasts"}  # fmt: skip


def add_up(blocks: Iterable[np.ndarray], asked: Collection[str], have: Sums | None = None) -> Sums:
    """The sums over the blocks that `derive` needs for the statistics `asked` for, beside those there are already."""
    total: Sums = dict(have or {})
    missing = {"histogram", *(_SUM_OF[name] for name in asked)} - total.keys()
    for images in blocks if missing else ():
        for name in missing:
            total[name] = total.get(name, 0) + _SUMS[name](images)
    return total


def derive(sums: Sums, shape: tuple[int, ...]) -> dict[str, Any]:
    """The statistics of images of `shape` on the scale of [0, 1] that these sums give, by name:

    "mean" and "std": [C], of a channel. "mean_image" and "std_image": [H, W, C], of each place. "eigen": [C, C], whose
    columns are the principal axes of colour, each as long as the standard deviation along it. "zca" [D, D] and
    "zca_mean" [D]: see `normalize.gcn_zca`.
    """
    counts, values = sums["histogram"], np.arange(256) / 255
    pixels = counts.sum(axis=1)
    mean = counts @ values / pixels
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / pixels
    found: dict[str, Any] = {"mean": mean, "std": np.sqrt(variance)}
    images = pixels[0] / (shape[0] * shape[1])
    if "products" in sums:
        length, axes = np.linalg.eigh(sums["products"] / pixels[0] / 255**2 - np.outer(mean, mean))
        found["eigen"] = (axes * np.sqrt(np.maximum(length, 0))).astype(np.float32)
    if "places" in sums:
        first, second = sums["places"] / images
        found["mean_image"] = (first / 255).astype(np.float32)
        found["std_image"] = (np.sqrt(np.maximum(second - first**2, 0)) / 255).astype(np.float32)
    if "contrasts" in sums:
        middle, *products = sums["contrasts"] / images
        length, axes = np.linalg.eigh(np.stack(products) - np.outer(middle, middle))
        found["zca"] = (axes / np.sqrt(np.maximum(length, 0) + normalize.ZCA_BIAS) @ axes.T).astype(np.float32)
        found["zca_mean"] = middle.astype(np.float32)
    return found
