"""Xception: a stack of depthwise separable convolutions with shortcuts.

Chollet: Xception: Deep Learning with Depthwise Separable Convolutions. CVPR 2017, sec. 3 and Fig. 5.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from cnnjax.models.layers import SeparableConv, SqueezeExcite, max_pool
from cnnjax.models.network import ConvNormAct, Network, Parts, Variant

# Maps of the separable convolutions of each block. Only blocks of the entry and exit flows have two, and a pool.
BLOCKS = ((128, 128), (256, 256), (728, 728), *((728, 728, 728),) * 8, (728, 1024))


class Block(nn.Module):
    """Separable convolutions, none with an activation between its two halves (sec. 4.7), and what is added to them."""

    parts: Parts
    features: Sequence[int]
    first: bool  # in the network: its input had an activation already
    padding: int | str  # of the pool
    shortcut: bool
    se: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, pool = x, len(self.features) == 2
        for i, features in enumerate(self.features, start=1):
            y = y if self.first and i == 1 else self.parts.act(y)
            y = SeparableConv(self.parts.conv, features, name=f"sepconv{i}")(y)
            y = self.parts.norm(name=f"norm{i}")(y)
        y = max_pool(y, 3, 2, self.padding) if pool else y
        y = SqueezeExcite(self.parts.dense, self.se, name="se")(y) if self.se else y
        if not self.shortcut:
            return y
        if pool:
            x = ConvNormAct(self.parts, self.features[-1], 1, 2, act=False, name="shortcut")(x)
        return y + x


class Xception(Network):
    """The entry flow (conv1 to block3), the middle flow (block4 to block11) and the exit flow (block12 to conv4)."""

    dropout: float = 0.5
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    initializer: str = "xavier"
    shortcut: bool = True  # False: the network without them (sec. 4.6)
    se: int = 0  # reduction of squeeze-and-excitation in each block; 0: none
    same: bool = True  # pools pad as TensorFlow's; False: both sides, as PyTorch's ports, which differs for even sides
    small_images: bool = False  # 32x32: the first two convolutions keep the size
    remat: bool = False  # compute maps again for gradients, to save memory

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        block = nn.remat(Block) if self.remat else Block
        stride, padding = (1, 1) if self.small_images else (2, 0)
        x = ends["conv1"] = ConvNormAct(parts, 32, 3, stride, padding, name="conv1")(x)
        x = ends["conv2"] = ConvNormAct(parts, 64, 3, 1, padding, name="conv2")(x)
        pool = "SAME" if self.same else 1
        for i, features in enumerate(BLOCKS, start=1):
            name = f"block{i}"
            x = ends[name] = block(parts, features, i == 1, pool, self.shortcut, self.se, name=name)(x)
        for i, features in enumerate((1536, 2048), start=3):
            x = SeparableConv(parts.conv, features, name=f"conv{i}")(x)
            x = ends[f"conv{i}"] = parts.act(parts.norm(name=f"norm{i}")(x))
        return ends if self.features_only else self.classify(x, parts)


_PAPER = ("Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017", 2017)
_RESULT = "ILSVRC-2012 val accuracy 79.0 / 94.5 % top-1/top-5, 1 crop"

VARIANTS: dict[str, Variant] = {
    "xception": Variant(Xception, (299, 299, 3), 22_855_952, 8_357_403_496, 1000, *_PAPER, _RESULT),
}
