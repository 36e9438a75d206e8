"""A function of images for each of JAX's primitives that has a counterpart in ONNX."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cnnjax.models import layers

SHAPE = (6, 5, 4)  # of the images

WEIGHTS: Any = np.random.default_rng(0).normal(size=(3, 2, 4, 7)).astype(np.float32)
EVEN = np.arange(6 * 5 * 4).reshape(6, 5, 4) % 2 == 0
FUNCTIONS: dict[str, Callable[[jax.Array], Any]] = {
    "add": lambda x: x + x[:, :1],
    "sub": lambda x: 1 - x,
    "mul": lambda x: x * x.mean((1, 2), keepdims=True),
    "div": lambda x: x / (1 + x[..., :1]),
    "min": lambda x: jnp.minimum(x, x[:, ::-1]),
    "max": lambda x: jnp.maximum(x, 0.5) + jax.nn.relu(x - 0.5),
    "pow": lambda x: x**1.5 + (1 + x) ** x,
    "integer_pow": lambda x: x**2 + x**3,
    "square": lambda x: jnp.square(x),
    "neg": lambda x: -x,
    "abs": lambda x: jnp.abs(x - 0.5),
    "sign": lambda x: jnp.sign(x - 0.5),
    "exp": lambda x: jnp.exp(x),
    "log": lambda x: jnp.log(x + 0.1),
    "sqrt": lambda x: jnp.sqrt(x),
    "rsqrt": lambda x: lax.rsqrt(x + 0.1),
    "tanh": lambda x: jnp.tanh(x),
    "logistic": lambda x: jax.nn.sigmoid(x),
    "erf": lambda x: lax.erf(x),
    "erfc": lambda x: layers.gelu(x - 0.5),
    "expm1": lambda x: jax.nn.elu(x - 0.5),
    "log1p": lambda x: jax.nn.mish(x),
    "floor": lambda x: jnp.floor(3 * x),
    "ceil": lambda x: jnp.ceil(3 * x),
    "sin": lambda x: jnp.sin(x),
    "cos": lambda x: jnp.cos(x),
    "eq": lambda x: jnp.floor(3 * x) == 1,
    "ne": lambda x: jnp.floor(3 * x) != 1,
    "gt": lambda x: x > 0.5,
    "ge": lambda x: x >= 0.5,
    "lt": lambda x: x < x[:, ::-1],
    "le": lambda x: x <= 0.5,
    "and": lambda x: (x > 0.21) & (x < 0.81),
    "or": lambda x: (x > 0.81) | (x < 0.21),
    "not": lambda x: ~(x > 0.81),
    "select_n": lambda x: jnp.where(EVEN, x, 1 - x),
    "clamp": lambda x: lax.clamp(0.2, x, 0.8),
    "convert_element_type": lambda x: (2 * x).astype(jnp.int32),
    "copy": lambda x: lax.copy_p.bind(x),
    "stop_gradient": lambda x: lax.stop_gradient(x),
    "reduce_precision": lambda x: lax.reduce_precision(x, 8, 23),
    "broadcast_in_dim": lambda x: jnp.concatenate([x, jnp.broadcast_to(x.mean((1, 2))[:, None, None], x.shape)], 1),
    "reshape": lambda x: x.reshape(x.shape[0], 3, 2, 5, 4).sum(2),
    "squeeze": lambda x: jnp.squeeze(x[:, :1] * x[:, 1:2], 1),
    "transpose": lambda x: x.transpose(0, 2, 1, 3) * np.arange(6).reshape(1, 1, 6, 1),
    "concatenate": lambda x: jnp.concatenate([x, 2 * x[..., 1:]], -1),
    "scan": lambda x: lax.scan(lambda y, weight: (y * weight, None), x, WEIGHTS[0, 0, :, 0])[0],
    "stack": lambda x: jnp.stack([x.max(1), x.min(1), jnp.mean(x, 1)], 1),
    "split": lambda x: jnp.multiply(*jnp.split(x, 2, axis=1)),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3), (1, 0)), constant_values=0.3),
    "slice": lambda x: lax.slice(x, (0, 1, 0, 2), (x.shape[0], 6, 5, 4), (1, 2, 1, 1)),
    "rev": lambda x: x[:, ::-1, :, ::-1],
    "gather": lambda x: x[:, np.array([[0, 5], [2, 2]])],
    "reduce_sum": lambda x: x.sum((1, 3)) - x.mean((1, 2, 3))[:, None],
    "reduce_max": lambda x: x.max(2),
    "reduce_min": lambda x: x.min((1, 2)),
    "reduce_prod": lambda x: x.prod(3),
    "dot_general": lambda x: jnp.einsum("bhwc,ih,jw->bijc", x, WEIGHTS[:, 0, :1, :6].squeeze(1), WEIGHTS[0, 0, :, :5]),
    "convolution": lambda x: layers.convolve(x, WEIGHTS, (2, 1), ((1, 0), (2, 1)), rhs_dilation=(1, 2)),
    "conv_general_dilated": lambda x: lax.conv(x.transpose(0, 3, 1, 2), WEIGHTS.transpose(3, 2, 0, 1), (1, 2), "SAME"),
    "max_pool": lambda x: layers.max_pool(x, 2, 2, padding="SAME"),
    "sum_pool": lambda x: layers.avg_pool(x, 3, 2, padding="SAME"),
    "reduce_window_max": lambda x: lax.reduce_window(x, -np.inf, lax.max, (1, 2, 3, 1), (1, 2, 1, 1), "SAME"),
    "reduce_window_sum": lambda x: lax.reduce_window(x, 0.0, lax.add, (1, 2, 2, 1), (1, 1, 1, 1), "VALID"),
}


def flat(function: Callable[[jax.Array], Any]) -> Callable[[jax.Array], jax.Array]:
    """The function of uint8 images, as vectors."""
    return lambda images: function(images.astype(jnp.float32) / 255).astype(jnp.float32).reshape(images.shape[0], -1)
