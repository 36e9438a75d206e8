"""Layers that families share: convolutions, pooling, normalisation, activations, initialisers.

Images and maps are [batch, height, width, maps].
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from cnnjax.ops.convolution import convolution
from cnnjax.ops.pooling import largest, total

Value = TypeVar("Value")


# Normal, with variance 1 / inputs: keeps that of the signal (LeCun et al. 1998, Efficient BackProp, sec. 4.6).
lecun_normal = nn.initializers.lecun_normal()

# Normal, with variance 2 / (kernel area * outputs): keeps that of the gradient through ReLUs (He et al. 2015, eq. 14).
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform(bound: ArrayLike) -> Initializer:
    """Uniform in +-bound; an array holds a bound for each index of the parameter's last axis."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * jnp.broadcast_to(jnp.asarray(bound, dtype), shape)

    return init


def output_size(size: int, window: int, stride: int, padding: tuple[int, int], ceil: bool = False) -> int:
    """The positions of a window along one side: (N - F + 2 pad) / stride + 1, rounded down, or up with `ceil`.

    Rounding up, a last window that would start in the padding is dropped, as Caffe and PyTorch do. Raises ValueError
    with the numbers in the formula when the window does not fit once.
    """
    room = size - window + sum(padding)
    if room < 0:
        raise ValueError(
            f"a window of {window} does not fit a side of {size}: (N - F + 2 pad) / stride + 1 = "
            f"({size} - {window} + {sum(padding)}) / {stride} + 1 is less than 1; it takes larger images"
        )
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding[0] else count


def _same(size: int, window: int, stride: int) -> tuple[int, int]:
    """TensorFlow's 'SAME': as many positions as size / stride, rounded up; an odd pixel goes to the far side."""
    total = max((-(-size // stride) - 1) * stride + window - size, 0)
    return total // 2, total - total // 2


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int] = (1, 1),
    padding: Any = ((0, 0), (0, 0)),
    *,
    padding_mode: str = "zeros",
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **defaults: Any,
) -> jax.Array:
    """The convolution under every network: images NHWC, kernels HWIO.

    `padding` is in pixels, ((above, below), (left, right)), or 'SAME' as TensorFlow has it; it is filled as PADDINGS
    says. `defaults` is what Flax's layer passes besides, and `conv` never sets.
    """
    dilation = rhs_dilation or (1, 1)
    windows = [(side - 1) * step + 1 for side, step in zip(kernel.shape[:2], dilation, strict=True)]
    sides = list(zip(x.shape[1:3], windows, strides, strict=True))
    if isinstance(padding, str):
        padding = [_same(*side) for side in sides]
    for side, pads in zip(sides, padding, strict=True):
        output_size(*side, pads)
    if padding_mode != "zeros" and any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), *map(tuple, padding), (0, 0)), mode="edge")
        padding = ((0, 0), (0, 0))
    return convolution(x, kernel, strides, padding, dilation, feature_group_count)


def conv(
    features: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] | str | None = None,
    groups: int = 1,
    *,
    dilation: int = 1,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
    bias_init: Initializer = nn.initializers.zeros,
    padding_mode: str = "zeros",
    dtype: DTypeLike = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """The convolution layer of every network.

    Both sides are padded by `padding` pixels, or (rows, columns), by default by half the kernel. 'SAME' is for networks
    that were published in TensorFlow: with a stride it pads one side more than the other, which gives the shapes of
    other networks and wrong numbers.
    """
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    if padding is None:
        padding = (dilation * (size[0] - 1) + 1) // 2, (dilation * (size[1] - 1) + 1) // 2
    elif isinstance(padding, int):
        padding = (padding, padding)
    return nn.Conv(
        features,
        size,
        strides=(stride, stride),
        padding=padding if isinstance(padding, str) else [(pad, pad) for pad in padding],
        kernel_dilation=dilation,
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        conv_general_dilated=partial(convolve, padding_mode=padding_mode),
        name=name,
    )


class SeparableConv(nn.Module):
    """A convolution of each map by itself, then one of 1x1 across them (Sifre 2014; Chollet 2017, sec. 1)."""

    conv: Callable[..., nn.Module]  # a network's own: Parts.conv
    features: int
    kernel: int = 3
    stride: int = 1
    padding: int | str | None = None
    multiplier: int = 1  # maps that the first makes of each

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = x.shape[-1]
        x = self.conv(maps * self.multiplier, self.kernel, self.stride, self.padding, maps, name="depthwise")(x)
        return self.conv(self.features, 1, name="pointwise")(x)


class TiledConv(nn.Module):
    """`tiles` x `tiles` kernels that alternate from pixel to pixel, between one for all and one for each (stride 1).

    Le, Ngiam, Chen, Chia, Koh, Ng: Tiled Convolutional Neural Networks. NIPS 2010, sec. 3.
    """

    features: int
    kernel: int
    tiles: int = 2
    kernel_init: Initializer = lecun_normal
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = self.tiles**2 * self.features
        y = conv(maps, self.kernel, kernel_init=self.kernel_init, dtype=self.dtype, name="conv")(x)
        rows, columns = (np.arange(side) % self.tiles for side in y.shape[1:3])
        tile = rows[:, None] * self.tiles + columns[None, :]
        y = y.reshape(*y.shape[:3], self.tiles**2, self.features)
        return jnp.take_along_axis(y, tile[None, :, :, None, None], axis=3)[:, :, :, 0]


