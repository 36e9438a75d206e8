"""Residual networks with the activation before the convolutions, so that shortcuts are clean paths (v2).

He, Zhang, Ren, Sun: Identity Mappings in Deep Residual Networks. ECCV 2016, sec. 4, 5 and the appendix. The authors'
code of the networks for CIFAR is KaimingHe/resnet-1k-layers, that of ResNet-200 is fb.resnet.torch.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth, lookup, max_pool
from cnnjax.models.network import Network, Parts, Variant, repeated

BLOCKS = {"basic": (3, 3), "bottleneck": (1, 3, 1)}  # the kernels; a bottleneck's output has 4 times the inner maps

SHORTCUTS = {
    "A": "where the number of maps differs, maps of zeros after the input's own",
    "B": "there, a projection by a 1x1 convolution",
}

STRIDES = {
    "1x1": "in the first convolution of a stage: the authors' code for CIFAR",
    "3x3": "in the first 3x3 convolution of a stage: fb.resnet.torch, and everybody after it",
}


class Layout(NamedTuple):
    """What implementations disagree about. Loading the weights of one into another gives wrong numbers."""

    stem_norm: bool  # normalisation and activation of the first convolution's maps
    first_norm: bool  # and of what the first unit gets
    use_bias: bool = False  # of the convolutions that no normalisation follows
    stride_last: bool = False  # stages end with a stride, instead of starting with it
    pool: str = "symmetric"


LAYOUTS = {
    "paper": Layout(True, False),  # appendix: the first activation is right after conv1, before the paths split
    "bare": Layout(False, True),  # timm
    "both": Layout(True, True),  # pytorchcv
    "slim": Layout(False, True, use_bias=True, stride_last=True, pool="SAME"),  # TF-Slim
    "keras": Layout(False, True, use_bias=True, stride_last=True, pool="zeros"),
}


class Unit(nn.Module):
    """Normalisation, activation, convolution, two or three times; their sum with the input is left as it is (Fig. 4e).

    A unit that changes the number of maps gives its shortcut the activated input, too (appendix).
    """

    parts: Parts
    kernels: tuple[int, ...]
    strides: tuple[int, ...]  # of each convolution
    features: int  # maps of the output
    inner: int  # maps between the convolutions
    shortcut: str
    preactivate: bool
    use_bias: bool
    se: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts, last = self.parts, len(self.kernels)
        final = partial(parts.conv, use_bias=True) if self.use_bias else parts.conv
        y = start = parts.act(parts.norm(name="norm1")(x)) if self.preactivate else x
        for i, (kernel, stride) in enumerate(zip(self.kernels, self.strides, strict=True), start=1):
            if i > 1:
                y = parts.act(parts.norm(name=f"norm{i}")(y))
            make, maps = (final, self.features) if i == last else (parts.conv, self.inner)
            y = make(maps, kernel, stride, name=f"conv{i}")(y)
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        stride, extra = max(self.strides), self.features - x.shape[-1]
        if extra and self.shortcut == "B":
            return y + final(self.features, 1, stride, name="shortcut_conv")(start)
        x = (start if extra else x)[:, ::stride, ::stride]
        return y + jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, extra)))


class ResNetV2(Network):
    """A convolution, a pool, stages of units, a last normalisation and activation, and the classifier."""

    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)  # units of each stage
    block: str = "bottleneck"
    features: int = 64  # maps of the first convolution, and in the units of stage s 2**s times as many
    shortcut: str = "B"
    stride: str = "3x3"
    layout: str = "paper"
    se: int = 0  # the ratio of squeeze-and-excitation; 0 is without
    stochastic_depth: float = 0.0  # the last unit's rate; others have less, in proportion to their depth
    small_images: bool = False  # a 3x3 convolution without stride, and no pool: the paper's for CIFAR
    remat: bool = False  # compute the units' maps again for the gradient, instead of keeping them
    scan: bool = False  # the units of a stage but its first as a loop: deep networks compile in seconds

    def __post_init__(self) -> None:
        lookup("block", self.block, BLOCKS)
        lookup("shortcut", self.shortcut, SHORTCUTS)
        lookup("stride", self.stride, STRIDES)
        lookup("layout", self.layout, LAYOUTS)
        if self.scan and (self.stochastic_depth or LAYOUTS[self.layout].stride_last):
            other = "stochastic_depth" if self.stochastic_depth else f"layout {self.layout!r}"
            raise ValueError(f"scan = True: the units of a loop are alike, and with {other} they are not")
        super().__post_init__()

    @nn.nowrap
    def _strides(self, stage: int, unit: int) -> tuple[int, ...]:
        """The strides of a unit's convolutions, for the numbers of its stage and of itself there, from 0."""
        if LAYOUTS[self.layout].stride_last:
            reduces = stage < len(self.stage_sizes) - 1 and unit == self.stage_sizes[stage] - 1
        else:
            reduces = stage > 0 and unit == 0
        kernels = BLOCKS[self.block]
        where = 0 if self.stride == "1x1" else kernels.index(3)
        return tuple(2 if reduces and i == where else 1 for i in range(len(kernels)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends, layout = self.parts(train), {}, LAYOUTS[self.layout]
        make = nn.remat(Unit) if self.remat else Unit
        stem = partial(parts.conv, use_bias=True) if layout.use_bias else parts.conv
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = stem(self.features, kernel, stride, name="conv1")(x)
        if layout.stem_norm:
            x = parts.act(parts.norm(name="norm1")(x))
        ends["conv1"] = x
        if not self.small_images:
            x = ends["pool1"] = _pool(x, layout.pool)
        done, units, kernels = 0, sum(self.stage_sizes), BLOCKS[self.block]
        for stage, size in enumerate(self.stage_sizes):
            inner = self.features * 2**stage
            features = inner * 4 if self.block == "bottleneck" else inner

            def unit(number: int, name: str, drop: float = 0.0, stage=stage, inner=inner, features=features) -> Unit:
                strides, preactivate = self._strides(stage, number), layout.first_norm or stage + number > 0
                options = self.shortcut, preactivate, layout.use_bias, self.se, drop
                return make(parts, kernels, strides, features, inner, *options, name=f"conv{stage + 2}_{name}")

            for number in range(1 if self.scan else size):
                done += 1
                x = unit(number, f"{number + 1}", self.stochastic_depth * done / units)(x)
            if self.scan and size > 1:
                x = repeated(unit(1, "others"), size - 1, x)
            ends[f"conv{stage + 2}_x"] = x
        x = ends["last"] = parts.act(parts.norm(name="last_norm")(x))
        if self.features_only:
            return ends
        return self.classify(x, parts)


def _pool(x: jax.Array, kind: str) -> jax.Array:
    """3x3 with stride 2. Keras pads with zeros, which count where all of a window is negative."""
    if kind == "zeros":
        return max_pool(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 3, 2)
    return max_pool(x, 3, 2, "SAME" if kind == "SAME" else 1)


_PAPER = ("He et al., Identity Mappings in Deep Residual Networks, ECCV 2016", 2016)

_STAGES = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3), 200: (3, 24, 36, 3)}
_CIFAR = {"num_classes": 10, "features": 16, "small_images": True}
_BASIC = _CIFAR | {"block": "basic", "shortcut": "A"}
_BOTTLENECK = _CIFAR | {"stride": "1x1"}

