"""Residual networks with grouped convolutions for CIFAR.

Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017, sec. 5.3 and
Table 7. The activation is after the addition, as in the published version and the authors' code (ResNeXt/resnext.lua).
"""

from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth
from cnnjax.models.network import Network, Parts, Variant


class Block(nn.Module):
    """1x1, grouped 3x3 and 1x1 convolutions (Fig. 3c), and the input; projected where the number of maps changes."""

    parts: Parts
    features: int
    inner: int
    groups: int
    stride: int
    se: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = self.parts
        y = parts.act(parts.norm(name="norm1")(parts.conv(self.inner, 1, name="conv1")(x)))
        y = parts.conv(self.inner, 3, self.stride, groups=self.groups, name="conv2")(y)
        y = parts.act(parts.norm(name="norm2")(y))
        y = parts.norm(name="norm3")(parts.conv(self.features, 1, name="conv3")(y))
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        if x.shape != y.shape:
            x = parts.norm(name="shortcut_norm")(parts.conv(self.features, 1, self.stride, name="shortcut_conv")(x))
        return parts.act(x + y)


class CifarResNeXt(Network):
    """9n+2 layers: a 3x3 convolution, three stages of n blocks that give 256, 512 and 1024 maps, and the classifier."""

    num_classes: int = 10
    depth: int = 29
    groups: int = 8  # the cardinality
    width: int = 64  # maps of each group in the first stage, twice as many in each next one
    se: int = 0  # the ratio of squeeze-and-excitation; 0 is without
    stochastic_depth: float = 0.0  # the last block's rate; others have less, in proportion to their depth
    remat: bool = False  # compute the blocks' maps again for the gradient, instead of keeping them

    def __post_init__(self) -> None:
        if self.depth < 11 or self.depth % 9 != 2:
            raise ValueError(f"depth = {self.depth!r}: expected 9n+2, as in 29")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends, size = self.parts(train), {}, (self.depth - 2) // 9
        make = nn.remat(Block) if self.remat else Block
        x = ends["conv1"] = parts.act(parts.norm(name="norm1")(parts.conv(64, 3, name="conv1")(x)))
        for stage in range(3):
            features, inner = 256 * 2**stage, self.groups * self.width * 2**stage
            for i in range(1, size + 1):
                stride = 2 if stage > 0 and i == 1 else 1
                drop = self.stochastic_depth * (stage * size + i) / (3 * size)
                name = f"stage{stage + 1}_block{i}"
                x = make(parts, features, inner, self.groups, stride, self.se, drop, name=name)(x)
            ends[f"stage{stage + 1}"] = x
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017", 2017)
_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, mean of 10"

# Groups: parameters, multiplications, test errors.
_ROWS = {8: (34_426_698, 5_387_266_048, ("3.65", "17.77")), 16: (68_155_210, 10_688_866_304, ("3.58", "17.31"))}

VARIANTS: dict[str, Variant] = {
    f"resnext29_{groups}x64d": Variant(
        partial(CifarResNeXt, groups=groups), (32, 32, 3), params, macs, 10, *_PAPER, _ERROR.format(*errors)
    )
    for groups, (params, macs, errors) in _ROWS.items()
}
