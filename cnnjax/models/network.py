"""The base class of the networks: shared fields with their ranges, classifier heads, and rows of VARIANTS tables."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.blocks import Layers, identity
from cnnjax.models.layers import (
    ACTIVATIONS,
    FullyConnected,
    activation,
    conv,
    global_avg_pool,
    he_normal,
    lecun_normal,
    lookup,
)
from cnnjax.models.normalization import BatchNorm, local_response_norm


@dataclasses.dataclass(frozen=True)
class Variant:
    """A published network: a row of a family's VARIANTS table, under its published name."""

    network: Callable[..., nn.Module]
    paper: str  # citation, which ends with the year
    input_shape: tuple[int, int, int]  # the paper's height, width, channels
    num_classes: int  # the paper's
    fields: Mapping[str, Any]  # of `network`, where they differ from its defaults
    params: int  # trainable parameters, with num_classes
    macs: int  # multiply-accumulates of convolutions and fully connected layers, for one image of input_shape
    published: str = ""  # the paper's result, with data and protocol; never a result of ours

    @property
    def build(self) -> Callable[..., nn.Module]:
        """The constructor of this network; keyword arguments override `fields`."""
        return partial(self.network, **self.fields)

    @property
    def year(self) -> int:
        """The year of the paper; 0 without one."""
        year = self.paper[-4:]
        return int(year) if year.isdecimal() else 0


def field(
    default: Any,
    *,
    minimum: float | None = None,
    above: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
    length: int | None = None,
    choices: Iterable[Any] = (),
) -> Any:
    """Declares a field of a Network: its default, and the values that the constructor accepts.

    Ranges of a sequence hold for each of its numbers; it may be empty only if its default is. `length` is its exact
    length. A subclass that gives a field another default keeps the range, unless it declares one.
    """
    ranges = {"at least": minimum, "more than": above, "less than": below, "at most": maximum}
    limits = {"ranges": ranges, "length": length, "choices": tuple(choices), "optional": default == ()}
    return dataclasses.field(default=default, metadata={"limits": limits})


def limits(network: type[nn.Module], name: str) -> Mapping[str, Any]:
    """Returns what `field` declared of a field of a network, in its class or else in a base; {} if nothing."""
    for cls in network.__mro__:
        declared = vars(cls).get("__dataclass_fields__", {}).get(name)
        if declared is not None and "limits" in declared.metadata:
            return declared.metadata["limits"]
    return {}


