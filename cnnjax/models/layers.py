"""What families share: the convolution, pooling, activations, initialisers, and the row of a VARIANTS table."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import ArrayLike, DTypeLike

Value = TypeVar("Value")


class Variant(NamedTuple):
    """A network under its published name, as a row of data."""

    build: Callable[..., nn.Module]  # the module's class, with the fields that make this network filled in
    input_shape: tuple[int, int, int]  # height, width, channels: the paper's
    params: int  # the published number of trainable parameters, at num_classes
    num_classes: int
    paper: str
    year: int


# Normal, with variance 1 / inputs: keeps that of the signal (LeCun et al. 1998, Efficient BackProp, sec. 4.6).
lecun_normal = nn.initializers.lecun_normal()

# Normal, with variance 2 / (kernel area * outputs): keeps that of the gradient through ReLUs (He et al. 2015, eq. 14).
he_normal = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


def uniform(bound: ArrayLike) -> Initializer:
    """Uniform in +-bound; an array holds a bound for each index of the parameter's last axis."""

    def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32, out_sharding: Any = None) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -1.0, 1.0) * jnp.broadcast_to(jnp.asarray(bound, dtype), shape)

    return init


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: tuple[int, int] = (1, 1),
    padding: Any = ((0, 0), (0, 0)),
    **options: Any,
) -> jax.Array:
    """The convolution under every network: images NHWC, kernels HWIO. A faster one for some device goes here."""
    options.setdefault("dimension_numbers", ("NHWC", "HWIO", "NHWC"))
    return jax.lax.conv_general_dilated(x, kernel, strides, padding, **options)


def conv(
    features: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int | None = None,
    groups: int = 1,
    *,
    use_bias: bool = True,
    kernel_init: Initializer = lecun_normal,
    bias_init: Initializer = nn.initializers.zeros,
    dtype: DTypeLike = jnp.float32,
    name: str | None = None,
) -> nn.Conv:
    """The convolution layer of every network.

    Both sides are padded by `padding` pixels, by default by half the kernel. Never 'SAME': with a stride it pads one
    side more than the other, which gives the right shapes and the wrong numbers.
    """
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    return nn.Conv(
        features,
        size,
        strides=(stride, stride),
        padding=[(side // 2, side // 2) if padding is None else (padding, padding) for side in size],
        feature_group_count=groups,
        use_bias=use_bias,
        kernel_init=kernel_init,
        bias_init=bias_init,
        dtype=dtype,
        conv_general_dilated=convolve,
        name=name,
    )


def _sides(padding: int) -> Any:
    return ((padding, padding), (padding, padding))


def max_pool(x: jax.Array, window: int, stride: int | None = None, padding: int = 0) -> jax.Array:
    """The largest of each window; `stride` is `window` unless given. A last, incomplete window is dropped."""
    return nn.max_pool(x, (window, window), (stride or window,) * 2, _sides(padding))


def avg_pool(x: jax.Array, window: int, stride: int | None = None, padding: int = 0) -> jax.Array:
    """The mean of each window, as `max_pool`; the padding's zeros count."""
    return nn.avg_pool(x, (window, window), (stride or window,) * 2, _sides(padding))


def global_mean(x: jax.Array) -> jax.Array:
    """The mean of each map: [batch, height, width, maps] -> [batch, maps]."""
    return jnp.mean(x, axis=(1, 2))


def scaled_tanh(x: jax.Array) -> jax.Array:
    """1.7159 tanh(2x/3), which maps +-1 to +-1 (LeCun et al. 1998, App. A)."""
    return 1.7159 * jnp.tanh(x * (2 / 3))


ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": jax.nn.relu,
    "leaky_relu": jax.nn.leaky_relu,
    "elu": jax.nn.elu,
    "selu": jax.nn.selu,
    "swish": jax.nn.silu,
    "mish": jax.nn.mish,
    "tanh": jnp.tanh,
    "scaled_tanh": scaled_tanh,
    "sigmoid": jax.nn.sigmoid,
}


def lookup(kind: str, name: str, table: Mapping[str, Value]) -> Value:
    """The value of `name` in `table`. Raises ValueError naming the valid ones."""
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; valid: {', '.join(table)}")
    return table[name]


def activation(name: str) -> Callable[[jax.Array], jax.Array]:
    """The function of that name. Raises ValueError naming the valid ones."""
    return lookup("activation", name, ACTIVATIONS)


def check_rate(rate: float) -> None:
    """Raises ValueError when `rate` is no dropout rate."""
    if not 0 <= rate < 1:
        raise ValueError(f"dropout = {rate!r}: expected at least 0 and less than 1")
