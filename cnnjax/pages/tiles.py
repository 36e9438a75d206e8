"""Images of a data set as tiles with text below: they flow to the width of the page, and a screen reader reads them."""

import base64
import dataclasses
from typing import Any

import cv2
import numpy as np

from cnnjax.colors import as_rgb
from cnnjax.evaluation.mistakes import RankedImages

SIDE = 160  # pixels of a tile; larger images are reduced
LOSSLESS = 64  # pixels; larger images are kept as JPEG
QUALITY = 85


@dataclasses.dataclass(frozen=True)
class Tile:
    """An image of a data set: its file as a data URI, its name, its size in pixels, and lines of text below it."""

    uri: str
    alt: str
    width: int
    height: int
    lines: tuple[str, ...]

    @property
    def is_small(self) -> bool:
        """Returns whether the image is so small that its pixels are shown as squares."""
        return max(self.width, self.height) <= LOSSLESS


@dataclasses.dataclass(frozen=True)
class Tiles:
    """A ranking of images: its title, a line that says what it shows, and the tiles."""

    title: str
    note: str
    tiles: tuple[Tile, ...]


def tiles_of(ranked: RankedImages) -> Tiles:
    """Returns a ranking of images as tiles."""
    entries = zip(ranked.images, ranked.captions, ranked.indices, strict=True)
    tiles = (_tile(image, caption, f"Image {index} of the split") for image, caption, index in entries)
    return Tiles(ranked.title, ranked.note, tuple(tiles))


def _tile(image: np.ndarray, caption: str, alt: str) -> Tile:
    """Returns an image [H, W, C] as a tile, reduced to SIDE pixels if it is larger."""
    pixels = np.round(255 * as_rgb(image)).astype(np.uint8)[:, :, ::-1]  # OpenCV has blue first
    if (scale := SIDE / max(pixels.shape[:2])) < 1:
        height, width = (max(1, round(side * scale)) for side in pixels.shape[:2])
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    height, width = pixels.shape[:2]
    form, options = ("png", []) if max(height, width) <= LOSSLESS else ("jpeg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    encoded: Any = cv2.imencode(f".{form}", np.ascontiguousarray(pixels), options)[1]
    uri = f"data:image/{form};base64,{base64.b64encode(encoded.tobytes()).decode()}"
    return Tile(uri, alt, width, height, tuple(caption.split("\n")))
