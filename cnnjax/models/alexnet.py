"""AlexNet: the network of 2012 in two groups, without groups, of 2014, and as Caffe and TF-Slim have it.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012, sec. 3 and 5.
Krizhevsky: One Weird Trick for Parallelizing Convolutional Neural Networks. arXiv 1404.5997, 2014, footnote 1.
The paper writes 224 for images that must have a side of 227 to give its maps of 55.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from cnnjax.models.layers import local_response_norm, max_pool
from cnnjax.models.network import NORMS, Network, Variant

KERNELS = (11, 5, 3, 3, 3)
SPLIT = (2, 4, 5)  # convolutions that see only their own group's maps; theirs are the biases that start from `bias`
POOLED = (1, 2, 5)  # convolutions with a pool behind them: 3x3, stride 2, so that windows overlap (sec. 3.4)


class AlexNet(Network):
    """Five convolutions and three full connections (Fig. 2), dropout after the two hidden ones (sec. 4.2).

    The start of sec. 5, normal with 0.01, is for images of 0 to 255 less their mean. Of images with variance 1 hardly
    anything reaches the logits (0.0002 of 227x227): there, and with small images, initializer="he" is the better one.
    With norm="batch" or "group" each convolution is followed by that one.
    """

    dropout: float = 0.5
    norm: str = "lrn"
    initializer: str = "gaussian"
    head: str = "fc"
    features: Sequence[int] = (96, 256, 384, 384, 256)
    groups: int = 2  # of conv2, conv4 and conv5: the paper's two GPUs
    padding: int = 0  # of conv1: 2 makes the same maps of 224x224 images as 0 of 227x227
    window: int = 6  # the side of the last maps, for head="conv"
    bias: float = 1.0  # at first, of conv2, conv4, conv5 and the hidden full connections (sec. 5)
    lrn_alpha: float = 1e-4  # undivided (sec. 3.3); Caffe divides it by the 5 maps: 2e-5
    lrn_k: float = 2.0  # Caffe: 1
    pool_first: bool = False  # True: the response normalisation after the pool, as in CaffeNet
    small_images: bool = False  # True: for 32x32, with a conv1 of 3x3 and stride 1, and no pool behind it

    norms: ClassVar[Sequence[str]] = NORMS

    def __post_init__(self) -> None:
        if len(self.features) != len(KERNELS):
            raise ValueError(f"features = {self.features!r}: expected the maps of {len(KERNELS)} convolutions")
        if self.groups < 1 or any(maps % self.groups for maps in self.features):
            raise ValueError(f"groups = {self.groups!r}: expected to divide the maps {self.features!r}")
        if self.padding < 0 or self.window < 1:
            raise ValueError(
                f"padding = {self.padding!r}, window = {self.window!r}: expected at least 0 and at least 1"
            )
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        if self.norm == "lrn":
            parts = parts._replace(lrn=partial(local_response_norm, alpha=self.lrn_alpha, k=self.lrn_k))
        start = nn.initializers.constant(self.bias)
        for i, (features, kernel) in enumerate(zip(self.features, KERNELS, strict=True), start=1):
            if i > 1:
                split = {"groups": self.groups, "bias_init": start} if i in SPLIT else {}
                conv = parts.conv(features, kernel, **split, name=f"conv{i}")
            elif self.small_images:
                conv = parts.conv(features, 3, name="conv1")
            else:
                conv = parts.conv(features, kernel, 4, self.padding, name="conv1")
            x = ends[f"conv{i}"] = parts.act(parts.norm(name=f"norm{i}")(conv(x)))
            if i <= 2 and not self.pool_first:
                x = parts.lrn(x)
            if i in POOLED and not (i == 1 and self.small_images):
                x = ends[f"pool{i}"] = max_pool(x, 3, 2)
            if i <= 2 and self.pool_first:
                x = parts.lrn(x)
        if self.features_only:
            return ends
        window = 7 if self.small_images else self.window
        return self.classify_fc(x, parts, window, bias_init=start)


_PAPER = ("Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012", 2012)
_WEIRD = ("Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, arXiv 1404.5997, 2014", 2014)
_CAFFE = ("Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, ACM MM 2014", 2014)
_SIZE, _COUNTS = (227, 227, 3), (60_965_224, 724_406_816, 1000)
_caffe = partial(AlexNet, lrn_alpha=2e-5, lrn_k=1.0, bias=0.1)
# Of 2014, without groups and response normalisation; the paper leaves the start open, so it is that of networks since.
# Dropout is behind fc6 and fc7, as in 2012; torchvision has it before them.
_plain = partial(AlexNet, groups=1, norm="none", initializer="he", bias=0.0)
_owt = partial(_plain, features=(64, 192, 384, 256, 256), padding=2)
_slim = partial(_plain, features=(64, 192, 384, 384, 256), window=5)

VARIANTS: dict[str, Variant] = {
    "alexnet": Variant(
        AlexNet, _SIZE, *_COUNTS, *_PAPER, "ILSVRC-2012 val error 40.7 / 18.2 % top-1/top-5, 1 network, 10 crops"
    ),
    "alexnet_ungrouped": Variant(partial(AlexNet, groups=1), _SIZE, 62_378_344, 1_135_256_096, 1000, *_PAPER),
    "alexnet_caffe": Variant(
        _caffe, _SIZE, *_COUNTS, *_CAFFE, "ILSVRC-2012 val error 42.9 / 19.8 % top-1/top-5, centre crop (BVLC)"
    ),
    "caffenet": Variant(
        partial(_caffe, pool_first=True),
        *(_SIZE, *_COUNTS, *_CAFFE),
        "ILSVRC-2012 val error 42.6 / 19.6 % top-1/top-5, centre crop (BVLC)",
    ),
    "alexnet_owt": Variant(_owt, (224, 224, 3), 61_100_840, 714_188_480, 1000, *_WEIRD),
    "alexnet_v2": Variant(_slim, (224, 224, 3), 50_303_912, 736_555_776, 1000, *_WEIRD),  # TF-Slim: 5x5 last maps
}
