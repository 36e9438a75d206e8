"""LeNet-5 as it is taught today and as published in 1998, and Caffe's LeNet.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 86(11), 1998,
sec. II.B-C and App. A. Layers keep the paper's names: convolutions C1, C3, C5, sub-sampling S2, S4, fully connected F6.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.layers import Dense, add_bias, avg_pool, conv, convolve, max_pool, scaled_tanh, uniform
from cnnjax.models.network import Network, Variant, field

POOLS = {"max": max_pool, "average": avg_pool}

# Table I: the channels of S2 that each channel of C3 is connected to: 3 or 4 neighbors, 4 with a gap, all 6.
TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# The target codes of the classes in F6: digits of 7x12 pixels, ink +1, background -1. Drawn for this file after Fig. 3;
# the pixels differ from the paper's.
GLYPHS = """
..###.. ...##.. ..###.. .#####. ....##. ####### ...###. ####### ..###.. ..###..
.##.##. ..###.. .##.##. ##...## ...###. ##..... ..##... ##...## .##.##. .##.##.
##...## .####.. ##...## .....## ...###. ##..... .##.... .....## ##...## ##...##
##...## ...##.. .....## .....## ..####. ##..... ##..... .....## ##...## ##...##
##...## ...##.. .....## ....##. ..#.##. ######. ##..... ....##. .##.##. ##...##
##...## ...##.. ....##. ..###.. .##.##. .....## ######. ....##. ..###.. .######
##...## ...##.. ...##.. ....##. ##..##. .....## ##...## ...##.. .##.##. .....##
##...## ...##.. ..##... .....## ####### .....## ##...## ...##.. ##...## .....##
##...## ...##.. .##.... .....## ....##. .....## ##...## ..##... ##...## .....##
##...## ...##.. ##..... .....## ....##. ##...## ##...## ..##... ##...## ....##.
.##.##. ...##.. ##..... ##...## ....##. .##.##. .##.##. .##.... .##.##. ...##..
..###.. .###### ####### .#####. ....##. ..###.. ..###.. .##.... ..###.. .###...
"""


def codes() -> np.ndarray:
    """Returns the digits' target codes, 7x12 glyphs flattened row by row from the top: float32 [10, 84] of +-1."""
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    glyphs = ["".join(lines) for lines in zip(*rows, strict=True)]
    return np.array([[1.0 if pixel == "#" else -1.0 for pixel in glyph] for glyph in glyphs], np.float32)


def _check_size(x: jax.Array, smallest: int) -> None:
    """Raises ValueError if images x [N, H, W, C] have a side below `smallest` pixels."""
    if min(x.shape[1:3]) < smallest:
        raise ValueError(f"images of {x.shape[1]}x{x.shape[2]}: LeNet-5 needs at least {smallest}x{smallest} here")


class LeNet5(Network):
    """LeNet-5 as it is taught: plain pooling, C3 connected to all channels of S2, linear output. 61,706 parameters.

    Attributes:
      pool: kind of S2 and S4, 'max' or 'average'.
      padding: padding of C1 in pixels: 2 for MNIST's 28x28, equivalent to the paper's 32x32; 0 for 32x32 images.
    """

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "lecun"
    head: str = "fc"
    pool: str = field("max", choices=POOLS)
    padding: int = field(2, minimum=0)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        _check_size(x, 32 - 2 * self.padding)
        layers, features, pool = self.layers(train), {}, POOLS[self.pool]
        x = features["c1"] = layers.norm_act(name="norm1")(layers.conv(6, 5, 1, self.padding, name="c1")(x))
        x = features["s2"] = pool(x, 2)
        x = features["c3"] = layers.norm_act(name="norm3")(layers.conv(16, 5, 1, 0, name="c3")(x))
        x = features["s4"] = pool(x, 2)
        # For 32x32 images C5 is 1x1, and equals a fully connected layer.
        x = features["c5"] = layers.norm_act(name="norm5")(layers.conv(120, 5, 1, 0, name="c5")(x))
        if self.features_only:
            return features
        x = self.pool_or_flatten(layers.dropout(x))
        x = layers.dropout(layers.act(layers.dense(84, name="f6")(x)))
        return layers.dense(self.num_classes, name="output")(x).astype(jnp.float32)


class CaffeLeNet(Network):
    """LeNet of Caffe's MNIST example: 20 and 50 channels, max pools, 500 hidden units with the only activation."""

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "xavier"
    head: str = "fc"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        x = features["conv1"] = layers.norm(name="norm1")(layers.conv(20, 5, 1, 0, name="conv1")(x))
        x = features["pool1"] = max_pool(x, 2)
        x = features["conv2"] = layers.norm(name="norm2")(layers.conv(50, 5, 1, 0, name="conv2")(x))
        x = features["pool2"] = max_pool(x, 2)
        if self.features_only:
            return features
        return self.fc_head(x, layers, window=4, features=(500,), first=3)


