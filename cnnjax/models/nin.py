"""Network in Network: small perceptrons slide over the maps, and the mean of its last map is the score of a class.

Lin, Chen, Yan: Network In Network. ICLR 2014 (arXiv:1312.4400), sec. 3.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax
from flax import linen as nn

from cnnjax.models.layers import avg_pool, lookup, max_pool
from cnnjax.models.network import ConvNormAct, Network, Variant

POOLS: dict[str, Callable[..., jax.Array]] = {"max": max_pool, "average": avg_pool}


class MLPConv(NamedTuple):
    """A convolution and two of 1x1: a perceptron with two hidden layers at each position (sec. 3.1)."""

    features: tuple[int, ...]  # of the three; the last of a network ends in num_classes instead of a third
    kernel: int
    stride: int = 1
    padding: int | None = None
    dropout: bool = True  # before it


# Sec. 4.1 gives the plan, the authors' cuda-convnet files the numbers.
CIFAR = (MLPConv((192, 160, 96), 5, dropout=False), MLPConv((192, 192, 192), 5), MLPConv((192, 192), 3))
# The authors' network for Caffe.
IMAGENET = (
    MLPConv((96, 96, 96), 11, stride=4, padding=0, dropout=False),
    MLPConv((256, 256, 256), 5, dropout=False),
    MLPConv((384, 384, 384), 3, dropout=False),
    MLPConv((1024, 1024), 3),
)


class NIN(Network):
    """Network in Network; head 'fc' is the full connection to the last maps that sec. 4.6 compares with their means."""

    num_classes: int = 10
    dropout: float = 0.5
    norm: str = "none"
    initializer: str = "gaussian"
    initializer_std: float = 0.05
    stages: Sequence[MLPConv] = CIFAR
    last_pool: str = "max"  # the last of those between stages; 'average' in the authors' CIFAR network for Caffe

    def __post_init__(self) -> None:
        lookup("last_pool", self.last_pool, POOLS)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        for i, (features, kernel, stride, padding, dropout) in enumerate(self.stages, start=1):
            last = i == len(self.stages)
            if i > 1:
                x = ends[f"pool{i - 1}"] = POOLS[self.last_pool if last else "max"](x, 3, 2, ceil=True)
            x = parts.dropout(x) if dropout else x
            x = ends[f"conv{i}"] = ConvNormAct(parts, features[0], kernel, stride, padding, name=f"conv{i}")(x)
            for j, size in enumerate(features[1:], start=2 * i - 1):
                x = ends[f"cccp{j}"] = ConvNormAct(parts, size, name=f"cccp{j}")(x)
        # Scores are without normalisation.
        name = f"cccp{2 * len(self.stages)}"
        x = ends[name] = parts.act(parts.conv(self.num_classes, 1, use_bias=True, name=name)(x))
        return ends if self.features_only else self.classify_maps(x, parts)


_PAPER = ("Lin et al., Network In Network, ICLR 2014", 2014)
_RESULTS = {
    10: "CIFAR-10 test error 10.41 %; 8.81 % with translated and mirrored training images",
    100: "CIFAR-100 test error 35.68 %",
    1000: "ILSVRC-2012 val accuracy 59.36 % top-1 (the authors' Caffe release)",
}

VARIANTS: dict[str, Variant] = {
    "nin_cifar10": Variant(NIN, (32, 32, 3), 966_986, 222_486_528, 10, *_PAPER, _RESULTS[10]),
    "nin_cifar100": Variant(NIN, (32, 32, 3), 984_356, 223_592_448, 100, *_PAPER, _RESULTS[100]),
    "nin_imagenet": Variant(
        partial(NIN, stages=IMAGENET), (224, 224, 3), 7_595_176, 1_100_188_800, 1000, *_PAPER, _RESULTS[1000]
    ),
}
