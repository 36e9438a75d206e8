"""Operations that move pixels: flips, crops and affine maps. New pixels get the mean color of the training split."""

from typing import Annotated

import jax
import jax.numpy as jnp

from cnnjax.augment.random import rectangle_mask, uniform
from cnnjax.errors import InputError, unknown
from cnnjax.spec import Ascending, Fraction, Positive, Range

Array = jax.Array

INTERPOLATIONS = ("bilinear", "nearest")

Padding = Annotated[int, Range(0, 1024)]  # pixels
Offset = Annotated[int, Range(-65_535, 65_535)]  # pixels
# A number a stands for the interval (-a, a).
_Turn = Annotated[float, Range(-360, 360)]
_Tilt = Annotated[float, Range(-89, 89)]
Degrees = Annotated[float, Range(0, 360)] | Annotated[tuple[_Turn, _Turn], Ascending()]
ShearAngle = Annotated[float, Range(0, 89)] | Annotated[tuple[_Tilt, _Tilt], Ascending()]


def flip_lr(key: Array, image: Array, probability: Fraction = 0.5) -> Array:
    """Flips the image left to right, with the given probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[:, ::-1], image)


def flip_ud(key: Array, image: Array, probability: Fraction = 0.5) -> Array:
    """Flips the image top to bottom, with the given probability."""
    return jnp.where(jax.random.bernoulli(key, probability), image[::-1], image)


def flip_alternating(image: Array, example: Array, epoch: Array) -> Array:
    """Flips an image left to right in every second epoch (Jordan 2024, arXiv:2404.00498, sec. 3.6).

    About half of the images are flipped in even epochs, the others in odd ones, so any two consecutive epochs show both
    versions of every image. `example`, int32 [], is the image's index in the split and decides its half, the same in
    every run. `epoch`, int32 [], is how often the image was used before.
    """
    parity = jax.random.bits(jax.random.fold_in(jax.random.key(0), example)) + epoch.astype(jnp.uint32)
    return jnp.where(parity % 2 == 1, image[:, ::-1], image)


def pad_crop(key: Array, image: Array, mean: Array, pad: Padding, fill: str = "mean") -> Array:
    """Pads every side by `pad` pixels and crops a random window of the original size (He et al. 2016, sec. 4.2).

    With fill='mean' the padding is the training split's mean color, `mean` [1, 1, C]; with fill='reflect' it mirrors
    the image at its border.
    """
    height, width, channels = image.shape
    if fill not in ("mean", "reflect"):
        raise InputError(f"pad_crop: fill = {fill!r}; valid: mean, reflect")
    if fill == "reflect":
        if pad >= min(height, width):
            raise InputError(f"pad_crop: pad = {pad!r}: expected less than the image's sides, {height}x{width}")
        padded = jnp.pad(image, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
    else:
        frame = jnp.broadcast_to(mean, (height + 2 * pad, width + 2 * pad, channels))
        padded = jax.lax.dynamic_update_slice(frame.astype(image.dtype), image, (pad, pad, 0))
    top, left = jax.random.randint(key, (2,), 0, 2 * pad + 1)
    return jax.lax.dynamic_slice(padded, (top, left, 0), image.shape)


def shift(image: Array, mean: Array, rows: Offset = 0, columns: Offset = 0) -> Array:
    """Shifts the image down by `rows` and right by `columns` pixels, the same for all images.

    Negative numbers shift up and left. Uncovered pixels get `mean` [1, 1, C].
    """
    return shifted(image, mean, jnp.int32(rows), jnp.int32(columns))


def shifted(image: Array, mean: Array, rows: Array, columns: Array) -> Array:
    """Shifts like `shift`, with `rows` and `columns` as int32 arrays [] that may be traced."""
    inside = rectangle_mask(image.shape, rows, columns, *image.shape[:2])
    return jnp.where(inside, jnp.roll(image, jnp.stack([rows, columns]), axis=(0, 1)), mean)


def translate(key: Array, image: Array, mean: Array, fraction: Fraction | tuple[Fraction, Fraction]) -> Array:
    """Shifts the image by random whole numbers of pixels, horizontally and vertically.

    Each is uniform within ± `fraction` of that side; a tuple gives (horizontal, vertical) fractions, from 0 to 1.
    Uncovered pixels get `mean` [1, 1, C].
    """
    x, y = fraction if isinstance(fraction, tuple) else (fraction, fraction)
    limits = jnp.array([y * image.shape[0], x * image.shape[1]])
    rows, columns = jnp.round(jax.random.uniform(key, (2,), minval=-limits, maxval=limits)).astype(jnp.int32)
    return shifted(image, mean, rows, columns)


def warp(image: Array, mean: Array, matrix: Array, interpolation: str = "bilinear") -> Array:
    """Warps the image by an affine map: output(p) = image(matrix @ (p, 1)), where p = (x, y).

    `matrix` [2, 3] maps the position of an output pixel to one in the input, which is the inverse of how the content
    moves. Positions are in pixels from the center of the image, x to the right and y down. Positions outside the image
    get `mean` [1, 1, C]. `interpolation` is 'bilinear' or 'nearest'.
    """
    if interpolation not in INTERPOLATIONS:
        raise unknown("interpolation", interpolation, INTERPOLATIONS)
    height, width, _ = image.shape
    center = jnp.array([width - 1, height - 1]) / 2
    x, y = jnp.arange(width)[None, :] - center[0], jnp.arange(height)[:, None] - center[1]
    column, row = (matrix[i, 0] * x + matrix[i, 1] * y + matrix[i, 2] + center[i] for i in (0, 1))

    def pixels(rows: Array, columns: Array) -> Array:
        inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
        values = image[jnp.clip(rows, 0, height - 1), jnp.clip(columns, 0, width - 1)]
        return jnp.where(inside[:, :, None], values, mean)

    if interpolation == "nearest":
        return pixels(jnp.round(row).astype(jnp.int32), jnp.round(column).astype(jnp.int32))
    top, left = jnp.floor(row).astype(jnp.int32), jnp.floor(column).astype(jnp.int32)
    down, right = (row - top)[:, :, None], (column - left)[:, :, None]
    upper = (1 - right) * pixels(top, left) + right * pixels(top, left + 1)
    lower = (1 - right) * pixels(top + 1, left) + right * pixels(top + 1, left + 1)
    return (1 - down) * upper + down * lower


def affine(a: Array | float, b: Array | float, c: Array | float, d: Array | float) -> Array:
    """Returns the `warp` matrix that maps (x, y) to (a x + b y, c x + d y), with no translation: float32 [2, 3]."""
    return jnp.stack(
        [jnp.stack([jnp.asarray(entry, jnp.float32) for entry in row]) for row in ((a, b, 0.0), (c, d, 0.0))]
    )


def rotate(key: Array, image: Array, mean: Array, degrees: Degrees, interpolation: str = "bilinear") -> Array:
    """Rotates the image counterclockwise about its center by a random angle; the size of the image stays.

    The angle is uniform in ± `degrees`, or in `degrees` = (low, high). Uncovered pixels get `mean` [1, 1, C].
    """
    angle = jnp.deg2rad(uniform(key, degrees))
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    return warp(image, mean, affine(cosine, -sine, sine, cosine), interpolation)


def scale(
    key: Array, image: Array, mean: Array, low: Positive, high: Positive, interpolation: str = "bilinear"
) -> Array:
    """Zooms about the center by a random factor, uniform from `low` to `high`; the size of the image stays.

    A factor above 1 magnifies. Below 1, uncovered pixels get `mean` [1, 1, C].
    """
    if low > high:
        raise InputError(f"scale: low = {low!r}, high = {high!r}: expected low <= high")
    factor = uniform(key, (low, high))
    return warp(image, mean, affine(1 / factor, 0.0, 0.0, 1 / factor), interpolation)


def shear(
    key: Array, image: Array, mean: Array, x: ShearAngle, y: ShearAngle = 0.0, interpolation: str = "bilinear"
) -> Array:
    """Shears the image about its center by random angles: horizontally (drawn from `x`), then vertically (from `y`).

    An angle is in degrees, uniform in ± the given number or in (low, high), within ±89. Uncovered pixels get `mean`
    [1, 1, C].
    """
    keys = jax.random.split(key)
    angles = (uniform(k, v) for k, v in zip(keys, (x, y), strict=True))
    along_x, along_y = (jnp.tan(jnp.deg2rad(angle)) for angle in angles)
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
