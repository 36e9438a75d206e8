"""The image corruptions of Hendrycks & Dietterich (2019), each a function `(image, rng, *strength) -> image`.

Images are float64 [H, W, C] in [0, 1], gray (C = 1) or RGB (C = 3). Results may leave [0, 1]; `corruptions.corrupt`
clips them. All random numbers come from the NumPy generator `rng`. Numbers that are written in the code are those of
the authors' programs, which the paper's appendix B describes in words.
"""

import functools
import io
import math
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from cnnjax.data import images
from cnnjax.errors import InputError

Array = np.ndarray
Generator = np.random.Generator

LUMA = np.array([0.299, 0.587, 0.114])
WATER, MUD = np.array([175, 238, 238]) / 255, np.array([63, 42, 20]) / 255  # colors of spatter
FROST = np.array([0.57, 0.65, 0.70])  # mean color of the authors' photographs of frost


def _opencv() -> Any:
    """Returns the module cv2. Raises InputError if it is not installed."""
    if images.cv2 is None:
        raise InputError("this corruption needs OpenCV: install opencv-python-headless")
    return images.cv2


def _like(color: Array, image: Array) -> Array:
    """Returns colors, [..., 3], with as many channels as `image` has: their luma for a gray image."""
    return color if image.shape[2] == 3 else color @ LUMA[:, None]


def _power_of_two(size: int) -> int:
    """Returns the smallest power of two that is at least `size` and 2."""
    return 1 << max(1, (size - 1).bit_length())


# --------------------------------------------------------------------------------------------------------------- noise


def gaussian_noise(image: Array, rng: Generator, scale: float) -> Array:
    """Adds normal noise of standard deviation `scale` to each value."""
    return image + scale * rng.standard_normal(image.shape)


def shot_noise(image: Array, rng: Generator, photons: float) -> Array:
    """Replaces each value by a Poisson count whose mean is `photons` at full brightness, divided by `photons`."""
    return rng.poisson(image * photons) / photons


def impulse_noise(image: Array, rng: Generator, amount: float) -> Array:
    """Sets a fraction `amount` of the values, each channel by itself, to 0 or 1 with equal probability."""
    is_hit, salt = rng.random(image.shape) < amount, rng.random(image.shape) < 0.5
    return np.where(is_hit, salt, image)


def speckle_noise(image: Array, rng: Generator, scale: float) -> Array:
    """Adds normal noise whose standard deviation is `scale` times the value."""
    return image + image * scale * rng.standard_normal(image.shape)


# ---------------------------------------------------------------------------------------------------------------- blur


def gaussian_blur(image: Array, rng: Generator, sigma: float) -> Array:
    """Convolves with a Gaussian of standard deviation `sigma` pixels; the border is continued by its nearest pixel."""
    return ndimage.gaussian_filter(image, (sigma, sigma, 0), mode="nearest")


def defocus_blur(image: Array, rng: Generator, radius: float, alias_blur: float) -> Array:
    """Convolves with a disk of `radius` pixels, itself blurred by a Gaussian of standard deviation `alias_blur`."""
    return _opencv().filter2D(image, -1, _disk(radius, alias_blur)).reshape(image.shape)


@functools.cache
def _disk(radius: float, alias_blur: float) -> Array:
    """Returns the kernel of `defocus_blur`, float64 [n, n], whose sum is 1."""
    reach = max(8, math.floor(radius))
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = (rows**2 + columns**2 <= radius**2).astype(np.float64)
    size = 3 if radius <= 8 else 5
    return _opencv().GaussianBlur(inside / inside.sum(), (size, size), alias_blur)


