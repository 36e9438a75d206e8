"""Network in Network: 1x1 convolutions after each convolution, and global average pooling of one channel per class.

Lin, Chen, Yan: Network In Network. ICLR 2014 (arXiv:1312.4400), sec. 3.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct
from cnnjax.models.layers import avg_pool, max_pool
from cnnjax.models.network import Network, Variant, field

POOLS: dict[str, Callable[..., jax.Array]] = {"max": max_pool, "average": avg_pool}


class MLPConv(NamedTuple):
    """Shape of an mlpconv layer: a spatial convolution, then 1x1 convolutions (sec. 3.1).

    Attributes:
      features: channels of the spatial and of the 1x1 convolutions. In the network's last layer one more 1x1
          convolution follows, to num_classes channels.
      kernel: kernel of the spatial convolution.
      stride: stride of the spatial convolution.
      padding: padding of the spatial convolution in pixels; None means half the kernel.
      dropout: applies the network's dropout before the layer.
    """

    features: tuple[int, ...]
    kernel: int
    stride: int = 1
    padding: int | None = None
    dropout: bool = True


# The structure is from sec. 4.1, the numbers are from the authors' cuda-convnet files.
CIFAR = (MLPConv((192, 160, 96), 5, dropout=False), MLPConv((192, 192, 192), 5), MLPConv((192, 192), 3))
# The authors' network for Caffe.
IMAGENET = (
    MLPConv((96, 96, 96), 11, stride=4, padding=0, dropout=False),
    MLPConv((256, 256, 256), 5, dropout=False),
    MLPConv((384, 384, 384), 3, dropout=False),
    MLPConv((1024, 1024), 3),
)


EXPECTED = "(features, kernel) for each, as in (((192, 160, 96), 5), ((192, 192), 3)), of integers above 0"


def _mlpconv(fields: Sequence[Any]) -> MLPConv:
    """Returns an mlpconv layer from its fields: in a call string, it is a plain tuple. Raises ValueError if wrong."""
    try:
        shape = MLPConv(*fields)
        shape = shape._replace(features=tuple(shape.features))
        sizes = len(shape.features), *shape.features, shape.kernel, shape.stride
        if all(isinstance(size, int) and size > 0 for size in sizes):
            return shape
    except TypeError:  # not so many fields, or no sequence
        pass
    raise ValueError(f"stages has {fields!r}: expected {EXPECTED}")


class NIN(Network):
    """Network in Network: mlpconv layers with pools between them, the last with one channel per class.

    head='gap' averages the class channels. head='fc' flattens them and adds a fully connected layer (sec. 4.6).

    Attributes:
      stages: shapes of the mlpconv layers.
      last_pool: pool before the last mlpconv layer, 'max' or 'average' (the authors' Caffe network for CIFAR).
    """

    num_classes: int = 10
    dropout: float = 0.5
    norm: str = "none"
    initializer: str = "gaussian"
    initializer_std: float = 0.05
    stages: Sequence[MLPConv] = CIFAR
    last_pool: str = field("max", choices=POOLS)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ValueError(f"stages = {self.stages!r}: expected {EXPECTED}")
        object.__setattr__(self, "stages", tuple(map(_mlpconv, self.stages)))
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        for i, stage in enumerate(self.stages, start=1):
            last = i == len(self.stages)
            if i > 1:
                x = features[f"pool{i - 1}"] = POOLS[self.last_pool if last else "max"](x, 3, 2, ceil=True)
            x = layers.dropout(x) if stage.dropout else x
            first = stage.features[0], stage.kernel, stage.stride, stage.padding
            x = features[f"conv{i}"] = ConvNormAct(layers, *first, name=f"conv{i}")(x)
            for j, size in enumerate(stage.features[1:], start=2 * i - 1):
                x = features[f"cccp{j}"] = ConvNormAct(layers, size, name=f"cccp{j}")(x)
        # The class scores are not normalized.
        name = f"cccp{2 * len(self.stages)}"
        x = features[name] = layers.act(layers.conv(self.num_classes, 1, use_bias=True, name=name)(x))
        return features if self.features_only else self.conv_head(x, layers)


_PAPER = "Lin et al., Network In Network, ICLR 2014"
_ERROR_10 = "CIFAR-10 test error 10.41 %; 8.81 % with translated and mirrored training images"
_ERROR_100 = "CIFAR-100 test error 35.68 %"
_ACCURACY = "ILSVRC-2012 val accuracy 59.36 % top-1 (the authors' Caffe release)"

VARIANTS: dict[str, Variant] = {
    "nin_cifar10": Variant(NIN, _PAPER, (32, 32, 3), 10, {}, 966_986, 222_486_528, _ERROR_10),
    "nin_cifar100": Variant(NIN, _PAPER, (32, 32, 3), 100, {}, 984_356, 223_592_448, _ERROR_100),
    "nin_imagenet": Variant(
        NIN, _PAPER, (224, 224, 3), 1000, {"stages": IMAGENET}, 7_595_176, 1_100_188_800, _ACCURACY
    ),
}