def _windows(x: jax.Array, window: int, stride: int | None, padding: int | str, ceil: bool) -> tuple[int, Any]:
    """The stride, and the padding of both sides so that windows cover what they should."""
    stride, pads = stride or window, []
    for size in x.shape[1:3]:
        low, high = _same(size, window, stride) if isinstance(padding, str) else (padding, padding)
        count = output_size(size, window, stride, (low, high), ceil)
        pads.append((low, max(high, (count - 1) * stride + window - size - low)))
    return stride, pads


def max_pool(
    x: jax.Array, window: int, stride: int | None = None, padding: int | str = 0, ceil: bool = False
) -> jax.Array:
    """The largest of each window; `stride` is `window` unless given.

    A last, incomplete window is dropped, or with `ceil` kept, as in Caffe. `padding` may be 'SAME', as in TensorFlow.
    """
    stride, pads = _windows(x, window, stride, padding, ceil)
    return largest(x, window, stride, (pads[0], pads[1]))


def avg_pool(
    x: jax.Array,
    window: int,
    stride: int | None = None,
    padding: int | str = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """The mean of each window, as `max_pool`.

    The zeros of an int `padding` count unless `count_padding` is False; what 'SAME' or `ceil` adds never does.
    """
    stride, pads = _windows(x, window, stride, padding, ceil)
    sums = total(x, window, stride, (pads[0], pads[1]))
    border = padding if count_padding and isinstance(padding, int) else 0
    counts = []
    for size, (low, high) in zip(x.shape[1:3], pads, strict=True):
        starts = np.arange(0, size + low + high - window + 1, stride) - low
        counts.append(np.minimum(starts + window, size + border) - np.maximum(starts, -border))
    area = counts[0][:, None] * counts[1][None, :]
    return sums / jnp.asarray(area, x.dtype)[None, :, :, None]


def global_mean(x: jax.Array) -> jax.Array:
    """The mean of each map: [batch, height, width, maps] -> [batch, maps]."""
    return jnp.mean(x, axis=(1, 2))


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
) -> jax.Array:
    """x / (k + alpha * the sum of squares over `size` neighbouring maps) ** beta (Krizhevsky et al. 2012, sec. 3.3).

    Caffe and PyTorch divide alpha by `size`, and start from k = 1: alpha=1e-4 / 5, k=1.
    """
    with jax.named_scope("local_response_norm"):
        half, maps = size // 2, x.shape[-1]
        squares = jnp.pad(jnp.square(x.astype(jnp.float32)), ((0, 0),) * (x.ndim - 1) + ((half, size - 1 - half),))
        sums = sum(squares[..., i : i + maps] for i in range(size))
        return (x * (k + alpha * sums) ** -beta).astype(x.dtype)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4))
def _normalize(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, axes: tuple[int, ...]
) -> tuple[jax.Array, ...]:
    """The maps in float32 with mean `bias` and deviation `scale` over these axes; and what they had."""
    mean, var = _moments(x, axes)
    factor = scale * jax.lax.rsqrt(var + epsilon)
    return (x - mean) * factor + bias, mean, var


def _moments(x: jax.Array, axes: tuple[int, ...]) -> tuple[jax.Array, jax.Array]:
    mean, square = (jnp.mean(values, axes, keepdims=True) for values in (x, jnp.square(x)))
    return mean, jnp.maximum(0.0, square - jnp.square(mean))


@_normalize.defjvp
def _normalize_jvp(epsilon: float, axes: tuple[int, ...], values: Any, tangents: Any) -> Any:
    """Ioffe, Szegedy 2015, sec. 3, solved for the output: transposed, this is two sums and one pass over the maps.

    The moments are for running statistics, of which no gradient is taken.
    """
    (x, scale, _), (dx, dscale, dbias) = values, tangents
    y, mean, var = _normalize(*values, epsilon, axes)
    inverse = jax.lax.rsqrt(var + epsilon)
    standard, factor = (x - mean) * inverse, scale * inverse
    shift = dbias - factor * jnp.mean(dx, axes, keepdims=True)
    slope = dscale - factor * jnp.mean(standard * dx, axes, keepdims=True)
    return (y, mean, var), (factor * dx + standard * slope + shift, jnp.zeros_like(mean), jnp.zeros_like(var))


