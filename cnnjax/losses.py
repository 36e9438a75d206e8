"""Losses: `(logits [N, K], target [N, K], ...) -> [N]`, one number for each example, in float32.

A target is a distribution over the classes: one-hot, or of what an image was mixed from. The gradient of a loss for a
mixed target is the mean of those for its classes (Zhang et al. 2018, mixup), where no option says otherwise. All but
`cross_entropy` are means over the classes, as PyTorch's are.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import optax

from cnnjax import spec
from cnnjax.errors import InputError

Array = jax.Array


def cross_entropy(
    logits: Array, target: Array, label_smoothing: float = 0.0, class_weights: Sequence[float] = ()
) -> Array:
    """Softmax cross-entropy; smoothing spreads that share of the target over all classes (Szegedy et al. 2016, 7).

    Each class's part of the sum counts `class_weights` times. The mean over a batch divides by its examples and not by
    their weights: so weights that are 1 in the mean over the training split leave the learning rate as it is.
    """
    target = _smooth("cross_entropy", target, label_smoothing)
    if class_weights:
        classes = logits.shape[-1]
        if len(class_weights) != classes or min(class_weights) < 0:
            raise InputError(
                f"cross_entropy: class_weights = {class_weights!r}: expected {classes} numbers of at least 0, "
                "one for each class"
            )
        target = target * jnp.array(class_weights, jnp.float32)[None]
    return -(target * jax.nn.log_softmax(logits.astype(jnp.float32))).sum(axis=-1)


def mse(logits: Array, target: Array, of: str = "softmax", scale: float = 1.0) -> Array:
    """The squared error of the probabilities, or with of='logits' of the logits, from `scale` times the target.

    A scale above 1 helps logits of many classes (Hui & Belkin 2021, arXiv:2006.07322, sec. 2: 15 for ImageNet).
    """
    if of not in ("softmax", "logits"):
        raise InputError(f"mse: of = {of!r}; valid: logits, softmax")
    if of == "softmax" and scale != 1:
        raise InputError(f"mse: scale = {scale!r}: probabilities have none; use of='logits' with it")
    logits = logits.astype(jnp.float32)
    out = jax.nn.softmax(logits) if of == "softmax" else logits
    return jnp.square(out - scale * target).mean(axis=-1)


def hinge(logits: Array, target: Array, margin: float = 1.0, squared: bool = False) -> Array:
    """How far the logits of the wrong classes reach above the right one's less a margin: PyTorch's MultiMarginLoss.

    The sum over the pairs of classes of Weston & Watkins (1999). Squared, it is the L2-SVM's (Tang 2013,
    arXiv:1306.0239), there for each class against the rest. A compiler may hold K^2 numbers for an example.
    """
    if margin <= 0:
        raise InputError(f"hinge: margin = {margin!r}: expected more than 0")
    power, logits = 2 if squared else 1, logits.astype(jnp.float32)
    above = jnp.maximum(margin + logits[:, None, :] - logits[:, :, None], 0) ** power  # [N, right, other]
    each = (above.sum(axis=-1) - margin**power) / logits.shape[-1]  # a class's margin above itself is none
    return (target * each).sum(axis=-1)


def binary(logits: Array, target: Array, label_smoothing: float = 0.0, threshold: float | None = None) -> Array:
    """Sigmoid cross-entropy, each class against the rest.

    With a threshold, a class whose share of the target is above it counts in full, and the others not at all, once the
    target is smoothed: Wightman et al. 2021, arXiv:2110.00476, sec. 2; 0.2 in their recipes A1-A3, as timm has it.
    """
    target = _smooth("binary", target, label_smoothing)
    if threshold is not None:
        if not 0 <= threshold < 1:
            raise InputError(f"binary: threshold = {threshold!r}: expected at least 0 and less than 1")
        target = (target > threshold).astype(jnp.float32)
    return optax.sigmoid_binary_cross_entropy(logits.astype(jnp.float32), target).mean(axis=-1)


def focal(logits: Array, target: Array, gamma: float = 2.0, alpha: float | None = 0.25) -> Array:
    """`binary` with what is learnt already counting less, by (1 - p)^gamma (Lin et al. 2017, arXiv:1708.02002, 3).

    `alpha` is the weight of the right class, and 1 - alpha that of each other; None for neither.
    """
    if gamma < 0:
        raise InputError(f"focal: gamma = {gamma!r}: expected at least 0")
    if alpha is not None and not 0 <= alpha <= 1:
        raise InputError(f"focal: alpha = {alpha!r}: expected 0 to 1, or None")
    logits = logits.astype(jnp.float32)
    right, wrong = (
        optax.sigmoid_focal_loss(logits, jnp.full_like(logits, one), alpha=alpha, gamma=gamma) for one in (1, 0)
    )
    return (target * right + (1 - target) * wrong).mean(axis=-1)


def _smooth(name: str, target: Array, share: float) -> Array:
    if not 0 <= share <= 1:
        raise InputError(f"{name}: label_smoothing = {share!r}: expected 0 to 1")
    return optax.smooth_labels(target, share)


LOSSES = {"cross_entropy": cross_entropy, "mse": mse, "hinge": hinge, "binary": binary, "focal": focal}


def build(text: str, classes: int | None = None) -> Callable[[Array, Array], Array]:
    """The loss that a call string names, tried for so many classes; without these, for as many as it has weights for.

    Raises InputError when there is no such loss, or an argument does not fit.
    """
    call = spec.parse(text)

    def find(logits: Array | jax.ShapeDtypeStruct, target: Array | jax.ShapeDtypeStruct):
        return spec.find("loss", call, LOSSES, logits=logits, target=target)

    one = jax.ShapeDtypeStruct((1, 2), jnp.float32)
    weights = find(one, one).keywords.get("class_weights", ())
    one = jax.ShapeDtypeStruct((1, classes or len(weights) or 2), jnp.float32)
    jax.eval_shape(lambda logits, target: find(logits, target)(), one, one)
    return lambda logits, target: find(logits, target)()
