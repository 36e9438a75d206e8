"""The Inception network with batch normalisation: as published, and TF-Slim's Inception-v2.

Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift. ICML 2015,
App. (Fig. 5). Of the running statistics TF-Slim keeps 0.9997 at each step, which takes some ten thousand steps to
forget the start; here it is 0.9, which any training can use.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Branches, ConvNormAct, Network, Parts, Variant

# Fig. 5: maps of the 1x1 convolution; of the 1x1 and 3x3; of the 1x1 and the two 3x3; after the pool. The modules that
# have no 1x1 convolution of their own halve the maps, and their pool keeps its input.
MODULES = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}


class BNInception(Network):
    """Two convolutions and a 1x1 between them, ten Inception modules, and the mean of each map."""

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    projected: int = (
        128  # maps after the pools of inception_4c and 4d: of Fig. 5, which adds up to its 576 with 96 alone
    )
    separable: bool = False  # conv1 is eight 7x7 kernels for each colour, then a 1x1 convolution, without normalisation
    same: bool = False  # pad as TensorFlow does, which differs from Caffe where there is a stride, and in average pools
    se: int = 0  # the ratio of squeeze-and-excitation after each module; 0: none
    small_images: bool = False  # conv1 is 3x3, and until inception_3c nothing has a stride: for images of about 32x32
    remat: bool = False  # compute the modules again in the backward pass, instead of keeping their inner maps

    def __post_init__(self) -> None:
        if self.projected < 1:
            raise ValueError(f"projected = {self.projected!r}: expected maps, as 128 or 96")
        super().__post_init__()

    @nn.nowrap
    def _conv1(self, x: jax.Array, parts: Parts, padding: str | None) -> jax.Array:
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        if not self.separable:
            return ConvNormAct(parts, 64, kernel, stride, padding, name="conv1")(x)
        maps = x.shape[-1]
        conv = parts.conv(8 * maps, kernel, stride, padding, maps, use_bias=False, name="conv1_depthwise")
        return parts.act(parts.conv(64, 1, use_bias=True, name="conv1_pointwise")(conv(x)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Branches) if self.remat else Branches
        padding = "SAME" if self.same else None
        # Of even sides both halve the same; of odd ones, in modules, Caffe's pools do not fit the convolutions.
        same_pool = partial(max_pool, window=3, stride=2, padding="SAME")
        halve = same_pool if self.same else partial(max_pool, window=3, stride=2, ceil=True)
        average = partial(avg_pool, window=3, stride=1, padding="SAME" if self.same else 1)
        x = ends["conv1"] = self._conv1(x, parts, padding)
        if not self.small_images:
            x = ends["pool1"] = halve(x)
        x = ends["conv2_reduce"] = ConvNormAct(parts, 64, name="conv2_reduce")(x)
        x = ends["conv2"] = ConvNormAct(parts, 192, 3, name="conv2")(x)
        if not self.small_images:
            x = ends["pool2"] = halve(x)
        for name, (one, reduce3, three, reduce5, five, projected) in MODULES.items():
            if one:
                projected = self.projected if name in ("4c", "4d") else projected
                branches = (
                    ((one,),),
                    ((reduce3,), (three, 3)),
                    ((reduce5,), (five, 3), (five, 3)),
                    ("pool", (projected,)),
                )
                pool = partial(max_pool, window=3, stride=1, padding=1) if name == "5b" else average
            else:
                branches = (
                    ((reduce3,), (three, 3, 2, padding)),
                    ((reduce5,), (five, 3), (five, 3, 2, padding)),
                    ("pool",),
                )
                pool = same_pool
            x = ends[f"inception_{name}"] = make(parts, branches, pool, self.se, name=f"inception_{name}")(x)
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("Ioffe, Szegedy, Batch Normalization, ICML 2015", 2015)
_RESULT = "ILSVRC-2012 val error 25.2 / 7.82 % top-1/top-5, 1 crop; 21.99 / 5.82 %, 144 crops"
_SLIM = {"projected": 96, "separable": True, "same": True, "norm_scale": False}

_ROWS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "bn_inception": ({}, 11_285_224, 2_032_600_064, _RESULT),
    "inception_v2": (
        _SLIM,
        11_178_336,
        1_934_857_216,
        "ILSVRC-2012 val error 26.1 / 8.2 % top-1/top-5, 1 crop, TF-Slim",
    ),
}

VARIANTS: dict[str, Variant] = {
    name: Variant(partial(BNInception, **fields), (224, 224, 3), params, macs, 1000, *_PAPER, published)
    for name, (fields, params, macs, published) in _ROWS.items()
}
