"""GoogLeNet, the first Inception network: as published, with batch normalization, and as in public weights.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions. CVPR 2015,
sec. 5, Table 1, Fig. 3. Modules keep the paper's names: inception_3a to inception_5b. What the paper leaves open is as
in Caffe's model: pools keep the incomplete last window, and convolutions without normalization start with biases of
0.2. TF-Slim's norm_momentum is 0.9997; the default of 0.9 here suits any training.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer

from cnnjax.models.blocks import Branches, ConvNormAct, Layers, identity, remat_if, sow_aux_logits
from cnnjax.models.layers import FullyConnected, avg_pool, global_avg_pool, max_pool
from cnnjax.models.network import INITIALIZERS, NORMS_WITH_LRN, Network, Variant, field
from cnnjax.models.normalization import local_response_norm

# Table 1, channels of the branches: 1x1; 1x1, 3x3; 1x1, 5x5; 1x1 after the pool.
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}

POOL = partial(max_pool, window=3, stride=1, padding=1)  # inside modules


def _adaptive_avg_pool(x: jax.Array, size: int) -> jax.Array:
    """Averages [N, H, W, C] over size x size bins, as PyTorch's AdaptiveAvgPool2d: -> [N, size, size, C].

    The bins overlap where a side is not a multiple of `size`.
    """

    def weights(side: int) -> jax.Array:
        """Returns the averaging matrix [size, side] along one side."""
        index, pixel = np.arange(size)[:, None], np.arange(side)
        low, high = index * side // size, -(-(index + 1) * side // size)
        return jnp.asarray(((low <= pixel) & (pixel < high)) / (high - low), x.dtype)

    return jnp.einsum("bhwc,ih,jw->bijc", x, weights(x.shape[1]), weights(x.shape[2]))


class AuxClassifier(nn.Module):
    """Auxiliary classifier: feature maps of an inner module -> logits [N, num_classes]; for training only (sec. 5).

    Its first fully connected layer expects pooled feature maps of 4x4. It slides over larger ones, and the activated
    outputs are averaged.

    Attributes:
      layers: the network's layer constructors.
      num_classes: number of logits.
      dense_init: initializer of the first fully connected layer's kernel.
      dropout: dropout probability before the last layer.
      adaptive: pools feature maps of any size to 4x4, as torchvision; else by 5x5 windows with stride 3.
    """

    layers: Layers
    num_classes: int
    dense_init: Initializer
    dropout: float
    adaptive: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        x = _adaptive_avg_pool(x, 4) if self.adaptive else avg_pool(x, 5, 3, ceil=True)
        x = ConvNormAct(layers, 128, name="conv")(x)
        x = global_avg_pool(layers.act(FullyConnected(1024, 4, self.dense_init, dtype=x.dtype, name="fc")(x)))
        x = nn.Dropout(self.dropout, deterministic=not layers.train)(x)
        return layers.dense(self.num_classes, name="head")(x)


class GoogLeNet(Network):
    """GoogLeNet (Table 1): conv1, conv2 with a 1x1 reduction before, nine Inception modules, and a linear classifier.

    Attributes:
      kernel: kernel of the branch that is 5x5 in the paper; 3 in TF-Slim and torchvision.
      last_pool: window of the pool after inception_4e; 2 in TF-Slim and torchvision.
      same: pads as TensorFlow's 'SAME'; differs from the paper's padding in conv1, and in pools on odd sides.
      aux: adds auxiliary classifiers on inception_4a and 4d; in training they sow logits into 'aux_logits'.
      aux_dropout: dropout probability of the auxiliary classifiers.
      adaptive: pools feature maps of any size to 4x4 in auxiliary classifiers, as torchvision.
      se: reduction ratio of squeeze-and-excitation after each module; 0 means none.
      small_images: for about 32x32; conv1 is 3x3, and nothing has a stride before inception_3a.
      remat: recomputes the activations inside the modules in the backward pass, to save memory.
    """

    dropout: float = 0.4
    norm: str = field("lrn", choices=NORMS_WITH_LRN)
    norm_epsilon: float = 1e-3
    initializer: str = "xavier"
    kernel: int = field(5, choices=(3, 5))
    last_pool: int = field(3, choices=(2, 3))
    same: bool = False
    aux: bool = False
    aux_dropout: float = field(0.7, minimum=0, below=1)
    adaptive: bool = False
    se: int = field(0, minimum=0)
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        module = remat_if(self.remat, Branches)
        if self.norm in ("none", "lrn"):
            layers = layers._replace(conv=partial(layers.conv, bias_init=nn.initializers.constant(0.2)))
        # As in Caffe, not Krizhevsky et al.: alpha scales the mean of squares, and k is 1.
        lrn = partial(local_response_norm, alpha=1e-4 / 5, k=1.0) if self.norm == "lrn" else identity

        def pool(x: jax.Array, window: int = 3) -> jax.Array:
            """Applies max pooling with stride 2, padded as 'SAME' or else keeping an incomplete last window."""
            return max_pool(x, window, 2, "SAME") if self.same else max_pool(x, window, 2, ceil=True)

        kernel, stride = (3, 1) if self.small_images else (7, 2)
        padding = "SAME" if self.same else None
        x = features["conv1"] = ConvNormAct(layers, 64, kernel, stride, padding, name="conv1")(x)
        if not self.small_images:
            x = features["pool1"] = pool(x)
        x = features["conv2_reduce"] = ConvNormAct(layers, 64, name="conv2_reduce")(lrn(x))
        x = features["conv2"] = ConvNormAct(layers, 192, 3, name="conv2")(x)
        x = lrn(x)
        if not self.small_images:
            x = features["pool2"] = pool(x)
        for name, (direct, reduce3, three, reduce5, five, projected) in MODULES.items():
            branches = (
                ((direct,),),
                ((reduce3,), (three, 3)),
                ((reduce5,), (five, self.kernel)),
                ("pool", (projected,)),
            )
            x = module(layers, branches, POOL, self.se, name=f"inception_{name}")(x)
            features[f"inception_{name}"] = x
            if name in ("4a", "4d") and self.aux and not self.features_only:
                _, init = INITIALIZERS[self.initializer](self.initializer_std)
                options = self.num_classes, init, self.aux_dropout, self.adaptive
                head = AuxClassifier(layers, *options, name=f"aux_{name}")
                sow_aux_logits(self, partial(head, x), train)
            if name == "3b":
                x = features["pool3"] = pool(x)
            elif name == "4e":
                x = features["pool4"] = pool(x, self.last_pool)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Szegedy et al., Going Deeper with Convolutions, CVPR 2015"
_SIZE = (224, 224, 3)
_AUX, _BN = {"aux": True}, {"norm": "batch"}
_RELEASED = _BN | {"kernel": 3, "last_pool": 2, "dropout": 0.2, "initializer": "truncated"}
_TORCHVISION = _RELEASED | {"adaptive": True}
_SLIM = _RELEASED | {"same": True, "norm_scale": False}
_ERROR = "ILSVRC-2012 val error 10.07 % top-5, 1 crop; 7.89 %, 144 crops; 6.67 %, 7 networks"
_TORCHVISION_ERROR = "ILSVRC-2012 val error 30.22 / 10.47 % top-1/top-5, 1 crop, torchvision's weights"
_SLIM_ERROR = "ILSVRC-2012 val error 30.2 / 10.4 % top-1/top-5, 1 crop, TF-Slim"

# MACs do not include the auxiliary classifiers.
VARIANTS: dict[str, Variant] = {
    "googlenet": Variant(GoogLeNet, _PAPER, _SIZE, 1000, {}, 6_998_552, 1_582_671_872, _ERROR),
    "googlenet_aux": Variant(GoogLeNet, _PAPER, _SIZE, 1000, _AUX, 13_378_280, 1_582_671_872, _ERROR),
    "googlenet_bn": Variant(GoogLeNet, _PAPER, _SIZE, 1000, _BN, 7_005_832, 1_582_671_872),
    "googlenet_bn_aux": Variant(GoogLeNet, _PAPER, _SIZE, 1000, _BN | _AUX, 13_385_816, 1_582_671_872),
    "googlenet_torchvision": Variant(
        GoogLeNet, _PAPER, _SIZE, 1000, _TORCHVISION, 6_624_904, 1_498_376_192, _TORCHVISION_ERROR
    ),
    "googlenet_torchvision_aux": Variant(
        GoogLeNet, _PAPER, _SIZE, 1000, _TORCHVISION | _AUX, 13_004_888, 1_498_376_192, _TORCHVISION_ERROR
    ),
    "inception_v1": Variant(GoogLeNet, _PAPER, _SIZE, 1000, _SLIM, 6_617_624, 1_498_376_192, _SLIM_ERROR),
}
