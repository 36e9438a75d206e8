"""Losses: `(logits [N, K], target [N, K], ...) -> [N]`, one number for each example.

A target is a distribution over the classes: one-hot, or of what an image was mixed from.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cnnjax import spec
from cnnjax.errors import InputError

Array = jax.Array


def cross_entropy(logits: Array, target: Array, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy; smoothing spreads that share of the target over all classes (Szegedy et al. 2016, 7)."""
    if not 0 <= label_smoothing <= 1:
        raise InputError(f"cross_entropy: label_smoothing = {label_smoothing!r}: expected 0 to 1")
    target = optax.smooth_labels(target, label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)


LOSSES = {"cross_entropy": cross_entropy}


def build(text: str) -> Callable[[Array, Array], Array]:
    """The loss that a call string names. Raises InputError when there is none."""
    call = spec.parse(text)

    def loss(logits: Array, target: Array) -> Array:
        return spec.find("loss", call, LOSSES, logits=logits, target=target)()

    one = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    jax.eval_shape(loss, one, one)
    return loss
