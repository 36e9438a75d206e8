"""Colors that color-blind readers can tell apart, perceptually uniform color maps, and images of arrays."""

import functools
from typing import Any

import numpy as np

INK, MUTED, FAINT = "#222222", "#6b6b6b", "#d9d9d9"  # text, secondary text, grid lines
# Okabe and Ito 2008, without their yellow, which is too light for a line on white.
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLORS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, INK)
RIGHT, WRONG = BLUE, VERMILION  # predictions
RAMPS = {  # name -> colors, between which a color map goes in even steps of Oklab
    "sequential": ("#ffffff", "#8cc4e8", "#0072b2", "#00274a"),
    "diverging": ("#00335c", "#4a9fd4", "#ededed", "#e58a45", "#6b2400"),
}

_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


@functools.cache
def color_map(name: str) -> Any:
    """Returns a color map of matplotlib by name.

    'sequential' (white to dark blue) and 'diverging' (blue, gray in the middle, orange) are ours.
    """
    import matplotlib
    from matplotlib.colors import ListedColormap, to_rgb

    if name not in RAMPS:
        return matplotlib.colormaps[name]
    anchors = to_oklab(np.array([to_rgb(color) for color in RAMPS[name]]))
    lengths = np.linalg.norm(np.diff(anchors, axis=0), axis=1)
    if name == "diverging":
        lengths = lengths + lengths[::-1]  # gray is exactly in the middle
    places = np.concatenate([[0], np.cumsum(lengths)]) / lengths.sum()
    steps = np.linspace(0, 1, 257)  # odd, for a middle
    lab = np.stack([np.interp(steps, places, anchors[:, i]) for i in range(3)], axis=1)
    return ListedColormap(from_oklab(lab), name)


def as_rgb(image: np.ndarray) -> np.ndarray:
    """Converts an image [H, W], [H, W, 1] or [H, W, 3], uint8 or float in [0, 1], to float32 [H, W, 3] in [0, 1].

    Values outside are clipped, and NaN is mid-gray. Images with other numbers of channels show their mean.
    """
    pixels = np.asarray(image, np.float32) / (255 if np.asarray(image).dtype == np.uint8 else 1)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    pixels = pixels if pixels.shape[-1] == 3 else pixels.mean(axis=-1, keepdims=True)
    return np.broadcast_to(np.clip(np.nan_to_num(pixels, nan=0.5), 0, 1), (*pixels.shape[:2], 3))


def heat(values: np.ndarray, limit: float | None = None, name: str = "sequential") -> np.ndarray:
    """Colors a map [H, W] from 0 to `limit` (default: its largest value) by a color map: float32 [H, W, 3]."""
    return color_map(name)(_scaled(values, limit))[..., :3].astype(np.float32)


def signed(values: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Shows values of both signs: float32 [H, W, 3] in which 0 is a neutral gray.

    `values` is [H, W] or [H, W, 1], colored from blue (-limit) to orange (limit), or [H, W, 3], shown as colors around
    mid-gray. `limit` is the largest absolute value by default. NaN is shown as 0.
    """
    values = np.nan_to_num(np.asarray(values, np.float32))
    limit = limit or float(np.abs(values).max(initial=0)) or 1.0
    scaled = 0.5 + 0.5 * np.clip(values / limit, -1, 1)
    if scaled.ndim == 3 and scaled.shape[-1] == 3:
        return scaled
    return color_map("diverging")(scaled.reshape(scaled.shape[:2]))[..., :3].astype(np.float32)


def overlay(image: np.ndarray, values: np.ndarray, limit: float | None = None, alpha: float = 0.75) -> np.ndarray:
    """Colors an image by a heat map [H, W] of its size: float32 [H, W, 3].

    The image turns gray. Where `values` are high, they cover it with up to `alpha` of their color; where they are 0 or
    below, the gray image stays. `limit` is the value of the strongest color (default: the largest).
    """
    gray = as_rgb(as_rgb(image) @ np.array([0.299, 0.587, 0.114], np.float32))
    if gray.shape[:2] != np.shape(values):
        raise ValueError(f"a heat map of {np.shape(values)} on an image of {gray.shape[:2]}")
    strength = _scaled(values, limit)
    cover = alpha * strength[..., None]
    return (1 - cover) * gray + cover * color_map("plasma")(0.3 + 0.65 * strength)[..., :3].astype(np.float32)


def _scaled(values: np.ndarray, limit: float | None) -> np.ndarray:
    """Returns `values` from 0 to `limit` (default: the largest) as [0, 1]. Others are clipped; NaN becomes 0."""
    values = np.nan_to_num(np.asarray(values, np.float32))
    limit = limit or float(values.max(initial=0)) or 1.0
    return np.clip(values / limit, 0, 1)


def to_oklab(rgb: np.ndarray) -> np.ndarray:
    """Converts sRGB [..., 3] in [0, 1] to Oklab (Ottosson 2020), in which equal distances look equally large."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


def from_oklab(lab: np.ndarray) -> np.ndarray:
    """Converts Oklab [..., 3] to sRGB, clipped to [0, 1]."""
    linear = np.clip((lab @ np.linalg.inv(_TO_LAB).T) ** 3 @ np.linalg.inv(_TO_LMS).T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
