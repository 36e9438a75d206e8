"""Building blocks that families share: layer constructors, convolution blocks, Inception modules, residual helpers."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import SqueezeExcite, StochasticDepth, avg_pool, global_avg_pool


class Layers(NamedTuple):
    """Layer constructors configured by the network's fields (norm, activation, dtype, ...), passed to its blocks."""

    conv: Callable[..., nn.Module]  # `cnnjax.models.layers.conv`; without bias where a norm with a bias follows
    dense: Callable[..., nn.Module]  # (features, name=...), on vectors or at every position of feature maps
    norm: Callable[..., Callable[[jax.Array], jax.Array]]  # (name=..., scale_init=...); identity for 'none' and 'lrn'
    lrn: Callable[[jax.Array], jax.Array]  # identity unless norm='lrn'
    act: Callable[[jax.Array], jax.Array]
    dropout: Callable[[jax.Array], jax.Array]  # with the network's `dropout`
    train: bool


def identity(x: jax.Array) -> jax.Array:
    """Returns x."""
    return x


def remat_if(enabled: bool, block: type[nn.Module]) -> Callable[..., nn.Module]:
    """Returns the module class with rematerialization if enabled: activations are recomputed in the backward pass."""
    return nn.remat(block) if enabled else block


def drop_rates(last_rate: float, blocks: int) -> list[float]:
    """Returns each block's stochastic-depth rate: linear in its depth, up to `last_rate` (Huang et al. 2016, eq. 4)."""
    return [last_rate * i / blocks for i in range(1, blocks + 1)]


def drop_path(x: jax.Array, layers: Layers, rate: float) -> jax.Array:
    """Applies stochastic depth to a residual branch, as the submodule 'drop' of the calling module."""
    return StochasticDepth(rate, not layers.train, name="drop")(x)


def squeeze_excite(x: jax.Array, layers: Layers, ratio: int) -> jax.Array:
    """Applies squeeze-and-excitation, as the submodule 'se' of the calling module; ratio 0 returns x."""
    return SqueezeExcite(layers.dense, ratio, name="se")(x) if ratio else x


def scan_blocks(block: nn.Module, count: int, x: jax.Array) -> jax.Array:
    """Applies `count` copies of a block that keeps the shape of x, in sequence, as one loop (nn.scan).

    XLA compiles the block once; its parameters and statistics get a leading axis of length `count`.
    """
    loop = nn.scan(
        lambda block, x, _: (block(x), None),
        variable_axes={"params": 0, "batch_stats": 0},
        split_rngs={"params": True, "dropout": True},
        length=count,
    )
    return loop(block, x, None)[0]


class ConvNormAct(nn.Module):
    """Convolution, normalization and activation: most layers of most networks."""

    layers: Layers
    features: int
    kernel: int | tuple[int, int] = 1
    stride: int = 1
    padding: int | tuple[int, int] | str | None = None
    groups: int = 1
    act: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        conv = self.layers.conv(self.features, self.kernel, self.stride, self.padding, self.groups, name="conv")
        x = self.layers.norm(name="norm")(conv(x))
        return self.layers.act(x) if self.act else x


class Branches(nn.Module):
    """An Inception module: parallel branches whose outputs are concatenated (Szegedy et al. 2015, sec. 4).

    A branch is a tuple of steps. A step is the arguments of a ConvNormAct, as in (96, 3), or "pool", or a tuple of
    branches in turn.
    """

    layers: Layers
    branches: tuple[Any, ...]
    pool: Callable[[jax.Array], jax.Array] = identity
    se: int = 0  # reduction ratio of squeeze-and-excitation on the output; 0: none

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        outputs = []
        for i, steps in enumerate(self.branches, start=1):
            y = x
            for j, step in enumerate(steps, start=1):
                name = f"branch{i}_{j}"
                if step == "pool":
                    y = self.pool(y)
                elif isinstance(step[0], int):
                    y = ConvNormAct(self.layers, *step, name=name)(y)
                else:
                    y = Branches(self.layers, step, self.pool, name=name)(y)
            outputs.append(y)
        return squeeze_excite(jnp.concatenate(outputs, axis=-1), self.layers, self.se)


class AuxHead(nn.Module):
    """The auxiliary classifier of Inception-v3, -v4 and -ResNet-v2 (Szegedy et al. 2016, sec. 4, Fig. 8).

    Its 5x5 kernel shrinks with feature maps smaller than that, as in TF-Slim: the parameters fit one image size.
    """

    layers: Layers
    num_classes: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = ConvNormAct(self.layers, 128, name="conv1")(avg_pool(x, 5, 3))
        kernel = min(5, x.shape[1]), min(5, x.shape[2])
        x = ConvNormAct(self.layers, 768, kernel, 1, 0, name="conv2")(x)
        return self.layers.dense(self.num_classes, name="head")(global_avg_pool(x))


def sow_aux_logits(module: nn.Module, logits: Callable[[], jax.Array], train: bool) -> None:
    """Adds the logits of an auxiliary classifier to the collection 'aux_logits', in training and if it is mutable.

    `logits` applies the classifier. It is also called at initialization, to create the parameters.
    """
    if module.is_initializing():
        logits()
    elif train:
        module.sow("aux_logits", "logits", logits().astype(jnp.float32))
