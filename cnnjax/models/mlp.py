"""Fully connected networks, from the perceptron to Ciresan's deep one: LeNet-5's baselines.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 86(11), 1998,
sec. III.C.
Ciresan, Meier, Gambardella, Schmidhuber: Deep, Big, Simple Neural Nets for Handwritten Digit Recognition. Neural
Computation 22(12), 2010, sec. 2-3.
"""

from functools import partial

import jax
import jax.numpy as jnp
from flax import linen as nn

from cnnjax.models.layers import flatten, uniform
from cnnjax.models.network import Network, Variant, field


class MLP(Network):
    """Multilayer perceptron on flattened images: hidden layers with activation and dropout, then a linear classifier.

    Attributes:
      features: sizes of the hidden layers; () makes a linear classifier.
      init_bound: initial weights are uniform in [-init_bound, init_bound]; 0 means that `initializer` draws them.
    """

    num_classes: int = 10
    norm: str = "none"
    initializer: str = "lecun"
    head: str = field("fc", choices=("fc",))
    padding_mode: str = field("zeros", choices=("zeros",))
    features: tuple[int, ...] = field((), minimum=1)
    init_bound: float = field(0.0, minimum=0)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        layers, features = self.layers(train), {}
        if self.init_bound:
            layers = layers._replace(dense=partial(layers.dense, kernel_init=uniform(self.init_bound)))
        x = flatten(x)
        for i, size in enumerate(self.features, start=1):
            x = layers.norm_act(name=f"norm{i}")(layers.dense(size, name=f"hidden{i}")(x))
            x = features[f"hidden{i}"] = layers.dropout(x)
        if self.features_only:
            return features
        return layers.dense(self.num_classes, name="output")(x).astype(jnp.float32)


_LECUN = "LeCun et al., Gradient-Based Learning Applied to Document Recognition, Proc. IEEE 1998"
_CIRESAN = "Ciresan et al., Deep, Big, Simple Neural Nets for Handwritten Digit Recognition, Neural Comp. 2010"
_MLP = {"features": (300,), "activation": "scaled_tanh"}
_DEEP = {"features": (2500, 2000, 1500, 1000, 500), "activation": "scaled_tanh", "init_bound": 0.05}

VARIANTS: dict[str, Variant] = {
    "perceptron": Variant(MLP, _LECUN, (28, 28, 1), 10, {}, 7_850, 7_840),
    "mlp": Variant(MLP, _LECUN, (28, 28, 1), 10, _MLP, 238_510, 238_200),
    "deep_mlp": Variant(MLP, _CIRESAN, (29, 29, 1), 10, _DEEP, 12_115_010, 12_107_500),
}