# Name: fields, parameters, multiplications, what the paper reports.
_ROWS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "resnet50_v2": ({"stage_sizes": _STAGES[50]}, 25_549_352, 4_089_184_256, ""),
    "resnet101_v2": ({"stage_sizes": _STAGES[101]}, 44_541_480, 7_801_405_440, ""),
    "resnet152_v2": (
        {"stage_sizes": _STAGES[152]}, 60_185_128, 11_513_626_624,
        "ILSVRC-2012 val error 21.1 / 5.5 % top-1/top-5, one crop of 320x320",
    ),
    "resnet200_v2": (
        {"stage_sizes": _STAGES[200]}, 64_666_152, 15_007_481_856,
        "ILSVRC-2012 val error 20.7 / 5.3 % top-1/top-5, one crop of 320x320",
    ),
    "cifar_preresnet110": (
        _BASIC | {"stage_sizes": (18,) * 3}, 1_727_962, 252_887_680,
        "CIFAR-10 test error 6.37 %, median of 5",
    ),
    "cifar_preresnet164": (
        _BOTTLENECK | {"stage_sizes": (18,) * 3}, 1_703_258, 244_500_992,
        "CIFAR-10 test error 5.46 %, CIFAR-100 24.33 %, median of 5",
    ),
    "cifar_preresnet1001": (
        _BOTTLENECK | {"stage_sizes": (111,) * 3}, 10_327_706, 1_487_849_984,
        "CIFAR-10 test error 4.92 %, CIFAR-100 22.71 %, median of 5",
    ),
}  # fmt: skip

VARIANTS: dict[str, Variant] = {
    name: Variant(
        partial(ResNetV2, **fields),
        (32, 32, 3) if fields.get("small_images") else (224, 224, 3),
        params,
        macs,
        fields.get("num_classes", 1000),
        *_PAPER,
        published,
    )
    for name, (fields, params, macs, published) in _ROWS.items()
}
