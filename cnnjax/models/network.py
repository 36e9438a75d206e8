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
    PADDING_MODES,
    Dense,
    FullyConnected,
    activation,
    conv,
    flatten,
    global_avg_pool,
    he_normal,
    lecun_normal,
    lookup,
)
from cnnjax.models.normalization import BatchNorm, local_response_norm


@dataclasses.dataclass(frozen=True)
class Variant:
    """A published network: a row of a family's VARIANTS table, under its published name.

    Attributes:
      network: the family's class, or a function that builds a module from keyword arguments.
      paper: citation; ends with the year. Without a paper, a few words or ''.
      input_shape: height, width and channels of the paper's images.
      num_classes: number of classes in the paper; 0 if the arguments of `network` set it.
      fields: arguments of `network` that differ from its defaults.
      params: number of trainable parameters, with num_classes.
      macs: multiply-accumulates of convolutions and fully connected layers, for one image of input_shape.
      published: the paper's result, with data and protocol; never a result of ours. '' if there is none.
    """

    network: Callable[..., nn.Module]
    paper: str
    input_shape: tuple[int, int, int]
    num_classes: int
    fields: Mapping[str, Any]
    params: int
    macs: int
    published: str = ""

    @property
    def build(self) -> Callable[..., nn.Module]:
        """Returns the constructor of this network; keyword arguments override `fields`."""
        return partial(self.network, **self.fields)

    @property
    def year(self) -> int:
        """Returns the year at the end of `paper`; 0 if there is none."""
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

    Limits of None are not checked. `minimum` and `maximum` are included in the range, `above` and `below` are not. For
    a sequence, the range holds for each of its numbers, `length` is its exact length, and it may be empty only if its
    default is. With `choices`, only these values are valid. A subclass that gives a field another default keeps the
    limits, unless it uses `field` again.
    """
    ranges = {"at least": minimum, "more than": above, "less than": below, "at most": maximum}
    limits = {"ranges": ranges, "length": length, "choices": tuple(choices), "optional": default == ()}
    return dataclasses.field(default=default, metadata={"limits": limits})


def limits(network: type[nn.Module], name: str) -> Mapping[str, Any]:
    """Returns the limits that `field` declared for a field of a network: 'ranges', 'length', 'choices', 'optional'.

    The class itself comes first, then its bases; {} if none of them declares limits.
    """
    for cls in network.__mro__:
        declared = vars(cls).get("__dataclass_fields__", {}).get(name)
        if declared is not None and "limits" in declared.metadata:
            return declared.metadata["limits"]
    return {}


def _check_field(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    """Raises ValueError, which states what is expected, if `value` is outside of the field's `limits`."""
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


def check_fields(network: nn.Module) -> None:
    """Raises ValueError, which states what is expected, for a field of a network outside of the limits of `field`."""
    for name in network.__dataclass_fields__:
        if declared := limits(type(network), name):
            _check_field(name, getattr(network, name), declared)


