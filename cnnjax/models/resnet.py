"""ResNet for ImageNet (v1 and v1.5), Wide ResNet, ResNeXt and SENet.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, sec. 3.3, 4.1, Table 1. Stages keep its
names, conv2_x to conv5_x. Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016, sec. 3.2. Xie, Girshick, Dollar,
Tu, He: Aggregated Residual Transformations for Deep Neural Networks (ResNeXt). CVPR 2017, Table 1. Hu, Shen, Sun:
Squeeze-and-Excitation Networks. CVPR 2018, Table 1.
"""

from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.blocks import Layers, drop_path, drop_rates, remat_if, squeeze_excite
from cnnjax.models.layers import max_pool
from cnnjax.models.network import Network, Variant, field

BLOCKS = {"basic": 1, "bottleneck": 4}  # expansion: output channels of a block in the first stage / `features`

SHORTCUTS = {
    "A": "identity; where the shape changes, subsampled and padded with zero channels",
    "B": "identity; where the number of channels changes, a 1x1 convolution",
    "C": "always a 1x1 convolution",
    "none": "the plain networks",
}

STRIDES = {
    "1x1": "in the first convolution of a stage: the paper's (v1)",
    "3x3": "in the first 3x3 convolution of a stage: fb.resnet.torch, torchvision (v1.5)",
    "slim": "in the last 3x3 convolution of the previous stage, and the pool has TensorFlow's padding: TF-Slim",
}


class Conv(NamedTuple):
    """Shape of a convolution in a block: output channels, kernel size, stride, groups; padding is half the kernel."""

    features: int
    kernel: int
    stride: int = 1
    groups: int = 1


class Block(nn.Module):
    """Residual block (sec. 3.2): act(F(x) + shortcut(x)). F is `convs`, each with a norm, and activations between.

    Attributes:
      layers: the network's layer constructors.
      convs: the convolutions of F, in order.
      shortcut: 'A', 'B', 'C' or 'none', as in `ResNet`; 'none' makes a plain block, act(F(x)).
      se: reduction ratio of squeeze-and-excitation on F(x); 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
      zero_init: initializes the scale of F's last norm to 0.
    """

    layers: Layers
    convs: tuple[Conv, ...]
    shortcut: str
    se: int
    drop_rate: float
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers, y, last = self.layers, x, len(self.convs)
        for i, conv in enumerate(self.convs, start=1):
            y = layers.conv(conv.features, conv.kernel, conv.stride, groups=conv.groups, name=f"conv{i}")(y)
            scale_init = nn.initializers.zeros if self.zero_init and i == last else nn.initializers.ones
            norm = layers.norm if i == last else layers.norm_act
            y = norm(name=f"norm{i}", scale_init=scale_init)(y)
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        return layers.act(y if self.shortcut == "none" else y + self._shortcut(x))

    def _shortcut(self, x: jax.Array) -> jax.Array:
        """Returns x in the shape of F(x): as it is, padded with zero channels, or projected, by `self.shortcut`."""
        features, stride = self.convs[-1].features, prod(conv.stride for conv in self.convs)
        extra = features - x.shape[-1]
        if self.shortcut == "C" or (self.shortcut == "B" and extra):
            x = self.layers.conv(features, 1, stride, name="shortcut_conv")(x)
            return self.layers.norm(name="shortcut_norm")(x)
        return jnp.pad(x[:, ::stride, ::stride], ((0, 0), (0, 0), (0, 0), (0, extra)))


