"""Airbench: fast CIFAR-10 training, with a whitening convolution and three stages of two convolutions.

Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU. 2024 (arXiv:2404.00498), sec. 3.1 to 3.3. It descends
from Page's ResNet-9 (2019) and Balsam's hlb-CIFAR10 (2023).
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.layers import add_bias, convolve, lecun_normal, max_pool
from cnnjax.models.network import INITIALIZERS, Network, Variant, field

PATCH_SIZE = 2  # side of the whitened patches


def whitening_kernel(images: jax.Array, epsilon: float = 5e-4) -> jax.Array:
    """Computes the whitening kernel [2, 2, C, 8 C] from images [N, H, W, C] (sec. 3.2).

    Its first 4 C output channels are the principal directions of all 2x2 patches, by falling variance, each divided by
    its standard deviation. The other 4 C are their negatives. `epsilon` is added to the variances.
    """
    height, width, channels = images.shape[1:]
    shifts = [images[:, i : height - 1 + i, j : width - 1 + j] for i in range(PATCH_SIZE) for j in range(PATCH_SIZE)]
    patches = jnp.concatenate(shifts, axis=-1).reshape(-1, PATCH_SIZE**2 * channels)
    patches = patches - patches.mean(axis=0, keepdims=True)
    variances, directions = jnp.linalg.eigh(patches.T @ patches / len(patches))
    whitening = (directions / jnp.sqrt(variances + epsilon)[None])[:, ::-1]
    whitening = whitening.reshape(PATCH_SIZE, PATCH_SIZE, channels, -1)
    return jnp.concatenate([whitening, -whitening], axis=-1)


def identity_first(init: Initializer) -> Initializer:
    """Returns an initializer of kernels whose first output channels copy the input channels (sec. 3.3).

    There are min(inputs, outputs) copies; `init` draws the other output channels. The kernel's shape is [height, width,
    inputs, outputs].
    """

    def initialize(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        """Draws a kernel by `init`, then overwrites its first output channels with the identity."""
        copied = min(shape[2:])
        kernel = init(key, shape, dtype).at[..., :copied].set(0)
        return kernel.at[shape[0] // 2, shape[1] // 2, np.arange(copied), np.arange(copied)].set(1)

    return initialize


class Whitening(nn.Module):
    """Convolution 2x2, stride 1, without padding, to 8 C channels, with a constant kernel and learned biases.

    The kernel is the variable 'kernel' of the collection 'constants', which is not trained. It is random until
    `Airbench.init_from_data` replaces it.
    """

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (PATCH_SIZE, PATCH_SIZE, x.shape[-1], 2 * PATCH_SIZE**2 * x.shape[-1])
        kernel = self.variable("constants", "kernel", lambda: lecun_normal(self.make_rng("params"), shape)).value
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        return add_bias(convolve(x.astype(self.dtype), kernel.astype(self.dtype)), bias)


class Airbench(Network):
    """Airbench94: a whitening convolution, three stages of two 3x3 convolutions, and a linear classifier.

    The training calls `init_from_data` before the first step, to compute the whitening kernel from training images.

    Attributes:
      features: channels of each stage.
      scale: factor on the logits.
    """

    num_classes: int = 10
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    norm_momentum: float = 0.6
    norm_scale: bool = False
    initializer: str = "torch"
    features: Sequence[int] = field((64, 256, 256), minimum=1)
    scale: float = 1 / 9

    @nn.nowrap
    def init_from_data(self, model_state: dict[str, Any], images: jax.Array) -> dict[str, Any]:
        """Returns `model_state` with the whitening kernel of `images`, float32 [N, H, W, C] as the network sees them.

        `model_state` maps collections besides 'params' to their variables; its collection 'constants' is replaced.
        """
        return model_state | {"constants": {"whiten": {"kernel": whitening_kernel(images)}}}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        init, _ = INITIALIZERS[self.initializer](self.initializer_std)
        x = features["whiten"] = layers.act(Whitening(self.dtype, name="whiten")(x))
        conv = partial(layers.conv, kernel=3, use_bias=False, kernel_init=identity_first(init))
        for i, channels in enumerate(self.features, start=1):
            x = max_pool(conv(channels, name=f"stage{i}_conv1")(x), 2)
            x = layers.norm_act(name=f"stage{i}_norm1")(x)
            x = conv(channels, name=f"stage{i}_conv2")(x)
            x = features[f"stage{i}"] = layers.norm_act(name=f"stage{i}_norm2")(x)
        if self.features_only:
            return features
        dense = partial(layers.dense, use_bias=False)
        return self.scale * self.linear_head(max_pool(x, 3), layers._replace(dense=dense))


_PAPER = "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv:2404.00498, 2024"
_RESULT = "CIFAR-10 test accuracy 94 % after 9.9 epochs, with six views of each test image"

VARIANTS: dict[str, Variant] = {
    "airbench94": Variant(Airbench, _PAPER, (32, 32, 3), 10, {}, 1_971_352, 118_147_360, _RESULT),
}
