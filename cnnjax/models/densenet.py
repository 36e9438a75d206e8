"""DenseNet: each layer's input is the concatenated outputs of all layers before it in its block.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017, sec. 3, Table 1 (ImageNet)
and Table 2 (CIFAR).
"""

from typing import Any

import jax
from flax import linen as nn

from cnnjax.models.blocks import Layers, concatenate, remat_if
from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Variant, field


def _dropout(layers: Layers, rate: float) -> nn.Dropout:
    """Builds dropout with probability `rate`, active only in training."""
    return nn.Dropout(rate, deterministic=not layers.train)


class Layer(nn.Module):
    """Dense layer: norm, activation, and 3x3 convolution to `growth_rate` channels (DenseNet-B adds a 1x1 before).

    It is called with a list of arrays that, concatenated, are the block's input and the outputs of its earlier layers.
    It returns such a list for the next layer, to which its own output is added.

    Attributes:
      layers: the network's layer constructors.
      growth_rate: output channels.
      bottleneck: adds norm, activation and 1x1 convolution to 4 * growth_rate channels before the 3x3 convolution's
          norm.
      dropout: dropout probability after each convolution.
      shares: returns its inputs concatenated, so that each array is copied once per layer. Without, they are returned
          as they are: remat then keeps no copies, and memory is linear in depth, not quadratic.
    """

    layers: Layers
    growth_rate: int
    bottleneck: bool
    dropout: float
    shares: bool

    @nn.compact
    def __call__(self, inputs: list[jax.Array]) -> list[jax.Array]:
        layers, shared = self.layers, concatenate(inputs)
        x = layers.norm_act(name="norm1")(shared)
        if self.bottleneck:
            x = _dropout(layers, self.dropout)(layers.conv(4 * self.growth_rate, 1, name="conv1")(x))
            x = layers.norm_act(name="norm2")(x)
        name = "conv2" if self.bottleneck else "conv1"
        x = _dropout(layers, self.dropout)(layers.conv(self.growth_rate, 3, name=name)(x))
        return [shared, x] if self.shares else [*inputs, x]


class Transition(nn.Module):
    """Transition between blocks: norm, activation, 1x1 convolution, dropout, and 2x2 average pool.

    Attributes:
      layers: the network's layer constructors.
      features: output channels.
      dropout: dropout probability after the convolution.
    """

    layers: Layers
    features: int
    dropout: float

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        layers = self.layers
        x = layers.norm_act(name="norm")(x)
        return avg_pool(_dropout(layers, self.dropout)(layers.conv(self.features, 1, name="conv")(x)), 2)


class DenseNet(Network):
    """DenseNet (Table 1): a 7x7 convolution and a pool, dense blocks with transitions between, and a linear classifier.

    Attributes:
      stage_sizes: layers of each dense block.
      growth_rate: channels that each layer adds.
      features: channels of the first convolution: 2 * growth_rate, or 16 without bottlenecks.
      block_dropout: dropout probability after each convolution except the first (sec. 4.2: 0.2).
      bottleneck: adds a 1x1 convolution to 4 * growth_rate channels before each 3x3 one (DenseNet-B).
      compression: fraction of the channels that a transition keeps (DenseNet-C); 1 keeps all.
      small_images: for CIFAR, as in the paper; the first convolution is 3x3 with stride 1, without norm, and no pool
          follows.
      remat: recomputes activations inside the layers in the backward pass; on a CPU this saves no memory.
    """

    stage_sizes: tuple[int, ...] = field((6, 12, 24, 16), minimum=1)
    growth_rate: int = field(32, above=0)
    features: int = field(64, above=0)
    block_dropout: float = field(0.0, minimum=0, below=1)
    bottleneck: bool = True
    compression: float = field(0.5, above=0, maximum=1)
    small_images: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        layer = remat_if(self.remat, Layer)
        if self.small_images:
            x = layers.conv(self.features, 3, name="conv0")(x)
        else:
            x = layers.norm_act(name="norm0")(layers.conv(self.features, 7, 2, name="conv0")(x))
            x = max_pool(x, 3, 2, 1)
        features["stem"] = x
        for block, size in enumerate(self.stage_sizes, start=1):
            if block > 1:
                options = max(1, int(x.shape[-1] * self.compression)), self.block_dropout
                x = features[f"trans{block - 1}"] = Transition(layers, *options, name=f"trans{block - 1}")(x)
            outputs, options = [x], (self.growth_rate, self.bottleneck, self.block_dropout, not self.remat)
            for i in range(1, size + 1):
                outputs = layer(layers, *options, name=f"block{block}_layer{i}")(outputs)
            x = features[f"block{block}"] = concatenate(outputs)
        x = features["last"] = layers.norm_act(name="last_norm")(x)
        if self.features_only:
            return features
        return self.linear_head(x, layers)


_PAPER = "Huang et al., Densely Connected Convolutional Networks, CVPR 2017"
_224, _32 = (224, 224, 3), (32, 32, 3)
_ERROR = "ILSVRC-2012 val error {} % top-1/top-5, 1 crop; {} %, 10 crops"
_CIFAR_ERROR = "CIFAR-10 test error {} %, CIFAR-100 {} %, with crops and flips"


def _bottlenecks(layers: int, growth_rate: int) -> dict[str, Any]:
    """Returns the fields of a DenseNet-BC for CIFAR (Table 2), with three blocks of `layers` layers each."""
    sizes = {"stage_sizes": (layers,) * 3, "growth_rate": growth_rate, "features": 2 * growth_rate}
    return sizes | {"small_images": True}


_40 = {
    "stage_sizes": (12,) * 3, "growth_rate": 12, "features": 16,
    "bottleneck": False, "compression": 1.0, "small_images": True,
}  # fmt: skip
_161 = {"stage_sizes": (6, 12, 36, 24), "growth_rate": 48, "features": 96}

VARIANTS: dict[str, Variant] = {
    "densenet121": Variant(
        DenseNet, _PAPER, _224, 1000, {}, 7_978_856, 2_834_161_664, _ERROR.format("25.02 / 7.71", "23.61 / 6.66")
    ),
    "densenet169": Variant(
        DenseNet, _PAPER, _224, 1000, {"stage_sizes": (6, 12, 32, 32)}, 14_149_480, 3_359_843_328,
        _ERROR.format("23.80 / 6.85", "22.08 / 5.92"),
    ),
    "densenet201": Variant(
        DenseNet, _PAPER, _224, 1000, {"stage_sizes": (6, 12, 48, 32)}, 20_013_928, 4_291_365_888,
        _ERROR.format("22.58 / 6.34", "21.46 / 5.54"),
    ),
    "densenet161": Variant(
        DenseNet, _PAPER, _224, 1000, _161, 28_681_000, 7_727_907_072, _ERROR.format("22.33 / 6.15", "20.85 / 5.30")
    ),
    "densenet40_12": Variant(
        DenseNet, _PAPER, _32, 10, _40, 1_019_722, 264_812_928, _CIFAR_ERROR.format("5.24", "24.42")
    ),
    "densenet_bc100_12": Variant(
        DenseNet, _PAPER, _32, 10, _bottlenecks(16, 12), 769_162, 287_929_692, _CIFAR_ERROR.format("4.51", "22.27")
    ),
    "densenet_bc190_40": Variant(
        DenseNet, _PAPER, _32, 10, _bottlenecks(31, 40), 25_624_430, 9_301_945_740,
        _CIFAR_ERROR.format("3.46", "17.18"),
    ),
}  # fmt: skip
