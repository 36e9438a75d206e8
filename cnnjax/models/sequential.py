"""A network from a list of layers, for lessons and quick ideas: sequential('conv(32, 5)|relu|max_pool(2)|gap|dense').

`cnnjax.models.layer_list` has the layers.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike

from cnnjax.models.layer_list import ANYWHERE, OUTPUTS, Context, classifier, parse_layers
from cnnjax.models.layers import PADDING_MODES
from cnnjax.models.network import INITIALIZERS, Variant, check_fields, field

EXAMPLE = "conv(32, 5)|relu|max_pool(2)|conv(64, 5)|relu|conv(128, 5)|relu|gap|dense(500)|relu|dense"


class Sequential(nn.Module):
    """A network of layers that follow each other. Build it by `sequential`, which checks the list.

    The call returns float32 logits [N, num_classes]. See `sequential` for the fields.
    """

    layers: str
    num_classes: int
    initializer: str = field("lecun", choices=INITIALIZERS)
    initializer_std: float = field(0.01, above=0)
    padding_mode: str = field("zeros", choices=PADDING_MODES)
    ghost_batch_size: int = field(0, minimum=0)
    features_only: bool = False
    dtype: DTypeLike = jnp.float32

    def __post_init__(self) -> None:
        check_fields(self)
        super().__post_init__()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array | dict[str, jax.Array]:
        steps, features, name, flat = parse_layers(self.layers), {}, "", None
        last, x = classifier(steps), x.astype(self.dtype)
        conv_init, dense_init = INITIALIZERS[self.initializer](self.initializer_std)
        for step in steps:
            if step is last and self.features_only:
                return features
            if step.kind == "flatten" and x.ndim == 4:
                flat = x.shape
            elif step.kind == "dense" and flat:
                x, flat = x.reshape(flat), None  # so that it knows the feature maps, for files with another order
            outputs = {OUTPUTS[step.kind]: self.num_classes} if step is last else {}
            init = dense_init if step.kind == "dense" else conv_init
            context = Context(step.name, train, init, self.padding_mode, self.ghost_batch_size, self.dtype)
            try:
                x = step.apply(x=x, context=context, **outputs)
            except ValueError as error:
                raise step.error(error) from error
            # Activations and the like belong to the feature maps of the layer before them.
            name = step.name if step.kind not in ANYWHERE or not name else name
            features[name] = x
        if x.shape[1:] != (self.num_classes,):
            raise steps[-1].error(f"gives {math.prod(x.shape[1:])} logits for {self.num_classes} classes; use 'gap'")
        return x.astype(jnp.float32)


def sequential(
    layers: str = EXAMPLE,
    num_classes: int = 0,
    initializer: str = "lecun",
    initializer_std: float = 0.01,
    padding_mode: str = "zeros",
    ghost_batch_size: int = 0,
    features_only: bool = False,
    dtype: DTypeLike = jnp.float32,
) -> Sequential:
    """Builds a network from a list of layers joined by '|', keys of LAYERS with their arguments.

    Args:
      layers: the list. The last dense layer may leave out its number, or give that of the classes.
      num_classes: number of logits; 0 means as many as the last layer says, or 10.
      initializer: initializer of the kernels, a key of INITIALIZERS.
      initializer_std: standard deviation of 'gaussian' and 'truncated'.
      padding_mode: what convolutions pad with: 'zeros', 'edge' (copies of the border pixels) or 'reflect' (mirrored).
      ghost_batch_size: images that batch_norm normalizes together; 0 is the whole batch.
      features_only: returns {layer name: output, after the activation} instead of logits.
      dtype: dtype of the computation; parameters are float32.

    Raises ValueError that names the layer and its position.
    """
    last = classifier(parse_layers(layers))
    assert last is not None  # parse_layers has checked it
    if num_classes and last.outputs not in (0, num_classes):
        raise last.error(
            f"gives {last.outputs} logits, but there are {num_classes} classes; write {last.kind}"
            + (
                f"({num_classes}), or 'dense' for as many as there are"
                if last.kind == "dense"
                else f"({num_classes}, ...)"
            )
        )
    return Sequential(
        layers, num_classes or last.outputs or 10, initializer, initializer_std, padding_mode, ghost_batch_size,
        features_only, dtype,
    )  # fmt: skip


VARIANTS: dict[str, Variant] = {
    "sequential": Variant(sequential, "a list of layers of your own", (28, 28, 1), 0, {}, 326_534, 7_083_400),
}
