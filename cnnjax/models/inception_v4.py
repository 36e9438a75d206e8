"""Inception-v4 and Inception-ResNet-v2.

Szegedy, Ioffe, Vanhoucke, Alemi: Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning.
AAAI 2017, sec. 3. Where the authors' release (TF-Slim) differs from the figures it counts, as for the stem of
Inception-ResNet-v2; end points have its names. Its normalisation has no scale (norm_scale=False), and of the running
statistics it keeps 0.9997 at each step; here it is 0.9, which any training can use.
"""

from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth, avg_pool, max_pool
from cnnjax.models.network import AuxHead, Branches, ConvNormAct, Network, Parts, Variant, auxiliary

HALVE = partial(max_pool, window=3, stride=2)
MEAN = partial(avg_pool, window=3, stride=1, padding=1, count_padding=False)

CROSS = ((256, (1, 3)),), ((256, (3, 1)),)  # both on the same maps

# Fig. 4, 5, 6: the modules of Inception-v4.
_A = ((96,),), ((64,), (96, 3)), ((64,), (96, 3), (96, 3)), ("pool", (96,))
_B = (
    ((384,),),
    ((192,), (224, (1, 7)), (256, (7, 1))),
    ((192,), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7))),
    ("pool", (128,)),
)
_C = ((256,),), ((384,), CROSS), ((384,), (448, (3, 1)), (512, (1, 3)), CROSS), ("pool", (256,))

# Between them, Fig. 7 and 8: those that halve the maps.
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
    """Three convolutions, three modules that shrink the maps, and Inception modules in three sizes (Fig. 9)."""

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    aux: bool = False  # the auxiliary classifier on mixed_6h
    se: int = 0  # the ratio of squeeze-and-excitation after each module; 0: none
    small_images: bool = False  # until mixed_6a nothing has a stride, and all is padded: for images of about 32x32
    remat: bool = False  # compute the modules again in the backward pass, instead of keeping their inner maps

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Branches) if self.remat else Branches
        stride, valid = (1, None) if self.small_images else (2, 0)
        pool = partial(max_pool, window=3, stride=1, padding=1) if self.small_images else HALVE
        x = ends["conv_1a"] = ConvNormAct(parts, 32, 3, stride, valid, name="conv_1a")(x)
        x = ends["conv_2a"] = ConvNormAct(parts, 32, 3, 1, valid, name="conv_2a")(x)
        x = ends["conv_2b"] = ConvNormAct(parts, 64, 3, name="conv_2b")(x)
        stem = {  # Fig. 3
            "3a": (("pool",), ((96, 3, stride, valid),)),
            "4a": (((64,), (96, 3, 1, valid)), ((64,), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, valid))),
            "5a": (((192, 3, stride, valid),), ("pool",)),
        }
        for name, branches in stem.items():
            x = ends[f"mixed_{name}"] = make(parts, branches, pool, name=f"mixed_{name}")(x)
        for name, branches in V4.items():
            pool = HALVE if name in ("6a", "7a") else MEAN
            x = ends[f"mixed_{name}"] = make(parts, branches, pool, self.se, name=f"mixed_{name}")(x)
            if name == "6h" and self.aux and not self.features_only:
                auxiliary(self, partial(AuxHead(parts, self.num_classes, name="aux"), x), train)
        if self.features_only:
            return ends
        return self.classify(x, parts)


# The modules of Inception-ResNet-v2: those that halve, and the branches and the scale of the residual ones between them
# (Fig. 16, 17, 19). Inception-v4's Fig. 7 halves with other maps here.
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
    """An Inception module whose maps, projected and scaled, are added to its input (sec. 3.2, 3.3, Fig. 20)."""

    parts: Parts
    branches: tuple[Any, ...]
    scale: float
    last: bool  # the last of the network: not scaled, and no activation
    se: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = self.parts
        y = Branches(parts, self.branches, name="branches")(x)
        y = parts.conv(x.shape[-1], 1, use_bias=True, name="project")(y)
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        return x + y if self.last else parts.act(x + self.scale * y)


