"""Networks without convolutions, from the perceptron to Ciresan's deep one: what LeNet-5 was measured against.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 86(11), 1998,
sec. III.C.
Ciresan, Meier, Gambardella, Schmidhuber: Deep, Big, Simple Neural Nets for Handwritten Digit Recognition. Neural
Computation 22(12), 2010, sec. 2-3.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import uniform
from cnnjax.models.network import Network, Variant


class MLP(Network):
    """Hidden layers of the sizes in `features`, and the output; a perceptron when there are none."""

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "lecun"
    head: str = "fc"
    features: tuple[int, ...] = ()
    init_bound: float = 0.0  # weights start uniform in +-init_bound; 0: as `initializer` says

    heads = ("fc",)
    padding_modes = ("zeros",)

    def __post_init__(self) -> None:
        if any(size < 1 for size in self.features):
            raise ValueError(f"features = {self.features!r}: expected sizes of at least 1")
        if self.init_bound < 0:
            raise ValueError(f"init_bound = {self.init_bound!r}: expected at least 0")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        parts, ends = self.parts(train), {}
        if self.init_bound:
            parts = parts._replace(dense=partial(parts.dense, kernel_init=uniform(self.init_bound)))
        x = x.reshape(x.shape[0], -1)
        for i, size in enumerate(self.features, start=1):
            x = parts.act(parts.norm(name=f"norm{i}")(parts.dense(size, name=f"hidden{i}")(x)))
            x = ends[f"hidden{i}"] = parts.dropout(x)
        if self.features_only:
            return ends
        return parts.dense(self.num_classes, name="output")(x).astype(jnp.float32)


_LECUN = ("LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998", 1998)
_CIRESAN = ("Ciresan et al., Deep, Big, Simple Neural Nets for Handwritten Digit Recognition, Neural Comp. 2010", 2010)

VARIANTS: dict[str, Variant] = {
    "perceptron": Variant(MLP, (28, 28, 1), 7_850, 7_840, 10, *_LECUN),
    "mlp": Variant(partial(MLP, features=(300,), activation="scaled_tanh"), (28, 28, 1), 238_510, 238_200, 10, *_LECUN),
    "deep_mlp": Variant(
        partial(MLP, features=(2500, 2000, 1500, 1000, 500), activation="scaled_tanh", init_bound=0.05),
        (29, 29, 1),
        12_115_010,
        12_107_500,
        10,
        *_CIRESAN,
    ),
}
