"""PReLU-nets A, B and C, and the small network of 14 layers that learned PReLU's slopes first.

He, Zhang, Ren, Sun: Delving Deep into Rectifiers: Surpassing Human-Level Performance on ImageNet Classification. ICCV
2015 (arXiv 1502.01852), Tables 1 (the small one) and 3. The layers below were written down from memory of those tables
and are NOT verified: no independent implementation is known. A and B have the paper's complexity (1.90e10 and 2.32e10),
C has 5.35e10 where 5.30e10 is remembered, and the paddings of the small one are those that return its maps' sizes.
"""

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import max_pool
from cnnjax.models.network import ConvNormAct, Network, Variant


def pyramid_pool(x: jax.Array, levels: Sequence[int]) -> jax.Array:
    """The largest of n x n bins of each map, for each n of `levels`: [batch, height, width, maps] -> [batch, bins].

    Bin i of a side ranges from the floor of i / n of it to the ceiling of (i + 1) / n, so bins of any maps cover all of
    them (He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks. TPAMI 2015, App. A).
    """

    def pool(x: jax.Array, bins: int) -> jax.Array:
        for axis in (1, 2):
            side = x.shape[axis]
            ranges = [(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]
            x = jnp.stack([jax.lax.slice_in_dim(x, *ends, axis=axis).max(axis) for ends in ranges], axis)
        return x.reshape(x.shape[0], -1)

    return jnp.concatenate([pool(x, bins) for bins in levels], axis=-1)


class PReLUNet(Network):
    """A 7x7 convolution of stride 2, stages of alike convolutions, a pyramid of pools and three full connections.

    Every convolution and hidden full connection has a slope for each of its maps (sec. 2.1), at first 0.25; these want
    no weight decay. The start is eq. 14, that of ReLUs, which the slopes change by 3 %. head="fc" takes images of any
    size, with the same parameters, as the pyramid has a fixed number of bins; a pyramid has no form that slides.
    """

    dropout: float = 0.5
    activation: str = "prelu"
    norm: str = "none"
    head: str = "fc"
    stage_sizes: Sequence[int] = (5, 5, 5)
    features: Sequence[int] = (96, 256, 512, 512)  # of conv1 and of the stages
    kernel: int = 3  # of the stages; 2 makes maps smaller by 1, and back, from one convolution to the next
    pool: int = 2  # side and stride of the pool behind conv1
    levels: Sequence[int] = (7, 3, 2, 1)  # of the pyramid
    small_images: bool = False  # True: for 32x32, with a conv1 of 3x3 and stride 1, and no pool behind it
    remat: bool = False  # True: convolutions run again in the backward pass, for less memory

    heads: ClassVar[Sequence[str]] = ("fc", "gap")

    def __post_init__(self) -> None:
        if len(self.features) != len(self.stage_sizes) + 1:
            raise ValueError(
                f"features = {self.features!r}: expected those of conv1 and of each of {self.stage_sizes!r}"
            )
        if self.kernel not in (2, 3):
            raise ValueError(f"kernel = {self.kernel!r}: expected 3, or 2 as in the small network")
        if not self.levels or min((self.pool, *self.levels, *self.stage_sizes)) < 1:
            numbers = f"pool = {self.pool!r}, levels = {self.levels!r}, stage_sizes = {self.stage_sizes!r}"
            raise ValueError(f"{numbers}: expected at least 1")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        Layer = nn.remat(ConvNormAct) if self.remat else ConvNormAct
        kernel, stride = (3, 1) if self.small_images else (7, 2)
        x = ends["conv1"] = Layer(parts, self.features[0], kernel, stride, name="conv1")(x)
        for stage, (size, features) in enumerate(zip(self.stage_sizes, self.features[1:], strict=True), start=2):
            if stage > 2 or not self.small_images:
                x = ends[f"pool{stage - 1}"] = max_pool(x, self.pool if stage == 2 else 2)
            for i in range(1, size + 1):
                name = f"conv{stage}_{i}"
                padding = (i + 1) % 2 if self.kernel == 2 else 1
                x = ends[name] = Layer(parts, features, self.kernel, padding=padding, name=name)(x)
        if self.features_only:
            return ends
        if self.head == "fc":
            x = pyramid_pool(x, self.levels)[:, None, None]
        return self.classify_fc(x, parts, window=1)


_PAPER = ("He et al., Delving Deep into Rectifiers, ICCV 2015", 2015)
_SIZE = (224, 224, 3)
_BEST = "ILSVRC-2012 val error 21.59 / 5.71 % top-1/top-5, whole images of several sizes"
_small = partial(PReLUNet, stage_sizes=(4, 6), features=(64, 128, 256), kernel=2, pool=3, levels=(6, 3, 2, 1))
_b = partial(PReLUNet, stage_sizes=(6, 6, 6))
_c = partial(_b, features=(96, 384, 768, 896))

VARIANTS: dict[str, Variant] = {
    "prelunet_small": Variant(_small, _SIZE, 75_004_200, 942_358_528, 1000, *_PAPER),
    "prelunet_a": Variant(PReLUNet, _SIZE, 178_032_072, 19_058_106_368, 1000, *_PAPER),
    "prelunet_b": Variant(_b, _SIZE, 183_343_048, 23_219_904_512, 1000, *_PAPER),
    "prelunet_c": Variant(_c, _SIZE, 330_623_944, 53_463_130_112, 1000, *_PAPER, _BEST),
}
