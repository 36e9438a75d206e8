"""Operations that mix the images of a batch and their targets: `(key, images, target, ...) -> (images, target)`.

`images` are [N, H, W, C], normalised; `target` [N, K] is a distribution over the classes. As in timm, a batch is mixed
in one way, with one share, and an image's partner is the one as far from the batch's end as it is from the start. Of a
batch that is cut into parts, to accumulate gradients, each part is mixed by itself.
"""

import jax
import jax.numpy as jnp

from cnnjax.augment.random import bernoulli, rectangle
from cnnjax.errors import InputError

Array = jax.Array
Mixed = tuple[Array, Array]


def mixup(key: Array, images: Array, target: Array, alpha: float, probability: float = 1.0) -> Mixed:
    """Each image and target as the mean of two, with weights s and 1 - s of Beta(alpha, alpha) (Zhang et al. 2018)."""
    share = _share("mixup", key, alpha, probability)
    return _mean(images, share), _mean(target, share)


def cutmix(key: Array, images: Array, target: Array, alpha: float = 1.0, probability: float = 1.0) -> Mixed:
    """A rectangle of each image is its partner's, and the target's weights are their areas (Yun et al. 2019).

    The rectangle is centred anywhere, of the image's aspect and of 1 - s of its area, with s of Beta(alpha, alpha);
    what reaches over the border is cut off, and does not count.
    """
    share_key, place_key = jax.random.split(key)
    share = _share("cutmix", share_key, alpha, probability)
    sides = jnp.array(images.shape[1:3])
    size = (sides * jnp.sqrt(1 - share)).astype(jnp.int32)
    top, left = jax.random.randint(place_key, (2,), 0, sides) - size // 2
    inside = rectangle(images.shape[1:], top, left, size[0], size[1])
    return jnp.where(inside[None], images[::-1], images), _mean(target, 1 - inside.mean())


def _share(name: str, key: Array, alpha: float, probability: float) -> Array:
    """The weight that an image keeps; 1 for a batch that stays as it is."""
    if alpha <= 0:
        raise InputError(f"{name}: alpha = {alpha!r}: expected more than 0")
    keys = jax.random.split(key)
    return jnp.where(bernoulli(name, keys[0], probability), jax.random.beta(keys[1], alpha, alpha), 1.0)


def _mean(x: Array, share: Array) -> Array:
    return share * x + (1 - share) * x[::-1]


MIXING = {"mixup": mixup, "cutmix": cutmix}
