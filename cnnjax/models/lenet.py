"""LeNet-5, as it is taught today and as it was published.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 86(11), 1998,
sec. II.B-C and App. A. Layers keep the paper's names: convolutions C1, C3, C5, sub-sampling S2, S4, fully connected F6.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.layers import (
    avg_pool,
    conv,
    convolve,
    lookup,
    max_pool,
    scaled_tanh,
    uniform,
)
from cnnjax.models.network import Network, Variant

POOLS = {"max": max_pool, "average": avg_pool}

# Table I: the maps of S2 that each map of C3 sees. Three in a row, four in a row, four with a gap, and all six.
TABLE = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip

# The target of each class in F6: its digit, 7 wide and 12 high, ink +1 and paper -1. Drawn for this file, in the spirit
# of Fig. 3 but not copied from it: the pixels differ from the paper's.
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
    """The glyphs as targets of the output units: [10, 84], +-1, each row by row from the top."""
    rows = [line.split() for line in GLYPHS.split("\n") if line]
    glyphs = ["".join(parts) for parts in zip(*rows, strict=True)]
    return np.array([[1.0 if pixel == "#" else -1.0 for pixel in glyph] for glyph in glyphs], np.float32)


def _check_size(x: jax.Array, smallest: int) -> None:
    if min(x.shape[1:3]) < smallest:
        raise ValueError(f"images of {x.shape[1]}x{x.shape[2]}: LeNet-5 needs at least {smallest}x{smallest} here")


class LeNet5(Network):
    """LeNet-5 as it is taught: plain pooling, every map of C3 sees all of S2, a linear output. 61,706 parameters."""

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "lecun"
    head: str = "fc"
    pool: str = "max"
    padding: int = 2  # of C1: 2 for MNIST's 28x28, which makes the paper's 32x32; 0 for images that are 32x32

    def __post_init__(self) -> None:
        lookup("pool", self.pool, POOLS)
        if self.padding < 0:
            raise ValueError(f"padding = {self.padding!r}: expected at least 0")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        _check_size(x, 32 - 2 * self.padding)
        parts, ends, pool = self.parts(train), {}, POOLS[self.pool]
        x = ends["c1"] = parts.act(parts.norm(name="norm1")(parts.conv(6, 5, 1, self.padding, name="c1")(x)))
        x = ends["s2"] = pool(x, 2)
        x = ends["c3"] = parts.act(parts.norm(name="norm3")(parts.conv(16, 5, 1, 0, name="c3")(x)))
        x = ends["s4"] = pool(x, 2)
        # 1x1 on 32x32 images: there C5 equals a full connection.
        x = ends["c5"] = parts.act(parts.norm(name="norm5")(parts.conv(120, 5, 1, 0, name="c5")(x)))
        if self.features_only:
            return ends
        x = self.gather(parts.dropout(x))
        x = parts.dropout(parts.act(parts.dense(84, name="f6")(x)))
        return parts.dense(self.num_classes, name="output")(x).astype(jnp.float32)


class CaffeLeNet(Network):
    """The LeNet of Caffe's MNIST example: more maps, and no activation but that of the one hidden full connection."""

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "xavier"
    head: str = "fc"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        x = ends["conv1"] = parts.norm(name="norm1")(parts.conv(20, 5, 1, 0, name="conv1")(x))
        x = ends["pool1"] = max_pool(x, 2)
        x = ends["conv2"] = parts.norm(name="norm2")(parts.conv(50, 5, 1, 0, name="conv2")(x))
        x = ends["pool2"] = max_pool(x, 2)
        if self.features_only:
            return ends
        return self.classify_fc(x, parts, window=4, features=(500,), first=3)


def _by_fan_in(fan_in: int | list[int]) -> Initializer:
    """App. A: uniform in +-2.4 / inputs of the unit."""
    return uniform(2.4 / np.asarray(fan_in, np.float32))


