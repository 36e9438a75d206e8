"""Inception-v3: factorized convolutions, after the authors' release.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: Rethinking the Inception Architecture for Computer Vision. CVPR 2016, sec. 6,
Table 1, Fig. 5-8, 10. The table omits channel counts and a module; as the authors say, their code (TF-Slim) is the
reference, and feature maps have its names. There, normalization has no scale (norm_scale=False) and a norm_momentum of
0.9997; the default of 0.9 here suits any training.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.blocks import AuxHead, Branches, ConvNormAct, remat_if, sow_aux_logits
from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Variant, field

CROSS = ((384, (1, 3)),), ((384, (3, 1)),)  # both on the same input


def _wide(projected: int) -> tuple[Any, ...]:
    """Returns the branches, as in `Branches`, of the 35x35 modules (Fig. 5; torchvision's InceptionA).

    As in the authors' code, the second branch has one 5x5 convolution, not two 3x3. `projected` is the number of
    channels of the 1x1 convolution after the pool.
    """
    return ((64,),), ((48,), (64, 5)), ((64,), (96, 3), (96, 3)), ("pool", (projected,))


def _long(channels: int) -> tuple[Any, ...]:
    """Returns the branches, as in `Branches`, of the 17x17 modules (Fig. 6 with n = 7; torchvision's InceptionC).

    `channels` is the number of channels of the inner convolutions.
    """
    across, down = (channels, (1, 7)), (channels, (7, 1))
    return (
        ((192,),),
        ((channels,), across, (192, (7, 1))),
        ((channels,), down, across, down, (192, (1, 7))),
        ("pool", (192,)),
    )


# Fig. 7.
_CROSSED = ((320,),), ((384,), CROSS), ((448,), (384, 3), CROSS), ("pool", (192,))

# Modules that halve the feature maps (Fig. 10) have a max pool, the others an average pool.
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
    """Inception-v3: a stem of five convolutions and two pools, eleven Inception modules, and a linear classifier.

    Attributes:
      count_padding: counts padding zeros in the means of the modules' average pools, as torchvision and timm.
      aux: adds an auxiliary classifier on mixed_6e; in training it sows logits into 'aux_logits'.
      se: reduction ratio of squeeze-and-excitation after each module; 0 means none.
      small_images: for about 32x32; nothing has a stride before mixed_6a, and all convolutions of the stem are padded.
      remat: recomputes the activations inside the modules in the backward pass, to save memory.
    """

    dropout: float = 0.5
    norm_epsilon: float = 1e-3
    count_padding: bool = False
    aux: bool = False
    se: int = field(0, minimum=0)
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        module = remat_if(self.remat, Branches)
        stride, valid = (1, None) if self.small_images else (2, 0)
        halve = partial(max_pool, window=3, stride=2)
        average = partial(avg_pool, window=3, stride=1, padding=1, count_padding=self.count_padding)
        x = features["conv_1a"] = ConvNormAct(layers, 32, 3, stride, valid, name="conv_1a")(x)
        x = features["conv_2a"] = ConvNormAct(layers, 32, 3, 1, valid, name="conv_2a")(x)
        x = features["conv_2b"] = ConvNormAct(layers, 64, 3, name="conv_2b")(x)
        if not self.small_images:
            x = features["pool_3a"] = halve(x)
        x = features["conv_3b"] = ConvNormAct(layers, 80, name="conv_3b")(x)
        x = features["conv_4a"] = ConvNormAct(layers, 192, 3, 1, valid, name="conv_4a")(x)
        if not self.small_images:
            x = features["pool_5a"] = halve(x)
        for name, branches in MODULES.items():
            pool = halve if name in ("6a", "7a") else average
            x = features[f"mixed_{name}"] = module(layers, branches, pool, self.se, name=f"mixed_{name}")(x)
            if name == "6e" and self.aux and not self.features_only:
                sow_aux_logits(self, partial(AuxHead(layers, self.num_classes, name="aux"), x), train)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Szegedy et al., Rethinking the Inception Architecture for Computer Vision, CVPR 2016"
_SIZE = (299, 299, 3)
_ERROR = "ILSVRC-2012 val error 21.2 / 5.6 % top-1/top-5, 1 crop"

VARIANTS: dict[str, Variant] = {
    "inception_v3": Variant(InceptionV3, _PAPER, _SIZE, 1000, {}, 23_834_568, 5_713_216_096, _ERROR),
    "inception_v3_aux": Variant(InceptionV3, _PAPER, _SIZE, 1000, {"aux": True}, 27_161_264, 5_713_216_096, _ERROR),
}