def _check_field(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raises ValueError, with the expected values, if `value` is outside of the limits of the field `name`."""
    if limits["choices"]:
        lookup(name, value, dict.fromkeys(limits["choices"]))
        return
    if limits["length"] is not None and len(value) != limits["length"]:
        raise ValueError(f"{name} = {value!r}: expected {limits['length']} values")
    several = isinstance(value, Sequence)
    numbers = value if several else (value,)
    fits = {
        "at least": lambda number, limit: number >= limit,
        "more than": lambda number, limit: number > limit,
        "less than": lambda number, limit: number < limit,
        "at most": lambda number, limit: number <= limit,
    }
    ranges = {words: limit for words, limit in limits["ranges"].items() if limit is not None}
    inside = all(fits[words](number, limit) for words, limit in ranges.items() for number in numbers)
    if not inside or not (numbers or limits["optional"]):
        expected = " and ".join(f"{words} {limit}" for words, limit in ranges.items())
        raise ValueError(f"{name} = {value!r}: expected {expected}{' for each' * several}")


def _both(initializer: Initializer) -> tuple[Initializer, Initializer]:
    return initializer, initializer


# Initializers of the kernels of convolutions and of fully connected layers, from the field initializer_std.
INITIALIZERS: dict[str, Callable[[float], tuple[Initializer, Initializer]]] = {
    "gaussian": lambda std: _both(nn.initializers.normal(std)),
    "truncated": lambda std: _both(nn.initializers.truncated_normal(std)),
    "xavier": lambda std: _both(nn.initializers.glorot_uniform()),  # Glorot, Bengio 2010, eq. 16
    "he": lambda std: (he_normal, lecun_normal),  # by fan-out, a classifier with few classes would start too large
    "lecun": lambda std: _both(lecun_normal),
    "torch": lambda std: _both(nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")),  # +-1 / sqrt(fan_in)
}

NORMS = ("batch", "group", "none")
NORMS_WITH_LRN = (*NORMS, "lrn")  # of the networks whose papers have local response normalization

HEADS = {
    "gap": "global average pooling, then a fully connected layer",
    "fc": "fully connected layers on the flattened feature maps, for one image size",
    "conv": "the weights of 'fc' (or of 'gap', where the paper has that) at every position: spatial logits",
}


class Network(nn.Module):
    """The fields shared by all networks. A family overrides the defaults with its paper's.

    They are the arguments of call strings: `vgg16(norm="group", head="conv")`. Raises ValueError for a value outside of
    its range.
    """

    num_classes: int = field(1000, above=0)
    dropout: float = field(0.0, minimum=0, below=1)  # rate before fully connected layers, in training
    activation: str = field("relu", choices=ACTIVATIONS)
    norm: str = field("batch", choices=NORMS)
    norm_epsilon: float = field(1e-5, above=0)
    norm_momentum: float = field(0.9, minimum=0, below=1)  # fraction of the running statistics kept at each step
    norm_scale: bool = True  # False: no learned scale (gamma), as in TensorFlow's Inceptions
    ghost_batch_size: int = field(0, minimum=0)  # images normalized together by norm='batch'; 0: the whole batch
    padding_mode: str = field("zeros", choices=("zeros", "edge"))
    initializer: str = field("he", choices=INITIALIZERS)
    initializer_std: float = field(0.01, above=0)  # of 'gaussian' and 'truncated'
    head: str = field("gap", choices=HEADS)
    features_only: bool = False  # True: return {name: feature maps [batch, height, width, channels]}, not logits
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if declared := limits(type(self), name):
                _check_field(name, getattr(self, name), declared)
        if self.ghost_batch_size and self.norm != "batch":
            raise ValueError(f"ghost_batch_size = {self.ghost_batch_size!r}: expected 0, or norm='batch'")
        super().__post_init__()

    @nn.nowrap
    def layers(self, train: bool) -> Layers:
        """Returns the layer constructors that the fields describe."""
        conv_init, dense_init = INITIALIZERS[self.initializer](self.initializer_std)
        return Layers(
            conv=partial(
                conv,
                use_bias=self.norm not in ("batch", "group"),
                kernel_init=conv_init,
                padding_mode=self.padding_mode,
                dtype=self.dtype,
            ),
            dense=partial(nn.Dense, kernel_init=dense_init, dtype=self.dtype),
            norm=self._norm(train),
            lrn=local_response_norm if self.norm == "lrn" else identity,
            act=activation(self.activation),
            dropout=lambda x: nn.Dropout(self.dropout, deterministic=not train)(x),
            train=train,
        )

    @nn.nowrap
    def _norm(self, train: bool) -> Callable[..., Callable[[jax.Array], jax.Array]]:
        options = {"epsilon": self.norm_epsilon, "use_scale": self.norm_scale, "dtype": self.dtype}
        if self.norm == "batch":
            options |= {"momentum": self.norm_momentum, "ghost_batch_size": self.ghost_batch_size}
            return partial(BatchNorm, use_running_average=not train, **options)
        if self.norm == "group":  # Wu, He: Group Normalization. ECCV 2018, sec. 3: 32 groups
            return lambda **own: lambda x: nn.GroupNorm(math.gcd(32, x.shape[-1]), **options, **own)(x)
        return lambda **own: identity

    @nn.nowrap
    def fc_head(
        self,
        x: jax.Array,
        layers: Layers,
        window: int,
        features: Sequence[int] = (4096, 4096),
        bias_init: Initializer = nn.initializers.zeros,
        first: int = 6,
    ) -> jax.Array:
        """Returns the logits by fully connected layers of these sizes, as in AlexNet and VGG; head='gap' has only one.

        `window` is the side of the last feature maps for the paper's image size, which head='conv' slides over larger
        ones. The layers are named from f'fc{first}' on.
        """
        if self.head == "gap":
            return self.linear_head(x, layers)
        _, init = INITIALIZERS[self.initializer](self.initializer_std)
        for i, size in enumerate(features, start=first):
            if i == first:
                slide = window if self.head == "conv" else 0
                hidden = FullyConnected(size, slide, init, bias_init, self.dtype, name=f"fc{i}")
            else:
                hidden = layers.dense(size, bias_init=bias_init, name=f"fc{i}")
            x = layers.dropout(layers.act(hidden(x)))
        return layers.dense(self.num_classes, name=f"fc{first + len(features)}")(x).astype(jnp.float32)

    @nn.nowrap
    def linear_head(self, x: jax.Array, layers: Layers, name: str = "head") -> jax.Array:
        """Returns the float32 logits of feature maps: `pool_or_flatten`, dropout and one fully connected layer."""
        return layers.dense(self.num_classes, name=name)(layers.dropout(self.pool_or_flatten(x))).astype(jnp.float32)

    @nn.nowrap
    def pool_or_flatten(self, x: jax.Array) -> jax.Array:
        """Prepares feature maps for fully connected layers: head='gap' pools, 'fc' flattens, 'conv' keeps them."""
        if self.head == "gap":
            return global_avg_pool(x)
        return x.reshape(x.shape[0], -1) if self.head == "fc" else x

    @nn.nowrap
    def conv_head(self, scores: jax.Array, layers: Layers, name: str = "head") -> jax.Array:
        """Returns the float32 logits where the last convolution has one channel per class.

        head='gap' averages them (Lin et al., Network In Network, sec. 3.2), 'conv' keeps them spatial, 'fc' adds a
        fully connected layer.
        """
        if self.head == "fc":
            return self.linear_head(scores, layers, name)
        scores = scores.astype(jnp.float32)
        return global_avg_pool(scores) if self.head == "gap" else scores
