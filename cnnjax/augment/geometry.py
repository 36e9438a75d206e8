"""Operations that move pixels: mirror images, windows, and affine maps. What comes into view is of the mean colour."""

import math

import jax
import jax.numpy as jnp

from cnnjax.augment.random import Amount, bernoulli, rectangle, uniform
from cnnjax.errors import InputError, unknown

Array = jax.Array

INTERPOLATIONS = ("bilinear", "nearest")


def flip_lr(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Mirrors the image left to right."""
    return jnp.where(bernoulli("flip_lr", key, probability), image[:, ::-1], image)


def flip_ud(key: Array, image: Array, probability: float = 0.5) -> Array:
    """Mirrors the image top to bottom."""
    return jnp.where(bernoulli("flip_ud", key, probability), image[::-1], image)


def flip_alternating(image: Array, example: Array, epoch: Array) -> Array:
    """Mirrors half of the images in even epochs and the other half in odd ones, the same halves in every run.

    So each two epochs show both sides of every image (Jordan 2024, arXiv:2404.00498, sec. 3.6).
    """
    half = jax.random.bits(jax.random.fold_in(jax.random.key(0), example)) + epoch.astype(jnp.uint32)
    return jnp.where(half % 2 == 1, image[:, ::-1], image)


def pad_crop(key: Array, image: Array, mean: Array, pad: int, fill: str = "mean") -> Array:
    """Adds `pad` pixels on every side and cuts the old size out anywhere (He et al. 2016, 4.2).

    The pixels are of the mean colour, or with fill='reflect' those of the image, mirrored at its border.
    """
    height, width, channels = image.shape
    if fill not in ("mean", "reflect"):
        raise InputError(f"pad_crop: fill = {fill!r}; valid: mean, reflect")
    if not 0 <= pad < (min(height, width) if fill == "reflect" else math.inf):
        most = f" and less than the image's sides, {height}x{width}" if pad > 0 else ""
        raise InputError(f"pad_crop: pad = {pad!r}: expected at least 0{most}")
    if fill == "reflect":
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    else:
        frame = jnp.broadcast_to(mean, (height + 2 * pad, width + 2 * pad, channels))
        padded = jax.lax.dynamic_update_slice(frame.astype(image.dtype), image, (pad, pad, 0))
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def shift(image: Array, mean: Array, rows: int = 0, columns: int = 0) -> Array:
    """Moves the image down by `rows` and right by `columns`."""
    return moved(image, mean, jnp.int32(rows), jnp.int32(columns))


def moved(image: Array, mean: Array, rows: Array, columns: Array) -> Array:
    """As `shift`, by numbers that may be drawn."""
    there = rectangle(image.shape, rows, columns, *image.shape[:2])
    return jnp.where(there, jnp.roll(image, jnp.stack([rows, columns]), axis=(0, 1)), mean)


def translate(key: Array, image: Array, mean: Array, fraction: Amount) -> Array:
    """Moves the image by whole pixels, up to a fraction of its side: of both, or of its (width, height)."""
    x, y = fraction if isinstance(fraction, tuple) else (fraction, fraction)
    if not (0 <= x <= 1 and 0 <= y <= 1):
        raise InputError(f"translate: fraction = {fraction!r}: expected 0 to 1, or (of the width, of the height)")
    most = jnp.array([y * image.shape[0], x * image.shape[1]])
    rows, columns = jnp.round(jax.random.uniform(key, (2,), minval=-most, maxval=most)).astype(jnp.int32)
    return moved(image, mean, rows, columns)


def warp(image: Array, mean: Array, matrix: Array, interpolation: str = "bilinear") -> Array:
    """The image under an affine map.

    `matrix` [2, 3] takes the (column, row, 1) of a pixel of the result, counted from the middle of the image, to where
    it comes from, counted alike; that is the inverse of how the content moves. Outside of the image is `mean`.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    height, width, _ = image.shape
    middle = jnp.array([width - 1, height - 1]) / 2
    x, y = jnp.arange(width)[None, :] - middle[0], jnp.arange(height)[:, None] - middle[1]
    column, row = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] + middle[i] for i in (0, 1))

    def pixels(rows: Array, columns: Array) -> Array:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        found = image[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside[:, :, None], found, mean)

    if interpolation == "nearest":
        return pixels(jnp.round(row).astype(jnp.int32), jnp.round(column).astype(jnp.int32))
    top, left = jnp.floor(row).astype(jnp.int32), jnp.floor(column).astype(jnp.int32)
    down, right = (row - top)[:, :, None], (column - left)[:, :, None]
    upper = (1 - right) * pixels(top, left) + right * pixels(top, left + 1)
    lower = (1 - right) * pixels(top + 1, left) + right * pixels(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def affine(a: Array | float, b: Array | float, c: Array | float, d: Array | float) -> Array:
    """The matrix for `warp` that takes (x, y) to (a x + b y, c x + d y)."""
    return jnp.stack([jnp.stack([jnp.asarray(one, jnp.float32) for one in row]) for row in ((a, b, 0.0), (c, d, 0.0))])


def rotate(key: Array, image: Array, mean: Array, degrees: Amount, interpolation: str = "bilinear") -> Array:
    """Turns the image counter-clockwise about its middle, by -degrees to degrees or by (low, high)."""
    angle = jnp.deg2rad(uniform("rotate", key, degrees))
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return warp(image, mean, affine(cosine, -sine, sine, cosine), interpolation)


def scale(key: Array, image: Array, mean: Array, low: float, high: float, interpolation: str = "bilinear") -> Array:
    """Zooms about the middle by a factor in (low, high); the size of the image stays."""
    if low <= 0:
        raise InputError(f"scale: low = {low!r}: expected more than 0")
    factor = uniform("scale", key, (low, high))
    return warp(image, mean, affine(1 / factor, 0.0, 0.0, 1 / factor), interpolation)


def shear(key: Array, image: Array, mean: Array, x: Amount, y: Amount = 0.0, interpolation: str = "bilinear") -> Array:
    """Slants the image about its middle: along its rows by -x to x degrees, then along its columns by -y to y."""
    keys = jax.random.split(key)
    slants = (uniform("shear", k, v, least=-89, most=89) for k, v in zip(keys, (x, y), strict=True))
    along_x, along_y = (jnp.tan(jnp.deg2rad(slant)) for slant in slants)
    return warp(image, mean, affine(1 + along_x * along_y, along_x, along_y, 1.0), interpolation)


OPS = {
    "flip_lr": flip_lr,
    "flip_ud": flip_ud,
    "flip_alternating": flip_alternating,
    "pad_crop": pad_crop,
    "shift": shift,
    "translate": translate,
    "rotate": rotate,
    "scale": scale,
    "shear": shear,
}
