"""Color operations, as torchvision defines them. On gray images, hue and saturation change nothing.

An `amount` is a range of factors: brightness(0.4) draws from 0.6 to 1.4, brightness((0.5, 0.9)) from 0.5 to 0.9.
"""

from typing import Annotated

import jax
import jax.numpy as jnp

from cnnjax.augment.random import sequential_on_cpu, uniform
from cnnjax.errors import InputError
from cnnjax.spec import Ascending, Fraction, NonNegative, Range

Array = jax.Array

_HalfTurn = Annotated[float, Range(-0.5, 0.5)]
Factor = NonNegative | Annotated[tuple[NonNegative, NonNegative], Ascending()]
Turn = Annotated[float, Range(0, 0.5)] | Annotated[tuple[_HalfTurn, _HalfTurn], Ascending()]

LUMA = (0.2989, 0.587, 0.114)  # weights of red, green and blue


# --------------------------------------------------------------------------- adjustments by a given or random factor


def luma(image: Array) -> Array:
    """Converts RGB [H, W, 3] to gray [H, W, 1] by the weights `LUMA`; returns a gray image unchanged."""
    return image if image.shape[-1] == 1 else (image * jnp.array(LUMA).reshape(1, 1, 3)).sum(axis=-1, keepdims=True)


def blend(other: Array | float, image: Array, factor: Array | float) -> Array:
    """Returns factor * image + (1 - factor) * other, clipped to [0, 1].

    A factor of 0 gives `other`, 1 the image, and more than 1 moves away from `other`. `other` is an image, a gray image
    [H, W, 1] or a single value.
    """
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def blur(image: Array) -> Array:
    """Smooths the image by a 3x3 kernel, with weight 5/13 in the center and 1/13 elsewhere (Pillow's SMOOTH).

    The outermost rows and columns stay unchanged, as does an image with a side below 3.
    """
    if min(image.shape[:2]) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return image.at[1:-1, 1:-1].set((box + 4 * image[1:-1, 1:-1]) / 13)