class ResNet(Network):
    """ResNet v1 (Table 1): a 7x7 convolution, a pool, stages of residual blocks, and a linear classifier.

    Attributes:
      stage_sizes: blocks of each stage.
      block: 'basic' (two 3x3 convolutions) or 'bottleneck' (1x1, 3x3, 1x1).
      features: channels of conv1. Stage s, from 0, outputs features * 2**s channels, with bottlenecks 4 times as many.
      width: channels per group of the blocks' inner convolutions in the first stage; doubles with each stage.
      groups: groups of the bottlenecks' 3x3 convolutions (ResNeXt's cardinality).
      shortcut: 'A' pads with zero channels, 'B' projects where the channels change, 'C' always projects, 'none' omits
          shortcuts (plain networks).
      stride: place of the stride 2: '1x1' is a stage's first convolution (v1), '3x3' its first 3x3 convolution (v1.5,
          torchvision), 'slim' the 3x3 convolution of the previous stage's last block (TF-Slim).
      se: reduction ratio of squeeze-and-excitation in each block; 0 means none.
      use_bias: gives convolutions biases even before a norm, as Keras.
      zero_init: initializes the scale of each block's last norm to 0 (Goyal et al. 2017, sec. 5.1).
      stochastic_depth: drop probability of the last block; it rises linearly with depth.
      ceil_pool: uses no padding in the pool, which keeps an incomplete last window; for weights from Caffe.
      small_images: for about 32x32; conv1 is 3x3 with stride 1 and no pool follows.
      remat: recomputes the activations inside the blocks in the backward pass, to save memory.
    """

    stage_sizes: tuple[int, ...] = field((3, 4, 6, 3), minimum=1)
    block: str = field("bottleneck", choices=BLOCKS)
    features: int = field(64, above=0)
    width: int = field(64, above=0)
    groups: int = field(1, above=0)
    shortcut: str = field("B", choices=SHORTCUTS)
    stride: str = field("1x1", choices=STRIDES)
    se: int = field(0, minimum=0)
    use_bias: bool = False
    zero_init: bool = False
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    ceil_pool: bool = False
    small_images: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.groups > 1 and self.block == "basic":
            raise ValueError(f"groups = {self.groups!r}: expected 1 for block = 'basic'; bottlenecks may have more")
        if self.shortcut == "none" and (self.stochastic_depth or self.zero_init):
            raise ValueError("shortcut = 'none': expected no stochastic_depth and no zero_init, which need shortcuts")
        if self.zero_init and (self.norm == "none" or not self.norm_scale):
            raise ValueError("zero_init = True: expected a normalization with a scale")

    @nn.nowrap
    def _convs(self, stage: int, first: bool, last: bool) -> tuple[Conv, ...]:
        """Returns the convolutions of one block.

        `stage` counts from 0. `first` and `last` say whether the block is the first or the last of its stage.
        """
        if self.stride == "slim":
            stride = 2 if last and stage < len(self.stage_sizes) - 1 else 1
        else:
            stride = 2 if first and stage > 0 else 1
        channels, width = self.features * BLOCKS[self.block] * 2**stage, self.width * self.groups * 2**stage
        if self.block == "basic":
            return Conv(width, 3, stride), Conv(channels, 3)
        stride1x1, stride3x3 = (stride, 1) if self.stride == "1x1" else (1, stride)
        return Conv(width, 1, stride1x1), Conv(width, 3, stride3x3, self.groups), Conv(channels, 1)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        if self.use_bias:
            layers = layers._replace(conv=partial(layers.conv, use_bias=True))
        block, rates = remat_if(self.remat, Block), iter(drop_rates(self.stochastic_depth, sum(self.stage_sizes)))
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = layers.norm_act(name="norm1")(layers.conv(self.features, kernel, stride, name="conv1")(x))
        features["conv1"] = x
        if not self.small_images:
            padding = "SAME" if self.stride == "slim" else 0 if self.ceil_pool else 1
            x = features["pool1"] = max_pool(x, 3, 2, padding, self.ceil_pool)
        for stage, size in enumerate(self.stage_sizes):
            for i in range(1, size + 1):
                convs, name = self._convs(stage, i == 1, i == size), f"conv{stage + 2}_{i}"
                x = block(layers, convs, self.shortcut, self.se, next(rates), self.zero_init, name=name)(x)
            features[f"conv{stage + 2}_x"] = x
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_HE = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_WIDE = "Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016"
_XIE = "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017"
_HU = "Hu et al., Squeeze-and-Excitation Networks, CVPR 2018"
_SIZE = (224, 224, 3)
_18, _34, _50 = {"stage_sizes": (2, 2, 2, 2)}, {"stage_sizes": (3, 4, 6, 3)}, {"stage_sizes": (3, 4, 6, 3)}
_101, _152 = {"stage_sizes": (3, 4, 23, 3)}, {"stage_sizes": (3, 8, 36, 3)}
_200 = {"stage_sizes": (3, 24, 36, 3)}
_BASIC = {"block": "basic"}
_PLAIN = {"block": "basic", "shortcut": "none"}
_V1_5 = {"stride": "3x3"}
_SLIM = {"stride": "slim", "norm_momentum": 0.997}
_X4 = {"stride": "3x3", "groups": 32, "width": 4}
_X8, _X64 = _X4 | {"width": 8}, _X4 | {"groups": 64}
_SE = {"se": 16}
_ERROR = "ILSVRC-2012 val error in %, top-1 / top-5: {}"

