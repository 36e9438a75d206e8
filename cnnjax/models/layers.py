"""Layers that families share: initializers, convolutions, pooling, activations, fully connected.

Images and feature maps are [batch, height, width, channels].
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

from cnnjax.ops import pooling
from cnnjax.ops.convolution import convolution, matmul

Value = TypeVar("Value")

# What a convolution pads with -> the mode of jnp.pad.
PADDING_MODES = {"zeros": "constant", "edge": "edge", "reflect": "reflect"}

# Normal, variance 1 / fan_in: keeps the variance of the activations (LeCun et al. 1998, Efficient BackProp, sec. 4.6).
lecun_normal = nn.initializers.lecun_normal()

# Normal, variance 2 / fan_out: keeps the variance of the gradient through ReLUs (He et al. 2015, eq. 14).
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform(bound: ArrayLike) -> Initializer:
    """Returns an initializer that draws uniformly from [-bound, bound].

    An array `bound` has one bound per index of the last axis.
    """

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * jnp.broadcast_to(jnp.asarray(bound, dtype), shape)

    return init


def output_size(size: int, window: int, stride: int, padding: tuple[int, int], ceil: bool = False) -> int:
    """Returns the output size along one side: (N - F + 2 pad) / stride + 1, rounded down, or up with `ceil`.

    N is `size`, F is `window`, and `padding` is (before, after) in pixels. With `ceil`, a last window that would start
    in the padding after the side is dropped, as in Caffe and PyTorch. Raises ValueError, with the numbers in the
    formula, if the window is larger than the padded side.
    """
    room = size - window + sum(padding)
    if room < 0:
        raise ValueError(
            f"a window of {window} does not fit a side of {size}: (N - F + 2 pad) / stride + 1 = "
            f"({size} - {window} + {sum(padding)}) / {stride} + 1 is less than 1; use larger images"
        )
    count = -(-room // stride) + 1 if ceil else room // stride + 1
    return count - 1 if ceil and (count - 1) * stride >= size + padding[0] else count


def _with_last_window(size: int, window: int, stride: int, padding: tuple[int, int], ceil: bool) -> tuple[int, int]:
    """Returns the padding (before, after) of a side, extended after it so that an incomplete last window fits.

    Without `ceil` it stays as it is. Raises ValueError as `output_size`.
    """
    low, high = padding
    count = output_size(size, window, stride, (low, high), ceil)
    return low, max(high, (count - 1) * stride + window - size - low)


def _same_padding(size: int, window: int, stride: int) -> tuple[int, int]:
    """Returns TensorFlow's 'SAME' padding (before, after) of a side, for ceil(size / stride) outputs."""
    padding = max((-(-size // stride) - 1) * stride + window - size, 0)
    return padding // 2, padding - padding // 2


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int] = (1, 1),
    padding: Any = ((0, 0), (0, 0)),
    *,
    padding_mode: str = "zeros",
    ceil: bool = False,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
) -> jax.Array:
    """Convolves images NHWC with kernels HWIO; the function that every network's convolutions call.

    Pairs are (rows, columns). `padding` is ((top, bottom), (left, right)) in pixels, or 'SAME' as in TensorFlow.
    `padding_mode` 'zeros' pads with zeros, 'edge' repeats the border pixels, 'reflect' mirrors the image at them. With
    `ceil` an incomplete last window is kept, and what it lacks is padded. `rhs_dilation` dilates the kernel; None means
    (1, 1). Raises ValueError if the kernel is larger than the padded images.
    """
    dilation = rhs_dilation or (1, 1)
    windows = [(size - 1) * gap + 1 for size, gap in zip(kernel.shape[:2], dilation, strict=True)]
    sides = list(zip(x.shape[1:3], windows, strides, strict=True))
    if isinstance(padding, str):
        padding = [_same_padding(*side) for side in sides]
    padding = [_with_last_window(*side, pads, ceil) for side, pads in zip(sides, padding, strict=True)]
    if padding_mode != "zeros" and any(map(any, padding)):
        x = jnp.pad(x, ((0, 0), *map(tuple, padding), (0, 0)), mode=PADDING_MODES[padding_mode])
        padding = ((0, 0), (0, 0))
    return convolution(x, kernel, strides, padding, dilation, feature_group_count)


def add_bias(y: jax.Array, bias: jax.Array) -> jax.Array:
    """Adds a float32 `bias` [C] to y [..., C], in the dtype of y.

    Added in bfloat16, the gradient of the bias, a sum over examples and positions, would be rounded after each term.
    """
    return (y + lax.expand_dims(bias, range(y.ndim - 1))).astype(y.dtype)


class Conv(nn.Conv):
    """Convolution of images [N, H, W, C], built by `conv`; its bias is added by `add_bias`.

    It is a flax.linen.Conv for what looks for one. Fields that `conv` does not set are not read.
    """

    kernel_size: Any
    conv_general_dilated: Any = convolve

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, inputs.shape[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = self.conv_general_dilated(
            inputs.astype(self.dtype), kernel.astype(self.dtype), self.strides, self.padding,
            rhs_dilation=self.kernel_dilation, feature_group_count=self.feature_group_count,
        )  # fmt: skip
        return add_bias(y, self.param("bias", self.bias_init, shape[-1:], jnp.float32)) if self.use_bias else y


class Dense(nn.Dense):
    """Fully connected layer: [..., C] -> [..., features]; its bias is added by `add_bias`.

    It is a flax.linen.Dense for what looks for one. The fields `precision`, `promote_dtype` and `dot_general` are not
    read.
    """

    dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: jax.Array) -> jax.Array:
        shape = (inputs.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, jnp.float32)
        y = matmul(inputs.astype(self.dtype), kernel.astype(self.dtype))
        return add_bias(y, self.param("bias", self.bias_init, shape[-1:], jnp.float32)) if self.use_bias else y


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
    ceil: bool = False,
    dtype: DTypeLike = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """Builds the convolution layer of every network: `Conv` over `convolve`.

    `padding` is in pixels on both sides, one number or (rows, columns); None pads by half the kernel. `padding_mode` is
    a key of PADDING_MODES, as in `convolve`. With `ceil` the output size is rounded up: the last window may be
    incomplete. Use padding='SAME' only for networks published in TensorFlow: with a stride it pads one side more than
    the other, so weights from other libraries fit in shape but give wrong numbers.
    """
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    if padding is None:
        padding = (dilation * (size[0] - 1) + 1) // 2, (dilation * (size[1] - 1) + 1) // 2
    elif isinstance(padding, int):
        padding = (padding, padding)
    return Conv(
        features,
        size,
        strides=(stride, stride),
        padding=padding if isinstance(padding, str) else [(pad, pad) for pad in padding],
        kernel_dilation=(dilation, dilation),
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        conv_general_dilated=partial(convolve, padding_mode=padding_mode, ceil=ceil),
        name=name,
    )


def _pool_geometry(x: jax.Array, window: int, stride: int | None, padding: int | str, ceil: bool) -> tuple[int, Any]:
    """Returns the stride (None means `window`) and the padding ((top, bottom), (left, right)) of a pool on x.

    With `ceil` the padding is extended at the bottom and right, so that an incomplete last window fits.
    """
    stride, pads = stride or window, []
    for size in x.shape[1:3]:
        given = _same_padding(size, window, stride) if isinstance(padding, str) else (padding, padding)
        pads.append(_with_last_window(size, window, stride, given, ceil))
    return stride, pads


def max_pool(
    x: jax.Array, window: int, stride: int | None = None, padding: int | str = 0, ceil: bool = False
) -> jax.Array:
    """Applies max pooling over square windows to x [N, H, W, C]; `stride` None means `window`.

    `padding` is in pixels on both sides, or 'SAME' as in TensorFlow. An incomplete last window is dropped, or with
    `ceil` kept, as in Caffe and with PyTorch's ceil_mode.
    """
    stride, pads = _pool_geometry(x, window, stride, padding, ceil)
    return pooling.max_pool(x, window, stride, (pads[0], pads[1]))


def avg_pool(
    x: jax.Array,
    window: int,
    stride: int | None = None,
    padding: int | str = 0,
    ceil: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """Applies average pooling over square windows, with the arguments of `max_pool`.

    With `count_padding` the zeros of an int `padding` count in the mean. Padding that 'SAME' or `ceil` adds never
    counts.
    """
    stride, pads = _pool_geometry(x, window, stride, padding, ceil)
    sums = pooling.sum_pool(x, window, stride, (pads[0], pads[1]))
    border = padding if count_padding and isinstance(padding, int) else 0
    counts = []
    for size, (low, high) in zip(x.shape[1:3], pads, strict=True):
        starts = np.arange(0, size + low + high - window + 1, stride) - low
        counts.append(np.minimum(starts + window, size + border) - np.maximum(starts, -border))
    area = counts[0][:, None] * counts[1][None, :]
    return sums / jnp.asarray(area, x.dtype)[None, :, :, None]


def global_avg_pool(x: jax.Array) -> jax.Array:
    """Averages feature maps over all positions: [batch, height, width, channels] -> [batch, channels]."""
    return jnp.mean(x, axis=(1, 2))


def flatten(x: jax.Array) -> jax.Array:
    """Flattens x [N, ...] row by row, channels last: -> [N, features]. N may be 0, with which -1 would have no size."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def scaled_tanh(x: jax.Array) -> jax.Array:
    """Computes 1.7159 tanh(2x/3), which maps +-1 to +-1 (LeCun et al. 1998, App. A)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


def step(x: jax.Array) -> jax.Array:
    """Returns 1 where x > 0, else 0: the perceptron's activation (Rosenblatt 1958). Its gradient is 0 everywhere."""
    return jnp.heaviside(x, jnp.zeros((), x.dtype))


@jax.jit  # keeps its name in a jaxpr, as jax.nn.relu does: backward rules know activations by their names
def gelu(x: jax.Array) -> jax.Array:
    """Computes x * Phi(x), where Phi is the standard normal distribution function (Hendrycks, Gimpel 2016, sec. 2)."""
    return jax.nn.gelu(x, approximate=False)


@jax.jit
def prelu(x: jax.Array, slope: jax.Array) -> jax.Array:
    """Returns x where it is >= 0, else slope * x. `slope` broadcasts against x (He et al. 2015, eq. 1)."""
    return jnp.where(x >= 0, x, (x * slope).astype(x.dtype))


class PReLU(nn.Module):
    """ReLU with a learned slope per channel for negative values, initially 0.25 (He et al. 2015, sec. 2.1)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        slope = self.param("slope", nn.initializers.constant(0.25), x.shape[-1:], jnp.float32)
        return prelu(x, lax.expand_dims(slope, range(x.ndim - 1)))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "relu6": jax.nn.relu6,
    "leaky_relu": jax.nn.leaky_relu,
    "prelu": lambda x: PReLU()(x),
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "gelu": gelu,
    "tanh": jnp.tanh,
    "scaled_tanh": scaled_tanh,
    "sigmoid": jax.nn.sigmoid,
    "step": step,
}


class UnknownValueError(ValueError):
    """Raised for a value that is not among the `valid` ones; `kind` is a noun for the message, such as 'activation'."""

    def __init__(self, kind: str, value: object, valid: Iterable[object]) -> None:
        self.kind, self.value, self.valid = kind, value, [*map(str, valid)]
        super().__init__(f"unknown {kind} {value!r}; valid: {', '.join(self.valid)}")


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """Returns `table[name]`. Raises UnknownValueError, with `kind`, if it has no such name."""
    if name not in table:
        raise UnknownValueError(kind, name, table)
    return table[name]


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """Returns the activation function of this name in ACTIVATIONS. Raises ValueError that lists the valid names."""
    return lookup("activation", name, ACTIVATIONS)


class FullyConnected(nn.Module):
    """Fully connected layer on feature maps, which can also slide over larger feature maps with the same weights.

    With `window` 0 it flattens: [batch, height, width, channels] -> [batch, features]. Otherwise it is a convolution
    with a window x window kernel and no padding: -> [batch, height - window + 1, width - window + 1, features]
    (Sermanet et al.: OverFeat. ICLR 2014, sec. 3.5). The kernel is stored flat: [height * width * channels, features].
    """

    features: int
    window: int = 0
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, x = (self.window, self.window) if self.window else x.shape[1:3], x.astype(self.dtype)
        inputs = math.prod(size) * x.shape[-1]
        kernel = self.param("kernel", self.kernel_init, (inputs, self.features), jnp.float32).astype(self.dtype)
        y = convolve(x, kernel.reshape(*size, x.shape[-1], -1)) if self.window else matmul(flatten(x), kernel)
        if not self.use_bias:
            return y
        return add_bias(y, self.param("bias", self.bias_init, (self.features,), jnp.float32))