class InceptionResNetV2(Network):
    """Inception-v3's stem, an Inception module, and three stages of residual ones with modules that halve between."""

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    stage_sizes: tuple[int, ...] = (10, 20, 10)  # residual modules at each size of the maps
    aux: bool = False  # the auxiliary classifier on block17
    se: int = 0  # the ratio of squeeze-and-excitation of each residual module; 0: none
    stochastic_depth: float = 0.0  # the last residual module's rate; others have less, in proportion to their depth
    small_images: bool = False  # until mixed_6a nothing has a stride, and all is padded: for images of about 32x32
    remat: bool = False  # compute the modules again in the backward pass, instead of keeping their inner maps

    def __post_init__(self) -> None:
        if len(self.stage_sizes) != 3:
            raise ValueError(f"stage_sizes = {self.stage_sizes!r}: expected three numbers of modules, as (10, 20, 10)")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Branches) if self.remat else Branches
        residual = nn.remat(Residual) if self.remat else Residual
        stride, valid = (1, None) if self.small_images else (2, 0)
        x = ends["conv_1a"] = ConvNormAct(parts, 32, 3, stride, valid, name="conv_1a")(x)
        x = ends["conv_2a"] = ConvNormAct(parts, 32, 3, 1, valid, name="conv_2a")(x)
        x = ends["conv_2b"] = ConvNormAct(parts, 64, 3, name="conv_2b")(x)
        if not self.small_images:
            x = ends["pool_3a"] = HALVE(x)
        x = ends["conv_3b"] = ConvNormAct(parts, 80, name="conv_3b")(x)
        x = ends["conv_4a"] = ConvNormAct(parts, 192, 3, 1, valid, name="conv_4a")(x)
        if not self.small_images:
            x = ends["pool_5a"] = HALVE(x)
        done, blocks = 0, sum(self.stage_sizes)
        for (name, mixed), (block, (scale, branches)), size in zip(
            MIXED.items(), BLOCKS.items(), self.stage_sizes, strict=True
        ):
            x = ends[f"mixed_{name}"] = make(parts, mixed, MEAN if name == "5b" else HALVE, name=f"mixed_{name}")(x)
            for i in range(1, size + 1):
                done += 1
                drop = self.stochastic_depth * done / blocks
                x = residual(parts, branches, scale, done == blocks, self.se, drop, name=f"{block}_{i}")(x)
            ends[block] = x
            if block == "block17" and self.aux and not self.features_only:
                auxiliary(self, partial(AuxHead(parts, self.num_classes, name="aux"), x), train)
        x = ends["conv_7b"] = ConvNormAct(parts, 1536, name="conv_7b")(x)
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("Szegedy et al., Inception-v4, Inception-ResNet and the Impact of Residual Connections, AAAI 2017", 2017)
_V4 = "ILSVRC-2012 val error 20.0 / 5.0 % top-1/top-5, 1 crop; 17.7 / 3.8 %, 144 crops"
_RESNET = "ILSVRC-2012 val error 19.9 / 4.9 % top-1/top-5, 1 crop; 17.8 / 3.7 %, 144 crops"
_AUX = {"aux": True}

VARIANTS: dict[str, Variant] = {
    name: Variant(partial(network, **fields), (299, 299, 3), params, macs, 1000, *_PAPER, published)
    for name, network, fields, params, macs, published in (
        ("inception_v4", InceptionV4, {}, 42_679_816, 12_253_974_624, _V4),
        ("inception_v4_aux", InceptionV4, _AUX, 46_039_280, 12_253_974_624, _V4),
        ("inception_resnet_v2", InceptionResNetV2, {}, 55_843_464, 13_155_794_016, _RESNET),
        ("inception_resnet_v2_aux", InceptionResNetV2, _AUX, 59_211_120, 13_155_794_016, _RESNET),
    )
}
