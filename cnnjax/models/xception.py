"""Xception: depthwise separable convolutions with residual connections.

Chollet: Xception: Deep Learning with Depthwise Separable Convolutions. CVPR 2017, sec. 3 and Fig. 5.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct, Layers, SeparableConv, remat_if, squeeze_excite
from cnnjax.models.layers import max_pool
from cnnjax.models.network import Network, Variant, field

# Channels of each block's separable convolutions. Blocks with two, in the entry and exit flow, end with a pool.
BLOCKS = ((128, 128), (256, 256), (728, 728), *((728, 728, 728),) * 8, (728, 1024))


class Block(nn.Module):
    """Xception block: separable convolutions with norms and activations, plus a shortcut.

    There is no activation between a depthwise and its pointwise convolution (sec. 4.7). A block of two separable
    convolutions ends with a 3x3 max pool of stride 2, and its shortcut is a 1x1 convolution with a norm; a block of
    three keeps the shape, and its shortcut is the identity.

    Attributes:
      layers: the network's layer constructors.
      features: output channels of each separable convolution.
      first: marks the network's first block, whose input is activated already.
      padding: padding of the pool in pixels, or 'SAME'.
      shortcut: False omits the shortcut.
      se: reduction ratio of squeeze-and-excitation before the sum; 0 means none.
    """

    layers: Layers
    features: Sequence[int]
    first: bool
    padding: int | str
    shortcut: bool
    se: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, pool = x, len(self.features) == 2
        for i, channels in enumerate(self.features, start=1):
            y = y if self.first and i == 1 else self.layers.act(y)
            y = SeparableConv(self.layers.conv, channels, name=f"sepconv{i}")(y)
            y = self.layers.norm(name=f"norm{i}")(y)
        y = max_pool(y, 3, 2, self.padding) if pool else y
        y = squeeze_excite(y, self.layers, self.se)
        if not self.shortcut:
            return y
        if pool:
            x = ConvNormAct(self.layers, self.features[-1], 1, 2, act=False, name="shortcut")(x)
        return y + x


class Xception(Network):
    """Xception (Fig. 5): entry flow (conv1 to block3), middle flow (block4 to block11), exit flow (block12 to conv4).

    Attributes:
      shortcut: has residual connections; False is the ablation of sec. 4.6.
      se: reduction ratio of squeeze-and-excitation in each block; 0 means none.
      same: pads pools as TensorFlow's 'SAME'; False pads 1 pixel on each side, as PyTorch ports, which differs on even
          sides.
      small_images: for 32x32; the first two convolutions keep the size.
      remat: recomputes the activations inside the blocks in the backward pass, to save memory.
    """

    dropout: float = 0.5
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99
    initializer: str = "xavier"
    shortcut: bool = True
    se: int = field(0, minimum=0)
    same: bool = True
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        block = remat_if(self.remat, Block)
        stride, padding = (1, 1) if self.small_images else (2, 0)
        x = features["conv1"] = ConvNormAct(layers, 32, 3, stride, padding, name="conv1")(x)
        x = features["conv2"] = ConvNormAct(layers, 64, 3, 1, padding, name="conv2")(x)
        pool_padding = "SAME" if self.same else 1
        for i, channels in enumerate(BLOCKS, start=1):
            options = i == 1, pool_padding, self.shortcut, self.se
            x = features[f"block{i}"] = block(layers, channels, *options, name=f"block{i}")(x)
        for i, channels in enumerate((1536, 2048), start=3):
            x = SeparableConv(layers.conv, channels, name=f"conv{i}")(x)
            x = features[f"conv{i}"] = layers.norm_act(name=f"norm{i}")(x)
        return features if self.features_only else self.linear_head(x, layers)


_PAPER = "Chollet, Xception: Deep Learning with Depthwise Separable Convolutions, CVPR 2017"
_ACCURACY = "ILSVRC-2012 val accuracy 79.0 / 94.5 % top-1/top-5, 1 crop"

VARIANTS: dict[str, Variant] = {
    "xception": Variant(Xception, _PAPER, (299, 299, 3), 1000, {}, 22_855_952, 8_357_403_496, _ACCURACY),
}
