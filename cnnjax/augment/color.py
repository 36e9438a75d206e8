"""Operations on colours, as torchvision defines them; of a grey image those on hue and saturation change nothing.

Amounts are factors: brightness(0.4) draws one from 0.6 to 1.4, brightness((0.5, 0.9)) from there.
"""

import functools

import jax
import jax.numpy as jnp

from cnnjax.augment.random import Amount, bernoulli, sequential_on_cpu, uniform
from cnnjax.errors import InputError

Array = jax.Array

LUMA = (0.2989, 0.587, 0.114)  # of red, green and blue


# ------------------------------------------------------------------------------------------- by a factor, drawn or not


def luma(image: Array) -> Array:
    """The grey image, [H, W, 1]."""
    return image if image.shape[-1] == 1 else (image * jnp.array(LUMA).reshape(1, 1, 3)).sum(axis=-1, keepdims=True)


def blend(other: Array | float, image: Array, factor: Array | float) -> Array:
    """`other` at a factor of 0, the image at 1, and beyond it above 1; clipped."""
    return jnp.clip(factor * image + (1 - factor) * other, 0, 1)


def blurred(image: Array) -> Array:
    """Each pixel but those at the border as the mean of its neighbours and five times itself: Pillow's SMOOTH."""
    if min(image.shape[:2]) < 3:
        return image
    rows = image[:-2] + image[1:-1] + image[2:]
    box = rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]
    return image.at[1:-1, 1:-1].set((box + 4 * image[1:-1, 1:-1]) / 13)


def with_hue(image: Array, turn: Array | float) -> Array:
    """The image with its hues turned by a share of the circle, in HSV."""
    if image.shape[-1] == 1:
        return image
    red, green, blue = image[..., 0], image[..., 1], image[..., 2]
    value = image.max(axis=-1)
    chroma = value - image.min(axis=-1)
    per = 1 / jnp.where(chroma == 0, 1, chroma)
    sector = jnp.where(value == red, (green - blue) * per, 2 + (blue - red) * per)
    sector = jnp.where((value == blue) & (value != red) & (value != green), 4 + (red - green) * per, sector)
    k = (jnp.stack([sector + 5, sector + 3, sector + 1], axis=-1) + 6 * turn) / 6
    k = 6 * (k - jnp.floor(k))
    return value[..., None] - chroma[..., None] * jnp.clip(jnp.minimum(k, 4 - k), 0, 1)


def with_brightness(image: Array, factor: Array | float) -> Array:
    """The image blended with black."""
    return blend(0.0, image, factor)


def with_contrast(image: Array, factor: Array | float) -> Array:
    """The image blended with the mean of its grey image."""
    return blend(luma(image).mean(), image, factor)


def with_saturation(image: Array, factor: Array | float) -> Array:
    """The image blended with its grey image."""
    return blend(luma(image), image, factor)


def _factor(name: str, key: Array, amount: Amount) -> Array:
    return uniform(name, key, amount, around=1, least=0)


def _turn(name: str, key: Array, amount: Amount) -> Array:
    return uniform(name, key, amount, least=-0.5, most=0.5)


def brightness(key: Array, image: Array, amount: Amount) -> Array:
    """Blends with black."""
    return with_brightness(image, _factor("brightness", key, amount))


def contrast(key: Array, image: Array, amount: Amount) -> Array:
    """Blends with the mean of the grey image."""
    return with_contrast(image, _factor("contrast", key, amount))


def saturation(key: Array, image: Array, amount: Amount) -> Array:
    """Blends with the grey image."""
    return with_saturation(image, _factor("saturation", key, amount))


def hue(key: Array, image: Array, amount: Amount) -> Array:
    """Turns the hues by -amount to amount, or (low, high), of the circle; half of it is the most."""
    return with_hue(image, _turn("hue", key, amount))


def color_jitter(
    key: Array,
    image: Array,
    brightness: Amount = 0.0,
    contrast: Amount = 0.0,
    saturation: Amount = 0.0,
    hue: Amount = 0.0,
) -> Array:
    """These four, each image in an order of its own; (0.4, 0.4, 0.4) goes back to Howard 2013, arXiv:1312.5402."""
    order_key, *keys = jax.random.split(key, 5)
    all_steps = [
        (brightness, with_brightness, functools.partial(_factor, "color_jitter: brightness")),
        (contrast, with_contrast, functools.partial(_factor, "color_jitter: contrast")),
        (saturation, with_saturation, functools.partial(_factor, "color_jitter: saturation")),
        (hue, with_hue, functools.partial(_turn, "color_jitter: hue")),
    ]
    steps = [step for step in all_steps if step[0]]
    if not steps:
        return image
    amounts = jnp.stack([draw(key, amount) for key, (amount, _, draw) in zip(keys, steps, strict=False)])
    order = jnp.argsort(jax.random.uniform(order_key, amounts.shape))

    def changed(image: Array, order: Array, amounts: Array) -> Array:
        for one in order:
            image = jax.lax.switch(one, [change for _, change, _ in steps], image, amounts[one])
        return image

    return sequential_on_cpu(changed)(image, order, amounts)


