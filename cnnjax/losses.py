"""Losses: `(logits [N, K], label [N], ...) -> [N]`, one number for each example."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from cnnjax import spec

Array = jax.Array


def cross_entropy(logits: Array, label: Array, label_smoothing: float = 0.0) -> Array:
    """Softmax cross-entropy; smoothing spreads that share of the target over all classes (Szegedy et al. 2016, 7)."""
    target = optax.smooth_labels(jax.nn.one_hot(label, logits.shape[-1]), label_smoothing)
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), target)


LOSSES = {"cross_entropy": cross_entropy}


def build(text: str) -> Callable[[Array, Array], Array]:
    """The loss that a call string names. Raises InputError when there is none."""
    call = spec.parse(text)
    spec.find("loss", call, LOSSES, logits=None, label=None)
    return lambda logits, label: spec.find("loss", call, LOSSES, logits=logits, label=label)()
