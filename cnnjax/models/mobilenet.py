"""MobileNet (version 1): depthwise separable convolutions, with a width multiplier.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam: MobileNets. arXiv:1704.04861 (2017), sec. 3, Table 1.
"""

from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct, remat_if
from cnnjax.models.network import Network, Variant, field


class MobileNet(Network):
    """MobileNet v1 (Table 1): a convolution, 13 depthwise separable convolutions (Fig. 3), and a linear classifier.

    Attributes:
      width: width multiplier on all channels (sec. 3.3).
      block: 'separable' for depthwise 3x3 and pointwise 1x1 convolutions, 'full' for plain 3x3 ones (Table 4).
      repeats: number of stride-1 blocks with 512 channels, at 14x14; 0 gives the shallow network of Table 5.
      same: pads as TensorFlow's 'SAME', which differs with strides; for weights from there, with activation="relu6".
      small_images: for 32x32; the first convolution has stride 1.
      remat: recomputes the activations inside the layers in the backward pass, to save memory.
    """

    dropout: float = 0.001
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99  # the authors' 0.9997 needs tens of thousands of steps
    initializer: str = "truncated"
    initializer_std: float = 0.09
    width: float = field(1.0, above=0)
    block: str = field("separable", choices=("separable", "full"))
    repeats: int = field(5, minimum=0)
    same: bool = False
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        layer = partial(remat_if(self.remat, ConvNormAct), layers)
        padding = "SAME" if self.same else 1
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        plan += [(512, 1)] * self.repeats + [(1024, 2), (1024, 1)]

        def scaled(channels: int) -> int:
            """Returns `channels` times the width multiplier, rounded down, at least 8."""
            return max(8, int(channels * self.width))

        x = features["conv0"] = layer(scaled(32), 3, 1 if self.small_images else 2, padding, name="conv0")(x)
        for i, (channels, stride) in enumerate(plan, start=1):
            if self.block == "full":
                x = features[f"conv{i}"] = layer(scaled(channels), 3, stride, padding, name=f"conv{i}")(x)
                continue
            x = features[f"dw{i}"] = layer(x.shape[-1], 3, stride, padding, x.shape[-1], name=f"dw{i}")(x)
            x = features[f"pw{i}"] = layer(scaled(channels), name=f"pw{i}")(x)
        return features if self.features_only else self.linear_head(x, layers)


_PAPER = "Howard et al., MobileNets: Efficient CNNs for Mobile Vision Applications, arXiv:1704.04861, 2017"
_224, _ACCURACY = (224, 224, 3), "ILSVRC-2012 val accuracy {} % top-1"
_075, _050, _025 = {"width": 0.75}, {"width": 0.5}, {"width": 0.25}
_FULL, _SHALLOW = {"block": "full"}, {"repeats": 0}

VARIANTS: dict[str, Variant] = {
    "mobilenet_v1": Variant(MobileNet, _PAPER, _224, 1000, {}, 4_231_976, 568_740_352, _ACCURACY.format("70.6")),
    "mobilenet_v1_075": Variant(MobileNet, _PAPER, _224, 1000, _075, 2_585_560, 325_400_448, _ACCURACY.format("68.4")),
    "mobilenet_v1_050": Variant(
        MobileNet, _PAPER, (160, 160, 3), 1000, _050, 1_331_592, 76_524_800, _ACCURACY.format("60.2")
    ),
    "mobilenet_v1_025": Variant(MobileNet, _PAPER, (128, 128, 3), 1000, _025, 470_072, 13_570_048),
    "mobilenet_v1_full": Variant(
        MobileNet, _PAPER, _224, 1000, _FULL, 29_294_088, 4_867_293_184, _ACCURACY.format("71.7")
    ),
    "mobilenet_v1_shallow": Variant(
        MobileNet, _PAPER, _224, 1000, _SHALLOW, 2_887_976, 307_323_392, _ACCURACY.format("65.3")
    ),
}
