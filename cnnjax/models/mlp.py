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
from jax.typing import DTypeLike

from cnnjax.models.layers import Variant, activation, check_rate, lecun_normal, uniform


class MLP(nn.Module):
    """Hidden layers of the sizes in `features`, and the output; a perceptron when there are none."""

    num_classes: int = 10
    features: tuple[int, ...] = ()
    activation: str = "relu"
    dropout: float = 0.0
    init_bound: float = 0.0  # weights start uniform in +-init_bound; 0: normal with variance 1 / inputs
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        activation(self.activation)
        check_rate(self.dropout)
        if any(size < 1 for size in self.features):
            raise ValueError(f"features = {self.features!r}: expected sizes of at least 1")
        if self.init_bound < 0:
            raise ValueError(f"init_bound = {self.init_bound!r}: expected at least 0")
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        init = uniform(self.init_bound) if self.init_bound else lecun_normal
        dense = partial(nn.Dense, kernel_init=init, dtype=self.dtype)
        x = x.reshape(x.shape[0], -1)
        for i, size in enumerate(self.features, start=1):
            x = activation(self.activation)(dense(size, name=f"hidden{i}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return dense(self.num_classes, name="output")(x).astype(jnp.float32)


_LECUN = ("LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998", 1998)
_CIRESAN = ("Ciresan et al., Deep, Big, Simple Neural Nets for Handwritten Digit Recognition, Neural Comp. 2010", 2010)

VARIANTS: dict[str, Variant] = {
    "perceptron": Variant(MLP, (28, 28, 1), 7_850, 10, *_LECUN),
    "mlp": Variant(partial(MLP, features=(300,), activation="scaled_tanh"), (28, 28, 1), 238_510, 10, *_LECUN),
    "deep_mlp": Variant(
        partial(MLP, features=(2500, 2000, 1500, 1000, 500), activation="scaled_tanh", init_bound=0.05),
        (29, 29, 1),
        12_115_010,
        10,
        *_CIRESAN,
    ),
}
