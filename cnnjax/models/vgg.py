"""VGG: 3x3 convolutions and 2x2 pools, in the paper's configurations A to E.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, sec. 2 and Table 1.
"""

from collections.abc import Sequence
from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct, remat_if
from cnnjax.models.layers import max_pool
from cnnjax.models.network import NORMS_WITH_LRN, Network, Variant, field


class VGG(Network):
    """VGG: five stages of convolutions, each followed by a pool, and three fully connected layers (Table 1).

    The authors initialized deeper configurations with A's trained weights, later with Glorot's initialization (sec.
    3.1), which without normalization halves the variance at each ReLU; the default here is He's. 32x32 images leave 1x1
    feature maps: use head="gap" for them. With norm="batch" convolutions keep their biases, as in torchvision.

    Attributes:
      stage_sizes: convolutions of each stage.
      features: channels of each stage.
      third_kernel: kernel of each stage's third convolution; 1 in configuration C.
      remat: recomputes the activations inside the layers in the backward pass, to save memory.
    """

    dropout: float = 0.5
    norm: str = field("none", choices=NORMS_WITH_LRN)
    head: str = "fc"
    stage_sizes: Sequence[int] = field((2, 2, 3, 3, 3), minimum=1)
    features: Sequence[int] = field((64, 128, 256, 512, 512), minimum=1)
    third_kernel: int = field(3, choices=(1, 3))
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.stage_sizes) != len(self.features):
            raise ValueError(
                f"stage_sizes = {self.stage_sizes!r}: expected {len(self.features)} values, as in features"
            )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        layers = layers._replace(conv=partial(layers.conv, use_bias=True))
        layer = remat_if(self.remat, ConvNormAct)
        for stage, (size, channels) in enumerate(zip(self.stage_sizes, self.features, strict=True), start=1):
            for i in range(1, size + 1):
                name = f"conv{stage}_{i}"
                x = features[name] = layer(layers, channels, self.third_kernel if i == 3 else 3, name=name)(x)
            if stage == 1:
                x = layers.lrn(x)  # configuration A-LRN
            x = features[f"pool{stage}"] = max_pool(x, 2)
        return features if self.features_only else self.fc_head(x, layers, window=7)


_PAPER = "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015"
_SIZE = (224, 224, 3)
_A, _B, _E = {"stage_sizes": (1, 1, 2, 2, 2)}, {"stage_sizes": (2, 2, 2, 2, 2)}, {"stage_sizes": (2, 2, 4, 4, 4)}
_C, _BN = {"third_kernel": 1}, {"norm": "batch"}
_ERROR = "ILSVRC-2012 val error {} % top-1/top-5, whole images of short side 256"

# The paper's letters, and the names by the number of layers with weights.
VARIANTS: dict[str, Variant] = {
    "vgg_a": Variant(VGG, _PAPER, _SIZE, 1000, _A, 132_863_336, 7_609_090_048, _ERROR.format("29.6 / 10.4")),
    "vgg_a_bn": Variant(VGG, _PAPER, _SIZE, 1000, _A | _BN, 132_868_840, 7_609_090_048),
    "vgg11": Variant(VGG, _PAPER, _SIZE, 1000, _A, 132_863_336, 7_609_090_048, _ERROR.format("29.6 / 10.4")),
    "vgg11_bn": Variant(VGG, _PAPER, _SIZE, 1000, _A | _BN, 132_868_840, 7_609_090_048),
    "vgg_a_lrn": Variant(
        VGG, _PAPER, _SIZE, 1000, _A | {"norm": "lrn"}, 132_863_336, 7_609_090_048, _ERROR.format("29.7 / 10.5")
    ),
    "vgg_b": Variant(VGG, _PAPER, _SIZE, 1000, _B, 133_047_848, 11_308_466_176, _ERROR.format("28.7 / 9.9")),
    "vgg_b_bn": Variant(VGG, _PAPER, _SIZE, 1000, _B | _BN, 133_053_736, 11_308_466_176),
    "vgg13": Variant(VGG, _PAPER, _SIZE, 1000, _B, 133_047_848, 11_308_466_176, _ERROR.format("28.7 / 9.9")),
    "vgg13_bn": Variant(VGG, _PAPER, _SIZE, 1000, _B | _BN, 133_053_736, 11_308_466_176),
    "vgg_c": Variant(VGG, _PAPER, _SIZE, 1000, _C, 133_638_952, 11_770_888_192, _ERROR.format("28.1 / 9.4")),
    "vgg_c_bn": Variant(VGG, _PAPER, _SIZE, 1000, _C | _BN, 133_647_400, 11_770_888_192),
    "vgg_d": Variant(VGG, _PAPER, _SIZE, 1000, {}, 138_357_544, 15_470_264_320, _ERROR.format("27.0 / 8.8")),
    "vgg_d_bn": Variant(VGG, _PAPER, _SIZE, 1000, _BN, 138_365_992, 15_470_264_320),
    "vgg16": Variant(VGG, _PAPER, _SIZE, 1000, {}, 138_357_544, 15_470_264_320, _ERROR.format("27.0 / 8.8")),
    "vgg16_bn": Variant(VGG, _PAPER, _SIZE, 1000, _BN, 138_365_992, 15_470_264_320),
    "vgg_e": Variant(VGG, _PAPER, _SIZE, 1000, _E, 143_667_240, 19_632_062_464, _ERROR.format("27.3 / 9.0")),
    "vgg_e_bn": Variant(VGG, _PAPER, _SIZE, 1000, _E | _BN, 143_678_248, 19_632_062_464),
    "vgg19": Variant(VGG, _PAPER, _SIZE, 1000, _E, 143_667_240, 19_632_062_464, _ERROR.format("27.3 / 9.0")),
    "vgg19_bn": Variant(VGG, _PAPER, _SIZE, 1000, _E | _BN, 143_678_248, 19_632_062_464),
}
