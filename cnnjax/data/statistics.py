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
    """Counts each pixel value in each channel: int64 [C, 256]."""
    return np.stack([np.bincount(images[..., c].ravel(), minlength=256) for c in range(images.shape[-1])])


def _channel_products(images: np.ndarray) -> np.ndarray:
    """Sums the products of two channels over all pixels: [C, C]."""
    pixels = images.reshape(len(images), -1, images.shape[-1])
    products = (image.T @ image for image in (image.astype(np.float64) for image in pixels))  # integers: exact
    return np.sum([*products], axis=0)


def _pixel_moments(images: np.ndarray) -> np.ndarray:
    """Sums each value of an image, and its square, over the images: [2, H, W, C]."""
    return np.stack(
        [images.sum(axis=0, dtype=np.int64), np.square(images, dtype=np.uint16).sum(axis=0, dtype=np.int64)]
    )


def _gcn_moments(images: np.ndarray) -> np.ndarray:
    """Sums the values after `normalize.gcn`, and below them their products: [1 + D, D], D = H * W * C."""
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
    """Returns `sums` with those added that `derive` needs for mean, std and the statistics `names`.

    Without anything to add, `blocks` are not read.
    """
    total: Sums = dict(sums or {})
    missing = {"histogram", *(_SUM_OF_STATISTIC[name] for name in names)} - total.keys()
    for images in blocks if missing else ():
        for name in missing:
            total[name] = total.get(name, 0) + _SUMS[name](images)
    return total


def derive(sums: Sums, shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the statistics that these sums over images of `shape` [H, W, C] allow, for pixels in [0, 1].

    "mean" and "std" [C]: per channel. "mean_image" and "std_image" [H, W, C]: per pixel and channel. "eigen" [C, C]:
    its columns are the principal axes of the colors, each as long as the standard deviation along it. "zca" [D, D] and
    "zca_mean" [D], D = H * W * C: see `normalize.gcn_zca`.
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
