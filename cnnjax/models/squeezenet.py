"""SqueezeNet: the accuracy of AlexNet with a fiftieth of its parameters.

Iandola, Han, Moskewicz, Ashraf, Dally, Keutzer: SqueezeNet. arXiv:1602.07360 (2016), sec. 3 and Table 1; the bypasses
are of sec. 6. Version 1.1 is of the authors' code: as accurate for 2.4 times fewer multiplications.
"""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import lookup, max_pool
from cnnjax.models.network import ConvNormAct, Network, Parts, Variant

BYPASSES = ("none", "simple", "complex")
SQUEEZES = {2: 16, 3: 16, 4: 32, 5: 32, 6: 48, 7: 48, 8: 64, 9: 64}  # maps of the squeeze layers of fire2 to fire9


class Fire(nn.Module):
    """1x1 convolutions to few maps, and from these 1x1 and 3x3 ones to four times as many each (sec. 3.2, Fig. 1)."""

    parts: Parts
    squeeze: int
    bypass: str

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        expand = 4 * self.squeeze
        y = ConvNormAct(self.parts, self.squeeze, name="squeeze")(x)
        one = ConvNormAct(self.parts, expand, name="expand1x1")(y)
        three = ConvNormAct(self.parts, expand, 3, name="expand3x3")(y)
        y = jnp.concatenate([one, three], axis=-1)
        if self.bypass != "none" and x.shape == y.shape:
            return y + x
        if self.bypass == "complex":
            return y + ConvNormAct(self.parts, y.shape[-1], act=False, name="bypass")(x)
        return y


class SqueezeNet(Network):
    """Version 1.0. The last convolution has a map for each class."""

    dropout: float = 0.5
    norm: str = "none"
    initializer: str = "xavier"
    stem: Sequence[int] = (96, 7)  # maps and kernel of conv1
    pools: Sequence[int] = (4, 8)  # the fires that a pool follows
    bypass: str = "none"  # Fig. 2: 'simple' adds fires' inputs where they fit, 'complex' the others by 1x1 too
    padding: int = 0  # of conv10: 1 in the authors' version 1.0 for Caffe, which changes its maps' borders
    small_images: bool = False  # 32x32: conv1 is 3x3 without a stride, nor a pool behind

    def __post_init__(self) -> None:
        lookup("bypass", self.bypass, dict.fromkeys(BYPASSES))
        if self.padding < 0:
            raise ValueError(f"padding = {self.padding!r}: expected at least 0")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        maps, kernel = self.stem
        if self.small_images:
            x = ends["conv1"] = ConvNormAct(parts, maps, 3, name="conv1")(x)
        else:
            x = ends["conv1"] = ConvNormAct(parts, maps, kernel, 2, 0, name="conv1")(x)
            x = ends["pool1"] = max_pool(x, 3, 2, ceil=True)
        for i, squeeze in SQUEEZES.items():
            x = ends[f"fire{i}"] = Fire(parts, squeeze, self.bypass, name=f"fire{i}")(x)
            if i in self.pools:
                x = ends[f"pool{i}"] = max_pool(x, 3, 2, ceil=True)
        # The authors start it from a normal distribution, whatever the others start from.
        init = nn.initializers.normal(self.initializer_std)
        conv10 = parts.conv(self.num_classes, 1, 1, self.padding, use_bias=True, kernel_init=init, name="conv10")
        x = ends["conv10"] = parts.act(conv10(parts.dropout(x)))
        return ends if self.features_only else self.classify_maps(x, parts)


_PAPER = ("Iandola et al., SqueezeNet: AlexNet-level accuracy with 50x fewer parameters, arXiv:1602.07360, 2016", 2016)
_V11 = {"stem": (64, 3), "pools": (3, 5)}
_ROWS = {
    "squeezenet1_0": ({}, 1_248_424, 818_924_576, "57.5 / 80.3 % top-1/top-5"),
    "squeezenet1_0_simple": ({"bypass": "simple"}, 1_248_424, 818_924_576, "60.4 / 82.5 % top-1/top-5"),
    "squeezenet1_0_complex": ({"bypass": "complex"}, 1_589_672, 1_165_298_720, "58.8 / 82.0 % top-1/top-5"),
    "squeezenet1_1": (_V11, 1_235_496, 349_151_936, "80.3 % top-5 (the authors' code)"),
}

VARIANTS: dict[str, Variant] = {
    name: Variant(
        partial(SqueezeNet, **fields), (224, 224, 3), params, macs, 1000, *_PAPER, f"ILSVRC-2012 val accuracy {result}"
    )
    for name, (fields, params, macs, result) in _ROWS.items()
}
