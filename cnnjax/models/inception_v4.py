"""Inception-v4 and Inception-ResNet-v2.

Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.
AAAI 2017, sec. 3. Where the authors' release (TF-Slim) differs from the figures, as in the stem of Inception-ResNet-v2,
this follows the release; feature maps have its names. There, normalization has no scale (norm_scale=False) and a
norm_momentum of 0.9997; the default of 0.9 here suits any training.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.blocks import (
    AuxHead,
    Branches,
    ConvNormAct,
    Layers,
    drop_path,
    drop_rates,
    remat_if,
    sow_aux_logits,
    squeeze_excite,
)
from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Variant, field

MAX = partial(max_pool, window=3, stride=2)
AVERAGE = partial(avg_pool, window=3, stride=1, padding=1, count_padding=False)

CROSS = ((256, (1, 3)),), ((256, (3, 1)),)  # both on the same input

# The modules of Inception-v4: Fig. 4, 5, 6.
_A = ((96,),), ((64,), (96, 3)), ((64,), (96, 3), (96, 3)), ("pool", (96,))
_B = (
    ((384,),),
    ((192,), (224, (1, 7)), (256, (7, 1))),
    ((192,), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
    ("pool", (128,)),
)
_C = ((256,),), ((384,), CROSS), ((384,), (448, (3, 1)), (512, (1, 3)), CROSS), ("pool", (256,))

# The reduction modules between them, which halve the feature maps: Fig. 7 and 8.
_REDUCE_A = ((384, 3, 2, 0),), ((192,), (224, 3), (256, 3, 2, 0)), ("pool",)
_REDUCE_B = ((192,), (192, 3, 2, 0)), ((256,), (256, (1, 7)), (320, (7, 1)), (320, 3, 2, 0)), ("pool",)

V4: dict[str, tuple[Any, ...]] = {
    **{f"5{letter}": _A for letter in "bcde"},
    "6a": _REDUCE_A,
    **{f"6{letter}": _B for letter in "bcdefgh"},
    "7a": _REDUCE_B,
    **{f"7{letter}": _C for letter in "bcd"},
}


class InceptionV4(Network):
    """Inception-v4 (Fig. 9): three convolutions, three stem modules, 16 Inception modules, and a linear classifier.

    Attributes:
      aux: adds an auxiliary classifier on mixed_6h; in training it sows logits into 'aux_logits'.
      se: reduction ratio of squeeze-and-excitation after each of the 16 modules; 0 means none.
      small_images: for about 32x32; nothing has a stride before mixed_6a, and all convolutions of the stem are padded.
      remat: recomputes the activations inside the modules in the backward pass, to save memory.
    """

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    aux: bool = False
    se: int = field(0, minimum=0)
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        module = remat_if(self.remat, Branches)
        stride, valid = (1, None) if self.small_images else (2, 0)
        pool = partial(max_pool, window=3, stride=1, padding=1) if self.small_images else MAX
        x = features["conv_1a"] = ConvNormAct(layers, 32, 3, stride, valid, name="conv_1a")(x)
        x = features["conv_2a"] = ConvNormAct(layers, 32, 3, 1, valid, name="conv_2a")(x)
        x = features["conv_2b"] = ConvNormAct(layers, 64, 3, name="conv_2b")(x)
        stem = {  # Fig. 3
            "3a": (("pool",), ((96, 3, stride, valid),)),
            "4a": (((64,), (96, 3, 1, valid)), ((64,), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, valid))),
            "5a": (((192, 3, stride, valid),), ("pool",)),
        }
        for name, branches in stem.items():
            x = features[f"mixed_{name}"] = module(layers, branches, pool, name=f"mixed_{name}")(x)
        for name, branches in V4.items():
            pool = MAX if name in ("6a", "7a") else AVERAGE
            x = features[f"mixed_{name}"] = module(layers, branches, pool, self.se, name=f"mixed_{name}")(x)
            if name == "6h" and self.aux and not self.features_only:
                sow_aux_logits(self, partial(AuxHead(layers, self.num_classes, name="aux"), x), train)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


# Inception-ResNet-v2: its plain modules (Fig. 7 with other channels), and the scale and branches of its residual
# modules (Fig. 16, 17, 19).
MIXED = {
    "5b": (((96,),), ((48,), (64, 5)), ((64,), (96, 3), (96, 3)), ("pool", (64,))),
    "6a": (((384, 3, 2, 0),), ((256,), (256, 3), (384, 3, 2, 0)), ("pool",)),
    "7a": (((256,), (384, 3, 2, 0)), ((256,), (288, 3, 2, 0)), ((256,), (288, 3), (320, 3, 2, 0)), ("pool",)),
}
BLOCKS = {
    "block35": (0.17, (((32,),), ((32,), (32, 3)), ((32,), (48, 3), (64, 3)))),
    "block17": (0.10, (((192,),), ((128,), (160, (1, 7)), (192, (7, 1))))),
    "block8": (0.20, (((192,),), ((192,), (224, (1, 3)), (256, (3, 1))))),
}


class Residual(nn.Module):
    """Residual Inception module: x + scale * project(branches(x)), then activation (sec. 3.2, 3.3, Fig. 20).

    The projection is a 1x1 convolution to the channels of x.

    Attributes:
      layers: the network's layer constructors.
      branches: parallel branches, as in `Branches`.
      scale: factor on the residual.
      last: marks the network's last module, which has neither scale nor activation.
      se: reduction ratio of squeeze-and-excitation on the residual; 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
    """

    layers: Layers
    branches: tuple[Any, ...]
    scale: float
    last: bool
    se: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        y = Branches(layers, self.branches, name="branches")(x)
        y = layers.conv(x.shape[-1], 1, use_bias=True, name="project")(y)
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        return x + y if self.last else layers.act(x + self.scale * y)


class InceptionResNetV2(Network):
    """Inception-ResNet-v2: Inception-v3's stem, then three stages of residual modules, and a linear classifier.

    A plain Inception module precedes each stage: mixed_5b keeps the size, mixed_6a and mixed_7a halve it.

    Attributes:
      stage_sizes: residual modules of each stage.
      aux: adds an auxiliary classifier after the second stage; in training it sows logits into 'aux_logits'.
      se: reduction ratio of squeeze-and-excitation in the residual modules; 0 means none.
      stochastic_depth: drop probability of the last residual module; it rises linearly with depth.
      small_images: for about 32x32; nothing has a stride before mixed_6a, and all convolutions of the stem are padded.
      remat: recomputes the activations inside the modules in the backward pass, to save memory.
    """

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    stage_sizes: tuple[int, ...] = field((10, 20, 10), minimum=1, length=3)
    aux: bool = False
    se: int = field(0, minimum=0)
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        module = remat_if(self.remat, Branches)
        residual = remat_if(self.remat, Residual)
        stride, valid = (1, None) if self.small_images else (2, 0)
        x = features["conv_1a"] = ConvNormAct(layers, 32, 3, stride, valid, name="conv_1a")(x)
        x = features["conv_2a"] = ConvNormAct(layers, 32, 3, 1, valid, name="conv_2a")(x)
        x = features["conv_2b"] = ConvNormAct(layers, 64, 3, name="conv_2b")(x)
        if not self.small_images:
            x = features["pool_3a"] = MAX(x)
        x = features["conv_3b"] = ConvNormAct(layers, 80, name="conv_3b")(x)
        x = features["conv_4a"] = ConvNormAct(layers, 192, 3, 1, valid, name="conv_4a")(x)
        if not self.small_images:
            x = features["pool_5a"] = MAX(x)
        rates = iter(drop_rates(self.stochastic_depth, sum(self.stage_sizes)))
        for (name, mixed), (block, (scale, branches)), size in zip(
            MIXED.items(), BLOCKS.items(), self.stage_sizes, strict=True
        ):
            pool = AVERAGE if name == "5b" else MAX
            x = features[f"mixed_{name}"] = module(layers, mixed, pool, name=f"mixed_{name}")(x)
            for i in range(1, size + 1):
                last = block == "block8" and i == size
                x = residual(layers, branches, scale, last, self.se, next(rates), name=f"{block}_{i}")(x)
            features[block] = x
            if block == "block17" and self.aux and not self.features_only:
                sow_aux_logits(self, partial(AuxHead(layers, self.num_classes, name="aux"), x), train)
        x = features["conv_7b"] = ConvNormAct(layers, 1536, name="conv_7b")(x)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, AAAI 2017"
_SIZE = (299, 299, 3)
_AUX = {"aux": True}
_V4 = "ILSVRC-2012 val error 20.0 / 5.0 % top-1/top-5, 1 crop; 17.7 / 3.8 %, 144 crops"
_RESNET = "ILSVRC-2012 val error 19.9 / 4.9 % top-1/top-5, 1 crop; 17.8 / 3.7 %, 144 crops"

VARIANTS: dict[str, Variant] = {
    "inception_v4": Variant(InceptionV4, _PAPER, _SIZE, 1000, {}, 42_679_816, 12_253_974_624, _V4),
    "inception_v4_aux": Variant(InceptionV4, _PAPER, _SIZE, 1000, _AUX, 46_039_280, 12_253_974_624, _V4),
    "inception_resnet_v2": Variant(InceptionResNetV2, _PAPER, _SIZE, 1000, {}, 55_843_464, 13_155_794_016, _RESNET),
    "inception_resnet_v2_aux": Variant(
        InceptionResNetV2, _PAPER, _SIZE, 1000, _AUX, 59_211_120, 13_155_794_016, _RESNET
    ),
}
