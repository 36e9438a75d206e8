"""AlexNet (2012) as in its paper and in its source code, its successor of 2014, and Caffe's and TF-Slim's versions.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012, sec. 3 and 5.
Krizhevsky: One Weird Trick for Parallelizing Convolutional Neural Networks. arXiv 1404.5997, 2014, footnote 1.
The source code of 2012, which the Computer History Museum released in 2025: experiments/alexnet_paper_and_code.md.
The paper says 224x224 images; its 55x55 feature maps need 227x227, or windows that hang over the border as in the code.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.blocks import Layers, identity
from cnnjax.models.layers import max_pool
from cnnjax.models.network import NORMS_WITH_LRN, Network, Variant, field
from cnnjax.models.normalization import local_response_norm, spatial_response_norm

KERNELS = (11, 5, 3, 3, 3)
GROUPED = (2, 4, 5)  # convolutions with groups; their biases start from the field `bias`
POOLED = (1, 2, 5)  # convolutions followed by a pool: 3x3, stride 2, so windows overlap (sec. 3.4)
DEEP = (3, 4, 5)  # convolutions that start from the field `deep_std`


class AlexNet(Network):
    """Five convolutions and three fully connected layers (Fig. 2), dropout after the two hidden ones (sec. 4.2).

    The initialization of sec. 5 (normal, std 0.01) suits mean-subtracted images in [0, 255]. For images of variance 1
    it makes the logits vanish (0.0002 at 227x227): use initializer="he" for these, and for small images. norm="batch"
    or "group" follows each convolution.

    Attributes:
      features: channels of conv1 to conv5.
      hidden: sizes of fc6 and fc7.
      groups: groups of conv2, conv4 and conv5; 2 for the paper's two GPUs.
      stride: stride of conv1; 4 in all papers, less for images of 64x64.
      padding: padding of conv1 in pixels; 2 gives 224x224 images the feature maps that 0 gives 227x227 ones.
      window: side of the last feature maps at the paper's image size, for head="conv".
      bias: initial bias of conv2, conv4, conv5 and the hidden fully connected layers (sec. 5).
      lrn_alpha: alpha of `local_response_norm` (sec. 3.3); Caffe divides its 1e-4 by the 5 channels: 2e-5.
      lrn_k: k of `local_response_norm`; Caffe has 1.
      pool_first: applies response normalization after the pool, as in CaffeNet, not before.
      ceil: rounds output sizes of conv1 and of pools up: the last windows extend over the border, onto zeros (in pools:
          nothing). Then 224x224 images give the feature maps of 227x227 ones without it.
      relu_after_pool: layers 1 and 5 pool before the ReLU. Layer 1 thus normalizes signed responses; layer 5 computes
          the same function.
      spatial_norm: layer 2 ends with `spatial_response_norm`, before its pool.
      deep_std: standard deviation of conv3, conv4 and conv5 at the start, with initializer="gaussian"; 0 is that of the
          other layers, `initializer_std`.
      small_images: for 32x32 images; conv1 is 3x3 with stride 1 and no pool follows it.
    """

    dropout: float = 0.5
    norm: str = field("lrn", choices=NORMS_WITH_LRN)
    initializer: str = "gaussian"
    head: str = "fc"
    features: Sequence[int] = field((96, 256, 384, 384, 256), minimum=1, length=len(KERNELS))
    hidden: Sequence[int] = field((4096, 4096), minimum=1, length=2)
    groups: int = field(2, minimum=1)
    stride: int = field(4, minimum=1)
    padding: int = field(0, minimum=0)
    window: int = field(6, minimum=1)
    bias: float = 1.0
    lrn_alpha: float = 1e-4
    lrn_k: float = 2.0
    pool_first: bool = False
    ceil: bool = False
    relu_after_pool: bool = False
    spatial_norm: bool = False
    deep_std: float = field(0.0, minimum=0)
    small_images: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if any(channels % self.groups for channels in self.features):
            raise ValueError(f"groups = {self.groups!r}: expected a divisor of the channels {self.features!r}")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        spatial_norm = spatial_response_norm if self.spatial_norm and self.norm == "lrn" else identity
        if self.norm == "lrn":
            layers = layers._replace(lrn=partial(local_response_norm, alpha=self.lrn_alpha, k=self.lrn_k))
        for i in range(1, len(KERNELS) + 1):
            relu_last = self.relu_after_pool and i in (1, 5)
            x = self._conv(i, layers)(x)
            x = layers.norm(name=f"norm{i}")(x) if relu_last else layers.norm_act(name=f"norm{i}")(x)
            features[f"conv{i}"] = x
            if i <= 2 and not self.pool_first:
                x = layers.lrn(x)
            if i == 2:
                x = spatial_norm(x)
            if i in POOLED and not (i == 1 and self.small_images):
                x = features[f"pool{i}"] = max_pool(x, 3, 2, ceil=self.ceil)
            if i <= 2 and self.pool_first:
                x = layers.lrn(x)
            if relu_last:
                x = layers.act(x)
        if self.features_only:
            return features
        window = 7 if self.small_images else self.window
        bias_init = nn.initializers.constant(self.bias)
        return self.fc_head(x, layers, window, features=self.hidden, bias_init=bias_init)

    @nn.nowrap
    def _conv(self, i: int, layers: Layers) -> nn.Module:
        """Returns the convolution of layer `i`, from 1 to 5."""
        options: dict[str, Any] = {"name": f"conv{i}"}
        if i in GROUPED:
            options |= {"groups": self.groups, "bias_init": nn.initializers.constant(self.bias)}
        if i in DEEP and self.deep_std and self.initializer == "gaussian":
            options["kernel_init"] = nn.initializers.normal(self.deep_std)
        if i > 1:
            return layers.conv(self.features[i - 1], KERNELS[i - 1], **options)
        if self.small_images:
            return layers.conv(self.features[0], 3, **options)
        return layers.conv(self.features[0], KERNELS[0], self.stride, self.padding, ceil=self.ceil, **options)


_PAPER = "Krizhevsky et al., ImageNet Classification with Deep Convolutional Neural Networks, NIPS 2012"
_WEIRD = "Krizhevsky, One Weird Trick for Parallelizing Convolutional Neural Networks, arXiv 1404.5997, 2014"
_CAFFE = "Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, ACM MM 2014"
_CODE = {  # where the source code differs from the paper's text
    "ceil": True, "relu_after_pool": True, "spatial_norm": True, "deep_std": 0.03, "lrn_alpha": 1e-4 / 5,
}  # fmt: skip
_227, _224 = (227, 227, 3), (224, 224, 3)
_BVLC = {"lrn_alpha": 2e-5, "lrn_k": 1.0, "bias": 0.1}
# The network of 2014 has neither groups nor response normalization. The paper leaves the initialization open: He's
# here. Dropout follows fc6 and fc7, as in 2012; torchvision has it before them.
_PLAIN = {"groups": 1, "norm": "none", "initializer": "he", "bias": 0.0}
_OWT = _PLAIN | {"features": (64, 192, 384, 256, 256), "padding": 2}
_V2 = _PLAIN | {"features": (64, 192, 384, 384, 256), "window": 5}  # TF-Slim: the last feature maps are 5x5
_ERROR = "ILSVRC-2012 val error {} % top-1/top-5, {}"
_PAPER_ERROR = _ERROR.format("40.7 / 18.2", "1 network, 10 crops")
_ALEXNET_ERROR = _ERROR.format("42.9 / 19.8", "center crop (BVLC)")
_CAFFENET_ERROR = _ERROR.format("42.6 / 19.6", "center crop (BVLC)")

VARIANTS: dict[str, Variant] = {
    "alexnet": Variant(AlexNet, _PAPER, _227, 1000, {}, 60_965_224, 724_406_816, _PAPER_ERROR),
    "alexnet_2012": Variant(AlexNet, _PAPER, _224, 1000, _CODE, 60_965_224, 724_406_816, _PAPER_ERROR),
    "alexnet_ungrouped": Variant(AlexNet, _PAPER, _227, 1000, {"groups": 1}, 62_378_344, 1_135_256_096),
    "alexnet_caffe": Variant(AlexNet, _CAFFE, _227, 1000, _BVLC, 60_965_224, 724_406_816, _ALEXNET_ERROR),
    "caffenet": Variant(
        AlexNet, _CAFFE, _227, 1000, _BVLC | {"pool_first": True}, 60_965_224, 724_406_816, _CAFFENET_ERROR
    ),
    "alexnet_owt": Variant(AlexNet, _WEIRD, _224, 1000, _OWT, 61_100_840, 714_188_480),
    "alexnet_v2": Variant(AlexNet, _WEIRD, _224, 1000, _V2, 50_303_912, 736_555_776),
}
