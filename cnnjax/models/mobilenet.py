"""MobileNet (version 1): depthwise separable convolutions, and one number for the width of the whole network.

Howard, Zhu, Chen, Kalenichenko, Wang, Weyand, Andreetto, Adam: MobileNets. arXiv:1704.04861 (2017), sec. 3, Table 1.
"""

from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.layers import lookup
from cnnjax.models.network import ConvNormAct, Network, Variant

BLOCKS = ("separable", "full")


class MobileNet(Network):
    """28 layers, of which 13 pairs are a 3x3 convolution of each map by itself and one of 1x1 across maps (Fig. 3)."""

    dropout: float = 0.001
    norm_epsilon: float = 1e-3
    norm_momentum: float = 0.99  # the authors' 0.9997 follows the weights only after tens of thousands of steps
    initializer: str = "truncated"
    initializer_std: float = 0.09
    width: float = 1.0  # the width multiplier (sec. 3.3)
    block: str = "separable"  # 'full': plain 3x3 convolutions instead (Table 4)
    repeats: int = 5  # of the layers with 512 maps, at 14x14: 0 is the shallow network of Table 5
    same: bool = False  # pad strides as TensorFlow does: for weights that were trained there, which want relu6 as well
    small_images: bool = False  # 32x32: the first convolution has no stride
    remat: bool = False  # compute maps again for gradients, to save memory

    def __post_init__(self) -> None:
        lookup("block", self.block, dict.fromkeys(BLOCKS))
        if self.repeats < 0:
            raise ValueError(f"repeats = {self.repeats!r}: expected at least 0")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        layer = partial(nn.remat(ConvNormAct) if self.remat else ConvNormAct, parts)
        padding = "SAME" if self.same else 1
        plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
        plan += [(512, 1)] * self.repeats + [(1024, 2), (1024, 1)]

        def maps(features: int) -> int:
            return max(8, int(features * self.width))

        x = ends["conv0"] = layer(maps(32), 3, 1 if self.small_images else 2, padding, name="conv0")(x)
        for i, (features, stride) in enumerate(plan, start=1):
            if self.block == "full":
                x = ends[f"conv{i}"] = layer(maps(features), 3, stride, padding, name=f"conv{i}")(x)
                continue
            x = ends[f"dw{i}"] = layer(x.shape[-1], 3, stride, padding, x.shape[-1], name=f"dw{i}")(x)
            x = ends[f"pw{i}"] = layer(maps(features), name=f"pw{i}")(x)
        return ends if self.features_only else self.classify(x, parts)


_PAPER = ("Howard et al., MobileNets: Efficient CNNs for Mobile Vision Applications, arXiv:1704.04861, 2017", 2017)
_ROWS = {
    "mobilenet_v1": ({}, 224, 4_231_976, 568_740_352, "70.6"),
    "mobilenet_v1_075": ({"width": 0.75}, 224, 2_585_560, 325_400_448, "68.4"),
    "mobilenet_v1_050": ({"width": 0.5}, 160, 1_331_592, 76_524_800, "60.2"),
    "mobilenet_v1_025": ({"width": 0.25}, 128, 470_072, 13_570_048, ""),
    "mobilenet_v1_full": ({"block": "full"}, 224, 29_294_088, 4_867_293_184, "71.7"),
    "mobilenet_v1_shallow": ({"repeats": 0}, 224, 2_887_976, 307_323_392, "65.3"),
}


def _result(accuracy: str) -> str:
    return accuracy and f"ILSVRC-2012 val accuracy {accuracy} % top-1"


VARIANTS: dict[str, Variant] = {
    name: Variant(partial(MobileNet, **fields), (size, size, 3), params, macs, 1000, *_PAPER, _result(accuracy))
    for name, (fields, size, params, macs, accuracy) in _ROWS.items()
}
