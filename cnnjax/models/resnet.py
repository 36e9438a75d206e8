"""Residual networks for ImageNet, with the activation after the addition, and what grew from them.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, sec. 3.3, 4.1, Table 1. Stages keep its
names, conv2_x to conv5_x. Wider: Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016, sec. 3.2. In groups: Xie,
Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks (ResNeXt). CVPR 2017, Table 1.
With weighted maps: Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018, Table 1.
"""

from functools import partial
from math import prod
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth, lookup, max_pool
from cnnjax.models.network import Network, Parts, Variant

BLOCKS = {"basic": 1, "bottleneck": 4}  # how many times `features` a block's output has

SHORTCUTS = {
    "A": "the block's input, with maps of zeros after its own where it has fewer",
    "B": "the block's input, projected by a 1x1 convolution where the number of maps differs",
    "C": "always projected",
    "none": "the plain networks",
}

STRIDES = {
    "1x1": "in the first convolution of a stage: the paper's (v1)",
    "3x3": "in the first 3x3 convolution of a stage: fb.resnet.torch, torchvision (v1.5)",
    "slim": "in the last 3x3 convolution of the stage before, and the pool is padded as in TensorFlow: TF-Slim",
}


class Conv(NamedTuple):
    """A convolution of a block."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1


class Block(nn.Module):
    """Convolutions and what is added to them (sec. 3.2): F(x) + x, or F(x) alone in a plain network."""

    parts: Parts
    convs: tuple[Conv, ...]
    shortcut: str
    se: int
    drop: float
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts, y, last = self.parts, x, len(self.convs)
        for i, (features, kernel, stride, groups) in enumerate(self.convs, start=1):
            y = parts.conv(features, kernel, stride, groups=groups, name=f"conv{i}")(y)
            start = nn.initializers.zeros if self.zero_init and i == last else nn.initializers.ones
            y = parts.norm(name=f"norm{i}", scale_init=start)(y)
            y = y if i == last else parts.act(y)
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        return parts.act(y if self.shortcut == "none" else y + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        features, stride = self.convs[-1].features, prod(conv.stride for conv in self.convs)
        extra = features - x.shape[-1]
        if self.shortcut == "C" or (self.shortcut == "B" and extra):
            x = self.parts.conv(features, 1, stride, name="shortcut_conv")(x)
            return self.parts.norm(name="shortcut_norm")(x)
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, extra)))


class ResNet(Network):
    """A 7x7 convolution, a pool, stages of blocks, and the classifier (Table 1)."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)  # blocks of each stage
    block: str = "bottleneck"
    features: int = 64  # maps of the first convolution; blocks of stage s give BLOCKS[block] * 2**s times as many
    width: int = 64  # maps in each group of the first stage's inner convolutions, twice as many in each next stage
    groups: int = 1  # of the 3x3 convolutions of bottlenecks
    shortcut: str = "B"
    stride: str = "1x1"
    se: int = 0  # the ratio of squeeze-and-excitation; 0 is without
    use_bias: bool = False  # of convolutions, even before a normalisation: Keras
    zero_init: bool = False  # blocks start as their shortcuts (Goyal et al. 2017, sec. 5.1)
    stochastic_depth: float = 0.0  # the last block's rate; others have less, in proportion to their depth
    ceil_pool: bool = False  # the pool is not padded and keeps its last, incomplete window: weights from Caffe
    small_images: bool = False  # a 3x3 convolution without stride, and no pool, for images of about 32x32
    remat: bool = False  # compute the blocks' maps again for the gradient, instead of keeping them

    def __post_init__(self) -> None:
        lookup("block", self.block, BLOCKS)
        lookup("shortcut", self.shortcut, SHORTCUTS)
        lookup("stride", self.stride, STRIDES)
        if self.groups > 1 and self.block == "basic":
            raise ValueError(f"groups = {self.groups!r}: basic blocks have none, bottlenecks do")
        if self.shortcut == "none" and (self.stochastic_depth or self.zero_init):
            raise ValueError("shortcut = 'none': stochastic_depth and zero_init need shortcuts")
        if self.zero_init and (self.norm == "none" or not self.norm_scale):
            raise ValueError("zero_init = True: expected a normalisation with a scale")
        super().__post_init__()

    @nn.nowrap
    def _convs(self, stage: int, first: bool, last: bool) -> tuple[Conv, ...]:
        """A block's convolutions, for the stage's number from 0 and its first or last block."""
        if self.stride == "slim":
            stride = 2 if last and stage < len(self.stage_sizes) - 1 else 1
        else:
            stride = 2 if first and stage > 0 else 1
        features, width = self.features * BLOCKS[self.block] * 2**stage, self.width * self.groups * 2**stage
        if self.block == "basic":
            return Conv(width, 3, stride), Conv(features, 3)
        one, three = (stride, 1) if self.stride == "1x1" else (1, stride)
        return Conv(width, 1, one), Conv(width, 3, three, self.groups), Conv(features, 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        if self.use_bias:
            parts = parts._replace(conv=partial(parts.conv, use_bias=True))
        make = nn.remat(Block) if self.remat else Block
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = parts.norm(name="norm1")(parts.conv(self.features, kernel, stride, name="conv1")(x))
        x = ends["conv1"] = parts.act(x)
        if not self.small_images:
            padding = "SAME" if self.stride == "slim" else 0 if self.ceil_pool else 1
            x = ends["pool1"] = max_pool(x, 3, 2, padding, self.ceil_pool)
        for stage, size in enumerate(self.stage_sizes):
            for i in range(1, size + 1):
                drop = self.stochastic_depth * (sum(self.stage_sizes[:stage]) + i) / sum(self.stage_sizes)
                convs, name = self._convs(stage, i == 1, i == size), f"conv{stage + 2}_{i}"
                x = make(parts, convs, self.shortcut, self.se, drop, self.zero_init, name=name)(x)
            ends[f"conv{stage + 2}_x"] = x
        if self.features_only:
            return ends
        return self.classify(x, parts)


_HE = ("He et al., Deep Residual Learning for Image Recognition, CVPR 2016", 2016)
_WIDE = ("Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016", 2016)
_XIE = ("Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017", 2017)
_HU = ("Hu et al., Squeeze-and-Excitation Networks, CVPR 2018", 2018)

_SIZES = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3),
    101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3),
}  # fmt: skip
_BASIC = {"block": "basic"}
_PLAIN = {"block": "basic", "shortcut": "none"}
_V1_5 = {"stride": "3x3"}
_SLIM = {"stride": "slim", "norm_momentum": 0.997}
_X4 = {"stride": "3x3", "groups": 32, "width": 4}
_SE = {"se": 16}


