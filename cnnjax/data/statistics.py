"""Pixel statistics of a training split, for normalization and augmentation.

They are derived from sums over blocks of images, uint8 [N, H, W, C], so one pass over a split suffices.
"""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax
import numpy as np

from cnnjax.augment import normalize
from cnnjax.errors import InputError

MAX_ZCA_VALUES = 4096  # H * W * C of an image: the ZCA matrix has the square of that

Sums = dict[str, np.ndarray]


def histogram(images: np.ndarray) -> np.ndarray:
    """Counts how often each value from 0 to 255 occurs in each channel of uint8 images [N, H, W, C]: int64 [C, 256]."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def _channel_products(images: np.ndarray) -> np.ndarray:
    """Sums, over all pixels, the product of each pair of channels: float64 [C, C]."""
    pixels = images.reshape(len(images), -1, images.shape[-1])
    products = (image.T @ image for image in (image.astype(np.float64) for image in pixels))  # integers: exact
    return np.sum([*products], axis=0)


def _pixel_moments(images: np.ndarray) -> np.ndarray:
    """Sums each value of an image, then its square, over the N images: int64 [2, H, W, C]."""
    return np.stack(
        [images.sum(axis=0, dtype=np.int64), np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.int64)]
    )


def _gcn_moments(images: np.ndarray) -> np.ndarray:
    """Sums over the images, after `normalize.gcn`: each of the D = H * W * C values, and each product of two of them.

    Returns float64 [1 + D, D]: the sums of the values in the first row, those of the products below. Raises InputError
    if D is over MAX_ZCA_VALUES.
    """
    if images[0].size > MAX_ZCA_VALUES:
        raise InputError(
            f"config.normalize: ZCA whitening is for at most {MAX_ZCA_VALUES:,} values per image; these are "
            f"{images.shape[1:]}, {images[0].size:,} values"
        )
    values = np.asarray(_gcn(images)).reshape(len(images), -1)
    return np.concatenate([values.sum(axis=0, dtype=np.float64)[None], values.T @ values])


_gcn = jax.jit(jax.vmap(lambda image: normalize.gcn(image.astype(np.float32) / 255)))

_SUMS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "histogram": histogram,
    "channel_products": _channel_products,
    "pixel_moments": _pixel_moments,
    "gcn_moments": _gcn_moments,
}
_SUM_OF_STATISTIC = {"mean": "histogram", "std": "histogram", "eigen": "channel_products",
                     "mean_image": "pixel_moments", "std_image": "pixel_moments",
                     "zca": "gcn_moments", "zca_mean": "gcn_moments"}  # fmt: skip


def accumulate(blocks: Iterable[np.ndarray], names: Collection[str], sums: Sums | None = None) -> Sums:
    """Returns the sums over all images that `derive` needs for mean, std and the statistics `names`.

    `blocks` are uint8 images [N, H, W, C]. `sums` are those that are known already (None: none): they are returned as
    well, and not computed again. If no sum is missing, `blocks` are not read.
    """
    total: Sums = dict(sums or {})
    missing = {"histogram", *(_SUM_OF_STATISTIC[name] for name in names)} - total.keys()
    for images in blocks if missing else ():
        for name in missing:
            total[name] = total.get(name, 0) + _SUMS[name](images)
    return total


def derive(sums: Sums, shape: tuple[int, ...]) -> dict[str, Any]:
    """Computes statistics, of pixels in [0, 1], from the sums of `accumulate` over images of `shape` [H, W, C].

    Returns those that the sums allow. "mean" and "std" [C]: per channel. "mean_image" and "std_image" [H, W, C]: per
    pixel and channel. "eigen" [C, C]: its columns are the principal axes of the colors, each as long as the standard
    deviation along it. "zca" [D, D] and "zca_mean" [D], D = H * W * C: see `normalize.gcn_zca`.
    """
    counts, values = sums["histogram"], np.arange(256) / 255
    pixels = counts.sum(axis=1)
    mean = counts @ values / pixels
    variance = (counts * (values - mean[:, None]) ** 2).sum(axis=1) / pixels
    result: dict[str, Any] = {"mean": mean, "std": np.sqrt(variance)}
    num_images = pixels[0] / (shape[0] * shape[1])
    if "channel_products" in sums:
        eigenvalues, axes = np.linalg.eigh(sums["channel_products"] / pixels[0] / 255**2 - np.outer(mean, mean))
        result["eigen"] = (axes * np.sqrt(np.maximum(eigenvalues, 0))).astype(np.float32)
    if "pixel_moments" in sums:
        first, second = sums["pixel_moments"] / num_images
        result["mean_image"] = (first / 255).astype(np.float32)
        result["std_image"] = (np.sqrt(np.maximum(second - first**2, 0)) / 255).astype(np.float32)
    if "gcn_moments" in sums:
        gcn_mean, *products = sums["gcn_moments"] / num_images
        eigenvalues, axes = np.linalg.eigh(np.stack(products) - np.outer(gcn_mean, gcn_mean))
        scales = np.sqrt(np.maximum(eigenvalues, 0) + normalize.ZCA_BIAS)
        result["zca"] = (axes / scales @ axes.T).astype(np.float32)
        result["zca_mean"] = gcn_mean.astype(np.float32)
    return result