VARIANTS: dict[str, Variant] = {
    "plain18": Variant(
        ResNet, _HE, _SIZE, 1000, _18 | _PLAIN, 11_515_688, 1_794_805_760, _ERROR.format("27.94 / -, 10 crops")
    ),
    "plain34": Variant(
        ResNet, _HE, _SIZE, 1000, _34 | _PLAIN, 21_623_848, 3_644_493_824, _ERROR.format("28.54 / 10.02, 10 crops")
    ),
    "resnet18": Variant(
        ResNet, _HE, _SIZE, 1000, _18 | _BASIC, 11_689_512, 1_814_073_344,
        _ERROR.format("27.88 / -, 10 crops, shortcuts A"),
    ),
    "resnet34": Variant(
        ResNet, _HE, _SIZE, 1000, _34 | _BASIC, 21_797_672, 3_663_761_408,
        _ERROR.format("24.52 / 7.46, 10 crops; shortcuts A 25.03, C 24.19"),
    ),
    "resnet50": Variant(
        ResNet, _HE, _SIZE, 1000, _50, 25_557_032, 3_857_973_248,
        _ERROR.format("24.7 / 7.8, 1 crop; 22.85 / 6.71, 10 crops"),
    ),
    "resnet101": Variant(
        ResNet, _HE, _SIZE, 1000, _101, 44_549_160, 7_570_194_432,
        _ERROR.format("23.6 / 7.1, 1 crop; 21.75 / 6.05, 10 crops"),
    ),
    "resnet152": Variant(
        ResNet, _HE, _SIZE, 1000, _152, 60_192_808, 11_282_415_616,
        _ERROR.format("23.0 / 6.7, 1 crop; 21.43 / 5.71, 10 crops"),
    ),
    "resnet50_v1_5": Variant(
        ResNet, _HE, _SIZE, 1000, _50 | _V1_5, 25_557_032, 4_089_184_256,
        _ERROR.format("24.01 / 7.02, 1 crop, fb.resnet.torch"),
    ),
    "resnet101_v1_5": Variant(
        ResNet, _HE, _SIZE, 1000, _101 | _V1_5, 44_549_160, 7_801_405_440,
        _ERROR.format("22.44 / 6.21, 1 crop, fb.resnet.torch"),
    ),
    "resnet152_v1_5": Variant(
        ResNet, _HE, _SIZE, 1000, _152 | _V1_5, 60_192_808, 11_513_626_624,
        _ERROR.format("22.16 / 6.16, 1 crop, fb.resnet.torch"),
    ),
    "resnet50_slim": Variant(
        ResNet, _HE, _SIZE, 1000, _50 | _SLIM, 25_557_032, 3_482_255_360, _ERROR.format("24.8 / 7.8, 1 crop, TF-Slim")
    ),
    "resnet101_slim": Variant(
        ResNet, _HE, _SIZE, 1000, _101 | _SLIM, 44_549_160, 7_194_476_544, _ERROR.format("23.6 / 7.1, 1 crop, TF-Slim")
    ),
    "resnet152_slim": Variant(
        ResNet, _HE, _SIZE, 1000, _152 | _SLIM, 60_192_808, 10_906_697_728, _ERROR.format("23.2 / 6.8, 1 crop, TF-Slim")
    ),
    "resnet200_slim": Variant(ResNet, _HE, _SIZE, 1000, _200 | _SLIM, 64_673_832, 14_400_552_960),
    "wide_resnet50_2": Variant(
        ResNet, _WIDE, _SIZE, 1000, _50 | _V1_5 | {"width": 128}, 68_883_240, 11_398_021_120,
        _ERROR.format("21.9 / 5.79, 1 crop"),
    ),
    "resnext50_32x4d": Variant(
        ResNet, _XIE, _SIZE, 1000, _50 | _X4, 25_028_904, 4_230_479_872, _ERROR.format("22.2 / -, 1 crop")
    ),
    "resnext101_32x4d": Variant(
        ResNet, _XIE, _SIZE, 1000, _101 | _X4, 44_177_704, 7_969_996_800, _ERROR.format("21.2 / -, 1 crop")
    ),
    "resnext101_32x8d": Variant(ResNet, _XIE, _SIZE, 1000, _101 | _X8, 88_791_336, 16_414_015_488),
    "resnext101_64x4d": Variant(
        ResNet, _XIE, _SIZE, 1000, _101 | _X64, 83_455_272, 15_460_270_080, _ERROR.format("20.4 / -, 1 crop")
    ),
    "se_resnet50": Variant(
        ResNet, _HU, _SIZE, 1000, _50 | _SE, 28_088_024, 3_860_488_192,
        _ERROR.format("22.37 / 6.36, 1 crop, released weights"),
    ),
    "se_resnet101": Variant(
        ResNet, _HU, _SIZE, 1000, _101 | _SE, 49_326_872, 7_574_937_600,
        _ERROR.format("21.75 / 5.72, 1 crop, released weights"),
    ),
    "se_resnet152": Variant(
        ResNet, _HU, _SIZE, 1000, _152 | _SE, 66_821_848, 11_288_993_792,
        _ERROR.format("21.34 / 5.54, 1 crop, released weights"),
    ),
    "se_resnext50_32x4d": Variant(
        ResNet, _HU, _SIZE, 1000, _50 | _X4 | _SE, 27_559_896, 4_232_994_816,
        _ERROR.format("20.97 / 5.54, 1 crop, released weights"),
    ),
}  # fmt: skip
