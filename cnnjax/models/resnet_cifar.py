"""The residual networks for CIFAR-10, and the plain networks they were measured against.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, sec. 4.2 and Table 6.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth, lookup
from cnnjax.models.network import Network, Parts, Variant, repeated

SHORTCUTS = {
    "A": "where the shape changes, every second pixel, with maps of zeros: the paper's",
    "B": "there, a projection by a 1x1 convolution",
    "none": "the plain networks",
}


class Block(nn.Module):
    """Two 3x3 convolutions and what is added to them (sec. 3.3): F(x) + x, or F(x) alone in a plain network."""

    parts: Parts
    features: int
    stride: int
    shortcut: str
    se: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = self.parts
        y = parts.act(parts.norm(name="norm1")(parts.conv(self.features, 3, self.stride, name="conv1")(x)))
        y = parts.norm(name="norm2")(parts.conv(self.features, 3, name="conv2")(y))
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        return parts.act(y if self.shortcut == "none" else self._shortcut(x) + y)

    def _shortcut(self, x: jax.Array) -> jax.Array:
        extra = self.features - x.shape[-1]
        if extra and self.shortcut == "B":
            x = self.parts.conv(self.features, 1, self.stride, name="shortcut_conv")(x)
            return self.parts.norm(name="shortcut_norm")(x)
        # The paper does not say where the zeros go; the best known public weights have half on each side.
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


class CifarResNet(Network):
    """6n+2 layers: a 3x3 convolution, three stages of n blocks with 16, 32 and 64 maps, and the classifier."""

    num_classes: int = 10
    depth: int = 20
    shortcut: str = "A"
    se: int = 0  # the ratio of squeeze-and-excitation; 0 is without
    stochastic_depth: float = 0.0  # the last block's rate; others have less, in proportion to their depth
    # Compute the blocks' maps again for the gradient, instead of keeping them. On a CPU it takes `scan` to save memory.
    remat: bool = False
    scan: bool = False  # the blocks of a stage but its first as a loop: deep networks compile in seconds

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth = {self.depth!r}: expected 6n+2, as in 20, 32, 44, 56, 110")
        lookup("shortcut", self.shortcut, SHORTCUTS)
        if self.shortcut == "none" and self.stochastic_depth:
            raise ValueError(f"stochastic_depth = {self.stochastic_depth!r}: a plain network has no shortcuts to go by")
        if self.scan and self.stochastic_depth:
            raise ValueError("scan = True: the blocks of a loop are alike, and stochastic_depth gives each its rate")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends, size = self.parts(train), {}, (self.depth - 2) // 6
        make = nn.remat(Block) if self.remat else Block
        x = ends["conv1"] = parts.act(parts.norm(name="norm1")(parts.conv(16, 3, name="conv1")(x)))
        for stage, features in enumerate((16, 32, 64)):
            for i in range(1, 2 if self.scan else size + 1):
                stride = 2 if stage > 0 and i == 1 else 1
                drop = self.stochastic_depth * (stage * size + i) / (3 * size)
                name = f"stage{stage + 1}_block{i}"
                x = make(parts, features, stride, self.shortcut, self.se, drop, name=name)(x)
            if self.scan and size > 1:
                block = make(parts, features, 1, self.shortcut, self.se, 0.0, name=f"stage{stage + 1}_blocks")
                x = repeated(block, size - 1, x)
            ends[f"stage{stage + 1}"] = x
        if self.features_only:
            return ends
        return self.classify(x, parts)


_PAPER = ("He et al., Deep Residual Learning for Image Recognition, CVPR 2016", 2016)

# Depth: parameters, multiplications, test error of the residual network. Option A's shortcuts have no parameters.
_ROWS = {
    20: (269_722, 40_551_040, "8.75 %"),
    32: (464_154, 68_862_592, "7.51 %"),
    44: (658_586, 97_174_144, "7.17 %"),
    56: (853_018, 125_485_696, "6.97 %"),
    110: (1_727_962, 252_887_680, "6.43 % (6.61 +- 0.16 %, five runs)"),
    1202: (19_421_274, 2_829_238_912, "7.93 %"),
}

VARIANTS: dict[str, Variant] = {
    f"cifar_{kind}{depth}": Variant(
        partial(CifarResNet, depth=depth, shortcut=shortcut),
        (32, 32, 3),
        params,
        macs,
        10,
        *_PAPER,
        f"CIFAR-10 test error {error}" if kind == "resnet" else "",
    )
    for kind, shortcut in (("resnet", "A"), ("plain", "none"))
    for depth, (params, macs, error) in _ROWS.items()
}
