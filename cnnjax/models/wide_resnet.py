"""Wide residual networks for CIFAR: fewer layers and more channels than pre-activation ResNets.

Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016, sec. 2, Table 1. Groups keep the table's names, conv1 to conv4.
"""

import jax
from flax import linen as nn

from cnnjax.models.blocks import Layers, drop_path, drop_rates, remat_if, squeeze_excite
from cnnjax.models.network import Network, Variant, field


class Block(nn.Module):
    """Norm, activation and 3x3 convolution, twice, with dropout between (sec. 2.4), plus a shortcut.

    Where the shape changes, the shortcut is a 1x1 convolution of the activated input.

    Attributes:
      layers: the network's layer constructors.
      features: output channels.
      stride: stride of the first convolution and of the shortcut.
      dropout: dropout probability before the second convolution.
      se: reduction ratio of squeeze-and-excitation after the second convolution; 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
    """

    layers: Layers
    features: int
    stride: int
    dropout: float
    se: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        activated = layers.norm_act(name="norm1")(x)
        y = layers.conv(self.features, 3, self.stride, name="conv1")(activated)
        y = layers.norm_act(name="norm2")(y)
        y = nn.Dropout(self.dropout, deterministic=not layers.train)(y)
        y = layers.conv(self.features, 3, name="conv2")(y)
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        if x.shape != y.shape:
            x = layers.conv(self.features, 1, self.stride, name="shortcut_conv")(activated)
        return x + y


class WideResNet(Network):
    """Wide ResNet: a 3x3 convolution, three groups of n blocks with (16, 32, 64) * width channels, a linear classifier.

    Attributes:
      depth: number of layers, 6n + 4.
      width: factor on the channels of the blocks.
      block_dropout: dropout probability between a block's convolutions: 0.3 for CIFAR, 0.4 for SVHN.
      se: reduction ratio of squeeze-and-excitation in each block; 0 means none.
      stochastic_depth: drop probability of the last block; it rises linearly with depth.
      remat: recomputes the activations inside the blocks in the backward pass, to save memory.
    """

    num_classes: int = 10
    depth: int = 28
    width: int = field(10, above=0)
    block_dropout: float = field(0.0, minimum=0, below=1)
    se: int = field(0, minimum=0)
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth = {self.depth!r}: expected 6n+4, as in 16, 28, 40")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features, size = self.layers(train), {}, (self.depth - 4) // 6
        block, rates = remat_if(self.remat, Block), drop_rates(self.stochastic_depth, 3 * size)
        x = features["conv1"] = layers.conv(16, 3, name="conv1")(x)
        for group in range(3):
            for i in range(size):
                stride = 2 if group > 0 and i == 0 else 1
                options = stride, self.block_dropout, self.se, rates[group * size + i]
                x = block(layers, 16 * 2**group * self.width, *options, name=f"conv{group + 2}_{i + 1}")(x)
            features[f"conv{group + 2}"] = x
        x = features["last"] = layers.norm_act(name="last_norm")(x)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016"
_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, without dropout"
_16_8, _28_10, _40_4 = {"depth": 16, "width": 8}, {"depth": 28, "width": 10}, {"depth": 40, "width": 4}

VARIANTS: dict[str, Variant] = {
    "wide_resnet16_8": Variant(
        WideResNet, _PAPER, (32, 32, 3), 10, _16_8, 10_961_370, 1_548_145_664, _ERROR.format("4.27", "20.43")
    ),
    "wide_resnet28_10": Variant(
        WideResNet, _PAPER, (32, 32, 3), 10, _28_10, 36_479_194, 5_243_328_768, _ERROR.format("4.00", "19.25")
    ),
    "wide_resnet40_4": Variant(
        WideResNet, _PAPER, (32, 32, 3), 10, _40_4, 8_949_210, 1_298_582_016, _ERROR.format("4.53", "21.18")
    ),
}
