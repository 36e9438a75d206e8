"""The residual networks for CIFAR-10, and the plain networks that they were compared with.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, sec. 4.2 and Table 6.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.blocks import Layers, drop_path, drop_rates, remat_if, scan_blocks, squeeze_excite
from cnnjax.models.network import Network, Variant, field

SHORTCUTS = {
    "A": "identity; where the shape changes, subsampled and padded with zero channels: the paper's",
    "B": "identity; where the shape changes, a 1x1 convolution",
    "none": "the plain networks",
}


class Block(nn.Module):
    """Residual block (sec. 3.3): act(F(x) + shortcut(x)), where F is conv 3x3, norm, activation, conv 3x3, norm.

    Attributes:
      layers: the network's layer constructors.
      features: output channels.
      stride: stride of the first convolution and of the shortcut.
      shortcut: 'A', 'B' or 'none', as in `CifarResNet`; 'none' makes a plain block, act(F(x)).
      se: reduction ratio of squeeze-and-excitation on F(x); 0 means none.
      drop_rate: probability of stochastic depth (timm's drop_path_rate), not of dropout.
    """

    layers: Layers
    features: int
    stride: int
    shortcut: str
    se: int
    drop_rate: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        y = layers.norm_act(name="norm1")(layers.conv(self.features, 3, self.stride, name="conv1")(x))
        y = layers.norm(name="norm2")(layers.conv(self.features, 3, name="conv2")(y))
        y = squeeze_excite(y, layers, self.se)
        y = drop_path(y, layers, self.drop_rate)
        return layers.act(y if self.shortcut == "none" else self._shortcut(x) + y)

    def _shortcut(self, x: jax.Array) -> jax.Array:
        """Returns x in the shape of F(x): as it is, padded with zero channels, or projected, by `self.shortcut`."""
        extra = self.features - x.shape[-1]
        if extra and self.shortcut == "B":
            x = self.layers.conv(self.features, 1, self.stride, name="shortcut_conv")(x)
            return self.layers.norm(name="shortcut_norm")(x)
        # The paper does not say where the zero channels go; the best known public weights have half on each side.
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (extra // 2, extra - extra // 2)))


class CifarResNet(Network):
    """ResNet for CIFAR: a 3x3 convolution, three stages of n blocks with 16, 32, 64 channels, a linear classifier.

    Attributes:
      depth: number of layers, 6n + 2.
      shortcut: 'A' pads with zero channels, 'B' projects where the shape changes, 'none' omits shortcuts (plain
          networks).
      se: reduction ratio of squeeze-and-excitation in each block; 0 means none.
      stochastic_depth: drop probability of the last block; it rises linearly with depth.
      remat: recomputes the activations inside the blocks in the backward pass; on a CPU this saves memory only with
          `scan`.
      scan: runs a stage's blocks, except its first, as one loop, so that deep networks compile in seconds.
    """

    num_classes: int = 10
    depth: int = 20
    shortcut: str = field("A", choices=SHORTCUTS)
    se: int = field(0, minimum=0)
    stochastic_depth: float = field(0.0, minimum=0, below=1)
    remat: bool = False
    scan: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.depth < 8 or self.depth % 6 != 2:
            raise ValueError(f"depth = {self.depth!r}: expected 6n+2, as in 20, 32, 44, 56, 110")
        if self.shortcut == "none" and self.stochastic_depth:
            raise ValueError(f"stochastic_depth = {self.stochastic_depth!r}: expected 0, as shortcut = 'none'")
        if self.scan and self.stochastic_depth:
            raise ValueError("scan = True: expected stochastic_depth = 0, as the blocks of a loop must be equal")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features, size = self.layers(train), {}, (self.depth - 2) // 6
        block, rates = remat_if(self.remat, Block), drop_rates(self.stochastic_depth, 3 * size)
        x = features["conv1"] = layers.norm_act(name="norm1")(layers.conv(16, 3, name="conv1")(x))
        for stage, channels in enumerate((16, 32, 64)):
            for i in range(1 if self.scan else size):
                stride = 2 if stage > 0 and i == 0 else 1
                options = channels, stride, self.shortcut, self.se, rates[stage * size + i]
                x = block(layers, *options, name=f"stage{stage + 1}_block{i + 1}")(x)
            if self.scan and size > 1:
                options = channels, 1, self.shortcut, self.se, 0.0
                x = scan_blocks(block(layers, *options, name=f"stage{stage + 1}_blocks"), size - 1, x)
            features[f"stage{stage + 1}"] = x
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "He et al., Deep Residual Learning for Image Recognition, CVPR 2016"
_ERROR = "CIFAR-10 test error {}"
_SIZE = (32, 32, 3)


def _plain(depth: int) -> dict[str, object]:
    """Returns the fields of a plain network, without shortcuts."""
    return {"depth": depth, "shortcut": "none"}


# The shortcuts of option A have no parameters, so plain networks have as many.
VARIANTS: dict[str, Variant] = {
    "cifar_resnet20": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 20}, 269_722, 40_551_040, _ERROR.format("8.75 %")
    ),
    "cifar_resnet32": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 32}, 464_154, 68_862_592, _ERROR.format("7.51 %")
    ),
    "cifar_resnet44": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 44}, 658_586, 97_174_144, _ERROR.format("7.17 %")
    ),
    "cifar_resnet56": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 56}, 853_018, 125_485_696, _ERROR.format("6.97 %")
    ),
    "cifar_resnet110": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 110}, 1_727_962, 252_887_680,
        _ERROR.format("6.43 % (6.61 +- 0.16 %, five runs)"),
    ),
    "cifar_resnet1202": Variant(
        CifarResNet, _PAPER, _SIZE, 10, {"depth": 1202}, 19_421_274, 2_829_238_912, _ERROR.format("7.93 %")
    ),
    "cifar_plain20": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(20), 269_722, 40_551_040),
    "cifar_plain32": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(32), 464_154, 68_862_592),
    "cifar_plain44": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(44), 658_586, 97_174_144),
    "cifar_plain56": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(56), 853_018, 125_485_696),
    "cifar_plain110": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(110), 1_727_962, 252_887_680),
    "cifar_plain1202": Variant(CifarResNet, _PAPER, _SIZE, 10, _plain(1202), 19_421_274, 2_829_238_912),
}  # fmt: skip
