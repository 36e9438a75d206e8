"""ZFNet: AlexNet with a finer first layer, and its wider sibling.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, sec. 3.1, Fig. 3 and Table 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from cnnjax.models.layers import max_pool
from cnnjax.models.network import NORMS, Network, Variant

POOLED = (1, 2, 5)  # convolutions with a pool behind them: 3x3, stride 2, with a last incomplete window


class ZFNet(Network):
    """Five convolutions and three full connections (Fig. 3), dropout after the two hidden ones.

    Strides are the figure's; paddings, which it leaves out, are those that give its maps of 110, 55, 26, 13 and 6.
    Of the contrast normalisation it says no more than 'across feature maps': it is AlexNet's here. The start of sec.
    3.1, normal with 0.01 and biases of 0, is for images of 0 to 255 less their mean; where the variance is 1, and with
    small images, initializer="he" is the better one. With norm="batch" or "group" each convolution is followed by that.
    """

    dropout: float = 0.5
    norm: str = "lrn"
    initializer: str = "gaussian"
    head: str = "fc"
    features: Sequence[int] = (96, 256, 384, 384, 256)
    pool_first: bool = True  # False: the response normalisation before the pool, as in AlexNet and most ports
    small_images: bool = False  # True: for 32x32, with a conv1 of 3x3 and stride 1, and no pool behind it

    norms: ClassVar[Sequence[str]] = NORMS

    def __post_init__(self) -> None:
        if len(self.features) != 5:
            raise ValueError(f"features = {self.features!r}: expected the maps of 5 convolutions")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        shapes = ((3, 1, 1) if self.small_images else (7, 2, 1), (5, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1))
        for i, (features, (kernel, stride, padding)) in enumerate(zip(self.features, shapes, strict=True), start=1):
            conv = parts.conv(features, kernel, stride, padding, name=f"conv{i}")
            x = ends[f"conv{i}"] = parts.act(parts.norm(name=f"norm{i}")(conv(x)))
            if i <= 2 and not self.pool_first:
                x = parts.lrn(x)
            if i in POOLED and not (i == 1 and self.small_images):
                x = ends[f"pool{i}"] = max_pool(x, 3, 2, ceil=True)
            if i <= 2 and self.pool_first:
                x = parts.lrn(x)
        if self.features_only:
            return ends
        return self.classify_fc(x, parts, window=3 if self.small_images else 6)


_PAPER = ("Zeiler, Fergus, Visualizing and Understanding Convolutional Networks, ECCV 2014", 2014)

VARIANTS: dict[str, Variant] = {
    "zfnet": Variant(
        *(ZFNet, (224, 224, 3), 62_357_608, 1_168_032_896, 1000, *_PAPER),
        "ILSVRC-2012 val error 38.3 / 16.4 % top-1/top-5, 1 network",
    ),
    "zfnet_512_1024_512": Variant(
        partial(ZFNet, features=(96, 256, 512, 1024, 512)),
        *((224, 224, 3), 107_627_624, 2_476_704_896, 1000, *_PAPER),
        "ILSVRC-2012 val error 37.5 / 16.0 % top-1/top-5, 1 network",
    ),
}