def grayscale(key: Array, image: Array, probability: float = 0.1) -> Array:
    """Takes the colour away."""
    return jnp.where(bernoulli("grayscale", key, probability), luma(image), image)


def pca_color(key: Array, image: Array, eigen: Array, sigma: float = 0.1) -> Array:
    """Adds to all pixels one colour, along the principal components of the colours of the training split.

    Each component counts N(0, sigma) times (Krizhevsky et al. 2012, 4.1). `eigen` [3, 3] holds in its columns the
    eigenvectors of the covariance of RGB in [0, 1], times the square root of their eigenvalues. As in the paper,
    nothing is clipped.
    """
    if image.shape[-1] != 3:
        raise InputError(f"pca_color: the images have {image.shape[-1]} channel(s): expected 3")
    if sigma < 0:
        raise InputError(f"pca_color: sigma = {sigma!r}: expected at least 0")
    return image + (eigen * (sigma * jax.random.normal(key, (1, 3)))).sum(axis=1).reshape(1, 1, 3)


# ------------------------------------------------------------------------- with some probability; some on 256 levels


def levels(image: Array) -> Array:
    """The nearest of the 256 levels that files have: int32."""
    return jnp.round(jnp.clip(image, 0, 1) * 255).astype(jnp.int32)


def posterized(image: Array, bits: Array | int) -> Array:
    """The image with that many bits left of the eight of each level."""
    return (levels(image) & -jnp.left_shift(1, 8 - bits)) / 255


def solarized(image: Array, threshold: Array | float) -> Array:
    """The image with all levels from `threshold`, of 256, inverted."""
    return jnp.where(levels(image) >= threshold, 1 - image, image)


def stretched(image: Array) -> Array:
    """The image with the darkest value of each channel at 0 and the brightest at 1."""
    low, high = image.min(axis=(0, 1), keepdims=True), image.max(axis=(0, 1), keepdims=True)
    return jnp.where(high > low, (image - low) / jnp.where(high > low, high - low, 1), image)


def equalized(image: Array) -> Array:
    """The image with the levels of each channel spread so that about as many pixels have each of them, as in Pillow."""
    level = levels(image)
    channel = jnp.arange(image.shape[-1])
    count = jnp.zeros((image.shape[-1], 256), jnp.int32).at[channel.reshape(1, 1, -1), level].add(1)
    most = count[channel, level.max(axis=(0, 1))][:, None]
    step = (level.size // len(channel) - most) // 255
    table = jnp.where(
        step > 0, (count.cumsum(axis=1) - count + step // 2) // jnp.maximum(step, 1), jnp.arange(256)[None]
    )
    return jnp.minimum(table, 255)[channel.reshape(1, 1, -1), level] / 255


def posterize(key: Array, image: Array, bits: int, probability: float = 0.5) -> Array:
    """Keeps `bits` of the eight bits of each level."""
    if not 0 <= bits <= 8:
        raise InputError(f"posterize: bits = {bits!r}: expected 0 to 8")
    return jnp.where(bernoulli("posterize", key, probability), posterized(image, bits), image)


def solarize(key: Array, image: Array, threshold: float = 0.5, probability: float = 0.5) -> Array:
    """Inverts all values from `threshold`, of [0, 1]."""
    if not 0 <= threshold <= 1:
        raise InputError(f"solarize: threshold = {threshold!r}: expected 0 to 1")
    return jnp.where(bernoulli("solarize", key, probability), solarized(image, 255 * threshold), image)


def autocontrast(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Stretches each channel to [0, 1]."""
    return jnp.where(bernoulli("autocontrast", key, probability), stretched(image), image)


def equalize(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Equalises the histogram of each channel, of 256 levels."""
    return jnp.where(bernoulli("equalize", key, probability), equalized(image), image)


def invert(key: Array, image: Array, probability: float = 0.5) -> Array:
    """The negative."""
    return jnp.where(bernoulli("invert", key, probability), 1 - image, image)


def sharpness(key: Array, image: Array, factor: float, probability: float = 0.5) -> Array:
    """Blends with the blurred image: a factor of 0 is that, 1 the image, and beyond it is sharper."""
    if factor < 0:
        raise InputError(f"sharpness: factor = {factor!r}: expected at least 0")
    return jnp.where(bernoulli("sharpness", key, probability), blend(blurred(image), image, factor), image)


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
