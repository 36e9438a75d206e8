"""Normalization layers: batch normalization with optional ghost batches, and AlexNet's two response normalizations.

Images and feature maps are [batch, height, width, channels].
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.ops import pooling
from cnnjax.ops.batch_norm import batch_norm


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """Divides each value of x [..., C] by (k + alpha * s) ** beta (Krizhevsky et al. 2012, sec. 3.3).

    s is the sum of squares over `size` neighboring channels, centered on the value's own. Caffe and PyTorch divide
    alpha by `size` and use k = 1: for their results pass alpha=1e-4 / 5, k=1.
    """
    with jax.named_scope("local_response_norm"):
        half, others = size // 2, x.ndim - 1
        border = ((0, 0),) * others + ((half, size - 1 - half),)
        sums = lax.reduce_window(_squares(x), 0.0, lax.add, (1,) * others + (size,), (1,) * x.ndim, border)
        return (x * _inverse_power(k + alpha * sums, beta)).astype(x.dtype)


def spatial_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 4e-5, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Divides each value of feature maps x [N, H, W, C] by (k + alpha * s) ** beta, each channel on its own.

    s is the sum of squares over the `size` x `size` positions around the value's own; beyond the border they count as
    0. This is the second normalization of layer 2 in AlexNet's source code of 2012, which its paper does not mention:
    a scale of 0.001, divided by the area of the window. Caffe has it as WITHIN_CHANNEL.
    """
    with jax.named_scope("spatial_response_norm"):
        half = size // 2
        border = (half, size - 1 - half)
        sums = pooling.sum_pool(_squares(x), size, 1, (border, border))
        return (x * _inverse_power(k + alpha * sums, beta)).astype(x.dtype)


def _inverse_power(x: jax.Array, beta: float) -> jax.Array:
    """Returns x ** -beta. For the usual 3/4 it takes two square roots, several times faster on a CPU than a power."""
    if beta != 0.75:
        return x**-beta
    inverse_root = lax.rsqrt(x)
    return inverse_root * jnp.sqrt(inverse_root)


def _squares(x: jax.Array) -> jax.Array:
    """Returns the squares of x in float32, or in float64 if x has that."""
    return jnp.square(x.astype(jnp.promote_types(x.dtype, jnp.float32)))


class BatchNorm(nn.Module):
    """Batch normalization per channel, with learned scale and bias (Ioffe, Szegedy: ICML 2015).

    Computes the same as flax.linen.BatchNorm by `cnnjax.ops.batch_norm`, in fewer passes over memory. Statistics are
    float32; the running ones are in the collection 'batch_stats', with the biased variance.

    With `ghost_batch_size`, each group of that many consecutive images is normalized by its own mean and variance
    (Hoffer, Hubara, Soudry: Train Longer, Generalize Better. NIPS 2017, Algorithm 1). The running statistics take the
    mean over the groups, as Keras does with virtual_batch_size; the paper updates them group after group.

    Running statistics normalize if the field or the argument of the call `use_running_average` is True. The argument
    may be a traced boolean: then both results are computed and one is selected.

    Attributes:
      use_running_average: normalizes by the running statistics and does not update them.
      momentum: fraction of the running statistics kept at each step.
      epsilon: number added to the variance.
      use_scale: has a learned scale (gamma).
      ghost_batch_size: images per group; it must divide the batch. 0 makes the whole batch one group.
      scale_init: initializer of the scale.
      relu: also applies a ReLU to the output.
      dtype: dtype of the output.
    """

    use_running_average: bool
    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    ghost_batch_size: int = 0
    scale_init: Initializer = nn.initializers.ones
    relu: bool = False
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | jax.Array = False) -> jax.Array:
        by_average = self.use_running_average or use_running_average
        traced = isinstance(by_average, jax.Array)
        shape = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, shape, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, shape, jnp.float32)
        scale = (
            self.param("scale", self.scale_init, shape, jnp.float32) if self.use_scale else jnp.ones(shape, jnp.float32)
        )
        bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
        x = x.astype(self.dtype)
        wide = jnp.promote_types(x.dtype, jnp.float32)

        def by_running_statistics() -> jax.Array:
            """Normalizes by the running statistics."""
            factor = scale * jax.lax.rsqrt(var.value + self.epsilon)
            old, factor, shift = (jnp.expand_dims(v, range(x.ndim - 1)) for v in (mean.value, factor, bias))
            y = (x.astype(wide) - old) * factor + shift
            return (nn.relu(y) if self.relu else y).astype(self.dtype)

        if not traced and by_average:
            return by_running_statistics()
        normalize = partial(batch_norm, scale=scale.astype(wide), bias=bias.astype(wide), epsilon=self.epsilon)
        normalize = partial(normalize, relu=self.relu)
        if self.ghost_batch_size:
            groups = x.reshape(-1, self.ghost_batch_size, *x.shape[1:])
            y, new_mean, new_var = jax.vmap(normalize)(groups)
            y, new_mean, new_var = y.reshape(x.shape), new_mean.mean(axis=0), new_var.mean(axis=0)
        else:
            y, new_mean, new_var = normalize(x)
        if not self.is_initializing():
            for running, new in ((mean, new_mean), (var, new_var)):
                moved = self.momentum * running.value + (1 - self.momentum) * jax.lax.stop_gradient(new)
                running.value = jnp.where(by_average, running.value, moved) if traced else moved
        return jnp.where(by_average, by_running_statistics(), y) if traced else y
