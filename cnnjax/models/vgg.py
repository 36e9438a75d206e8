"""VGG: nothing but 3x3 convolutions and 2x2 pools, in the paper's configurations A to E.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, sec. 2 and Table 1.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import ClassVar

import jax
from flax import linen as nn

from cnnjax.models.layers import max_pool
from cnnjax.models.network import NORMS, ConvNormAct, Network, Variant


class VGG(Network):
    """Five stages of convolutions, each with a pool behind it, and three full connections (Table 1).

    Deeper configurations were started from A's trained weights, later from Glorot's (sec. 3.1); without normalisation
    that halves the signal's variance at each ReLU, so the start here is He's, which the paper could not know. 32x32
    images leave maps of 1x1: head="gap" is for these. With norm="batch" convolutions keep their biases, as in
    torchvision's networks.
    """

    dropout: float = 0.5
    norm: str = "none"
    head: str = "fc"
    stage_sizes: Sequence[int] = (2, 2, 3, 3, 3)
    features: Sequence[int] = (64, 128, 256, 512, 512)
    third_kernel: int = 3  # the side of a stage's third convolution: 1 in configuration C
    remat: bool = False  # True: convolutions run again in the backward pass, for less memory

    norms: ClassVar[Sequence[str]] = NORMS

    def __post_init__(self) -> None:
        if len(self.stage_sizes) != len(self.features) or min(self.stage_sizes, default=0) < 1:
            raise ValueError(
                f"stage_sizes = {self.stage_sizes!r}: expected at least 1 convolution for each of the {self.features!r}"
            )
        if self.third_kernel not in (1, 3):
            raise ValueError(f"third_kernel = {self.third_kernel!r}: expected 3, or 1 as in configuration C")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        parts = parts._replace(conv=partial(parts.conv, use_bias=True))
        Layer = nn.remat(ConvNormAct) if self.remat else ConvNormAct
        for stage, (size, features) in enumerate(zip(self.stage_sizes, self.features, strict=True), start=1):
            for i in range(1, size + 1):
                name = f"conv{stage}_{i}"
                x = ends[name] = Layer(parts, features, self.third_kernel if i == 3 else 3, name=name)(x)
            if stage == 1:
                x = parts.lrn(x)  # A-LRN
            x = ends[f"pool{stage}"] = max_pool(x, 2)
        return ends if self.features_only else self.classify_fc(x, parts, window=7)


# The name, that by the layers with weights, the fields, the parameters of the convolutions' normalisations, those of
# all else, the multiplications, and the top-1 and top-5 error with the short side of training and test images 256.
_TABLE = (
    ("vgg_a", "vgg11", {"stage_sizes": (1, 1, 2, 2, 2)}, 5_504, 132_863_336, 7_609_090_048, "29.6 / 10.4"),
    ("vgg_a_lrn", "", {"stage_sizes": (1, 1, 2, 2, 2), "norm": "lrn"}, 0, 132_863_336, 7_609_090_048, "29.7 / 10.5"),
    ("vgg_b", "vgg13", {"stage_sizes": (2, 2, 2, 2, 2)}, 5_888, 133_047_848, 11_308_466_176, "28.7 / 9.9"),
    ("vgg_c", "", {"third_kernel": 1}, 8_448, 133_638_952, 11_770_888_192, "28.1 / 9.4"),
    ("vgg_d", "vgg16", {}, 8_448, 138_357_544, 15_470_264_320, "27.0 / 8.8"),
    ("vgg_e", "vgg19", {"stage_sizes": (2, 2, 4, 4, 4)}, 11_008, 143_667_240, 19_632_062_464, "27.3 / 9.0"),
)  # fmt: skip


def _rows() -> Iterator[tuple[str, Variant]]:
    paper = "Simonyan, Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015", 2015
    for letter, number, fields, norms, params, macs, error in _TABLE:
        published = f"ILSVRC-2012 val error {error} % top-1/top-5, whole images of short side 256"
        plain = Variant(partial(VGG, **fields), (224, 224, 3), params, macs, 1000, *paper, published)
        build = partial(VGG, **fields | {"norm": "batch"})
        batch = plain._replace(build=build, params=params + norms, published="")
        for name in filter(None, (letter, number)):
            yield name, plain
            if norms:
                yield f"{name}_bn", batch


VARIANTS: dict[str, Variant] = dict(_rows())
