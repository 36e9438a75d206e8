"""Operations that paint over a part of the image, or disturb all of it."""

import math

import jax
import jax.numpy as jnp

from cnnjax.augment.random import bernoulli, rectangle, uniform_index
from cnnjax.errors import InputError, unknown

Array = jax.Array


def cutout(key: Array, image: Array, mean: Array, size: int) -> Array:
    """Paints a square of `size` pixels, centred anywhere and cut off at the border (DeVries & Taylor 2017, 3.2)."""
    if size < 1:
        raise InputError(f"cutout: size = {size!r}: expected at least 1")
    row, column = jax.random.randint(key, (2,), 0, jnp.array(image.shape[:2]))
    return jnp.where(rectangle(image.shape, row - size // 2, column - size // 2, size, size), mean, image)


def random_erasing(
    key: Array,
    image: Array,
    mean: Array,
    std: Array,
    probability: float = 0.5,
    area: tuple[float, float] = (0.02, 1 / 3),
    aspect: tuple[float, float] = (0.3, 10 / 3),
    mode: str = "const",
) -> Array:
    """Paints a rectangle: of a share of the image in `area`, with height / width in `aspect` (Zhong et al. 2020, 3.2).

    mode='const' paints in the mean colour, 'rand' in one colour and 'pixel' in a colour for each pixel, drawn from the
    normal distribution of the training split. So once normalised these are 0 and N(0, 1), as in timm. An image that
    none of ten rectangles fits into stays as it is.
    """
    height, width, channels = image.shape
    drawn = {"const": (0, 0, 0), "rand": (1, 1, channels), "pixel": image.shape}
    if mode not in drawn:
        raise unknown("random_erasing: mode", mode, drawn)
    for name, (low, high), most in (("area", area, 1.0), ("aspect", aspect, math.inf)):
        if not 0 < low <= high <= most:
            limit = "at most 1" if most == 1 else "more than 0"
            raise InputError(f"random_erasing: {name} = {(low, high)!r}: expected (low, high), {limit}, low <= high")
    keys = jax.random.split(key, 4)
    shares = jax.random.uniform(keys[0], (2, 10))
    pixels = (area[0] + (area[1] - area[0]) * shares[0]) * height * width
    ratio = aspect[0] * (aspect[1] / aspect[0]) ** shares[1]
    rows, columns = jnp.round(jnp.sqrt(pixels * ratio)), jnp.round(jnp.sqrt(pixels / ratio))
    fits = (rows < height) & (columns < width)
    first = jnp.argmax(fits)
    size = jnp.stack([rows[first], columns[first]]).astype(jnp.int32)
    top, left = uniform_index(jax.random.uniform(keys[1], (2,)), jnp.array([height, width]) + 1 - size)
    paint = mean if mode == "const" else mean + std * jax.random.normal(keys[2], drawn[mode])
    painted = jnp.where(rectangle(image.shape, top, left, size[0], size[1]), paint, image)
    return jnp.where(fits[first] & bernoulli("random_erasing", keys[3], probability), painted, image)


def noise(key: Array, image: Array, sigma: float) -> Array:
    """Adds Gaussian noise of the deviation `sigma` to each value, on the scale of [0, 1], and clips."""
    if sigma < 0:
        raise InputError(f"noise: sigma = {sigma!r}: expected at least 0")
    return jnp.clip(image + sigma * jax.random.normal(key, image.shape), 0, 1)


OPS = {"cutout": cutout, "random_erasing": random_erasing, "noise": noise}
