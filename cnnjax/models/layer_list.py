"""Lists of layers as text, 'conv(32, 5)|relu|max_pool(2)|gap|dense': the layers by name, and the parser of the list.

Layers have the names and defaults of Keras and PyTorch; where these differ, the docstring of the layer says which it
follows. Feature maps are [batch, height, width, channels].
"""

import dataclasses
import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax import spec
from cnnjax.errors import unknown
from cnnjax.models import layers
from cnnjax.models.layers import ACTIVATIONS, FullyConnected
from cnnjax.models.normalization import BatchNorm, local_response_norm


@dataclasses.dataclass(frozen=True)
class Context:
    """Holds what a network passes to a layer: the layer's name, such as 'conv2', and the network's own fields.

    `kernel_init` is the initializer of the kernel of a convolution or a fully connected layer.
    """

    name: str
    train: bool
    kernel_init: Initializer
    padding_mode: str
    ghost_batch_size: int
    dtype: DTypeLike


PADDINGS: dict[str, int | str] = {"valid": 0, "same": "SAME"}

# ------------------------------------------------------------------------ layers: (input, context, arguments) -> output


def conv(
    x: jax.Array,
    context: Context,
    channels: int,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] | str = "valid",
    groups: int = 1,
    dilation: int = 1,
    bias: bool = True,
) -> jax.Array:
    """Convolution with `channels` outputs. `padding` is 'valid' (none), 'same' (ceil(size / stride) outputs) or pixels.

    As in Keras and PyTorch, there is no padding and there is a bias unless the call says otherwise.
    """
    if x.shape[-1] % groups or channels % groups:
        raise ValueError(f"groups = {groups}: expected a divisor of the {x.shape[-1]} inputs and {channels} outputs")
    pixels = PADDINGS[padding] if isinstance(padding, str) else padding
    return layers.conv(
        channels, kernel, stride, pixels, groups, dilation=dilation, use_bias=bias, name=context.name,
        kernel_init=context.kernel_init, padding_mode=context.padding_mode, dtype=context.dtype,
    )(x)  # fmt: skip


def depthwise_conv(
    x: jax.Array,
    context: Context,
    kernel: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] | str = "valid",
    multiplier: int = 1,
    dilation: int = 1,
    bias: bool = True,
) -> jax.Array:
    """Convolution of each channel by itself, with `multiplier` outputs per channel; the rest is as in `conv`."""
    inputs = x.shape[-1]
    return conv(x, context, inputs * multiplier, kernel, stride, padding, inputs, dilation, bias)


def max_pool(
    x: jax.Array,
    context: Context,
    size: int = 2,
    stride: int | None = None,
    padding: int | str = "valid",
    ceil: bool = False,
) -> jax.Array:
    """Max pooling over windows of size x size; `stride` None means `size`.

    An incomplete last window is dropped, or with `ceil` kept, as Caffe does and PyTorch with ceil_mode=True.
    """
    return layers.max_pool(x, size, stride, _pool_padding(size, padding), ceil)


def avg_pool(
    x: jax.Array,
    context: Context,
    size: int = 2,
    stride: int | None = None,
    padding: int | str = "valid",
    ceil: bool = False,
    count_padding: bool = True,
) -> jax.Array:
    """Average pooling, with the arguments of `max_pool`.

    The zeros of a padding in pixels count in the mean, as in PyTorch, unless `count_padding` is False; those of 'same'
    do not, as in Keras.
    """
    return layers.avg_pool(x, size, stride, _pool_padding(size, padding), ceil, count_padding)


def _pool_padding(size: int, padding: int | str) -> int | str:
    """Returns the padding as `layers.max_pool` takes it. Raises ValueError for a window that may lie entirely in it."""
    if isinstance(padding, str):
        return PADDINGS[padding]
    if padding > size // 2:
        raise ValueError(f"padding = {padding}: expected at most half the window, {size // 2}")
    return padding


def gap(x: jax.Array, context: Context) -> jax.Array:
    """Global average pooling: [batch, height, width, channels] -> [batch, channels]."""
    return layers.global_avg_pool(x)


def flatten(x: jax.Array, context: Context) -> jax.Array:
    """Flattens feature maps row by row, channels last, as Keras does: -> [batch, height * width * channels]."""
    return layers.flatten(x)


def dense(x: jax.Array, context: Context, features: int = 0, bias: bool = True) -> jax.Array:
    """Fully connected layer, which flattens feature maps; `features` 0, for the last one, is the number of classes."""
    options = {"kernel_init": context.kernel_init, "dtype": context.dtype, "use_bias": bias, "name": context.name}
    return (FullyConnected if x.ndim == 4 else layers.Dense)(features, **options)(x)


