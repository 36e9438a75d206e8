"""Operations that mix the images of a batch and their targets: `(key, images, target, ...) -> (images, target)`.

`images` are float32 [N, H, W, C], normalized; `target` float32 [N, K] is a distribution over K classes. As in timm,
one draw serves the whole batch, and image i is mixed with image N - 1 - i. With gradient accumulation the whole batch
is mixed before it is split into micro-batches.
"""

import jax
import jax.numpy as jnp

from cnnjax.augment.random import rectangle_mask
from cnnjax.spec import Fraction, Positive

Array = jax.Array
Mixed = tuple[Array, Array]


def mixup(key: Array, images: Array, target: Array, alpha: Positive, probability: Fraction = 1.0) -> Mixed:
    """Averages each image and its target with those of its partner, weighted lam and 1 - lam (Zhang et al. 2018).

    The partner of image i is image N - 1 - i. One lam ~ Beta(alpha, alpha) serves the whole batch. `probability` is
    that of mixing the batch at all.
    """
    lam = _draw_lam(key, alpha, probability)
    return _interpolate(images, lam), _interpolate(target, lam)


def cutmix(key: Array, images: Array, target: Array, alpha: Positive = 1.0, probability: Fraction = 1.0) -> Mixed:
    """Pastes into each image a rectangle of its partner, and averages the targets by area (Yun et al. 2019).

    The partner of image i is image N - 1 - i. One rectangle serves the whole batch. It has the image's aspect ratio and
    a fraction 1 - lam of its area, lam ~ Beta(alpha, alpha). It is centered on a random pixel and cut off at the
    border; the targets are weighted by the area that remains. `probability` is that of mixing the batch at all.
    """
    lam_key, center_key = jax.random.split(key)
    lam = _draw_lam(lam_key, alpha, probability)
    sides = jnp.array(images.shape[1:3])
    size = (sides * jnp.sqrt(1 - lam)).astype(jnp.int32)
    top, left = jax.random.randint(center_key, (2,), 0, sides) - size // 2
    inside = rectangle_mask(images.shape[1:], top, left, size[0], size[1])
    return jnp.where(inside[None], images[::-1], images), _interpolate(target, 1 - inside.mean())


def _draw_lam(key: Array, alpha: float, probability: float) -> Array:
    """Draws lam ~ Beta(alpha, alpha) with the given probability, else returns 1, which means no mixing: float32 []."""
    keys = jax.random.split(key)
    return jnp.where(jax.random.bernoulli(keys[0], probability), jax.random.beta(keys[1], alpha, alpha), 1.0)


def _interpolate(x: Array, lam: Array) -> Array:
    """Averages `x` [N, ...] with its reverse along the batch: lam * x[i] + (1 - lam) * x[N - 1 - i]."""
    return lam * x + (1 - lam) * x[::-1]


MIXING = {"mixup": mixup, "cutmix": cutmix}
