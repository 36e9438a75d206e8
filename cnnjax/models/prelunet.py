"""PReLU-nets A, B and C, and the 14-layer network of the paper's first experiments.

He, Zhang, Ren, Sun: Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification. ICCV
2015 (arXiv 1502.01852), Tables 1 (the small one) and 3. The layers below were written down from memory of those tables
and are NOT verified: no independent implementation is known. A and B have the paper's complexity (1.90e10 and 2.32e10);
C has 5.35e10 (remembered: 5.30e10). The paddings of the small one give the table's feature map sizes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.blocks import ConvNormAct, remat_if
from cnnjax.models.layers import flatten, max_pool
from cnnjax.models.network import Network, Variant, field


def pyramid_pool(x: jax.Array, levels: Sequence[int]) -> jax.Array:
    """Max-pools n x n bins for each n in `levels`: [batch, height, width, channels] -> [batch, bins * channels].

    `bins` is the sum of n * n. Along a side, bin i ranges from floor(i / n * side) to ceil((i + 1) / n * side), so the
    bins cover feature maps of any size (He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks.
    TPAMI 2015, App. A).
    """

    def pool(x: jax.Array, bins: int) -> jax.Array:
        """Max-pools [N, H, W, C] over bins x bins bins: -> [N, bins * bins * C]."""
        for axis in (1, 2):
            side = x.shape[axis]
            ranges = [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
            x = jnp.stack([jax.lax.slice_in_dim(x, *span, axis=axis).max(axis) for span in ranges], axis)
        return flatten(x)

    return jnp.concatenate([pool(x, bins) for bins in levels], axis=-1)


class PReLUNet(Network):
    """PReLU-net: a 7x7 convolution, stages of equal convolutions, pyramid pooling, three fully connected layers.

    Every convolution and hidden layer has one PReLU slope per channel (sec. 2.1), initialized to 0.25; do not decay the
    slopes. Kernels are initialized for ReLU (eq. 14); for these slopes the deviation would be 3 % smaller.
    head="fc" accepts images of any size, because the pyramid has a fixed number of bins. head="conv" is not supported.

    Attributes:
      stage_sizes: convolutions of each stage.
      features: channels of conv1, then of each stage.
      kernel: kernel of the stages' convolutions; with 2 the sides alternate between n - 1 and n pixels.
      pool: window and stride of the pool after conv1; later pools have 2.
      levels: bins per side of each level of the pyramid.
      small_images: for 32x32; conv1 is 3x3 with stride 1 and no pool follows it.
      remat: recomputes the activations inside the layers in the backward pass, to save memory.
    """

    dropout: float = 0.5
    activation: str = "prelu"
    norm: str = "none"
    head: str = field("fc", choices=("fc", "gap"))
    stage_sizes: Sequence[int] = field((5, 5, 5), minimum=1)
    features: Sequence[int] = field((96, 256, 512, 512), minimum=1)
    kernel: int = field(3, choices=(2, 3))
    pool: int = field(2, minimum=1)
    levels: Sequence[int] = field((7, 3, 2, 1), minimum=1)
    small_images: bool = False
    remat: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.features) != len(self.stage_sizes) + 1:
            raise ValueError(f"features = {self.features!r}: expected {1 + len(self.stage_sizes)} values")

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        layer = remat_if(self.remat, ConvNormAct)
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = features["conv1"] = layer(layers, self.features[0], kernel, stride, name="conv1")(x)
        for stage, (size, channels) in enumerate(zip(self.stage_sizes, self.features[1:], strict=True), start=2):
            if stage > 2 or not self.small_images:
                x = features[f"pool{stage - 1}"] = max_pool(x, self.pool if stage == 2 else 2)
            for i in range(1, size + 1):
                name = f"conv{stage}_{i}"
                padding = (i + 1) % 2 if self.kernel == 2 else 1
                x = features[name] = layer(layers, channels, self.kernel, padding=padding, name=name)(x)
        if self.features_only:
            return features
        if self.head == "fc":
            x = pyramid_pool(x, self.levels)[:, None, None]
        return self.fc_head(x, layers, window=1)


_PAPER = "He et al., Delving Deep into Rectifiers, ICCV 2015"
_SIZE = (224, 224, 3)
_SMALL = {"stage_sizes": (4, 6), "features": (64, 128, 256), "kernel": 2, "pool": 3, "levels": (6, 3, 2, 1)}
_B = {"stage_sizes": (6, 6, 6)}
_C = _B | {"features": (96, 384, 768, 896)}
_ERROR = "ILSVRC-2012 val error 21.59 / 5.71 % top-1/top-5, whole images of several sizes"

VARIANTS: dict[str, Variant] = {
    "prelunet_small": Variant(PReLUNet, _PAPER, _SIZE, 1000, _SMALL, 75_004_200, 942_358_528),
    "prelunet_a": Variant(PReLUNet, _PAPER, _SIZE, 1000, {}, 178_032_072, 19_058_106_368),
    "prelunet_b": Variant(PReLUNet, _PAPER, _SIZE, 1000, _B, 183_343_048, 23_219_904_512),
    "prelunet_c": Variant(PReLUNet, _PAPER, _SIZE, 1000, _C, 330_623_944, 53_463_130_112, _ERROR),
}
