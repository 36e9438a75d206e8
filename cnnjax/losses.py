"""Losses: functions `(logits [N, K], target [N, K], ...) -> float32 [N]`, one value per example.

A target is a distribution over the K classes: one-hot, or a mixture (Zhang et al. 2018, mixup). The gradient for a
mixture is the weighted mean of the gradients for its classes, except with a `threshold`. All but `cross_entropy` are
means over the classes, as in PyTorch.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.spec import BelowOne, Fraction, NonNegative, Positive

Array = jax.Array


def cross_entropy(
    logits: Array, target: Array, label_smoothing: Fraction = 0.0, class_weights: Sequence[NonNegative] = ()
) -> Array:
    """Softmax cross-entropy of logits [N, K] and target distributions [N, K], float32 [N].

    `label_smoothing` is the fraction of the target that is spread over all classes (Szegedy et al. 2016, sec. 7).
    `class_weights` multiply the terms of the K classes; () for none. Unlike in PyTorch, the mean over a batch divides
    by the number of examples, not by the sum of their weights: with weights whose mean over the training split is 1,
    the learning rate need not change.
    """
    target = optax.smooth_labels(target, label_smoothing)
    if class_weights:
        classes = logits.shape[-1]
        if len(class_weights) != classes:
            raise InputError(f"class_weights = {class_weights!r}: expected {classes} numbers, one per class")
        target = target * jnp.array(class_weights, jnp.float32)[None]
    return -(target * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(axis=-1)


def mse(logits: Array, target: Array, of: str = "softmax", scale: Positive = 1.0) -> Array:
    """Squared error of probabilities or logits, averaged over the K classes: float32 [N].

    With of='softmax' the output compared with the target [N, K] is the softmax of `logits`. With of='logits' the logits
    are compared with `scale` times the target; a scale above 1 is for many classes (Hui & Belkin 2021,
    arXiv:2006.07322, sec. 2: 15 for ImageNet).
    """
    if of not in ("softmax", "logits"):
        raise InputError(f"mse: of = {of!r}; valid: logits, softmax")
    if of == "softmax" and scale != 1:
        raise InputError(f"mse: scale = {scale!r}: expected 1 for of='softmax'; only of='logits' has a scale")
    logits = logits.astype(jnp.float32)
    out = jax.nn.softmax(logits) if of == "softmax" else logits
    return jnp.square(out - scale * target).mean(axis=-1)


def hinge(logits: Array, target: Array, margin: Positive = 1.0, squared: bool = False) -> Array:
    """Multi-class hinge loss (Weston & Watkins 1999), float32 [N]. Same as PyTorch's MultiMarginLoss.

    It sums max(0, margin + wrong logit - true logit) over the wrong classes, and divides by K. With `squared` the terms
    are squared, as in the L2-SVM (Tang 2013, arXiv:1306.0239, there one-vs-rest). For a mixed target, it is the mean of
    the losses of all classes, weighted by the target.
    """
    power, logits = 2 if squared else 1, logits.astype(jnp.float32)
    excess = jnp.maximum(margin + logits[:, None, :] - logits[:, :, None], 0) ** power  # [N, true class, other class]
    by_true_class = (excess.sum(axis=-1) - margin**power) / logits.shape[-1]  # without the true class's own term
    return (target * by_true_class).sum(axis=-1)


def binary(logits: Array, target: Array, label_smoothing: Fraction = 0.0, threshold: BelowOne | None = None) -> Array:
    """Sigmoid cross-entropy of each class, averaged over the K classes: float32 [N]. Same as timm's BinaryCrossEntropy.

    `label_smoothing` is the fraction of the target that is spread over all classes. `threshold` then makes the target
    binary: 1 where it is larger, else 0. None leaves the target as it is. Recipes A1-A3 of Wightman et al. 2021,
    arXiv:2110.00476, sec. 2, use 0.2.
    """
    target = optax.smooth_labels(target, label_smoothing)
    if threshold is not None:
        target = (target > threshold).astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target).mean(axis=-1)


def focal(logits: Array, target: Array, gamma: NonNegative = 2.0, alpha: Fraction | None = 0.25) -> Array:
    """Focal loss (Lin et al. 2017, arXiv:1708.02002, sec. 3), averaged over the K classes: float32 [N].

    It multiplies each class's sigmoid cross-entropy by (1 - p) ** gamma, where p is the probability given to the right
    answer for that class. `alpha` weights the term of the true class, and 1 - alpha the terms of the others; None
    weights no term.
    """
    logits = logits.astype(jnp.float32)
    positive, negative = (
        optax.sigmoid_focal_loss(logits, jnp.full_like(logits, label), alpha=alpha, gamma=gamma) for label in (1, 0)
    )
    return (target * positive + (1 - target) * negative).mean(axis=-1)


Loss = Callable[[Array, Array], Array]  # (logits [N, K], target [N, K]) -> float32 [N]

LOSSES: dict[str, Callable[..., Array]] = {
    "cross_entropy": cross_entropy,
    "mse": mse,
    "hinge": hinge,
    "binary": binary,
    "focal": focal,
}


def parse(text: str, classes: int | None = None) -> spec.Call:
    """Parses a loss's call string, such as 'cross_entropy(label_smoothing=0.1)', and tries it on dummy logits.

    `classes` is the number of dummy classes; None takes the length of class_weights, or 2 without these. Raises
    InputError for an unknown loss or argument, and for class_weights of another length than `classes`.
    """
    call = spec.parse(text)
    dummy = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    bound = spec.find("loss", call, LOSSES, logits=dummy, target=dummy)
    classes = classes or len(bound.keywords.get("class_weights", ())) or 2
    dummy = jax.ShapeDtypeStruct((1, classes), jnp.float32)
    jax.eval_shape(from_call(call), dummy, dummy)
    return call


def from_call(call: spec.Call) -> Loss:
    """Returns the function (logits [N, K], target [N, K]) -> float32 [N] of a call from `parse`."""
    return lambda logits, target: spec.find("loss", call, LOSSES, logits=logits, target=target)()


def build(text: str, classes: int | None = None) -> Loss:
    """Parses and checks a loss's call string as `parse` does, and returns its function: see `from_call`."""
    return from_call(parse(text, classes))
