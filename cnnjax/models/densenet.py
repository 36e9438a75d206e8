"""Densely connected networks: every layer sees the maps of all layers before it in its block.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017, sec. 3, Table 1 (ImageNet)
and Table 2 (CIFAR).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Parts, Variant


class Layer(nn.Module):
    """Normalisation, activation, 3x3 convolution to `growth_rate` new maps; a bottleneck has the same in 1x1 before."""

    parts: Parts
    growth_rate: int
    bottleneck: bool

    @nn.compact
    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        parts = self.parts
        # Joined here, so that with remat the copies are not kept: memory grows as the layers, not as their square.
        x = parts.act(parts.norm(name="norm1")(jnp.concatenate(maps, axis=-1)))
        if self.bottleneck:
            x = parts.dropout(parts.conv(4 * self.growth_rate, 1, name="conv1")(x))
            x = parts.act(parts.norm(name="norm2")(x))
        name = "conv2" if self.bottleneck else "conv1"
        return parts.dropout(parts.conv(self.growth_rate, 3, name=name)(x))


class Transition(nn.Module):
    """Between two blocks: a 1x1 convolution, to fewer maps with compression, and a pool that halves their sides."""

    parts: Parts
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.parts.act(self.parts.norm(name="norm")(x))
        return avg_pool(self.parts.dropout(self.parts.conv(self.features, 1, name="conv")(x)), 2)


class DenseNet(Network):
    """A convolution, and a pool; blocks of layers with transitions between them; the classifier.

    `dropout` is after each convolution but the first, where the paper has it (sec. 4.2: 0.2 when there is no
    augmentation); the classifier has none.
    """

    stage_sizes: tuple[int, ...] = (6, 12, 24, 16)  # layers of each block
    growth_rate: int = 32
    features: int = 64  # maps of the first convolution: twice the growth rate, or 16 without bottlenecks
    bottleneck: bool = True  # layers have a 1x1 convolution to 4 * growth_rate maps before the 3x3 one (DenseNet-B)
    compression: float = 0.5  # what a transition leaves of the maps (DenseNet-C)
    small_images: bool = False  # a bare 3x3 convolution without stride, and no pool: the paper's for CIFAR
    # Compute the layers' maps again for the gradient, instead of keeping them. On a CPU XLA does it too early to gain.
    remat: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.compression <= 1:
            raise ValueError(f"compression = {self.compression!r}: expected more than 0 and at most 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        make = nn.remat(Layer) if self.remat else Layer
        if self.small_images:
            x = parts.conv(self.features, 3, name="conv0")(x)
        else:
            x = parts.act(parts.norm(name="norm0")(parts.conv(self.features, 7, 2, name="conv0")(x)))
            x = max_pool(x, 3, 2, 1)
        ends["stem"] = x
        for block, size in enumerate(self.stage_sizes, start=1):
            if block > 1:
                features = max(1, int(x.shape[-1] * self.compression))
                x = ends[f"trans{block - 1}"] = Transition(parts, features, name=f"trans{block - 1}")(x)
            maps = [x]
            for i in range(1, size + 1):
                maps.append(make(parts, self.growth_rate, self.bottleneck, name=f"block{block}_layer{i}")(maps))
            x = ends[f"block{block}"] = jnp.concatenate(maps, axis=-1)
        x = ends["last"] = parts.act(parts.norm(name="last_norm")(x))
        if self.features_only:
            return ends
        return self.classify(x, parts._replace(dropout=lambda x: x))


_PAPER = ("Huang et al., Densely Connected Convolutional Networks, CVPR 2017", 2017)
_IMAGENET = "ILSVRC-2012 val error {} % top-1/top-5, 1 crop; {} %, 10 crops"
_CIFAR = "CIFAR-10 test error {} %, CIFAR-100 {} %, with crops and flips"


def _cifar(layers: int, growth_rate: int, bottleneck: bool = True) -> dict[str, Any]:
    return {
        "num_classes": 10,
        "stage_sizes": (layers,) * 3,
        "growth_rate": growth_rate,
        "features": 2 * growth_rate if bottleneck else 16,
        "bottleneck": bottleneck,
        "compression": 0.5 if bottleneck else 1.0,
        "small_images": True,
    }


# Name: fields, parameters, multiplications, what the paper reports.
_ROWS: dict[str, tuple[dict[str, Any], int, int, str]] = {
    "densenet121": ({}, 7_978_856, 2_834_161_664, _IMAGENET.format("25.02 / 7.71", "23.61 / 6.66")),
    "densenet169": (
        {"stage_sizes": (6, 12, 32, 32)}, 14_149_480, 3_359_843_328, _IMAGENET.format("23.80 / 6.85", "22.08 / 5.92"),
    ),
    "densenet201": (
        {"stage_sizes": (6, 12, 48, 32)}, 20_013_928, 4_291_365_888, _IMAGENET.format("22.58 / 6.34", "21.46 / 5.54"),
    ),
    "densenet161": (
        {"stage_sizes": (6, 12, 36, 24), "growth_rate": 48, "features": 96}, 28_681_000, 7_727_907_072,
        _IMAGENET.format("22.33 / 6.15", "20.85 / 5.30"),
    ),
    "densenet40_12": (_cifar(12, 12, bottleneck=False), 1_019_722, 264_812_928, _CIFAR.format("5.24", "24.42")),
    "densenet_bc100_12": (_cifar(16, 12), 769_162, 287_929_692, _CIFAR.format("4.51", "22.27")),
    "densenet_bc190_40": (_cifar(31, 40), 25_624_430, 9_301_945_740, _CIFAR.format("3.46", "17.18")),
}  # fmt: skip

VARIANTS: dict[str, Variant] = {
    name: Variant(
        partial(DenseNet, **fields),
        (32, 32, 3) if fields.get("small_images") else (224, 224, 3),
        params,
        macs,
        fields.get("num_classes", 1000),
        *_PAPER,
        published,
    )
    for name, (fields, params, macs, published) in _ROWS.items()
}
