"""Operations that erase a region of the image, or add noise to it."""

from typing import Annotated

import jax
import jax.numpy as jnp

from cnnjax.augment.random import rectangle_mask, uniform_index
from cnnjax.errors import unknown
from cnnjax.spec import Ascending, Fraction, NonNegative, Pixels, Positive, PositiveFraction

Array = jax.Array


def cutout(key: Array, image: Array, mean: Array, size: Pixels) -> Array:
    """Fills a square of `size` x `size` pixels with the mean color (DeVries & Taylor 2017, sec. 3.2).

    The center of the square is a random pixel, so the square can extend beyond the border. `mean` is [1, 1, C].
    """
    row, column = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
    return jnp.where(rectangle_mask(image.shape, row - size // 2, column - size // 2, size, size), mean, image)


def random_erasing(
    key: Array,
    image: Array,
    mean: Array,
    std: Array,
    probability: Fraction = 0.5,
    area: Annotated[tuple[PositiveFraction, PositiveFraction], Ascending()] = (0.02, 1 / 3),
    aspect: Annotated[tuple[Positive, Positive], Ascending()] = (0.3, 10 / 3),
    mode: str = "const",
) -> Array:
    """Fills a random rectangle, with the given probability, with a color or with noise (Zhong et al. 2020, sec. 3.2).

    `area` is the range (low, high) of the rectangle's area as a fraction of the image, `aspect` that of its height /
    width. Up to ten rectangles are drawn; if none fits into the image, it stays unchanged.

    mode='const' fills with the training split's mean color, 'rand' with one random color, 'pixel' with a random color
    per pixel. Random colors are normal with the split's `mean` and `std` [1, 1, C]. So after the normalization
    'mean_std' the rectangle is 0 or N(0, 1), as in timm.
    """
    height, width, channels = image.shape
    noise_shapes = {"const": (0, 0, 0), "rand": (1, 1, channels), "pixel": image.shape}
    if mode not in noise_shapes:
        raise unknown("random_erasing: mode", mode, noise_shapes)
    keys = jax.random.split(key, 4)
    units = jax.random.uniform(keys[0], (2, 10))
    pixels = (area[0] + (area[1] - area[0]) * units[0]) * height * width
    ratio = aspect[0] * (aspect[1] / aspect[0]) ** units[1]
    rows, columns = jnp.round(jnp.sqrt(pixels * ratio)), jnp.round(jnp.sqrt(pixels / ratio))
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    size = jnp.stack([rows[first], columns[first]]).astype(jnp.int32)
    top, left = uniform_index(jax.random.uniform(keys[1], (2,)), jnp.array([height, width]) + 1 - size)
    fill = mean if mode == "const" else mean + std * jax.random.normal(keys[2], noise_shapes[mode])
    erased = jnp.where(rectangle_mask(image.shape, top, left, size[0], size[1]), fill, image)
    return jnp.where(fits[first] & jax.random.bernoulli(keys[3], probability), erased, image)


def noise(key: Array, image: Array, sigma: NonNegative) -> Array:
    """Adds Gaussian noise of standard deviation `sigma` to each value of an image in [0, 1], and clips to [0, 1]."""
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape), 0, 1)


OPS = {"cutout": cutout, "random_erasing": random_erasing, "noise": noise}