def glass_blur(image: Array, rng: Generator, sigma: float, reach: int, rounds: int) -> Array:
    """Blurs, replaces each inner pixel by one at most `reach` pixels away, `rounds` times over, and blurs again.

    The authors' program means to exchange the two pixels, but overwrites one with the other. Their data sets have
    this error, so it is kept. Pixels are visited from the lower right to the upper left.
    """
    height, width, channels = image.shape
    blurred = np.floor(gaussian_blur(image, rng, sigma) * 255) / 255
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    target = (rows[:, None] * width + columns).ravel()
    source = list(range(height * width))
    for _ in range(rounds):
        offsets = rng.integers(-reach, reach, (2, target.size))
        for to, taken in zip(target.tolist(), (target + offsets[0] * width + offsets[1]).tolist(), strict=True):
            source[to] = source[taken]
    return gaussian_blur(blurred.reshape(-1, channels)[source].reshape(image.shape), rng, sigma)


def motion_blur(image: Array, rng: Generator, radius: int, sigma: float) -> Array:
    """Averages along a line at a random angle within 45 degrees of the horizontal: see `_smear`."""
    return _smear(image, radius, sigma, math.radians(rng.uniform(-45, 45)))


def _smear(image: Array, radius: int, sigma: float, angle: float) -> Array:
    """Blurs to one side along a line, by a half Gaussian of 2 * `radius` + 1 pixels, as ImageMagick's MotionBlurImage.

    `angle` is in radians, clockwise from the right. The border is continued by its nearest pixel.
    """
    height, width = image.shape[:2]
    distance = np.arange(2 * radius + 1)
    weights = np.exp(-(distance**2) / (2 * sigma**2))
    down = np.ceil(distance * math.sin(angle) - 0.5).astype(int)
    right = np.ceil(distance * math.cos(angle) - 0.5).astype(int)
    margin = 2 * radius + 1
    padded = np.pad(image, [(margin, margin), (margin, margin), (0, 0)], mode="edge")
    result = np.zeros_like(image)
    for weight, y, x in zip(weights / weights.sum(), margin + down, margin + right, strict=True):
        result += weight * padded[y : y + height, x : x + width]
    return result


def zoom_blur(image: Array, rng: Generator, stop: float, step: float) -> Array:
    """Averages the image and its enlargements by the factors 1, 1 + `step`, ... below `stop`, each cut to its size."""
    factors = np.arange(1, stop, step)
    zoomed = sum(_zoom(image, float(factor)) for factor in factors)
    return (image + zoomed) / (len(factors) + 1)


def _zoom(image: Array, factor: float) -> Array:
    """Enlarges the center of an image by `factor` >= 1, with linear interpolation, and keeps the size [H, W, C]."""
    for axis in (0, 1):
        first, second, weight = _zoom_samples(image.shape[axis], factor)
        weight = weight.reshape(-1, *[1] * (2 - axis))
        image = image.take(first, axis) * (1 - weight) + image.take(second, axis) * weight
    return image


