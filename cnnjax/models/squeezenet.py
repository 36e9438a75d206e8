"""SqueezeNet: the accuracy of AlexNet with a fiftieth of its parameters.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet. arXiv:1602.07360 (2016), sec. 3 and Table 1; the bypasses
are from sec. 6. Version 1.1 is from the authors' code: equally accurate with 2.4 times fewer MACs.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct, Layers, concatenate
from cnnjax.models.layers import max_pool
from cnnjax.models.network import Network, Variant, field

SQUEEZES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # channels of the squeeze layers of fire2 to fire9


class Fire(nn.Module):
    """Fire module: 1x1 convolution to `squeeze` channels, then 1x1 and 3x3 to 4 * `squeeze` each (sec. 3.2, Fig. 1).

    The two outputs are concatenated: 8 * `squeeze` channels.

    Attributes:
      layers: the network's layer constructors.
      squeeze: channels of the first convolution.
      bypass: 'simple' adds the input where it has the output's shape, 'complex' also adds a 1x1 projection elsewhere,
          'none' adds nothing.
    """

    layers: Layers
    squeeze: int
    bypass: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        expand = 4 * self.squeeze
        y = ConvNormAct(self.layers, self.squeeze, name="squeeze")(x)
        expand1x1 = ConvNormAct(self.layers, expand, name="expand1x1")(y)
        expand3x3 = ConvNormAct(self.layers, expand, 3, name="expand3x3")(y)
        y = concatenate([expand1x1, expand3x3])
        if self.bypass != "none" and x.shape == y.shape:
            return y + x
        if self.bypass == "complex":
            return y + ConvNormAct(self.layers, y.shape[-1], act=False, name="bypass")(x)
        return y


class SqueezeNet(Network):
    """SqueezeNet: a convolution, eight fire modules, and a convolution with one channel per class. Defaults are v1.0.

    Attributes:
      stem: channels and kernel of conv1: (96, 7) in version 1.0, (64, 3) in 1.1.
      pools: numbers of the fire modules, from 2 to 9, that a pool follows.
      bypass: 'simple' adds a fire module's input to its output where the shapes agree; 'complex' also adds it
          elsewhere, projected by a 1x1 convolution (Fig. 2).
      padding: padding of conv10 in pixels; 1 in the authors' version 1.0 for Caffe, which changes the borders.
      small_images: for 32x32; conv1 is 3x3 with stride 1 and no pool follows it.
    """

    dropout: float = 0.5
    norm: str = "none"
    initializer: str = "xavier"
    stem: Sequence[int] = field((96, 7), minimum=1, length=2)
    pools: Sequence[int] = (4, 8)
    bypass: str = field("none", choices=("none", "simple", "complex"))
    padding: int = field(0, minimum=0)
    small_images: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not SQUEEZES.keys() >= {*self.pools}:
            raise ValueError(f"pools = {self.pools!r}: expected numbers of fire modules, from 2 to 9")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        channels, kernel = self.stem
        if self.small_images:
            x = features["conv1"] = ConvNormAct(layers, channels, 3, name="conv1")(x)
        else:
            x = features["conv1"] = ConvNormAct(layers, channels, kernel, 2, 0, name="conv1")(x)
            x = features["pool1"] = max_pool(x, 3, 2, ceil=True)
        for i, squeeze in SQUEEZES.items():
            x = features[f"fire{i}"] = Fire(layers, squeeze, self.bypass, name=f"fire{i}")(x)
            if i in self.pools:
                x = features[f"pool{i}"] = max_pool(x, 3, 2, ceil=True)
        # The authors initialize conv10 from a normal distribution, whatever the other layers have.
        init = nn.initializers.normal(self.initializer_std)
        conv10 = layers.conv(self.num_classes, 1, 1, self.padding, use_bias=True, kernel_init=init, name="conv10")
        x = features["conv10"] = layers.act(conv10(layers.dropout(x)))
        return features if self.features_only else self.conv_head(x, layers)


_PAPER = "Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, arXiv:1602.07360, 2016"
_SIZE = (224, 224, 3)
_SIMPLE, _COMPLEX, _V11 = {"bypass": "simple"}, {"bypass": "complex"}, {"stem": (64, 3), "pools": (3, 5)}
_ACCURACY = "ILSVRC-2012 val accuracy {} % top-1/top-5"
_V11_ACCURACY = "ILSVRC-2012 val accuracy 80.3 % top-5 (the authors' code)"

VARIANTS: dict[str, Variant] = {
    "squeezenet1_0": Variant(
        SqueezeNet, _PAPER, _SIZE, 1000, {}, 1_248_424, 818_924_576, _ACCURACY.format("57.5 / 80.3")
    ),
    "squeezenet1_0_simple": Variant(
        SqueezeNet, _PAPER, _SIZE, 1000, _SIMPLE, 1_248_424, 818_924_576, _ACCURACY.format("60.4 / 82.5")
    ),
    "squeezenet1_0_complex": Variant(
        SqueezeNet, _PAPER, _SIZE, 1000, _COMPLEX, 1_589_672, 1_165_298_720, _ACCURACY.format("58.8 / 82.0")
    ),
    "squeezenet1_1": Variant(SqueezeNet, _PAPER, _SIZE, 1000, _V11, 1_235_496, 349_151_936, _V11_ACCURACY),
}
