"""Pre-activation ResNets (v2): normalization and activation before each convolution, identity shortcuts.

He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks. ECCV 2016, sec. 4, 5 and the appendix. The authors'
code is KaimingHe/resnet-1k-layers for CIFAR, and fb.resnet.torch for ResNet-200.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.blocks import Layers, drop_path, drop_rates, remat_if, scan_blocks, squeeze_excite
from cnnjax.models.layers import max_pool
from cnnjax.models.network import Network, Variant, field

BLOCKS = {"basic": (3, 3), "bottleneck": (1, 3, 1)}  # kernels; a bottleneck outputs 4 times its inner channels

SHORTCUTS = {
    "A": "where the number of channels changes, subsampled and padded with zero channels",
    "B": "there, a 1x1 convolution",
}

STRIDES = {
    "1x1": "in the first convolution of a stage: the authors' code for CIFAR",
    "3x3": "in the first 3x3 convolution of a stage: fb.resnet.torch, and all later code",
}


class Layout(NamedTuple):
    """Differences between implementations of ResNet-v2; LAYOUTS names the known ones.

    With weights from an implementation of another layout, outputs are silently wrong.

    Attributes:
      stem_norm: has norm and activation after conv1.
      first_norm: has norm and activation at the start of the first unit.
      use_bias: has biases in the convolutions that no norm follows.
      stride_last: has the stride in the last unit of a stage, not in the first unit of the next stage.
      pool: padding of the pool: see `_pool`.
    """

    stem_norm: bool
    first_norm: bool
    use_bias: bool = False
    stride_last: bool = False
    pool: str = "symmetric"


LAYOUTS = {
    "paper": Layout(True, False),  # appendix: the first activation is right after conv1, before the first shortcut
    "bare": Layout(False, True),  # timm
    "both": Layout(True, True),  # pytorchcv
    "slim": Layout(False, True, use_bias=True, stride_last=True, pool="SAME"),  # TF-Slim
    "keras": Layout(False, True, use_bias=True, stride_last=True, pool="zeros"),
}


class Unit(nn.Module):
    """Pre-activation residual unit (Fig. 4e): shortcut(x) + F(x), where F is norm, activation, convolution, repeated.

    Where the number of channels changes, the shortcut starts from the activated input, too (appendix). No activation
    follows the sum.

    Attributes:
      layers: the network's layer constructors.
      kernels: kernel size of each convolution.
      strides: stride of each convolution.
      features: output channels.
      inner: channels between the convolutions.
      shortcut: where the number of channels changes, 'A' pads with zero channels and 'B' projects.
      preactivate: has norm and activation before the first convolution.
      use_bias: has biases in the last convolution and in the shortcut's.
      se: reduction ratio of squeeze-and-excitation on F(x); 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
    """

    layers: Layers
    kernels: tuple[int, ...]
    strides: tuple[int, ...]
    features: int
    inner: int
    shortcut: str
    preactivate: bool
    use_bias: bool
    se: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers, last = self.layers, len(self.kernels)
        final = partial(layers.conv, use_bias=True) if self.use_bias else layers.conv
        y = activated = layers.norm_act(name="norm1")(x) if self.preactivate else x
        for i, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True), start=1):
            if i > 1:
                y = layers.norm_act(name=f"norm{i}")(y)
            conv, channels = (final, self.features) if i == last else (layers.conv, self.inner)
            y = conv(channels, kernel, stride, name=f"conv{i}")(y)
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        stride, extra = max(self.strides), self.features - x.shape[-1]
        if extra and self.shortcut == "B":
            return y + final(self.features, 1, stride, name="shortcut_conv")(activated)
        x = (activated if extra else x)[:, ::stride, ::stride]
        return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, extra)))


class ResNetV2(Network):
    """Pre-activation ResNet: a convolution, a pool, stages of units, norm and activation, and a linear classifier.

    Attributes:
      stage_sizes: units of each stage.
      block: 'basic' (two 3x3 convolutions) or 'bottleneck' (1x1, 3x3, 1x1; outputs 4 times its inner channels).
      features: channels of conv1; the inner channels of stage s, from 0, are features * 2**s.
      shortcut: where the number of channels changes, 'A' pads with zero channels and 'B' projects by a 1x1 convolution.
      stride: convolution of a unit that has its stride: '1x1' is the first, '3x3' the first with a 3x3 kernel.
      layout: a key of LAYOUTS: 'paper', 'bare' (timm), 'both' (pytorchcv), 'slim' (TF-Slim) or 'keras'.
      se: reduction ratio of squeeze-and-excitation in each unit; 0 means none.
      stochastic_depth: drop probability of the last unit; it rises linearly with depth.
      small_images: for CIFAR, as in the paper; conv1 is 3x3 with stride 1 and no pool follows.
      remat: recomputes the activations inside the units in the backward pass, to save memory.
      scan: runs a stage's units, except its first, as one loop, so that deep networks compile in seconds.
    """

    stage_sizes: tuple[int, ...] = field((3, 4, 6, 3), minimum=1)
    block: str = field("bottleneck", choices=BLOCKS)
    features: int = field(64, above=0)
    shortcut: str = field("B", choices=SHORTCUTS)
    stride: str = field("3x3", choices=STRIDES)
    layout: str = field("paper", choices=LAYOUTS)
    se: int = field(0, minimum=0)
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    small_images: bool = False
    remat: bool = False
    scan: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scan and (self.stochastic_depth or LAYOUTS[self.layout].stride_last):
            other = "stochastic_depth" if self.stochastic_depth else f"layout = {self.layout!r}"
            raise ValueError(f"scan = True: the units of a loop must be equal, and with {other} they are not")

    @nn.nowrap
    def _strides(self, stage: int, unit: int) -> tuple[int, ...]:
        """Returns the stride of each convolution of a unit. `stage`, and `unit` within the stage, count from 0."""
        if LAYOUTS[self.layout].stride_last:
            reduces = stage < len(self.stage_sizes) - 1 and unit == self.stage_sizes[stage] - 1
        else:
            reduces = stage > 0 and unit == 0
        kernels = BLOCKS[self.block]
        strided = 0 if self.stride == "1x1" else kernels.index(3)
        return tuple(2 if reduces and i == strided else 1 for i in range(len(kernels)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features, layout = self.layers(train), {}, LAYOUTS[self.layout]
        rates, block = iter(drop_rates(self.stochastic_depth, sum(self.stage_sizes))), remat_if(self.remat, Unit)
        stem = partial(layers.conv, use_bias=True) if layout.use_bias else layers.conv
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = stem(self.features, kernel, stride, name="conv1")(x)
        if layout.stem_norm:
            x = layers.norm_act(name="norm1")(x)
        features["conv1"] = x
        if not self.small_images:
            x = features["pool1"] = _pool(x, layout.pool)

        def unit(stage: int, number: int, name: str, drop_rate: float) -> nn.Module:
            """Builds unit `number` (from 0) of a stage."""
            inner = self.features * 2**stage
            channels = inner * 4 if self.block == "bottleneck" else inner
            strides, preactivate = self._strides(stage, number), layout.first_norm or stage + number > 0
            options = channels, inner, self.shortcut, preactivate, layout.use_bias, self.se, drop_rate
            return block(layers, BLOCKS[self.block], strides, *options, name=f"conv{stage + 2}_{name}")

        for stage, size in enumerate(self.stage_sizes):
            for number in range(1 if self.scan else size):
                x = unit(stage, number, f"{number + 1}", next(rates))(x)
            if self.scan and size > 1:
                x = scan_blocks(unit(stage, 1, "others", 0.0), size - 1, x)
            features[f"conv{stage + 2}_x"] = x
        x = features["last"] = layers.norm_act(name="last_norm")(x)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


def _pool(x: jax.Array, kind: str) -> jax.Array:
    """Applies a 3x3 max pool with stride 2; `kind` is `Layout.pool`.

    'symmetric' pads 1 pixel and 'SAME' as TensorFlow, both with -infinity. 'zeros' pads 1 pixel of zeros, which win
    over negative values, as in Keras.
    """
    if kind == "zeros":
        return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
    return max_pool(x, 3, 2, "SAME" if kind == "SAME" else 1)


_PAPER = "He et al., Identity Mappings in Deep Residual Networks, ECCV 2016"
_224, _32 = (224, 224, 3), (32, 32, 3)
_50, _101 = {"stage_sizes": (3, 4, 6, 3)}, {"stage_sizes": (3, 4, 23, 3)}
_152, _200 = {"stage_sizes": (3, 8, 36, 3)}, {"stage_sizes": (3, 24, 36, 3)}
_CIFAR = {"features": 16, "small_images": True}
_110 = _CIFAR | {"block": "basic", "shortcut": "A", "stage_sizes": (18,) * 3}
_164 = _CIFAR | {"stride": "1x1", "stage_sizes": (18,) * 3}
_1001 = _CIFAR | {"stride": "1x1", "stage_sizes": (111,) * 3}
_ERROR = "ILSVRC-2012 val error {} % top-1/top-5, one crop of 320x320"
_110_ERROR = "CIFAR-10 test error 6.37 %, median of 5"
_CIFAR_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, median of 5"

VARIANTS: dict[str, Variant] = {
    "resnet50_v2": Variant(ResNetV2, _PAPER, _224, 1000, _50, 25_549_352, 4_089_184_256),
    "resnet101_v2": Variant(ResNetV2, _PAPER, _224, 1000, _101, 44_541_480, 7_801_405_440),
    "resnet152_v2": Variant(
        ResNetV2, _PAPER, _224, 1000, _152, 60_185_128, 11_513_626_624, _ERROR.format("21.1 / 5.5")
    ),
    "resnet200_v2": Variant(
        ResNetV2, _PAPER, _224, 1000, _200, 64_666_152, 15_007_481_856, _ERROR.format("20.7 / 5.3")
    ),
    "cifar_preresnet110": Variant(ResNetV2, _PAPER, _32, 10, _110, 1_727_962, 252_887_680, _110_ERROR),
    "cifar_preresnet164": Variant(
        ResNetV2, _PAPER, _32, 10, _164, 1_703_258, 244_500_992, _CIFAR_ERROR.format("5.46", "24.33")
    ),
    "cifar_preresnet1001": Variant(
        ResNetV2, _PAPER, _32, 10, _1001, 10_327_706, 1_487_849_984, _CIFAR_ERROR.format("4.92", "22.71")
    ),
}