def dropout(x: jax.Array, context: Context, rate: float = 0.5) -> jax.Array:
    """Dropout with the probability `rate`, active in training only."""
    return nn.Dropout(rate, deterministic=not context.train, name=context.name)(x)


def batch_norm(
    x: jax.Array, context: Context, momentum: float = 0.9, epsilon: float = 1e-5, scale: bool = True
) -> jax.Array:
    """Batch normalization per channel; `momentum` is the fraction of the running statistics that each step keeps.

    The defaults are PyTorch's, whose momentum of 0.1 is 1 - 0.9.
    """
    options = {"ghost_batch_size": context.ghost_batch_size, "dtype": context.dtype, "name": context.name}
    return BatchNorm(not context.train, momentum, epsilon, scale, **options)(x)


def group_norm(x: jax.Array, context: Context, groups: int = 32, epsilon: float = 1e-5) -> jax.Array:
    """Group normalization: each image by itself, over `groups` groups of channels."""
    if x.shape[-1] % groups:
        raise ValueError(f"groups = {groups}: expected a divisor of the {x.shape[-1]} channels")
    return nn.GroupNorm(groups, epsilon=epsilon, dtype=context.dtype, name=context.name)(x)


def lrn(
    x: jax.Array, context: Context, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Local response normalization over `size` neighboring channels, as in Caffe and PyTorch: alpha is divided by size.

    AlexNet's paper does not divide, and has k = 2: lrn(5, 5e-4, 0.75, 2.0).
    """
    window = min(size, 2 * x.shape[-1] + 1)  # a wider one holds all channels, too
    return local_response_norm(x, window, alpha / size, beta, k)


def prelu(x: jax.Array, context: Context) -> jax.Array:
    """ReLU with a learned slope per channel for negative values, initially 0.25."""
    return layers.PReLU(name=context.name)(x)


def leaky_relu(x: jax.Array, context: Context, slope: float = 0.01) -> jax.Array:
    """ReLU with a constant slope for negative values; PyTorch's default is 0.01, Keras' is 0.3."""
    return jax.nn.leaky_relu(x, slope)


def _activation(function: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array, Context], jax.Array]:
    """Returns an activation function as a layer without arguments."""
    return lambda x, context: function(x)


ON_MAPS: dict[str, Callable[..., jax.Array]] = {  # they need feature maps
    "conv": conv, "depthwise_conv": depthwise_conv, "max_pool": max_pool, "avg_pool": avg_pool, "lrn": lrn, "gap": gap,
}  # fmt: skip
ANYWHERE: dict[str, Callable[..., jax.Array]] = {  # they take feature maps and vectors, and keep the shape
    **{name: _activation(function) for name, function in ACTIVATIONS.items()},
    "leaky_relu": leaky_relu, "prelu": prelu, "dropout": dropout, "batch_norm": batch_norm, "group_norm": group_norm,
}  # fmt: skip
LAYERS: dict[str, Callable[..., jax.Array]] = {**ON_MAPS, "flatten": flatten, "dense": dense, **ANYWHERE}

OUTPUTS = {"conv": "channels", "dense": "features"}  # the argument that sets the number of outputs

# What other libraries call our layers, in lower case without underscores, for the error about an unknown layer.
SYNONYMS = {
    "conv2d": "conv", "convolution": "conv", "depthwiseconv2d": "depthwise_conv", "depthwise": "depthwise_conv",
    "maxpool2d": "max_pool", "maxpooling2d": "max_pool", "maxpool": "max_pool", "maxpooling": "max_pool",
    "pool": "max_pool", "avgpool2d": "avg_pool", "averagepooling2d": "avg_pool", "averagepool": "avg_pool",
    "meanpool": "avg_pool", "globalaveragepooling2d": "gap", "globalavgpool": "gap", "globalaveragepool": "gap",
    "adaptiveavgpool2d": "gap", "linear": "dense", "fc": "dense", "fullyconnected": "dense", "drop": "dropout",
    "bn": "batch_norm", "batchnormalization": "batch_norm", "batchnorm2d": "batch_norm", "norm": "batch_norm",
    "gn": "group_norm", "groupnormalization": "group_norm", "localresponsenorm": "lrn", "silu": "swish",
    "logistic": "sigmoid", "lrelu": "leaky_relu",
}  # fmt: skip

LARGEST = 10**9  # of all arguments

# Ranges of the arguments, each with the words for it: at least the first number, less than the second.
RANGES: dict[str, tuple[float, float, str]] = {
    **dict.fromkeys(
        ("channels", "kernel", "stride", "groups", "dilation", "multiplier", "size"), (1, math.inf, "at least 1")
    ),
    **dict.fromkeys(("features", "padding", "alpha"), (0, math.inf, "at least 0")),
    **dict.fromkeys(("rate", "momentum"), (0, 1, "at least 0 and less than 1")),
    "epsilon": (1e-30, math.inf, "more than 0"),
}


# ------------------------------------------------------------------------------------------------------------- the list


@dataclasses.dataclass(frozen=True)
class Step:
    """A layer of the list.

    Attributes:
      number: position in the list, counted from 1.
      text: call string, as it is in the list.
      kind: key of LAYERS.
      name: name in the network: the kind, and its count among the layers of this kind.
      apply: the function of the layer with its arguments, which takes `x` and `context` by name.
    """

    number: int
    text: str
    kind: str
    name: str
    apply: functools.partial[jax.Array]

    @property
    def outputs(self) -> int:
        """Returns the number of channels or features that a conv or dense layer was given; 0 if it has none."""
        return self.apply.keywords.get(OUTPUTS.get(self.kind, ""), 0)

    def error(self, message: object) -> ValueError:
        """Returns an error that names this layer."""
        return ValueError(f"layer {self.number}, {self.text!r}: {message}")


@functools.lru_cache
def parse_layers(text: str) -> tuple[Step, ...]:
    """Parses a list of layers, joined by '|', and checks all that does not depend on the images and classes.

    Raises ValueError that names the layer, its position and what was expected.
    """
    counts: Counter[str] = Counter()
    steps = []
    for number, part in enumerate(map(str.strip, text.split("|")), start=1):
        try:
            call = _parse_layer(part)
            counts[call.name] += 1
            apply = spec.find("layer", call, LAYERS, x=None, context=None)
            _check_ranges(apply.keywords)
        except ValueError as error:
            message = re.sub(r"^layer '\w+':? ", "", str(error))
            raise ValueError(f"layer {number}, {part!r}: {message}") from error
        steps.append(Step(number, part, call.name, f"{call.name}{counts[call.name]}", apply))
    _check_order(steps)
    return tuple(steps)


def _parse_layer(text: str) -> spec.Call:
    """Parses the call string of a layer. Raises ValueError for an unknown layer, with our name for it."""
    if not text:
        raise ValueError("expected a layer, as in 'conv(32, 3)|relu|gap|dense'")
    call = spec.parse(text)
    if "softmax" in call.name.lower():
        raise ValueError("the loss applies softmax to the logits by itself; end with 'dense'")
    if call.name not in LAYERS:
        plain = call.name.lower().replace("_", "")
        same = SYNONYMS.get(plain) or next((name for name in LAYERS if name.replace("_", "") == plain), "")
        raise ValueError(f"unknown layer; it is called {same!r} here" if same else unknown("layer", call.name, LAYERS))
    return call


def _check_ranges(arguments: Mapping[str, Any]) -> None:
    """Raises ValueError for an argument of a layer outside of RANGES, or an unknown word for a padding."""
    for name, value in arguments.items():
        if isinstance(value, str) and value not in PADDINGS:
            raise ValueError(f"{name} = {value!r}: expected 'valid', 'same' or a number of pixels")
        if isinstance(value, str | None):
            continue
        numbers = value if isinstance(value, tuple) else (value,)
        if any(abs(number) > LARGEST for number in numbers):
            raise ValueError(f"{name} = {value!r}: expected at most {LARGEST:,}")
        if name in RANGES:
            low, high, expected = RANGES[name]
            if not all(low <= number < high for number in numbers):
                raise ValueError(f"{name} = {value!r}: expected {expected}")


def _check_order(steps: Sequence[Step]) -> None:
    """Raises ValueError unless the layers fit each other: feature maps where they are needed, and logits at the end."""
    flattened = None  # the layer from which on there are no feature maps
    for step in steps:
        if step.kind in ON_MAPS and flattened:
            raise step.error(f"needs feature maps, but layer {flattened.number}, {flattened.text!r}, gives a vector")
        if step.kind in ("gap", "flatten", "dense"):
            flattened = step
    last = classifier(steps)
    if last is None or not flattened:
        raise steps[-1].error("is the last layer; expected 'dense' after it, or 'gap' after a convolution, for logits")
    for step in steps:
        if step.kind == "dense" and not step.outputs and step is not last:
            raise step.error("expected the number of features, as in dense(100); only the last one may omit it")


def classifier(steps: Sequence[Step]) -> Step | None:
    """Returns the last convolution or fully connected layer, whose outputs are the classes; None if there is none."""
    return next((step for step in reversed(steps) if step.kind in OUTPUTS), None)