def adjust_hue(image: Array, turn: Array | float) -> Array:
    """Shifts the hue (of HSV) by `turn`, a fraction of the color circle: 1 is 360 degrees. Gray images stay as is."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(axis=-1)
    chroma = value - image.min(axis=-1)
    scale = 1 / jnp.where(chroma == 0, 1, chroma)
    sector = jnp.where(value == red, (green - blue) * scale, 2 + (blue - red) * scale)
    sector = jnp.where((value == blue) & (value != red) & (value != green), 4 + (red - green) * scale, sector)
    k = (jnp.stack([sector + 5, sector + 3, sector + 1], axis=-1) + 6 * turn) / 6
    k = 6 * (k - jnp.floor(k))
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def adjust_brightness(image: Array, factor: Array | float) -> Array:
    """Multiplies the image by `factor`, at least 0, and clips to [0, 1]."""
    return blend(0.0, image, factor)


def adjust_contrast(image: Array, factor: Array | float) -> Array:
    """Blends the image with its mean gray level: factor 0 gives that level, 1 the image, above 1 more contrast."""
    return blend(luma(image).mean(), image, factor)


def adjust_saturation(image: Array, factor: Array | float) -> Array:
    """Blends the image with its gray version: factor 0 gives gray, 1 the image, above 1 stronger colors."""
    return blend(luma(image), image, factor)


def _draw_factor(key: Array, amount: Factor) -> Array:
    """Draws a factor uniformly from (low, high), or from 1 - amount (at least 0) to 1 + amount: float32 []."""
    return uniform(key, amount, around=1, lowest=0)


def brightness(key: Array, image: Array, amount: Factor) -> Array:
    """Multiplies the image by a random factor, and clips to [0, 1].

    The factor is uniform in 1 ± `amount` (0.4: from 0.6 to 1.4), or in `amount` = (low, high).
    """
    return adjust_brightness(image, _draw_factor(key, amount))


def contrast(key: Array, image: Array, amount: Factor) -> Array:
    """Changes the contrast by a random factor: 0 gives the mean gray level everywhere, 1 the image.

    The factor is uniform in 1 ± `amount` (0.4: from 0.6 to 1.4), or in `amount` = (low, high).
    """
    return adjust_contrast(image, _draw_factor(key, amount))


def saturation(key: Array, image: Array, amount: Factor) -> Array:
    """Changes the saturation by a random factor: 0 gives a gray image, 1 the image.

    The factor is uniform in 1 ± `amount` (0.4: from 0.6 to 1.4), or in `amount` = (low, high).
    """
    return adjust_saturation(image, _draw_factor(key, amount))


def hue(key: Array, image: Array, amount: Turn) -> Array:
    """Shifts the hue by a random fraction of the color circle, uniform in ± `amount` or in (low, high), within ±0.5."""
    return adjust_hue(image, uniform(key, amount))


def color_jitter(
    key: Array,
    image: Array,
    brightness: Factor = 0.0,
    contrast: Factor = 0.0,
    saturation: Factor = 0.0,
    hue: Turn = 0.0,
) -> Array:
    """Changes brightness, contrast, saturation and hue at random, in a random order (Howard 2013, arXiv:1312.5402).

    As in torchvision's ColorJitter, amounts and order are drawn anew for each image. brightness=0.4 draws a factor from
    0.6 to 1.4, (0.5, 0.9) one from 0.5 to 0.9; the same holds for contrast and saturation. hue=0.1 draws a shift of
    -0.1 to 0.1 of the color circle. 0 leaves an adjustment out.
    """
    order_key, *keys = jax.random.split(key, 5)
    all_steps = [
        (brightness, adjust_brightness, _draw_factor),
        (contrast, adjust_contrast, _draw_factor),
        (saturation, adjust_saturation, _draw_factor),
        (hue, adjust_hue, uniform),
    ]
    steps = [step for step in all_steps if step[0]]
    if not steps:
        return image
    amounts = jnp.stack([draw(key, amount) for key, (amount, _, draw) in zip(keys, steps, strict=False)])
    order = jnp.argsort(jax.random.uniform(order_key, amounts.shape))

    def adjust(image: Array, order: Array, amounts: Array) -> Array:
        for index in order:
            image = jax.lax.switch(index, [change for _, change, _ in steps], image, amounts[index])
        return image

    return sequential_on_cpu(adjust)(image, order, amounts)


def grayscale(key: Array, image: Array, probability: Fraction = 0.1) -> Array:
    """Replaces the image, with the given probability, by its gray version in the same number of channels."""
    return jnp.where(jax.random.bernoulli(key, probability), luma(image), image)


def pca_color(key: Array, image: Array, eigen: Array, sigma: NonNegative = 0.1) -> Array:
    """Adds one random color to all pixels, along the principal components of the training split's colors.

    The color is the sum of the columns of `eigen` [3, 3], each weighted by a draw from N(0, sigma) (Krizhevsky et al.
    2012, sec. 4.1). A column is an eigenvector of the covariance of RGB in [0, 1], times the square root of its
    eigenvalue. The result is not clipped to [0, 1], as in the paper.
    """
    if image.shape[-1] != 3:
        raise InputError(f"pca_color: the images have {image.shape[-1]} channel(s): expected 3")
    return image + (eigen * (sigma * jax.random.normal(key, (1, 3)))).sum(axis=1).reshape(1, 1, 3)


# --------------------------------------------------------------------------- applied with a probability, on 256 levels


def levels(image: Array) -> Array:
    """Converts values in [0, 1] to 8-bit levels: int32, round(255 * value), clipped to 0 to 255."""
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.int32)


def keep_bits(image: Array, bits: Array | int) -> Array:
    """Zeroes all but the highest `bits` (0 to 8) of the 8-bit level of each value. Returns values in [0, 1]."""
    return (levels(image) & -jnp.left_shift(1, 8 - bits)) / 255


def invert_above(image: Array, threshold: Array | float) -> Array:
    """Replaces each value v whose 8-bit level (0 to 255) is at least `threshold` by 1 - v."""
    return jnp.where(levels(image) >= threshold, 1 - image, image)


def stretch_contrast(image: Array) -> Array:
    """Scales each channel so that its darkest value is 0 and its brightest 1; a constant channel stays unchanged."""
    low, high = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalize_histogram(image: Array) -> Array:
    """Equalizes the histogram of each channel on 256 levels, exactly as Pillow does. Returns values in [0, 1]."""
    level = levels(image)
    channel = jnp.arange(image.shape[-1])
    count = jnp.zeros((image.shape[-1], 256), jnp.int32).at[channel.reshape(1, 1, -1), level].add(1)
    brightest = count[channel, level.max(axis=(0, 1))][:, None]
    step = (level.size // len(channel) - brightest) // 255
    table = jnp.where(
        step > 0, (count.cumsum(axis=1) - count + step // 2) // jnp.maximum(step, 1), jnp.arange(256)[None]
    )
    return jnp.minimum(table, 255)[channel.reshape(1, 1, -1), level] / 255


def posterize(key: Array, image: Array, bits: Annotated[int, Range(0, 8)], probability: Fraction = 0.5) -> Array:
    """Reduces each value, with the given probability, to the highest `bits` (0 to 8) of its 8 bits."""
    return jnp.where(jax.random.bernoulli(key, probability), keep_bits(image, bits), image)


def solarize(key: Array, image: Array, threshold: Fraction = 0.5, probability: Fraction = 0.5) -> Array:
    """Replaces each value v of at least `threshold` (0 to 1) by 1 - v, with the given probability per image."""
    return jnp.where(jax.random.bernoulli(key, probability), invert_above(image, 255 * threshold), image)


def autocontrast(key: Array, image: Array, probability: Fraction = 0.5) -> Array:
    """Stretches each channel to the full range [0, 1], with the given probability."""
    return jnp.where(jax.random.bernoulli(key, probability), stretch_contrast(image), image)


def equalize(key: Array, image: Array, probability: Fraction = 0.5) -> Array:
    """Equalizes the histogram of each channel, with the given probability."""
    return jnp.where(jax.random.bernoulli(key, probability), equalize_histogram(image), image)


def invert(key: Array, image: Array, probability: Fraction = 0.5) -> Array:
    """Replaces each value v by 1 - v, with the given probability per image."""
    return jnp.where(jax.random.bernoulli(key, probability), 1 - image, image)


def sharpness(key: Array, image: Array, factor: NonNegative, probability: Fraction = 0.5) -> Array:
    """Changes the sharpness, with the given probability, by `factor`: 0 blurs, 1 changes nothing, above 1 sharpens."""
    return jnp.where(jax.random.bernoulli(key, probability), blend(blur(image), image, factor), image)


OPS = {
    "brightness": brightness,
    "contrast": contrast,
    "saturation": saturation,
    "hue": hue,
    "color_jitter": color_jitter,
    "grayscale": grayscale,
    "pca_color": pca_color,
    "posterize": posterize,
    "solarize": solarize,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "invert": invert,
    "sharpness": sharpness,
}