class SubSampling(nn.Module):
    """S2, S4: the sum of each 2x2 block, times one trained coefficient per map, plus one bias (sec. II.B)."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        coefficient = self.param("coefficient", _by_fan_in(4), x.shape[-1:], jnp.float32).astype(self.dtype)
        bias = self.param("bias", _by_fan_in(4), x.shape[-1:], jnp.float32).astype(self.dtype)
        sums = 4 * avg_pool(x.astype(self.dtype), 2)
        return sums * coefficient.reshape(1, 1, 1, -1) + bias.reshape(1, 1, 1, -1)


class TableConv(nn.Module):
    """C3: a 5x5 convolution where each map sees only its maps in TABLE; no parameter stands for what is not there."""

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
        return convolve(x.astype(self.dtype), dense) + bias.astype(self.dtype).reshape(1, 1, 1, -1)


class LeNet5Original(nn.Module):
    """LeNet-5 as published: exactly 60,000 trainable parameters.

    The output is minus the squared distance of F6 to each digit's code (eq. 7), so softmax cross-entropy is the paper's
    criterion (eq. 9) without its constant j. Logits are tens to hundreds, so it wants small steps: SGD with momentum
    0.9 learns with lr=0.001 and fails with 0.01.
    """

    num_classes: int = 10
    features_only: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        if self.num_classes != 10:
            raise ValueError(f"num_classes = {self.num_classes}: LeNet-5 of 1998 has fixed codes for the 10 digits")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        del train  # nothing here differs between training and evaluation
        if x.shape[1:3] != (32, 32):
            raise ValueError(f"images of {x.shape[1]}x{x.shape[2]}: LeNet-5 of 1998 takes 32x32")

        def layer(features: int, inputs: int, name: str) -> nn.Conv:
            init = _by_fan_in(inputs)
            return conv(features, 5, padding=0, kernel_init=init, bias_init=init, dtype=self.dtype, name=name)

        ends = {}
        x = ends["c1"] = scaled_tanh(layer(6, 25 * x.shape[-1], "c1")(x))
        x = ends["s2"] = scaled_tanh(SubSampling(self.dtype, name="s2")(x))
        x = ends["c3"] = scaled_tanh(TableConv(self.dtype, name="c3")(x))
        x = ends["s4"] = scaled_tanh(SubSampling(self.dtype, name="s4")(x))
        x = ends["c5"] = scaled_tanh(layer(120, 25 * 16, "c5")(x))
        if self.features_only:
            return ends
        x = x.reshape(x.shape[0], 120)
        f6 = nn.Dense(84, kernel_init=_by_fan_in(120), bias_init=_by_fan_in(120), dtype=self.dtype, name="f6")
        # In float32 whatever the computation's type: distances reach hundreds, and their differences decide.
        x = scaled_tanh(f6(x)).astype(jnp.float32)
        return -jnp.sum((x[:, None, :] - codes()[None]) ** 2, axis=-1)


_PAPER = ("LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998", 1998)
_RESULT = "MNIST test error 0.95 %; 0.8 % with distorted training images"
_CAFFE = ("Jia et al., Caffe: Convolutional Architecture for Fast Feature Embedding, ACM MM 2014", 2014)
_TANH = partial(LeNet5, pool="average", padding=0, activation="tanh")

VARIANTS: dict[str, Variant] = {
    "lenet5": Variant(LeNet5, (28, 28, 1), 61_706, 416_520, 10, *_PAPER, _RESULT),
    "lenet5_tanh": Variant(_TANH, (32, 32, 1), 61_706, 416_520, 10, *_PAPER, _RESULT),
    "lenet5_1998": Variant(LeNet5Original, (32, 32, 1), 60_000, 325_680, 10, *_PAPER, _RESULT),
    "lenet_caffe": Variant(CaffeLeNet, (28, 28, 1), 431_080, 2_293_000, 10, *_CAFFE),
}
