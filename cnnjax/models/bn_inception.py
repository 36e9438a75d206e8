"""BN-Inception as published, and TF-Slim's Inception-v2.

Ioffe, Szegedy: Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate Shift. ICML 2015,
App. (Fig. 5). TF-Slim's norm_momentum of 0.9997 needs some ten thousand steps to forget the initial statistics; the
default of 0.9 here suits any training.
"""

from functools import partial

import jax
from flax import linen as nn

from cnnjax.models.blocks import Branches, ConvNormAct, Layers, remat_if
from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Variant, field

# Fig. 5, channels of the branches: 1x1; 1x1, 3x3; 1x1, 3x3 twice; 1x1 after the pool. Modules without the first branch
# halve the feature maps, and their pool has no projection.
MODULES = {
    "3a": (64, 64, 64, 64, 96, 32),
    "3b": (64, 64, 96, 64, 96, 64),
    "3c": (0, 128, 160, 64, 96, 0),
    "4a": (224, 64, 96, 96, 128, 128),
    "4b": (192, 96, 128, 96, 128, 128),
    "4c": (160, 128, 160, 128, 160, 128),
    "4d": (96, 128, 192, 160, 192, 128),
    "4e": (0, 128, 192, 192, 256, 0),
    "5a": (352, 192, 320, 160, 224, 128),
    "5b": (352, 192, 320, 192, 224, 128),
}


class BNInception(Network):
    """BN-Inception (Fig. 5): conv1, conv2 with a 1x1 reduction before, ten Inception modules, and a linear classifier.

    Attributes:
      projected: channels of the 1x1 convolution after the pool in inception_4c and 4d: 128 as printed, 96 in TF-Slim,
          which makes their output the printed 576.
      separable: makes conv1 depthwise 7x7 (8 outputs per input channel), then 1x1, without normalization.
      same: pads as TensorFlow's 'SAME'; differs from Caffe's padding with a stride, and in average pools.
      se: reduction ratio of squeeze-and-excitation after each module; 0 means none.
      small_images: for about 32x32; conv1 is 3x3, and nothing has a stride before inception_3c.
      remat: recomputes the activations inside the modules in the backward pass, to save memory.
    """

    dropout: float = 0.2
    norm_epsilon: float = 1e-3
    projected: int = field(128, above=0)
    separable: bool = False
    same: bool = False
    se: int = field(0, minimum=0)
    small_images: bool = False
    remat: bool = False

    @nn.nowrap
    def _conv1(self, x: jax.Array, layers: Layers, padding: str | None) -> jax.Array:
        """Applies conv1: a convolution, norm and activation, or with `separable` depthwise, 1x1 and activation."""
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        if not self.separable:
            return ConvNormAct(layers, 64, kernel, stride, padding, name="conv1")(x)
        channels = x.shape[-1]
        conv = layers.conv(8 * channels, kernel, stride, padding, channels, use_bias=False, name="conv1_depthwise")
        return layers.act(layers.conv(64, 1, use_bias=True, name="conv1_pointwise")(conv(x)))

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        module = remat_if(self.remat, Branches)
        padding = "SAME" if self.same else None
        # On even sides both halve alike. On odd ones, inside modules, Caffe's pools do not fit the convolutions.
        same_pool = partial(max_pool, window=3, stride=2, padding="SAME")
        halve = same_pool if self.same else partial(max_pool, window=3, stride=2, ceil=True)
        average = partial(avg_pool, window=3, stride=1, padding="SAME" if self.same else 1)
        x = features["conv1"] = self._conv1(x, layers, padding)
        if not self.small_images:
            x = features["pool1"] = halve(x)
        x = features["conv2_reduce"] = ConvNormAct(layers, 64, name="conv2_reduce")(x)
        x = features["conv2"] = ConvNormAct(layers, 192, 3, name="conv2")(x)
        if not self.small_images:
            x = features["pool2"] = halve(x)
        for name, (direct, reduce3, three, reduce5, five, projected) in MODULES.items():
            if direct:
                projected = self.projected if name in ("4c", "4d") else projected
                branches = (
                    ((direct,),),
                    ((reduce3,), (three, 3)),
                    ((reduce5,), (five, 3), (five, 3)),
                    ("pool", (projected,)),
                )
                pool = partial(max_pool, window=3, stride=1, padding=1) if name == "5b" else average
            else:
                branches = (
                    ((reduce3,), (three, 3, 2, padding)),
                    ((reduce5,), (five, 3), (five, 3, 2, padding)),
                    ("pool",),
                )
                pool = same_pool
            x = features[f"inception_{name}"] = module(layers, branches, pool, self.se, name=f"inception_{name}")(x)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Ioffe, Szegedy, Batch Normalization, ICML 2015"
_SIZE = (224, 224, 3)
_SLIM = {"projected": 96, "separable": True, "same": True, "norm_scale": False}
_ERROR = "ILSVRC-2012 val error 25.2 / 7.82 % top-1/top-5, 1 crop; 21.99 / 5.82 %, 144 crops"
_SLIM_ERROR = "ILSVRC-2012 val error 26.1 / 8.2 % top-1/top-5, 1 crop, TF-Slim"

VARIANTS: dict[str, Variant] = {
    "bn_inception": Variant(BNInception, _PAPER, _SIZE, 1000, {}, 11_285_224, 2_032_600_064, _ERROR),
    "inception_v2": Variant(BNInception, _PAPER, _SIZE, 1000, _SLIM, 11_178_336, 1_934_857_216, _SLIM_ERROR),
}
