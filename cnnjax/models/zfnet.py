"""ZFNet: AlexNet with a smaller first kernel and stride, and its wider version.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, sec. 3.1, Fig. 3 and Table 2.
"""

from collections.abc import Sequence

import jax
from flax import linen as nn

from cnnjax.models.layers import max_pool
from cnnjax.models.network import NORMS_WITH_LRN, Network, Variant, field

POOLED = (1, 2, 5)  # convolutions followed by a pool: 3x3, stride 2, which keeps the incomplete last window


class ZFNet(Network):
    """ZFNet: five convolutions and three fully connected layers (Fig. 3), dropout after the two hidden ones.

    Strides are the figure's; the paddings, which it omits, give its feature maps of 110, 55, 26, 13 and 6. The paper
    says of its contrast normalization only 'across feature maps': here it is AlexNet's. The initialization of sec. 3.1
    (normal, std 0.01) suits mean-subtracted images in [0, 255]: use initializer="he" for images of variance 1, and for
    small images. norm="batch" or "group" follows each convolution.

    Attributes:
      features: channels of conv1 to conv5.
      pool_first: applies response normalization after the pool; False is before, as in AlexNet and most ports.
      small_images: for 32x32; conv1 is 3x3 with stride 1 and no pool follows it.
    """

    dropout: float = 0.5
    norm: str = field("lrn", choices=NORMS_WITH_LRN)
    initializer: str = "gaussian"
    head: str = "fc"
    features: Sequence[int] = field((96, 256, 384, 384, 256), minimum=1, length=5)
    pool_first: bool = True
    small_images: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        shapes = ((3, 1, 1) if self.small_images else (7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        for i, (channels, (kernel, stride, padding)) in enumerate(zip(self.features, shapes, strict=True), start=1):
            conv = layers.conv(channels, kernel, stride, padding, name=f"conv{i}")
            x = features[f"conv{i}"] = layers.norm_act(name=f"norm{i}")(conv(x))
            if i <= 2 and not self.pool_first:
                x = layers.lrn(x)
            if i in POOLED and not (i == 1 and self.small_images):
                x = features[f"pool{i}"] = max_pool(x, 3, 2, ceil=True)
            if i <= 2 and self.pool_first:
                x = layers.lrn(x)
        if self.features_only:
            return features
        return self.fc_head(x, layers, window=3 if self.small_images else 6)


_PAPER = "Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014"
_SIZE, _WIDE = (224, 224, 3), {"features": (96, 256, 512, 1024, 512)}
_ERROR = "ILSVRC-2012 val error {} % top-1/top-5, 1 network"

VARIANTS: dict[str, Variant] = {
    "zfnet": Variant(ZFNet, _PAPER, _SIZE, 1000, {}, 62_357_608, 1_168_032_896, _ERROR.format("38.3 / 16.4")),
    "zfnet_512_1024_512": Variant(
        ZFNet, _PAPER, _SIZE, 1000, _WIDE, 107_627_624, 2_476_704_896, _ERROR.format("37.5 / 16.0")
    ),
}