@functools.lru_cache(maxsize=256)
def _zoom_samples(side: int, factor: float) -> tuple[Array, Array, Array]:
    """Returns where `_zoom` samples one side: for each of `side` pixels, two indices and the weight of the second.

    The ceil(side / factor) central pixels become round(that * factor) ones, of which the central ones are kept.
    """
    count = math.ceil(side / factor)
    top, enlarged = (side - count) // 2, max(2, round(count * factor))
    position = (np.arange(side) + (enlarged - side) // 2) * ((count - 1) / (enlarged - 1))
    lower = np.minimum(position.astype(int), count - 1)
    return top + lower, top + np.minimum(lower + 1, count - 1), position - lower


# ------------------------------------------------------------------------------------------------------------- weather


def snow(
    image: Array, rng: Generator, mean: float, scale: float, zoom: float, threshold: float, radius: int, sigma: float,
    kept: float,
) -> Array:  # fmt: skip
    """Whitens the image and adds flakes: enlarged noise above a threshold, blurred as it falls.

    The flakes are noise of this `mean` and standard deviation `scale`, enlarged by `zoom`, set to 0 below `threshold`
    and smeared downward with `radius` and `sigma`. It is blended with its whitened version; `kept` is its own weight.
    """
    flakes = _zoom(mean + scale * rng.standard_normal((*image.shape[:2], 1)), zoom)
    flakes = np.clip(np.where(flakes < threshold, 0, flakes), 0, 1)
    flakes = _smear(flakes, radius, sigma, math.radians(rng.uniform(-135, -45)))
    gray = image @ LUMA[:, None] if image.shape[2] == 3 else image
    return kept * image + (1 - kept) * np.maximum(image, 1.5 * gray + 0.5) + flakes + np.rot90(flakes, 2)


def frost(image: Array, rng: Generator, kept: float, amount: float) -> Array:
    """Adds `amount` of a texture of frost to `kept` of the image.

    The authors cut the texture out of photographs, which cannot be shipped. This one is generated: veins of fractal
    noise in the photographs' mean color, with about their contrast. Errors do not compare with published tables.
    """
    height, width = image.shape[:2]
    size = _power_of_two(max(height, width))
    veins = np.sum([(1 - np.abs(2 * _plasma(size, decay, rng) - 1)) ** 2 for decay in (1.15, 1.4)], axis=0)
    texture = FROST + 0.16 * (veins - veins.mean())[:height, :width, None] / max(veins.std(), 1e-6)
    return kept * image + amount * _like(np.clip(texture, 0, 1), image)


def fog(image: Array, rng: Generator, amount: float, decay: float) -> Array:
    """Adds `amount` of fractal noise, whose roughness `decay` sets, and scales back to the image's maximum."""
    height, width = image.shape[:2]
    noise = _plasma(_power_of_two(max(height, width)), decay, rng)[:height, :width, None]
    brightest = image.max()
    return (image + amount * noise) * brightest / (brightest + amount)


def _plasma(size: int, decay: float, rng: Generator) -> Array:
    """Returns fractal noise in [0, 1], float64 [size, size], by the diamond-square algorithm on a torus.

    `size` is a power of two. From one scale to the next, half as large, the amplitude is divided by `decay` squared.
    """
    noise = np.zeros((size, size))
    step, amplitude = size, 1.0
    while step > 1:
        half = step // 2
        corners = noise[::step, ::step]
        square = corners + np.roll(corners, -1, axis=0)
        random = amplitude * rng.uniform(-1, 1, (3, *corners.shape))
        centers = (square + np.roll(square, -1, axis=1)) / 4 + random[0]
        across = corners + np.roll(corners, -1, axis=1) + centers + np.roll(centers, 1, axis=0)
        down = corners + np.roll(corners, -1, axis=0) + centers + np.roll(centers, 1, axis=1)
        noise[half::step, half::step] = centers
        noise[::step, half::step] = across / 4 + random[1]
        noise[half::step, ::step] = down / 4 + random[2]
        step, amplitude = half, amplitude / decay**2
    noise -= noise.min()
    return noise / max(noise.max(), 1e-12)


def spatter(
    image: Array, rng: Generator, mean: float, scale: float, sigma: float, threshold: float, strength: float, mud: int
) -> Array:
    """Covers the image with drops of water or, with `mud` = 1, of mud.

    The drops are noise of this `mean` and standard deviation `scale`, blurred by `sigma`, above `threshold`.
    `strength` is the brightness of water, or the standard deviation by which the edge of mud is blurred.
    """
    liquid = ndimage.gaussian_filter(mean + scale * rng.standard_normal(image.shape[:2]), sigma, mode="nearest")
    liquid = np.where(liquid < threshold, 0, liquid)
    if not mud:
        return image + (strength * _water(liquid))[:, :, None] * _like(WATER, image)
    cover = ndimage.gaussian_filter((liquid > threshold).astype(np.float64), strength, mode="nearest")
    cover = np.where(cover < 0.8, 0, cover)[:, :, None]
    return image * (1 - cover) + cover * _like(MUD, image)


def _water(liquid: Array) -> Array:
    """Returns the light in drops of water, [H, W] in [0, 1], brightest along one side of each drop."""
    cv2 = _opencv()
    liquid = (np.clip(liquid, 0, 1) * 255).astype(np.uint8)
    distance = cv2.distanceTransform(255 - cv2.Canny(liquid, 50, 150), cv2.DIST_L2, 5)
    distance = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
    relief = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]])
    shaded = cv2.blur(cv2.filter2D(distance, cv2.CV_8U, relief), (3, 3)).astype(np.float64)
    light = liquid * shaded
    return light / max(light.max(), 1e-12)