def _by_fan_in(fan_in: int | list[int]) -> Initializer:
    """Returns the initializer of App. A, uniform in +-2.4 / fan_in.

    `fan_in` is the number of inputs of each output, or a list with one number per index of the last axis.
    """
    return uniform(2.4 / np.asarray(fan_in, np.float32))


class SubSampling(nn.Module):
    """Subsampling S2 and S4: 2x2 sums times a learned coefficient, plus a learned bias, per channel (sec. II.B)."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        coefficient = self.param("coefficient", _by_fan_in(4), x.shape[-1:], jnp.float32)
        bias = self.param("bias", _by_fan_in(4), x.shape[-1:], jnp.float32)
        sums = 4 * avg_pool(x.astype(self.dtype), 2)
        return add_bias((sums * coefficient.reshape(1, 1, 1, -1)).astype(self.dtype), bias)


class TableConv(nn.Module):
    """C3: a 5x5 convolution from 6 to 16 channels with the connections of TABLE only, without padding.

    The kernel is [5, 5, 60]: one 5x5 filter per connection; absent connections have no parameters.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        sources = np.array([source for row in TABLE for source in row])
        targets = np.array([target for target, row in enumerate(TABLE) for _ in row])
        inputs = [25 * len(row) for row in TABLE]
        init = _by_fan_in([inputs[target] for target in targets])
        kernel = self.param("kernel", init, (5, 5, len(targets)), jnp.float32)
        bias = self.param("bias", _by_fan_in(inputs), (len(TABLE),), jnp.float32)
        dense = jnp.zeros((5, 5, 6, len(TABLE)), self.dtype).at[:, :, sources, targets].set(kernel.astype(self.dtype))
        return add_bias(convolve(x.astype(self.dtype), dense), bias)


class LeNet5Original(nn.Module):
    """LeNet-5 as published: 32x32 images, 10 classes, exactly 60,000 trainable parameters.

    Logits are minus the squared distances of F6 to the digits' codes (eq. 7), so softmax cross-entropy is the paper's
    criterion (eq. 9) without its constant j. They are tens to hundreds and need small learning rates: SGD with momentum
    0.9 trains with lr=0.001 and fails with 0.01.

    Attributes:
      num_classes: must be 10.
      features_only: returns {name: feature maps} of c1 to c5 instead of logits.
      dtype: dtype of the computation up to F6; logits are float32.
    """

    num_classes: int = 10
    features_only: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.num_classes != 10:
            raise ValueError(f"num_classes = {self.num_classes}: expected 10; LeNet-5 of 1998 has codes for 10 digits")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        del train  # training and evaluation are the same here
        if x.shape[1:3] != (32, 32):
            raise ValueError(f"images of {x.shape[1]}x{x.shape[2]}: LeNet-5 of 1998 expects 32x32")

        def layer(features: int, inputs: int, name: str) -> nn.Conv:
            """Builds a 5x5 convolution without padding, initialized as in App. A; `inputs` is its fan-in."""
            init = _by_fan_in(inputs)
            return conv(features, 5, padding=0, kernel_init=init, bias_init=init, dtype=self.dtype, name=name)

        features = {}
        x = features["c1"] = scaled_tanh(layer(6, 25 * x.shape[-1], "c1")(x))
        x = features["s2"] = scaled_tanh(SubSampling(self.dtype, name="s2")(x))
        x = features["c3"] = scaled_tanh(TableConv(self.dtype, name="c3")(x))
        x = features["s4"] = scaled_tanh(SubSampling(self.dtype, name="s4")(x))
        x = features["c5"] = scaled_tanh(layer(120, 25 * 16, "c5")(x))
        if self.features_only:
            return features
        x = x.reshape(x.shape[0], 120)
        f6 = Dense(84, kernel_init=_by_fan_in(120), bias_init=_by_fan_in(120), dtype=self.dtype, name="f6")
        # Always float32: distances reach hundreds, and small differences between them decide.
        x = scaled_tanh(f6(x)).astype(jnp.float32)
        return -jnp.sum((x[:, None, :] - codes()[None]) ** 2, axis=-1)


_PAPER = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
_CAFFE = "Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, ACM MM 2014"
_TANH = {"pool": "average", "padding": 0, "activation": "tanh"}
_ERROR = "MNIST test error 0.95 %; 0.8 % with distorted training images"

VARIANTS: dict[str, Variant] = {
    "lenet5": Variant(LeNet5, _PAPER, (28, 28, 1), 10, {}, 61_706, 416_520, _ERROR),
    "lenet5_tanh": Variant(LeNet5, _PAPER, (32, 32, 1), 10, _TANH, 61_706, 416_520, _ERROR),
    "lenet5_1998": Variant(LeNet5Original, _PAPER, (32, 32, 1), 10, {}, 60_000, 325_680, _ERROR),
    "lenet_caffe": Variant(CaffeLeNet, _CAFFE, (28, 28, 1), 10, {}, 431_080, 2_293_000),
}