class BatchNorm(nn.Module):
    """Each map with mean 0 and variance 1 over the batch, then a trained scale and bias (Ioffe, Szegedy: ICML 2015).

    In evaluation with running averages of both, kept in 'batch_stats' with the biased variance; statistics are
    float32. As Flax's, but for the gradient, which is written down: three times fewer passes over the maps.

    With `ghost` each group of so many images, in the order of the batch, has its own mean and variance (Hoffer, Hubara,
    Soudry: Train Longer, Generalize Better. NIPS 2017, Algorithm 1), and the running averages take the mean over groups
    of both, as those of Keras with a virtual_batch_size; the paper lets the groups pass one after the other.

    A call's own `use_running_average` may be traced: then both are computed, and one is taken.
    """

    use_running_average: bool
    momentum: float = 0.9  # what stays of the old averages at each step
    epsilon: float = 1e-5
    use_scale: bool = True
    ghost: int = 0  # 0: one group, of all images
    scale_init: Initializer = nn.initializers.ones
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, use_running_average: bool | jax.Array = False) -> jax.Array:
        by_average = self.use_running_average or use_running_average
        traced = isinstance(by_average, jax.Array)
        maps = x.shape[-1:]
        mean = self.variable("batch_stats", "mean", jnp.zeros, maps, jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, maps, jnp.float32)
        scale = (
            self.param("scale", self.scale_init, maps, jnp.float32) if self.use_scale else jnp.ones(maps, jnp.float32)
        )
        bias = self.param("bias", nn.initializers.zeros, maps, jnp.float32)
        wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        grouped = self.ghost > 0 and (traced or not by_average)
        if grouped:
            wide = wide.reshape(-1, self.ghost, *x.shape[1:])
        ones = (1,) * (wide.ndim - 1)
        scale, bias, old_mean, old_var = (v.reshape(*ones, -1) for v in (scale, bias, mean.value, var.value))

        def averaged() -> jax.Array:
            return (wide - old_mean) * (scale * jax.lax.rsqrt(old_var + self.epsilon)) + bias

        if not traced and by_average:
            return averaged().astype(self.dtype)
        y, new_mean, new_var = _normalize(wide, scale, bias, self.epsilon, tuple(range(grouped, wide.ndim - 1)))
        if not self.is_initializing():
            for average, new in ((mean, new_mean), (var, new_var)):
                new = new.reshape(-1, *maps).mean(axis=0)
                moved = self.momentum * average.value + (1 - self.momentum) * new
                average.value = jnp.where(by_average, average.value, moved) if traced else moved
        if traced:
            y = jnp.where(by_average, averaged(), y)
        return y.reshape(x.shape).astype(self.dtype)


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), which maps +-1 to +-1 (LeCun et al. 1998, App. A)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def step(x: jax.Array) -> jax.Array:
    """1 above 0, else 0: the perceptron's (Rosenblatt 1958). Its gradient is 0 everywhere."""
    return jnp.heaviside(x, jnp.zeros((), x.dtype))


class PReLU(nn.Module):
    """ReLU with a trained slope below 0 for each map, at first 0.25 (He et al. 2015, sec. 2.1)."""

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
        return jnp.where(x >= 0, x, x * slope.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "prelu": lambda x: PReLU(x.dtype)(x),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "tanh": jnp.tanh,
    "scaled_tanh": scaled_tanh,
    "sigmoid": jax.nn.sigmoid,
    "step": step,
}


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """The value of `name` in `table`. Raises ValueError naming the valid ones."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; valid: {', '.join(table)}")
    return table[name]


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name. Raises ValueError naming the valid ones."""
    return lookup("activation", name, ACTIVATIONS)


class StochasticDepth(nn.Module):
    """Drops a residual branch for whole examples in training, and scales the others so that the mean stays.

    Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth. ECCV 2016, sec. 3; there for whole batches,
    and with the scale in evaluation.
    """

    rate: float
    deterministic: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return nn.Dropout(self.rate, broadcast_dims=tuple(range(1, x.ndim)), deterministic=self.deterministic)(x)


class SqueezeExcite(nn.Module):
    """Weighs each map by what the means of all maps say (Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018).

    Two full connections with biases (sec. 3.2), the inner one of maps / `ratio`.
    """

    dense: Callable[..., nn.Module]  # a network's own: Parts.dense
    ratio: int = 16

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = x.shape[-1]
        gate = self.dense(max(1, maps // self.ratio), name="squeeze")(global_mean(x))
        gate = self.dense(maps, name="excite")(nn.relu(gate))
        return x * nn.sigmoid(gate)[:, None, None, :]


class FullConnection(nn.Module):
    """A full connection to whole maps, which can also slide over larger ones, with the same weights.

    With `window` 0 the maps are flattened: [batch, height, width, maps] -> [batch, features]. Else it is a convolution
    of that size without padding: [batch, height, width, maps] -> [batch, height - window + 1, ..., features]
    (Sermanet et al.: OverFeat. ICLR 2014, sec. 3.5).
    """

    features: int
    window: int = 0
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size = (self.window, self.window) if self.window else x.shape[1:3]
        inputs = math.prod(size) * x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features), jnp.float32).astype(self.dtype)
        bias = self.param("bias", self.bias_init, (self.features,), jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.window:
            return convolve(x, kernel.reshape(*size, x.shape[-1], self.features)) + bias.reshape(1, 1, 1, -1)
        return x.reshape(x.shape[0], -1) @ kernel + bias.reshape(1, -1)
