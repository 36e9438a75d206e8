"""GoogLeNet, the first Inception network: as published, with batch normalisation, and as its public weights have it.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions. CVPR 2015,
sec. 5, Table 1, Fig. 3. Modules keep the paper's names: inception_3a to inception_5b. What the paper leaves open is as
in Caffe's model: pools keep the last, incomplete window, and where no normalisation follows a convolution its biases
start at 0.2. Of the running statistics TF-Slim keeps 0.9997 at each step; here it is 0.9, which any training can use.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer

from cnnjax.models.layers import FullConnection, avg_pool, global_mean, local_response_norm, max_pool
from cnnjax.models.network import INITIALIZERS, NORMS, Branches, ConvNormAct, Network, Parts, Variant, auxiliary

# Table 1: maps of the 1x1 convolution; of the 3x3 one and of the 1x1 before it; the same of the 5x5; after the pool.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

POOL = partial(max_pool, window=3, stride=1, padding=1)  # inside modules


def _mean_of_parts(x: jax.Array, count: int) -> jax.Array:
    """The means of count x count parts that cover the maps, and overlap where a side is no multiple of count."""

    def weights(side: int) -> jax.Array:
        part, pixel = np.arange(count)[:, None], np.arange(side)
        low, high = part * side // count, -(-(part + 1) * side // count)
        return jnp.asarray(((low <= pixel) & (pixel < high)) / (high - low), x.dtype)

    return jnp.einsum("bhwc,ih,jw->bijc", x, weights(x.shape[1]), weights(x.shape[2]))


class AuxClassifier(nn.Module):
    """The classifier that sits on a module in the middle, for training alone (sec. 5).

    Images larger than the paper's have several windows of 4x4 parts; the classifier sees the mean over these.
    """

    parts: Parts
    num_classes: int
    dense_init: Initializer
    dropout: float
    adaptive: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = self.parts
        x = _mean_of_parts(x, 4) if self.adaptive else avg_pool(x, 5, 3, ceil=True)
        x = ConvNormAct(parts, 128, name="conv")(x)
        x = global_mean(parts.act(FullConnection(1024, 4, self.dense_init, dtype=x.dtype, name="fc")(x)))
        x = nn.Dropout(self.dropout, deterministic=not parts.train)(x)
        return parts.dense(self.num_classes, name="head")(x)


class GoogLeNet(Network):
    """Two convolutions and a 1x1 between them, nine Inception modules, and the mean of each map."""

    dropout: float = 0.4
    norm: str = "lrn"
    norm_epsilon: float = 1e-3
    initializer: str = "xavier"
    kernel: int = 5  # of the widest branch: the paper's; 3 in TF-Slim and torchvision
    last_pool: int = 3  # the window of the last pool: the paper's; 2 in TF-Slim and torchvision
    same: bool = False  # pad as TensorFlow does, which differs from the paper in conv1, and in pools of odd maps
    aux: bool = False  # the auxiliary classifiers on inception_4a and 4d
    aux_dropout: float = 0.7
    adaptive: bool = False  # the pools of these divide maps of any size in 4x4, as in torchvision
    se: int = 0  # the ratio of squeeze-and-excitation after each module; 0: none
    small_images: bool = False  # conv1 is 3x3, and until inception_3a nothing has a stride: for images of about 32x32
    remat: bool = False  # compute the modules again in the backward pass, instead of keeping their inner maps

    norms = NORMS

    def __post_init__(self) -> None:
        if self.kernel not in (3, 5):
            raise ValueError(f"kernel = {self.kernel!r}: expected 5, or 3 as in TF-Slim and torchvision")
        if self.last_pool not in (2, 3):
            raise ValueError(f"last_pool = {self.last_pool!r}: expected 3, or 2 as in TF-Slim and torchvision")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Branches) if self.remat else Branches
        if self.norm in ("none", "lrn"):
            parts = parts._replace(conv=partial(parts.conv, bias_init=nn.initializers.constant(0.2)))
        # Caffe's scaling, not that of Krizhevsky et al.: alpha is for the mean of squares, and k is 1.
        lrn = partial(local_response_norm, alpha=1e-4 / 5, k=1.0) if self.norm == "lrn" else lambda x: x

        def pool(x: jax.Array, window: int = 3) -> jax.Array:
            return max_pool(x, window, 2, "SAME") if self.same else max_pool(x, window, 2, ceil=True)

        kernel, stride = (3, 1) if self.small_images else (7, 2)
        padding = "SAME" if self.same else None
        x = ends["conv1"] = ConvNormAct(parts, 64, kernel, stride, padding, name="conv1")(x)
        if not self.small_images:
            x = ends["pool1"] = pool(x)
        x = ends["conv2_reduce"] = ConvNormAct(parts, 64, name="conv2_reduce")(lrn(x))
        x = ends["conv2"] = ConvNormAct(parts, 192, 3, name="conv2")(x)
        x = lrn(x)
        if not self.small_images:
            x = ends["pool2"] = pool(x)
        for name, (one, reduce3, three, reduce5, five, projected) in MODULES.items():
            branches = (
                ((one,),),
                ((reduce3,), (three, 3)),
                ((reduce5,), (five, self.kernel)),
                ("pool", (projected,)),
            )
            x = make(parts, branches, POOL, self.se, name=f"inception_{name}")(x)
            ends[f"inception_{name}"] = x
            if name in ("4a", "4d") and self.aux and not self.features_only:
                _, init = INITIALIZERS[self.initializer](self.initializer_std)
                settings = self.num_classes, init, self.aux_dropout, self.adaptive
                head = AuxClassifier(parts, *settings, name=f"aux_{name}")
                auxiliary(self, partial(head, x), train)
            if name == "3b":
                x = ends["pool3"] = pool(x)
            elif name == "4e":
                x = ends["pool4"] = pool(x, self.last_pool)
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("Szegedy et al., Going Deeper with Convolutions, CVPR 2015", 2015)
_RESULT = "ILSVRC-2012 val error 10.07 % top-5, 1 crop; 7.89 %, 144 crops; 6.67 %, 7 networks"
_TORCHVISION_RESULT = "ILSVRC-2012 val error 30.22 / 10.47 % top-1/top-5, 1 crop, torchvision's weights"
_SLIM_RESULT = "ILSVRC-2012 val error 30.2 / 10.4 % top-1/top-5, 1 crop, TF-Slim"
_AUX = {"aux": True}
_BN = {"norm": "batch"}
_RELEASED = _BN | {"kernel": 3, "last_pool": 2, "dropout": 0.2, "initializer": "truncated"}
_TORCHVISION = _RELEASED | {"adaptive": True}
_SLIM = _RELEASED | {"same": True, "norm_scale": False}

# Name: fields, parameters, multiplications (without those of auxiliary classifiers), published result.
_ROWS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "googlenet": ({}, 6_998_552, 1_582_671_872, _RESULT),
    "googlenet_aux": (_AUX, 13_378_280, 1_582_671_872, _RESULT),
    "googlenet_bn": (_BN, 7_005_832, 1_582_671_872, ""),
    "googlenet_bn_aux": (_BN | _AUX, 13_385_816, 1_582_671_872, ""),
    "googlenet_torchvision": (_TORCHVISION, 6_624_904, 1_498_376_192, _TORCHVISION_RESULT),
    "googlenet_torchvision_aux": (_TORCHVISION | _AUX, 13_004_888, 1_498_376_192, _TORCHVISION_RESULT),
    "inception_v1": (_SLIM, 6_617_624, 1_498_376_192, _SLIM_RESULT),
}

VARIANTS: dict[str, Variant] = {
    name: Variant(partial(GoogLeNet, **fields), (224, 224, 3), params, macs, 1000, *_PAPER, published)
    for name, (fields, params, macs, published) in _ROWS.items()
}