def _variant(
    depth: int, fields: dict[str, Any], params: int, macs: int, paper: tuple[str, int], error: str = ""
) -> Variant:
    """A row for 224x224 images; `error` is the published one on the validation images, top-1 / top-5."""
    build = partial(ResNet, stage_sizes=_SIZES[depth], **fields)
    published = error and f"ILSVRC-2012 val error in %, top-1 / top-5: {error}"
    return Variant(build, (224, 224, 3), params, macs, 1000, *paper, published)


VARIANTS: dict[str, Variant] = {
    "plain18": _variant(18, _PLAIN, 11_515_688, 1_794_805_760, _HE, "27.94 / -, 10 crops"),
    "plain34": _variant(34, _PLAIN, 21_623_848, 3_644_493_824, _HE, "28.54 / 10.02, 10 crops"),
    "resnet18": _variant(18, _BASIC, 11_689_512, 1_814_073_344, _HE, "27.88 / -, 10 crops, shortcuts A"),
    "resnet34": _variant(
        34, _BASIC, 21_797_672, 3_663_761_408, _HE, "24.52 / 7.46, 10 crops; shortcuts A 25.03, C 24.19"
    ),
    "resnet50": _variant(50, {}, 25_557_032, 3_857_973_248, _HE, "24.7 / 7.8, 1 crop; 22.85 / 6.71, 10 crops"),
    "resnet101": _variant(101, {}, 44_549_160, 7_570_194_432, _HE, "23.6 / 7.1, 1 crop; 21.75 / 6.05, 10 crops"),
    "resnet152": _variant(152, {}, 60_192_808, 11_282_415_616, _HE, "23.0 / 6.7, 1 crop; 21.43 / 5.71, 10 crops"),
    "resnet50_v1_5": _variant(50, _V1_5, 25_557_032, 4_089_184_256, _HE, "24.01 / 7.02, 1 crop, fb.resnet.torch"),
    "resnet101_v1_5": _variant(101, _V1_5, 44_549_160, 7_801_405_440, _HE, "22.44 / 6.21, 1 crop, fb.resnet.torch"),
    "resnet152_v1_5": _variant(152, _V1_5, 60_192_808, 11_513_626_624, _HE, "22.16 / 6.16, 1 crop, fb.resnet.torch"),
    "resnet50_slim": _variant(50, _SLIM, 25_557_032, 3_482_255_360, _HE, "24.8 / 7.8, 1 crop, TF-Slim"),
    "resnet101_slim": _variant(101, _SLIM, 44_549_160, 7_194_476_544, _HE, "23.6 / 7.1, 1 crop, TF-Slim"),
    "resnet152_slim": _variant(152, _SLIM, 60_192_808, 10_906_697_728, _HE, "23.2 / 6.8, 1 crop, TF-Slim"),
    "resnet200_slim": _variant(200, _SLIM, 64_673_832, 14_400_552_960, _HE),
    "wide_resnet50_2": _variant(50, _V1_5 | {"width": 128}, 68_883_240, 11_398_021_120, _WIDE, "21.9 / 5.79, 1 crop"),
    "resnext50_32x4d": _variant(50, _X4, 25_028_904, 4_230_479_872, _XIE, "22.2 / -, 1 crop"),
    "resnext101_32x4d": _variant(101, _X4, 44_177_704, 7_969_996_800, _XIE, "21.2 / -, 1 crop"),
    "resnext101_32x8d": _variant(101, _X4 | {"width": 8}, 88_791_336, 16_414_015_488, _XIE),
    "resnext101_64x4d": _variant(101, _X4 | {"groups": 64}, 83_455_272, 15_460_270_080, _XIE, "20.4 / -, 1 crop"),
    "se_resnet50": _variant(50, _SE, 28_088_024, 3_860_488_192, _HU, "22.37 / 6.36, 1 crop, released weights"),
    "se_resnet101": _variant(101, _SE, 49_326_872, 7_574_937_600, _HU, "21.75 / 5.72, 1 crop, released weights"),
    "se_resnet152": _variant(152, _SE, 66_821_848, 11_288_993_792, _HU, "21.34 / 5.54, 1 crop, released weights"),
    "se_resnext50_32x4d": _variant(
        50, _X4 | _SE, 27_559_896, 4_232_994_816, _HU, "20.97 / 5.54, 1 crop, released weights"
    ),
}