# ------------------------------------------------------------------------------------------------------------- digital


def brightness(image: Array, rng: Generator, amount: float) -> Array:
    """Adds `amount` to the value in HSV, at most to 1: scales each pixel, and makes a black one gray."""
    value = image.max(axis=2, keepdims=True)
    brighter = np.minimum(value + amount, 1)
    return np.where(value > 0, image / np.where(value > 0, value, 1), 1) * brighter


def contrast(image: Array, rng: Generator, factor: float) -> Array:
    """Multiplies the deviations from each channel's mean by `factor`."""
    mean = image.mean(axis=(0, 1), keepdims=True)
    return (image - mean) * factor + mean


def saturate(image: Array, rng: Generator, factor: float, offset: float) -> Array:
    """Maps the saturation s in HSV to `factor` * s + `offset`, at most 1. A gray image is unchanged.

    A gray pixel of a color image has hue 0: an `offset` makes it reddish.
    """
    if image.shape[2] == 1:
        return image
    value, lowest = image.max(axis=2, keepdims=True), image.min(axis=2, keepdims=True)
    spread = value - lowest
    saturation = spread / np.where(value > 0, value, 1)
    hue = np.where(spread > 0, (value - image) / np.where(spread > 0, spread, 1), [0, 1, 1])
    return value * (1 - hue * np.clip(factor * saturation + offset, 0, 1))


def jpeg_compression(image: Array, rng: Generator, quality: int) -> Array:
    """Encodes the image as a JPEG of this `quality`, with Pillow's default subsampling of color, and decodes it."""
    buffer = io.BytesIO()
    _to_pillow(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer), np.float64).reshape(image.shape) / 255


def pixelate(image: Array, rng: Generator, factor: float) -> Array:
    """Shrinks the sides to `factor`, rounded down to whole pixels, and enlarges them back, both by a box filter."""
    height, width = image.shape[:2]
    small = max(1, int(width * factor)), max(1, int(height * factor))
    picture = _to_pillow(image).resize(small, Image.Resampling.BOX).resize((width, height), Image.Resampling.BOX)
    return np.asarray(picture, np.float64).reshape(image.shape) / 255


def _to_pillow(image: Array) -> Image.Image:
    """Converts an image in [0, 1] to one of Pillow, gray or RGB."""
    pixels = np.round(image * 255).astype(np.uint8)
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def elastic_transform(image: Array, rng: Generator, amount: float, sigma: float, affine: float, side: int) -> Array:
    """Distorts by a random affine map, then by random displacements of the pixels.

    Displacements are uniform in [-`amount`, `amount`], blurred by a Gaussian of `sigma`. The affine map moves three
    points by up to `affine`. All are in pixels for a shorter side of `side`, and scale with the image's.
    """
    cv2 = _opencv()
    height, width = image.shape[:2]
    unit = min(height, width) / side
    center, reach = np.array([width // 2, height // 2]), min(height, width) // 3
    corners = (center + reach * np.array([[1, 1], [1, -1], [-1, -1]])).astype(np.float32)
    moved = corners + rng.uniform(-affine * unit, affine * unit, corners.shape).astype(np.float32)
    matrix = cv2.getAffineTransform(corners, moved)
    image = cv2.warpAffine(image, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101).reshape(image.shape)
    noise = rng.uniform(-1, 1, (2, height, width))
    blur = (0, sigma * unit, sigma * unit)
    moves = amount * unit * ndimage.gaussian_filter(noise, blur, mode="reflect", truncate=3)
    places = np.mgrid[:height, :width] + moves
    channels = [
        ndimage.map_coordinates(channel, places, order=1, mode="reflect") for channel in np.moveaxis(image, 2, 0)
    ]
    return np.stack(channels, axis=2)
