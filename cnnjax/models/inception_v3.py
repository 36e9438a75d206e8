"""Inception-v3: factorised convolutions, after the authors' release.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision. CVPR 2016, sec. 6,
Table 1, Fig. 5-8, 10. The table leaves out maps and a module; as the authors say, their code (TF-Slim) is the
reference: end points have its names. Its normalisation has no scale (norm_scale=False), and of the running statistics
it keeps 0.9997 at each step; here it is 0.9, which any training can use.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import AuxHead, Branches, ConvNormAct, Network, Variant, auxiliary

CROSS = ((384, (1, 3)),), ((384, (3, 1)),)  # both on the same maps


def _wide(projected: int) -> tuple[Any, ...]:
    """Fig. 5, with one 5x5 convolution as in the release."""
    return ((64,),), ((48,), (64, 5)), ((64,), (96, 3), (96, 3)), ("pool", (projected,))


def _long(maps: int) -> tuple[Any, ...]:
    """Fig. 6, n = 7."""
    across, down = (maps, (1, 7)), (maps, (7, 1))
    return (
        ((192,),),
        ((maps,), across, (192, (7, 1))),
        ((maps,), down, across, down, (192, (1, 7))),
        ("pool", (192,)),
    )


# Fig. 7.
_CROSSED = ((320,),), ((384,), CROSS), ((448,), (384, 3), CROSS), ("pool", (192,))

# Modules that halve the maps (Fig. 10) have their maximum, others their mean.
MODULES = {
    "5b": _wide(32),
    "5c": _wide(64),
    "5d": _wide(64),
    "6a": (((384, 3, 2, 0),), ((64,), (96, 3), (96, 3, 2, 0)), ("pool",)),
    "6b": _long(128),
    "6c": _long(160),
    "6d": _long(160),
    "6e": _long(192),
    "7a": (((192,), (320, 3, 2, 0)), ((192,), (192, (1, 7)), (192, (7, 1)), (192, 3, 2, 0)), ("pool",)),
    "7b": _CROSSED,
    "7c": _CROSSED,
}


class InceptionV3(Network):
    """Five convolutions and two pools, eleven Inception modules, and the mean of each map."""

    dropout: float = 0.5
    norm_epsilon: float = 1e-3
    count_padding: bool = False  # the zeros around maps count in the modules' means: torchvision, timm
    aux: bool = False  # the auxiliary classifier on mixed_6e
    se: int = 0  # the ratio of squeeze-and-excitation after each module; 0: none
    small_images: bool = False  # until mixed_6a nothing has a stride, and all is padded: for images of about 32x32
    remat: bool = False  # compute the modules again in the backward pass, instead of keeping their inner maps

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Branches) if self.remat else Branches
        stride, valid = (1, None) if self.small_images else (2, 0)
        halve = partial(max_pool, window=3, stride=2)
        mean = partial(avg_pool, window=3, stride=1, padding=1, count_padding=self.count_padding)
        x = ends["conv_1a"] = ConvNormAct(parts, 32, 3, stride, valid, name="conv_1a")(x)
        x = ends["conv_2a"] = ConvNormAct(parts, 32, 3, 1, valid, name="conv_2a")(x)
        x = ends["conv_2b"] = ConvNormAct(parts, 64, 3, name="conv_2b")(x)
        if not self.small_images:
            x = ends["pool_3a"] = halve(x)
        x = ends["conv_3b"] = ConvNormAct(parts, 80, name="conv_3b")(x)
        x = ends["conv_4a"] = ConvNormAct(parts, 192, 3, 1, valid, name="conv_4a")(x)
        if not self.small_images:
            x = ends["pool_5a"] = halve(x)
        for name, branches in MODULES.items():
            pool = halve if name in ("6a", "7a") else mean
            x = ends[f"mixed_{name}"] = make(parts, branches, pool, self.se, name=f"mixed_{name}")(x)
            if name == "6e" and self.aux and not self.features_only:
                auxiliary(self, partial(AuxHead(parts, self.num_classes, name="aux"), x), train)
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016", 2016)
_RESULT = "ILSVRC-2012 val error 21.2 / 5.6 % top-1/top-5, 1 crop"

VARIANTS: dict[str, Variant] = {
    "inception_v3": Variant(InceptionV3, (299, 299, 3), 23_834_568, 5_713_216_096, 1000, *_PAPER, _RESULT),
    "inception_v3_aux": Variant(
        partial(InceptionV3, aux=True), (299, 299, 3), 27_161_264, 5_713_216_096, 1000, *_PAPER, _RESULT
    ),
}
