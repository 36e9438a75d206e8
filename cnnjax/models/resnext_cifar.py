"""ResNeXt for CIFAR: residual networks with grouped convolutions.

Xie, Girshick, Dollar, Tu, He: Aggregated Residual Transformations for Deep Neural Networks. CVPR 2017, sec. 5.3 and
Table 7. The activation follows the addition, as in the published version and the authors' code (ResNeXt/resnext.lua).
"""

import jax
from flax import linen as nn

from cnnjax.models.blocks import Layers, drop_path, drop_rates, remat_if, squeeze_excite
from cnnjax.models.network import Network, Variant, field


class Block(nn.Module):
    """ResNeXt block: act(F(x) + shortcut(x)), where F is 1x1, grouped 3x3 and 1x1 convolutions with norms (Fig. 3c).

    The shortcut is the identity, or a 1x1 convolution and a norm where the shape changes.

    Attributes:
      layers: the network's layer constructors.
      features: output channels.
      inner: channels of the first two convolutions, over all groups.
      groups: groups of the 3x3 convolution.
      stride: stride of the 3x3 convolution.
      se: reduction ratio of squeeze-and-excitation on F(x); 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
    """

    layers: Layers
    features: int
    inner: int
    groups: int
    stride: int
    se: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        y = layers.norm_act(name="norm1")(layers.conv(self.inner, 1, name="conv1")(x))
        y = layers.conv(self.inner, 3, self.stride, groups=self.groups, name="conv2")(y)
        y = layers.norm_act(name="norm2")(y)
        y = layers.norm(name="norm3")(layers.conv(self.features, 1, name="conv3")(y))
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        if x.shape != y.shape:
            x = layers.norm(name="shortcut_norm")(layers.conv(self.features, 1, self.stride, name="shortcut_conv")(x))
        return layers.act(x + y)


class CifarResNeXt(Network):
    """ResNeXt for CIFAR: a 3x3 convolution, three stages of n blocks with 256, 512, 1024 channels, a linear classifier.

    Attributes:
      depth: number of layers, 9n + 2.
      groups: groups of the 3x3 convolutions (the cardinality).
      width: channels per group in the first stage; doubles with each stage.
      se: reduction ratio of squeeze-and-excitation in each block; 0 means none.
      stochastic_depth: drop probability of the last block; it rises linearly with depth.
      remat: recomputes the activations inside the blocks in the backward pass, to save memory.
    """

    num_classes: int = 10
    depth: int = 29
    groups: int = field(8, above=0)
    width: int = field(64, above=0)
    se: int = field(0, minimum=0)
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 11 or self.depth % 9 != 2:
            raise ValueError(f"depth = {self.depth!r}: expected 9n+2, as in 29")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features, size = self.layers(train), {}, (self.depth - 2) // 9
        block, rates = remat_if(self.remat, Block), drop_rates(self.stochastic_depth, 3 * size)
        x = features["conv1"] = layers.norm_act(name="norm1")(layers.conv(64, 3, name="conv1")(x))
        for stage in range(3):
            channels, inner = 256 * 2**stage, self.groups * self.width * 2**stage
            for i in range(size):
                stride = 2 if stage > 0 and i == 0 else 1
                options = channels, inner, self.groups, stride, self.se, rates[stage * size + i]
                x = block(layers, *options, name=f"stage{stage + 1}_block{i + 1}")(x)
            features[f"stage{stage + 1}"] = x
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Xie et al., Aggregated Residual Transformations for Deep Neural Networks, CVPR 2017"
_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, mean of 10"

VARIANTS: dict[str, Variant] = {
    "resnext29_8x64d": Variant(
        CifarResNeXt, _PAPER, (32, 32, 3), 10, {}, 34_426_698, 5_387_266_048, _ERROR.format("3.65", "17.77")
    ),
    "resnext29_16x64d": Variant(
        CifarResNeXt, _PAPER, (32, 32, 3), 10, {"groups": 16}, 68_155_210, 10_688_866_304,
        _ERROR.format("3.58", "17.31"),
    ),
}  # fmt: skip
