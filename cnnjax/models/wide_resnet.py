"""Wide residual networks for CIFAR: fewer layers and more maps than ResNets with the activation before convolutions.

Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016, sec. 2, Table 1. Groups keep the table's names, conv1 to conv4.
"""

from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth
from cnnjax.models.network import Network, Parts, Variant


class Block(nn.Module):
    """Normalisation, activation, 3x3 convolution, twice, and the sum with the input; dropout between (sec. 2.4).

    Where the number of maps changes, a bare 1x1 convolution projects the activated input.
    """

    parts: Parts
    features: int
    stride: int
    se: int
    drop: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        parts = self.parts
        start = parts.act(parts.norm(name="norm1")(x))
        y = parts.conv(self.features, 3, self.stride, name="conv1")(start)
        y = parts.dropout(parts.act(parts.norm(name="norm2")(y)))
        y = parts.conv(self.features, 3, name="conv2")(y)
        if self.se:
            y = SqueezeExcite(parts.dense, self.se, name="se")(y)
        y = StochasticDepth(self.drop, not parts.train, name="drop")(y)
        if x.shape != y.shape:
            x = parts.conv(self.features, 1, self.stride, name="shortcut_conv")(start)
        return x + y


class WideResNet(Network):
    """6n+4 layers: a 3x3 convolution, three groups of n blocks with 16, 32 and 64 times `width` maps, the classifier.

    `dropout` is that of the blocks, where the paper has it (0.3 for CIFAR, 0.4 for SVHN); the classifier has none.
    """

    num_classes: int = 10
    depth: int = 28
    width: int = 10
    se: int = 0  # the ratio of squeeze-and-excitation; 0 is without
    stochastic_depth: float = 0.0  # the last block's rate; others have less, in proportion to their depth
    remat: bool = False  # compute the blocks' maps again for the gradient, instead of keeping them

    def __post_init__(self) -> None:
        if self.depth < 10 or self.depth % 6 != 4:
            raise ValueError(f"depth = {self.depth!r}: expected 6n+4, as in 16, 28, 40")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends, size = self.parts(train), {}, (self.depth - 4) // 6
        make = nn.remat(Block) if self.remat else Block
        x = ends["conv1"] = parts.conv(16, 3, name="conv1")(x)
        for group in range(3):
            for i in range(1, size + 1):
                stride = 2 if group > 0 and i == 1 else 1
                drop = self.stochastic_depth * (group * size + i) / (3 * size)
                x = make(parts, 16 * 2**group * self.width, stride, self.se, drop, name=f"conv{group + 2}_{i}")(x)
            ends[f"conv{group + 2}"] = x
        x = ends["last"] = parts.act(parts.norm(name="last_norm")(x))
        if self.features_only:
            return ends
        return self.classify(x, parts._replace(dropout=lambda x: x))


_PAPER = ("Zagoruyko, Komodakis, Wide Residual Networks, BMVC 2016", 2016)
_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, without dropout"

# (Depth, width): parameters, multiplications, test errors.
_ROWS = {
    (16, 8): (10_961_370, 1_548_145_664, ("4.27", "20.43")),
    (28, 10): (36_479_194, 5_243_328_768, ("4.00", "19.25")),
    (40, 4): (8_949_210, 1_298_582_016, ("4.53", "21.18")),
}

VARIANTS: dict[str, Variant] = {
    f"wide_resnet{depth}_{width}": Variant(
        partial(WideResNet, depth=depth, width=width), (32, 32, 3), params, macs, 10, *_PAPER, _ERROR.format(*errors)
    )
    for (depth, width), (params, macs, errors) in _ROWS.items()
}
