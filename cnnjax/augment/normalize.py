"""Input normalization: (image in [0, 1], statistics of the training split) -> image.

A normalization is a pure function of one image, float32 [H, W, C], and of the `STATISTICS` that it names as
parameters; `data.statistics` computes them. Other code may add rows to `NORMALIZE`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from cnnjax.spec import Finite, Positive

Array = jax.Array

ON_DEMAND = ("mean_image", "std_image", "eigen", "zca", "zca_mean")  # computed only if an operation takes them
STATISTICS = ("mean", "std", *ON_DEMAND)

GCN_SCALE, ZCA_BIAS = 55.0, 0.1  # Pylearn2's, used by Maxout networks on CIFAR-10


def mean_std(image: Array, mean: Array, std: Array) -> Array:
    """Subtracts the training split's mean per channel, and divides by its deviation per channel (both [1, 1, C])."""
    return (image - mean) / std


def centered(image: Array, mean: Array) -> Array:
    """Subtracts the training split's mean per channel, [1, 1, C]. Does not scale."""
    return image - mean


def symmetric(image: Array) -> Array:
    """Maps values from [0, 1] to [-1, 1] linearly."""
    return 2 * image - 1


def range_to(image: Array, low: Finite, high: Finite) -> Array:
    """Maps values from [0, 1] to [low, high] linearly; LeNet-5 uses -0.1 and 1.175 (LeCun et al. 1998, II.B)."""
    return low + (high - low) * image


def constants(image: Array, means: Sequence[Finite], stds: Sequence[Positive]) -> Array:
    """Subtracts the given `means` [C] and divides by the given `stds` [C], both for pixels in [0, 1]."""
    return (image - per_channel(means)) / per_channel(stds)


def imagenet(image: Array) -> Array:
    """Normalizes by ImageNet's RGB mean and standard deviation, as torchvision's and most published weights expect.

    These are constants; the statistics of the training split are not used.
    """
    return constants(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def caffe(image: Array, bgr: bool = False) -> Array:
    """Scales to [0, 255] and subtracts ImageNet's mean color (Simonyan & Zisserman 2015, 2.1; He et al. 2016).

    Does not divide by a standard deviation. `bgr` then reverses the channels to blue, green, red, as weights from Caffe
    expect.
    """
    image = 255 * image - per_channel((123.68, 116.779, 103.939))
    return image[:, :, ::-1] if bgr else image


def mean_image(image: Array, mean_image: Array) -> Array:
    """Subtracts `mean_image` [H, W, C], the average image of the training split (Krizhevsky et al. 2012, sec. 2)."""
    return image - mean_image


def pixel_mean_std(image: Array, mean_image: Array, std_image: Array) -> Array:
    """Standardizes each pixel of each channel: subtracts its mean over the training split and divides by its deviation.

    `mean_image` and `std_image` are [H, W, C].
    """
    return (image - mean_image) / std_image


def gcn(image: Array, scale: Positive = GCN_SCALE) -> Array:
    """Normalizes the global contrast: subtracts the image's own mean, then scales its Euclidean norm to `scale`.

    One mean and one norm serve all channels. The default is Pylearn2's 55, about the square root of the 3,072 values of
    a CIFAR-10 image, so that their standard deviation is about 1. A constant image becomes 0.
    """
    image = image - image.mean()
    norm = jnp.sqrt(jnp.square(image).sum())
    return jnp.where(norm > 1e-3, image * scale / jnp.maximum(norm, 1e-3), 0)  # one level of one value is 4e-3


def gcn_zca(image: Array, zca: Array, zca_mean: Array) -> Array:
    """Applies `gcn`, then ZCA whitening (Goodfellow et al. 2013, Maxout Networks, sec. 5.2).

    `zca` [D, D] is (covariance + ZCA_BIAS * I)^(-1/2) of the training split after `gcn`, and `zca_mean` [D] its mean,
    with D = H * W * C. D is at most `data.statistics.MAX_ZCA_VALUES`.
    """
    centered_values = gcn(image).reshape(-1) - zca_mean
    return jnp.dot(centered_values, zca, precision=jax.lax.Precision.HIGHEST).reshape(image.shape)


def none(image: Array) -> Array:
    """Returns the image unchanged, with values in [0, 1]."""
    return image


NORMALIZE = {"mean_std": mean_std, "centered": centered, "symmetric": symmetric, "range_to": range_to,
             "constants": constants, "imagenet": imagenet, "caffe": caffe, "mean_image": mean_image,
             "pixel_mean_std": pixel_mean_std, "gcn": gcn, "gcn_zca": gcn_zca, "none": none}  # fmt: skip


def per_channel(values: Sequence[float]) -> Array:
    """Converts C values to a float32 array [1, 1, C], which broadcasts over an image [H, W, C]."""
    return jnp.array(values, jnp.float32).reshape(1, 1, -1)


def statistics(values: Mapping[str, Any]) -> dict[str, Array]:
    """Converts a training split's statistics, by name, to the float32 arrays that operations and normalizations take.

    "mean" and "std" are required and become [1, 1, C]; the others of `STATISTICS` keep their shapes. "std" is raised to
    at least 1e-6 and "std_image" to at least 1/255, one gray level, so that nothing is divided by 0.
    """
    arrays = {name: jnp.asarray(values[name], jnp.float32) for name in STATISTICS if name in values}
    arrays |= {"mean": per_channel(values["mean"]), "std": jnp.maximum(per_channel(values["std"]), 1e-6)}
    if "std_image" in arrays:
        arrays["std_image"] = jnp.maximum(arrays["std_image"], 1 / 255)
    return arrays