def _as_tuple(value: Any) -> Any:
    """Returns a list as a tuple, and the lists in it, too."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _both(initializer: Initializer) -> tuple[Initializer, Initializer]:
    """Returns the initializer twice: for convolutions and for fully connected layers."""
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
    """Base class of the networks, with the fields that all share. A family overrides the defaults with its paper's.

    The call `network(images [N, H, W, C], train=...)` returns float32 logits: [N, num_classes], or [N, rows, columns,
    num_classes] with head="conv". The fields are the arguments of call strings: `vgg16(norm="group", head="conv")`. The
    constructor raises ValueError for a value outside of its range.

    Attributes:
      num_classes: number of logits.
      dropout: dropout probability before fully connected layers.
      activation: a key of ACTIVATIONS: 'relu', 'prelu', 'gelu', ...
      norm: 'batch', 'group' (up to 32 groups) or 'none'; some families also have 'lrn', local response normalization.
      norm_epsilon: number added to the variance.
      norm_momentum: fraction of the running statistics kept at each step.
      norm_scale: has a learned scale (gamma); False as in TensorFlow's Inceptions.
      ghost_batch_size: images that norm='batch' normalizes together; 0 is the whole batch.
      padding_mode: what convolutions pad with: 'zeros', 'edge' (copies of the border pixels) or 'reflect' (mirrored).
      initializer: initializer of the kernels, a key of INITIALIZERS: 'he', 'xavier', 'gaussian', ...
      initializer_std: standard deviation of 'gaussian' and 'truncated'.
      head: 'gap' for global average pooling and a fully connected layer, 'fc' for fully connected layers on the
          flattened feature maps, 'conv' for the same weights at every position, which gives spatial logits.
      features_only: returns {name: feature maps [batch, height, width, channels]} instead of logits.
      dtype: dtype of the computation; parameters are float32.
    """

    num_classes: int = field(1000, above=0)
    dropout: float = field(0.0, minimum=0, below=1)
    activation: str = field("relu", choices=ACTIVATIONS)
    norm: str = field("batch", choices=NORMS)
    norm_epsilon: float = field(1e-5, above=0)
    norm_momentum: float = field(0.9, minimum=0, below=1)
    norm_scale: bool = True
    ghost_batch_size: int = field(0, minimum=0)
    padding_mode: str = field("zeros", choices=PADDING_MODES)
    initializer: str = field("he", choices=INITIALIZERS)
    initializer_std: float = field(0.01, above=0)
    head: str = field("gap", choices=HEADS)
    features_only: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:  # Flax hashes the fields
            if isinstance(value := getattr(self, name, None), list):
                object.__setattr__(self, name, _as_tuple(value))
        check_fields(self)
        if self.ghost_batch_size and self.norm != "batch":
            raise ValueError(f"ghost_batch_size = {self.ghost_batch_size!r}: expected 0, or norm='batch'")
        super().__post_init__()

    @nn.nowrap
    def layers(self, train: bool) -> Layers:
        """Returns the layer constructors that the fields describe, for training or (`train` False) for evaluation."""
        conv_init, dense_init = INITIALIZERS[self.initializer](self.initializer_std)
        norm, act = self._norm(train), activation(self.activation)

        def norm_act(**own: Any) -> Callable[[jax.Array], jax.Array]:
            """Returns the normalization layer, followed by the activation function."""
            if self.norm == "batch" and self.activation == "relu":
                return norm(relu=True, **own)
            return lambda x: act(norm(**own)(x))

        return Layers(
            conv=partial(
                conv,
                use_bias=self.norm not in ("batch", "group"),
                kernel_init=conv_init,
                padding_mode=self.padding_mode,
                dtype=self.dtype,
            ),
            dense=partial(Dense, kernel_init=dense_init, dtype=self.dtype),
            norm=norm,
            norm_act=norm_act,
            lrn=local_response_norm if self.norm == "lrn" else identity,
            act=act,
            dropout=lambda x: nn.Dropout(self.dropout, deterministic=not train)(x),
            train=train,
        )

    @nn.nowrap
    def _norm(self, train: bool) -> Callable[..., Callable[[jax.Array], jax.Array]]:
        """Returns the constructor norm(name=..., scale_init=...) of the normalization layers: see `Layers.norm`."""
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
        """Computes float32 logits from the last feature maps by fully connected layers, as AlexNet and VGG.

        head='fc' has the hidden layers `features`, head='gap' none. head='conv' has them too, applies the first as a
        convolution with a window x window kernel, and returns spatial logits.

        Args:
          x: feature maps [N, H, W, C].
          layers: the network's layer constructors.
          window: side of x at the paper's image size; used by head='conv' only.
          features: sizes of the hidden layers.
          bias_init: initializer of the hidden layers' biases.
          first: number of the first layer; the layers are named f'fc{first}', f'fc{first + 1}', ...
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
        """Computes the float32 logits of feature maps x: `pool_or_flatten`, dropout and one fully connected layer."""
        return layers.dense(self.num_classes, name=name)(layers.dropout(self.pool_or_flatten(x))).astype(jnp.float32)

    @nn.nowrap
    def pool_or_flatten(self, x: jax.Array) -> jax.Array:
        """Prepares feature maps x [N, H, W, C] for fully connected layers.

        head='gap' averages them to [N, C], 'fc' flattens them to [N, H * W * C], 'conv' returns x.
        """
        if self.head == "gap":
            return global_avg_pool(x)
        return flatten(x) if self.head == "fc" else x

    @nn.nowrap
    def conv_head(self, scores: jax.Array, layers: Layers, name: str = "head") -> jax.Array:
        """Computes the float32 logits from `scores` [N, H, W, num_classes], the last convolution's output.

        head='gap' averages them (Lin et al., Network In Network, sec. 3.2), 'conv' returns them as spatial logits, 'fc'
        adds a fully connected layer named `name`.
        """
        if self.head == "fc":
            return self.linear_head(scores, layers, name)
        scores = scores.astype(jnp.float32)
        return global_avg_pool(scores) if self.head == "gap" else scores
