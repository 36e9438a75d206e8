"""Building blocks that families share: layer constructors, blocks of convolutions, Inception modules, helpers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.layers import avg_pool, conv, global_avg_pool, lecun_normal
from cnnjax.ops.concatenation import concatenate as concatenate


class Layers(NamedTuple):
    """Layer constructors configured by the network's fields (norm, activation, dtype, ...), passed to its blocks.

    Attributes:
      conv: `cnnjax.models.layers.conv`, whose default has no bias with norm='batch' or 'group', as the norm has a bias.
      dense: `cnnjax.models.layers.Dense`, which acts on the last axis, so also at every position of feature maps.
      norm: norm(name=..., scale_init=...) builds the normalization layer; the identity for norm='none' and 'lrn'.
      norm_act: as `norm`, then the activation function: faster than one after the other for 'batch' and 'relu'.
      lrn: local response normalization; the identity unless norm='lrn'.
      act: the activation function.
      dropout: dropout with the network's rate `dropout`; the identity in evaluation.
      train: whether the network is called for training.
    """

    conv: Callable[..., nn.Module]
    dense: Callable[..., nn.Module]
    norm: Callable[..., Callable[[jax.Array], jax.Array]]
    norm_act: Callable[..., Callable[[jax.Array], jax.Array]]
    lrn: Callable[[jax.Array], jax.Array]
    act: Callable[[jax.Array], jax.Array]
    dropout: Callable[[jax.Array], jax.Array]
    train: bool


class StochasticDepth(nn.Module):
    """Stochastic depth ("drop path"): in training, zeroes x for an example with probability `rate`.

    The other examples are divided by 1 - rate. With `deterministic`, x is returned unchanged. In the paper, whole
    batches are dropped, and the branch is scaled in evaluation instead (Huang, Sun, Liu, Sedra, Weinberger: Deep
    Networks with Stochastic Depth. ECCV 2016, sec. 3).
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)), deterministic=self.deterministic)(x)


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation: channel attention from global average pooling (Hu, Shen, Sun: CVPR 2018, sec. 3.2).

    Multiplies each channel by a sigmoid gate, computed by two fully connected layers with biases. The hidden one has
    channels / `ratio` units, at least 1. `dense` is the network's constructor `Layers.dense`.
    """

    dense: Callable[..., nn.Module]
    ratio: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        gate = self.dense(max(1, channels // self.ratio), name="squeeze")(global_avg_pool(x))
        gate = self.dense(channels, name="excite")(nn.relu(gate))
        gate = nn.sigmoid(gate)[:, None, None, :]
        wide = jnp.promote_types(x.dtype, jnp.float32)  # in which the gradient of the gate is summed
        return (x * gate.astype(wide)).astype(x.dtype)


def identity(x: jax.Array) -> jax.Array:
    """Returns x."""
    return x


def remat_if(enabled: bool, block: type[nn.Module]) -> Callable[..., nn.Module]:
    """Returns the block class, wrapped in nn.remat if `enabled`: the backward pass then recomputes its activations."""
    return nn.remat(block) if enabled else block


def drop_rates(last_rate: float, blocks: int) -> list[float]:
    """Returns the drop probability of each of `blocks` blocks for stochastic depth (Huang et al. 2016, eq. 4).

    It rises linearly: block i of L, counted from 1, has last_rate * i / L.
    """
    return [last_rate * i / blocks for i in range(1, blocks + 1)]


def drop_path(x: jax.Array, layers: Layers, rate: float) -> jax.Array:
    """Applies stochastic depth with drop probability `rate` to a residual branch x, active only in training.

    The layer is the submodule 'drop' of the calling module.
    """
    return StochasticDepth(rate, not layers.train, name="drop")(x)


def squeeze_excite(x: jax.Array, layers: Layers, ratio: int) -> jax.Array:
    """Applies squeeze-and-excitation with reduction ratio `ratio` to x [N, H, W, C]; ratio 0 returns x.

    The layer is the submodule 'se' of the calling module.
    """
    return SqueezeExcite(layers.dense, ratio, name="se")(x) if ratio else x


def scan_blocks(block: nn.Module, count: int, x: jax.Array) -> jax.Array:
    """Applies `count` blocks with separate parameters in sequence, as one loop (nn.scan).

    `block` must keep the shape of x. XLA compiles it once; its parameters and statistics get a leading axis of length
    `count`.
    """
    loop = nn.scan(
        lambda block, x, _: (block(x), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=count,
    )
    return loop(block, x, None)[0]


class ConvNormAct(nn.Module):
    """Convolution, normalization and activation.

    Attributes:
      layers: the network's layer constructors.
      features: output channels.
      kernel: kernel size, one number for a square.
      stride: stride along both sides.
      padding: pixels on both sides, one number or (rows, columns), or 'SAME' as in TensorFlow; None means half the
          kernel.
      groups: groups of the convolution.
      act: False omits the activation.
    """

    layers: Layers
    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] | str | None = None
    groups: int = 1
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.layers.conv(self.features, self.kernel, self.stride, self.padding, self.groups, name="conv")
        norm = self.layers.norm_act if self.act else self.layers.norm
        return norm(name="norm")(conv(x))


class SeparableConv(nn.Module):
    """Depthwise separable convolution: depthwise, then pointwise 1x1 (Sifre 2014; Chollet 2017, sec. 1).

    `conv` is the network's constructor `Layers.conv`, `features` the output channels. `kernel`, `stride` and `padding`
    (None: half the kernel) belong to the depthwise convolution, which has `multiplier` outputs per input channel.
    """

    conv: Callable[..., nn.Module]
    features: int
    kernel: int = 3
    stride: int = 1
    padding: int | str | None = None
    multiplier: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        depthwise = channels * self.multiplier, self.kernel, self.stride, self.padding, channels
        x = self.conv(*depthwise, name="depthwise")(x)
        return self.conv(self.features, 1, name="pointwise")(x)


class TiledConv(nn.Module):
    """Tiled convolution, stride 1: tiles x tiles kernels that alternate periodically over output positions.

    Le, Ngiam, Chen, Chia, Koh, Ng: Tiled Convolutional Neural Networks. NIPS 2010, sec. 3. `features` is the number of
    output channels, `kernel` the side of each kernel; if that is odd, the output has the size of the input.
    """

    features: int
    kernel: int
    tiles: int = 2
    kernel_init: Initializer = lecun_normal
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = self.tiles**2 * self.features
        y = conv(channels, self.kernel, kernel_init=self.kernel_init, dtype=self.dtype, name="conv")(x)
        rows, columns = (np.arange(side) % self.tiles for side in y.shape[1:3])
        tile = rows[:, None] * self.tiles + columns[None, :]
        y = y.reshape(*y.shape[:3], self.tiles**2, self.features)
        return jnp.take_along_axis(y, tile[None, :, :, None, None], axis=3)[:, :, :, 0]


class Branches(nn.Module):
    """Inception module: parallel branches whose outputs are concatenated (Szegedy et al. 2015, sec. 4).

    Attributes:
      layers: the network's layer constructors.
      branches: one tuple of steps per branch. A step is a tuple of ConvNormAct's arguments from `features` on, such as
          (96, 3), or "pool", or a nested tuple of branches.
      pool: function that the step "pool" applies.
      se: reduction ratio of squeeze-and-excitation on the output; 0 means none.
    """

    layers: Layers
    branches: tuple[Any, ...]
    pool: Callable[[jax.Array], jax.Array] = identity
    se: int = 0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = []
        for i, steps in enumerate(self.branches, start=1):
            y = x
            for j, step in enumerate(steps, start=1):
                name = f"branch{i}_{j}"
                if step == "pool":
                    y = self.pool(y)
                elif isinstance(step[0], int):
                    y = ConvNormAct(self.layers, *step, name=name)(y)
                else:
                    y = Branches(self.layers, step, self.pool, name=name)(y)
            outputs.append(y)
        return squeeze_excite(concatenate(outputs), self.layers, self.se)


class AuxHead(nn.Module):
    """Auxiliary classifier of Inception-v3, -v4 and -ResNet-v2 (Szegedy et al. 2016, sec. 4, Fig. 8).

    Returns logits [N, num_classes]. Its second convolution has a 5x5 kernel, which shrinks to smaller feature maps, as
    in TF-Slim: the parameters then fit only that image size.
    """

    layers: Layers
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ConvNormAct(self.layers, 128, name="conv1")(avg_pool(x, 5, 3))
        kernel = min(5, x.shape[1]), min(5, x.shape[2])
        x = ConvNormAct(self.layers, 768, kernel, 1, 0, name="conv2")(x)
        return self.layers.dense(self.num_classes, name="head")(global_avg_pool(x))


def sow_aux_logits(module: nn.Module, logits: Callable[[], jax.Array], train: bool) -> None:
    """Adds the logits of an auxiliary classifier to the collection 'aux_logits' of `module`, if `train`.

    `logits()` applies the classifier. It is called in training, and at initialization, to create the parameters. Sowing
    has no effect unless the caller makes 'aux_logits' mutable.
    """
    if module.is_initializing():
        logits()
    elif train:
        module.sow("aux_logits", "logits", logits().astype(jnp.float32))
