"""The residual networks for CIFAR-10, and the plain networks they were measured against.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, sec. 4.2 and Table 6.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from cnnjax.models.layers import Variant, conv, global_mean, he_normal

SHORTCUTS = ("A", "B", "none")


class Block(nn.Module):
    """Two 3x3 convolutions and what is added to them (sec. 3.3): F(x) + x, or F(x) alone in a plain network.

    Where the shape changes, x becomes, by option A, every second pixel with maps of zeros; by option B, a projection.
    """

    features: int
    stride: int
    shortcut: str
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(self.features, 3, self.stride, name="conv1")(x)
        y = nn.relu(self.norm(name="bn1")(y))
        y = self.conv(self.features, 3, name="conv2")(y)
        y = self.norm(name="bn2")(y)
        if self.shortcut == "none":
            return nn.relu(y)
        if self.shortcut == "B" and x.shape != y.shape:
            x = self.conv(self.features, 1, self.stride, name="shortcut_conv")(x)
            x = self.norm(name="shortcut_bn")(x)
        elif x.shape != y.shape:
            # The paper does not say where the zeros go; the best known public weights have half on each side.
            extra = self.features - x.shape[-1]
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))
        return nn.relu(x + y)


class CifarResNet(nn.Module):
    """6n+2 layers: a 3x3 convolution, three stages of n blocks with 16, 32 and 64 maps, and the classifier."""

    depth: int
    num_classes: int = 10
    shortcut: str = "A"  # 'A' as in the paper, 'B' with projections, 'none' for the plain network
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth = {self.depth!r}: expected 6n+2, as in 20, 32, 44, 56, 110")
        if self.shortcut not in SHORTCUTS:
            raise ValueError(f"unknown shortcut {self.shortcut!r}; valid: {', '.join(SHORTCUTS)}")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layer = partial(conv, use_bias=False, kernel_init=he_normal, dtype=self.dtype)
        # Flax keeps the statistics in float32, and of the variance the biased one (PyTorch: n / (n - 1) times it).
        norm = partial(nn.BatchNorm, use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype)
        x = nn.relu(norm(name="stem_bn")(layer(16, 3, name="stem_conv")(x)))
        for stage, features in enumerate((16, 32, 64), start=1):
            for block in range(1, (self.depth - 2) // 6 + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                name = f"stage{stage}_block{block}"
                x = Block(features, stride, self.shortcut, layer, norm, name=name)(x)
        return nn.Dense(self.num_classes, dtype=self.dtype, name="head")(global_mean(x)).astype(jnp.float32)


_PAPER = ("He et al., Deep Residual Learning for Image Recognition, CVPR 2016", 2016)
_PARAMS = {20: 269_722, 32: 464_154, 44: 658_586, 56: 853_018, 110: 1_727_962, 1202: 19_421_274}

VARIANTS: dict[str, Variant] = {
    f"cifar_{kind}{depth}": Variant(
        partial(CifarResNet, depth=depth, shortcut=shortcut), (32, 32, 3), params, 10, *_PAPER
    )
    for kind, shortcut in (("resnet", "A"), ("plain", "none"))  # option A's shortcuts have no parameters
    for depth, params in _PARAMS.items()
}
