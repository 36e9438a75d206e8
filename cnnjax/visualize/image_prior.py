"""A Gaussian model of images, with the mean, contrast, colors and power spectrum of real ones.

Feature visualization by optimization moves the code, an array of the image's size. `decode` turns it into an image:
white noise becomes images with the statistics of the real ones.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from cnnjax.visualize.inputs import equally_spaced

MAX_FITTED = 2000  # images that a prior is fitted to, equally spaced in the data
PIXELS_NEED = 30  # images with which the statistics of single pixels count half
MIN_DEVIATION = 1 / 255  # of a pixel: one gray level
MAX_SCALE = 2.0  # of the code before the logistic function, as for a pixel that is black or white equally often
# Without images: amplitudes fall as 1 / f (Field 1987), and colors vary as those of photographs, most of all along the
# first column, brightness. The rows are red, green and blue.
NATURAL_MEAN, NATURAL_STD = 0.47, 0.25
NATURAL_COLORS = np.array([[0.56, 0.18, 0.09], [0.58, 0.0, -0.11], [0.55, -0.19, 0.07]])


@dataclasses.dataclass(frozen=True)
class ImagePrior:
    """A Gaussian model of images [H, W, C] with values in [0, 1], as `decode` makes them of white noise.

    Attributes:
      mean: mean of each pixel, float32 [H, W, C].
      deviation: standard deviation of each pixel, float32 [H, W, C].
      amplitude: root of the power spectrum of the standardized images, float32 [H, W // 2 + 1]; its mean square over
        all H * W frequencies is 1.
      colors: the principal axes of the standardized colors as columns, each as long as the deviation along it, float32
        [C, C].
      num_images: images that it was fitted to; 0 for the default.
    """

    mean: np.ndarray
    deviation: np.ndarray
    amplitude: np.ndarray
    colors: np.ndarray
    num_images: int


def choose(images: np.ndarray) -> np.ndarray:
    """Returns at most MAX_FITTED of the images, equally spaced."""
    return images[equally_spaced(len(images), MAX_FITTED)]


def fit(images: np.ndarray) -> ImagePrior:
    """Fits the prior to images, uint8 [N, H, W, C], of which at most MAX_FITTED are read.

    The power spectrum is averaged over directions, and taken below a Hann window: an image has other content at its
    left border than at its right one, which a Fourier transform takes for high frequencies. The fewer images, the more
    the statistics of single pixels are drawn to those of all pixels, since a mean of few images would show them.
    """
    chosen = choose(images).astype(np.float32) / 255
    weight = len(chosen) / (len(chosen) + PIXELS_NEED)
    everywhere = chosen.mean(axis=(0, 1, 2))
    mean = weight * chosen.mean(axis=0) + (1 - weight) * everywhere
    centered = chosen - mean
    variance = weight * np.square(centered).mean(axis=0) + (1 - weight) * np.square(centered).mean(axis=(0, 1, 2))
    deviation = np.maximum(np.sqrt(variance), MIN_DEVIATION)
    standardized = centered / deviation

    height, width, channels = chosen.shape[1:]
    pixels = standardized.reshape(-1, channels)
    eigenvalues, axes = np.linalg.eigh(pixels.T @ pixels / len(pixels))
    colors = (axes * np.sqrt(np.maximum(eigenvalues, 0)))[:, ::-1]
    window = np.hanning(height + 2)[1:-1, None, None] * np.hanning(width + 2)[1:-1, None]
    spectra = np.square(np.abs(np.fft.rfft2(standardized * window, axes=(1, 2)))).mean(axis=(0, 3))
    rings = _rings(height, width)
    power = np.bincount(rings.ravel(), spectra.ravel()) / np.bincount(rings.ravel())
    return _prior(mean, deviation, np.sqrt(power)[rings], colors, len(chosen))


def default(shape: Sequence[int], mean: ArrayLike, std: ArrayLike, fourier: bool = True) -> ImagePrior:
    """Returns the prior for images of `shape` [H, W, C] with the statistics `mean` and `std`, numbers or [C].

    With fourier=False the code is the image: each value of each pixel is independent.
    """
    height, width, channels = shape
    colors = NATURAL_COLORS if channels == 3 and fourier else np.eye(channels)
    colors = colors / np.linalg.norm(colors, axis=1, keepdims=True)
    frequency = np.maximum(_frequency(height, width), 1 / max(height, width))
    amplitude = 1 / frequency if fourier else np.ones_like(frequency)
    return _prior(np.broadcast_to(mean, shape), np.broadcast_to(std, shape), amplitude, colors, 0)


def _prior(
    mean: np.ndarray, deviation: np.ndarray, amplitude: np.ndarray, colors: np.ndarray, num_images: int
) -> ImagePrior:
    """Returns a prior of these arrays, as float32, with the amplitude scaled to a mean square of 1."""
    power = np.average(np.square(amplitude), weights=_multiplicity(*mean.shape[:2]))
    arrays = [mean, deviation, amplitude / np.sqrt(power), colors]
    mean, deviation, amplitude, colors = [np.asarray(array, np.float32) for array in arrays]
    return ImagePrior(mean, deviation, amplitude, colors, num_images)


def _frequency(height: int, width: int) -> np.ndarray:
    """Returns the frequency of each coefficient of rfft2, in cycles per pixel: float64 [H, W // 2 + 1]."""
    return np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])


def _rings(height: int, width: int) -> np.ndarray:
    """Returns the frequency in cycles per longer side, rounded: int [H, W // 2 + 1]."""
    return np.round(_frequency(height, width) * max(height, width)).astype(int)


def _multiplicity(height: int, width: int) -> np.ndarray:
    """Returns how many of the H * W coefficients of fft2 each of rfft2 stands for: 1 or 2, [H, W // 2 + 1]."""
    columns = np.full(width // 2 + 1, 2.0)
    columns[0] = 1
    if width % 2 == 0:
        columns[-1] = 1
    return np.broadcast_to(columns, (height, len(columns)))


def decode(prior: ImagePrior, code: jax.Array) -> jax.Array:
    """Returns the images, float32 [N, H, W, C] in (0, 1), of a code [N, H, W, C]; white noise has natural statistics.

    A logistic function keeps values in the range; its slope at the mean of a pixel is 1. For a pixel that is nearly
    always black or white, the slope is less, so that it stays so.
    """
    spectrum = jnp.fft.rfft2(code, axes=(1, 2), norm="ortho") * prior.amplitude[None, :, :, None]
    field = jnp.fft.irfft2(spectrum, s=prior.mean.shape[:2], axes=(1, 2), norm="ortho")
    mean = np.clip(prior.mean, MIN_DEVIATION, 1 - MIN_DEVIATION)
    scale = np.minimum(prior.deviation / (mean * (1 - mean)), MAX_SCALE)
    colored = jnp.einsum("nhwa,ca->nhwc", field, prior.colors)
    return jax.nn.sigmoid(np.log(mean / (1 - mean))[None] + scale[None] * colored)
