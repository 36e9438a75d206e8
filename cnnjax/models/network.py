"""What every network is: its fields, the layers they make, its classifier, and its row in a VARIANTS table."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.nn.initializers import Initializer
from jax.typing import DTypeLike

from cnnjax.models.layers import (
    ACTIVATIONS,
    BatchNorm,
    FullConnection,
    SqueezeExcite,
    activation,
    avg_pool,
    conv,
    global_mean,
    he_normal,
    lecun_normal,
    local_response_norm,
    lookup,
)


class Variant(NamedTuple):
    """A network under its published name, as a row of data."""

    build: Callable[..., nn.Module]  # the module's class, with the fields that make this network filled in
    input_shape: tuple[int, int, int]  # height, width, channels: the paper's
    params: int  # trainable ones, at num_classes
    macs: int  # multiplications of convolutions and full connections, for one image
    num_classes: int
    paper: str
    year: int
    published: str = ""  # the paper's result, with its data and protocol: never a number of ours


def _both(initializer: Initializer) -> tuple[Initializer, Initializer]:
    return initializer, initializer


# What kernels of convolutions and of full connections start from; `std` is the network's initializer_std.
INITIALIZERS: dict[str, Callable[[float], tuple[Initializer, Initializer]]] = {
    "gaussian": lambda std: _both(nn.initializers.normal(std)),
    "truncated": lambda std: _both(nn.initializers.truncated_normal(std)),
    "xavier": lambda std: _both(nn.initializers.glorot_uniform()),  # Glorot, Bengio 2010, eq. 16
    "he": lambda std: (he_normal, lecun_normal),  # of a classifier's few outputs the fan-out says nothing
    "lecun": lambda std: _both(lecun_normal),
    "torch": lambda std: _both(nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")),  # +-1 / sqrt(inputs)
}

NORMS = ("batch", "group", "none", "lrn")  # 'lrn' where the paper has it alone
PADDINGS = ("zeros", "edge")

HEADS = {
    "gap": "the mean of each map, then a full connection",
    "fc": "full connections to whole maps: their size is that of the images",
    "conv": "the weights of 'fc', or of 'gap' where the paper has that, at every position: a map of scores",
}


class Parts(NamedTuple):
    """The layers of a network, as its fields and the mode make them; handed down to its blocks."""

    conv: Callable[..., nn.Module]  # as the function above; without biases where a normalisation has its own
    dense: Callable[..., nn.Module]  # (features, name=...), of vectors or at every position of maps
    norm: Callable[..., Callable[[jax.Array], jax.Array]]  # (name=..., scale_init=...); the identity for others
    lrn: Callable[[jax.Array], jax.Array]  # the identity but for 'lrn'
    act: Callable[[jax.Array], jax.Array]
    dropout: Callable[[jax.Array], jax.Array]
    train: bool


class Network(nn.Module):
    """The fields of every network; a family sets its paper's defaults, and the values that it has no use for.

    Fields are settings of call strings: `vgg16(norm="group", head="conv")`.
    """

    num_classes: int = 1000
    dropout: float = 0.0
    activation: str = "relu"
    norm: str = "batch"
    norm_epsilon: float = 1e-5
    norm_momentum: float = 0.9  # of the running statistics: what stays of the old ones at each step
    norm_scale: bool = True  # False: without the trained scale (gamma), as in TensorFlow's Inceptions
    ghost: int = 0  # images whose statistics norm="batch" takes together; 0: those of the whole batch
    padding_mode: str = "zeros"
    initializer: str = "he"
    initializer_std: float = 0.01  # of 'gaussian' and 'truncated'
    head: str = "gap"
    features_only: bool = False  # True: the named maps {name: [batch, height, width, maps]} instead of logits
    dtype: DTypeLike = jnp.float32

    activations: ClassVar[Sequence[str]] = tuple(ACTIVATIONS)
    norms: ClassVar[Sequence[str]] = NORMS[:3]
    heads: ClassVar[Sequence[str]] = tuple(HEADS)
    padding_modes: ClassVar[Sequence[str]] = PADDINGS

    def __post_init__(self) -> None:
        choices = {
            "activation": self.activations,
            "norm": self.norms,
            "padding_mode": self.padding_modes,
            "initializer": INITIALIZERS,
            "head": self.heads,
        }
        for kind, valid in choices.items():
            lookup(kind, getattr(self, kind), dict.fromkeys(valid))
        # Fields that only some families have are checked here, too.
        for name in ("dropout", "norm_momentum", "aux_dropout", "stochastic_depth"):
            if not 0 <= (rate := getattr(self, name, 0.0)) < 1:
                raise ValueError(f"{name} = {rate!r}: expected at least 0 and less than 1")
        for name in ("num_classes", "norm_epsilon", "initializer_std", "features", "width", "groups", "growth_rate"):
            if isinstance(size := getattr(self, name, 1), int | float) and size <= 0:
                raise ValueError(f"{name} = {size!r}: expected more than 0")
        if self.ghost < 0 or (self.ghost and self.norm != "batch"):
            raise ValueError(f"ghost = {self.ghost!r}: expected the images in a group of norm='batch', or 0 for all")
        if min(stages := getattr(self, "stage_sizes", (1,)), default=0) < 1:
            raise ValueError(f"stage_sizes = {stages!r}: expected at least 1 in each stage")
        if (ratio := getattr(self, "se", 0)) < 0:
            raise ValueError(f"se = {ratio!r}: expected the ratio of squeeze-and-excitation, or 0 for none")
        super().__post_init__()

    @nn.nowrap
    def parts(self, train: bool) -> Parts:
        """The layers that the fields describe."""
        conv_init, dense_init = INITIALIZERS[self.initializer](self.initializer_std)
        return Parts(
            conv=partial(
                conv,
                use_bias=self.norm not in ("batch", "group"),
                kernel_init=conv_init,
                padding_mode=self.padding_mode,
                dtype=self.dtype,
            ),
            dense=partial(nn.Dense, kernel_init=dense_init, dtype=self.dtype),
            norm=self._norm(train),
            lrn=local_response_norm if self.norm == "lrn" else _identity,
            act=activation(self.activation),
            dropout=lambda x: nn.Dropout(self.dropout, deterministic=not train)(x),
            train=train,
        )

    @nn.nowrap
    def _norm(self, train: bool) -> Callable[..., Callable[[jax.Array], jax.Array]]:
        options = {"epsilon": self.norm_epsilon, "use_scale": self.norm_scale, "dtype": self.dtype}
        if self.norm == "batch":
            options |= {"momentum": self.norm_momentum, "ghost": self.ghost}
            return partial(BatchNorm, use_running_average=not train, **options)
        if self.norm == "group":  # Wu, He: Group Normalization. ECCV 2018, sec. 3: 32 groups
            return lambda **own: lambda x: nn.GroupNorm(math.gcd(32, x.shape[-1]), **options, **own)(x)
        return lambda **own: _identity

    @nn.nowrap
    def classify_fc(
        self,
        x: jax.Array,
        parts: Parts,
        window: int,
        features: Sequence[int] = (4096, 4096),
        bias_init: Initializer = nn.initializers.zeros,
        first: int = 6,
    ) -> jax.Array:
        """The logits by several full connections, as AlexNet and its heirs have them, in the form of `head`.

        `window` is the side of the last maps that the paper has; layers are named fc6, fc7 and fc8, from `first` on.
        """
        if self.head == "gap":
            return self.classify(x, parts)
        _, init = INITIALIZERS[self.initializer](self.initializer_std)
        for i, size in enumerate(features, start=first):
            if i == first:
                slide = window if self.head == "conv" else 0
                full = FullConnection(size, slide, init, bias_init, self.dtype, name=f"fc{i}")
            else:
                full = parts.dense(size, bias_init=bias_init, name=f"fc{i}")
            x = parts.dropout(parts.act(full(x)))
        return parts.dense(self.num_classes, name=f"fc{first + len(features)}")(x).astype(jnp.float32)

    @nn.nowrap
    def classify(self, x: jax.Array, parts: Parts, name: str = "head") -> jax.Array:
        """The logits of the last maps by the one full connection of networks without others, in the form of `head`."""
        return parts.dense(self.num_classes, name=name)(parts.dropout(self.gather(x))).astype(jnp.float32)

    @nn.nowrap
    def gather(self, x: jax.Array) -> jax.Array:
        """What full connections get of maps, as `head` says: means, the maps flattened, or the maps themselves."""
        if self.head == "gap":
            return global_mean(x)
        return x.reshape(x.shape[0], -1) if self.head == "fc" else x

    @nn.nowrap
    def classify_maps(self, scores: jax.Array, parts: Parts, name: str = "head") -> jax.Array:
        """The logits where the last convolution already made a map of scores for each class, in the form of `head`.

        'gap' has their means (Lin et al., Network In Network, sec. 3.2), 'conv' themselves, 'fc' a full connection.
        """
        if self.head == "fc":
            return self.classify(scores, parts, name)
        scores = scores.astype(jnp.float32)
        return global_mean(scores) if self.head == "gap" else scores


class ConvNormAct(nn.Module):
    """A convolution, its normalisation and the activation: most layers of most networks."""

    parts: Parts
    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] | str | None = None
    groups: int = 1
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.parts.conv(self.features, self.kernel, self.stride, self.padding, self.groups, name="conv")
        x = self.parts.norm(name="norm")(conv(x))
        return self.parts.act(x) if self.act else x


def _identity(x: jax.Array) -> jax.Array:
    return x


def repeated(block: nn.Module, count: int, x: jax.Array) -> jax.Array:
    """What `count` blocks like this one, which keep the shape of maps, make of x, one after the other.

    They are a loop, so that XLA compiles one of them; their parameters have a leading axis [count].
    """
    loop = nn.scan(
        lambda block, x, _: (block(x), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=count,
    )
    return loop(block, x, None)[0]


class Branches(nn.Module):
    """Layers side by side on the same maps, their maps joined: an Inception module (Szegedy et al. 2015, sec. 4).

    A branch is a tuple of steps. A step is what a ConvNormAct takes, as in (96, 3), or "pool", or branches in turn.
    """

    parts: Parts
    branches: tuple[Any, ...]
    pool: Callable[[jax.Array], jax.Array] = _identity
    se: int = 0  # the ratio of squeeze-and-excitation of the joined maps; 0: none

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outs = []
        for i, steps in enumerate(self.branches, start=1):
            y = x
            for j, step in enumerate(steps, start=1):
                name = f"branch{i}_{j}"
                if step == "pool":
                    y = self.pool(y)
                elif isinstance(step[0], int):
                    y = ConvNormAct(self.parts, *step, name=name)(y)
                else:
                    y = Branches(self.parts, step, self.pool, name=name)(y)
            outs.append(y)
        x = jnp.concatenate(outs, axis=-1)
        return SqueezeExcite(self.parts.dense, self.se, name="se")(x) if self.se else x


class AuxHead(nn.Module):
    """The auxiliary classifier of Inception-v3 and its heirs (Szegedy et al. 2016, sec. 4, Fig. 8).

    Maps that are too small for its 5x5 kernels get smaller ones, as in TF-Slim: its parameters are for one image size.
    """

    parts: Parts
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ConvNormAct(self.parts, 128, name="conv1")(avg_pool(x, 5, 3))
        kernel = min(5, x.shape[1]), min(5, x.shape[2])
        x = ConvNormAct(self.parts, 768, kernel, 1, 0, name="conv2")(x)
        return self.parts.dense(self.num_classes, name="head")(global_mean(x))


def auxiliary(module: nn.Module, logits: Callable[[], jax.Array], train: bool) -> None:
    """Makes an auxiliary classifier part of a network: its logits are for the loss of training alone.

    They are in the collection 'aux_logits' when that is mutable, and its parameters are made at initialisation.
    """
    if module.is_initializing():
        logits()
    elif train:
        module.sow("aux_logits", "logits", logits().astype(jnp.float32))
