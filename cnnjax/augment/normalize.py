"""What makes of pixels in [0, 1] what a network sees: `(image, statistics of the training split) -> image`.

A normalisation is a pure function of one image, float32 [H, W, C], and of those of `STATISTICS` that it has as
parameters: of the training split, as `data.statistics` computes them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Array = jax.Array

ON_DEMAND = ("mean_image", "std_image", "eigen", "zca", "zca_mean")  # computed where an operation takes them
STATISTICS = ("mean", "std", *ON_DEMAND)

GCN_SCALE, ZCA_BIAS = 55.0, 0.1  # Pylearn2's, with which Maxout networks learnt CIFAR-10


def mean_std(image: Array, mean: Array, std: Array) -> Array:
    """Each channel to mean 0 and standard deviation 1 over the training split."""
    return (image - mean) / std


def centered(image: Array, mean: Array) -> Array:
    """Each channel to mean 0 over the training split, its scale left alone."""
    return image - mean


def symmetric(image: Array) -> Array:
    """[0, 1] to [-1, 1]."""
    return 2 * image - 1


def range_to(image: Array, low: float, high: float) -> Array:
    """[0, 1] to [low, high]; LeNet-5 of 1998 has -0.1 and 1.175 (LeCun et al. 1998, II.B)."""
    return low + (high - low) * image


def constants(image: Array, means: Sequence[float], stds: Sequence[float]) -> Array:
    """As `mean_std`, with a mean and a standard deviation per channel that are given, on the scale of [0, 1]."""
    return (image - per_channel(means)) / per_channel(stds)


def imagenet(image: Array) -> Array:
    """As `constants`, with ImageNet's, which torchvision's and most other weights of today were trained with."""
    return constants(image, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def caffe(image: Array, bgr: bool = False) -> Array:
    """[0, 255] less ImageNet's mean colour, not scaled (Simonyan & Zisserman 2015, 2.1; He et al. 2016).

    With `bgr`, the channels are blue, green, red, as weights from Caffe have them.
    """
    image = 255 * image - per_channel((123.68, 116.779, 103.939))
    return image[:, :, ::-1] if bgr else image


def mean_image(image: Array, mean_image: Array) -> Array:
    """Each value to mean 0 over the training split, place by place (Krizhevsky et al. 2012, 2)."""
    return image - mean_image


def pixel_mean_std(image: Array, mean_image: Array, std_image: Array) -> Array:
    """Each value to mean 0 and standard deviation 1 over the training split, place by place."""
    return (image - mean_image) / std_image


def gcn(image: Array, scale: float = GCN_SCALE) -> Array:
    """Global contrast normalisation: the mean of all values to 0, and their Euclidean norm to `scale`.

    As in Pylearn2, whose 55 is about the root of the 3,072 values of CIFAR-10. An image of one colour becomes 0.
    """
    image = image - image.mean()
    norm = jnp.sqrt(jnp.square(image).sum())
    return jnp.where(norm > 1e-3, image * scale / jnp.maximum(norm, 1e-3), 0)  # one level of one value is 4e-3


def gcn_zca(image: Array, zca: Array, zca_mean: Array) -> Array:
    """`gcn`, and then the training split whitened by the least change (Goodfellow et al. 2013, Maxout Networks, 5.2).

    `zca` [HWC, HWC] is the inverse root of the covariance after `gcn`, to which `ZCA_BIAS` is added on the diagonal;
    `zca_mean` [HWC] is the mean there. For images of at most `data.statistics.MOST_WHITENED` values.
    """
    centred = gcn(image).reshape(-1) - zca_mean
    return jnp.dot(centred, zca, precision=jax.lax.Precision.HIGHEST).reshape(image.shape)


def none(image: Array) -> Array:
    """Leaves pixels in [0, 1]."""
    return image


NORMALIZE = {"mean_std": mean_std, "centered": centered, "symmetric": symmetric, "range_to": range_to,
             "constants": constants, "imagenet": imagenet, "caffe": caffe, "mean_image": mean_image,
             "pixel_mean_std": pixel_mean_std, "gcn": gcn, "gcn_zca": gcn_zca, "none": none}  # fmt: skip


def per_channel(values: Sequence[float]) -> Array:
    """[C] values as a [1, 1, C] array."""
    return jnp.array(values, jnp.float32).reshape(1, 1, -1)


def statistics(known: Mapping[str, Any]) -> dict[str, Array]:
    """What operations and normalisations may ask for, as arrays: of what is `known` of a run's training split.

    A deviation of less than one level in 255 between images, as at a place that is always black, counts as one.
    """
    given = {name: jnp.asarray(known[name], jnp.float32) for name in STATISTICS if name in known}
    given |= {"mean": per_channel(known["mean"]), "std": jnp.maximum(per_channel(known["std"]), 1e-6)}
    if "std_image" in given:
        given["std_image"] = jnp.maximum(given["std_image"], 1 / 255)
    return given
