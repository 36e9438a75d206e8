"""The network that learns CIFAR-10 fastest: a whitening of 2x2 pixels, and three stages of two convolutions.

Jordan: 94% on CIFAR-10 in 3.29 Seconds on a Single GPU. 2024 (arXiv:2404.00498), sec. 3.1 to 3.3; its ancestors are
Page's ResNet-9 (2019) and Balsam's hlb-CIFAR10 (2023).
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

from cnnjax.models.layers import convolve, lecun_normal, max_pool
from cnnjax.models.network import INITIALIZERS, Network, Variant

SIDE = 2  # of the patches that are whitened


def whitening_kernel(images: jax.Array, epsilon: float = 5e-4) -> jax.Array:
    """The principal directions of all patches of images [N, H, W, C], each with variance 1, then their negatives.

    So the kernel is [2, 2, C, 8 C]. `epsilon` is added to the variances (sec. 3.2).
    """
    height, width, channels = images.shape[1:]
    shifts = [images[:, i : height - 1 + i, j : width - 1 + j] for i in range(SIDE) for j in range(SIDE)]
    patches = jnp.concatenate(shifts, axis=-1).reshape(-1, SIDE**2 * channels)
    patches = patches - patches.mean(axis=0, keepdims=True)
    variances, directions = jnp.linalg.eigh(patches.T @ patches / len(patches))
    whitening = (directions / jnp.sqrt(variances + epsilon)[None])[:, ::-1].reshape(SIDE, SIDE, channels, -1)
    return jnp.concatenate([whitening, -whitening], axis=-1)


def identity_first(init: Initializer) -> Initializer:
    """The first maps of a convolution start as copies of its inputs (sec. 3.3); the others as `init` has them."""

    def make(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        copied = min(shape[2:])
        kernel = init(key, shape, dtype).at[..., :copied].set(0)
        return kernel.at[shape[0] // 2, shape[1] // 2, np.arange(copied), np.arange(copied)].set(1)

    return make


class Whitening(nn.Module):
    """A convolution whose kernel is no parameter, and trained biases."""

    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (SIDE, SIDE, x.shape[-1], 2 * SIDE**2 * x.shape[-1])
        kernel = self.variable("constants", "kernel", lambda: lecun_normal(self.make_rng("params"), shape)).value
        bias = self.param("bias", nn.initializers.zeros, shape[-1:], jnp.float32)
        x, kernel, bias = (value.astype(self.dtype) for value in (x, kernel, bias))
        return convolve(x, kernel) + bias.reshape(1, 1, 1, -1)


class Airbench(Network):
    """The kernel of the whitening is computed of training images before the first step, by `init_from_data`."""

    num_classes: int = 10
    activation: str = "gelu"
    norm_epsilon: float = 1e-12
    norm_momentum: float = 0.6
    norm_scale: bool = False
    initializer: str = "torch"
    features: Sequence[int] = (64, 256, 256)
    scale: float = 1 / 9  # of the logits

    @nn.nowrap
    def init_from_data(self, model_state: dict[str, Any], images: jax.Array) -> dict[str, Any]:
        """The variables that are no parameters, as they are for these training images [N, H, W, C]."""
        return model_state | {"constants": {"whiten": {"kernel": whitening_kernel(images)}}}

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        init, _ = INITIALIZERS[self.initializer](self.initializer_std)
        x = ends["whiten"] = parts.act(Whitening(self.dtype, name="whiten")(x))
        conv = partial(parts.conv, kernel=3, use_bias=False, kernel_init=identity_first(init))
        for i, features in enumerate(self.features, start=1):
            x = max_pool(conv(features, name=f"stage{i}_conv1")(x), 2)
            x = parts.act(parts.norm(name=f"stage{i}_norm1")(x))
            x = conv(features, name=f"stage{i}_conv2")(x)
            x = ends[f"stage{i}"] = parts.act(parts.norm(name=f"stage{i}_norm2")(x))
        if self.features_only:
            return ends
        dense = partial(parts.dense, use_bias=False)
        return self.scale * self.classify(max_pool(x, 3), parts._replace(dense=dense))


VARIANTS: dict[str, Variant] = {
    "airbench94": Variant(
        Airbench, (32, 32, 3), 1_971_352, 118_147_360, 10,
        "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv:2404.00498, 2024", 2024,
        "CIFAR-10 test accuracy 94 % after 9.9 epochs, with six views of each test image",
    ),
}  # fmt: skip
