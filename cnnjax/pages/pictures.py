"""Pictures inside a page: PNG of 256 colors, or SVG, as data URIs, each with an alternative text."""

import base64
import dataclasses
import io
import pathlib
import re
from typing import Any

from cnnjax import sealed, style

COLORS = 256  # of a PNG: a third of the bytes, and hardly a visible difference
MAX_SVG_BYTES = 200_000  # of a figure; a larger one becomes a PNG
CSS_DPI = 96  # CSS pixels per inch


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture in a page.

    Attributes:
      uri: the file as a data URI, or a link to it.
      width: width in CSS pixels at which it is legible; the page never shows it wider.
      height: height in CSS pixels at that width.
      alt: text for readers who cannot see it.
      caption: text below; '' for none.
      is_chart: it is all lines and text on white, and may be shown dark on a dark page; False if it has images in it.
    """

    uri: str
    width: int
    height: int
    alt: str
    caption: str = ""
    is_chart: bool = False


def from_figure(figure: Any, alt: str, caption: str = "", vector: bool = False, is_chart: bool = False) -> Picture:
    """Returns a matplotlib figure as a picture: with `vector` as SVG, if that is small enough, else as PNG."""
    width, height = (round(inches * CSS_DPI) for inches in figure.get_size_inches())
    formats = (["svg"] if vector else []) + ["png"]
    for form in formats:
        buffer = io.BytesIO()
        with style.house():
            figure.savefig(buffer, format=form, dpi=style.DPI, metadata=style.METADATA[f".{form}"])
        content = buffer.getvalue()
        if form == "png" or len(content) <= MAX_SVG_BYTES:
            break
    return Picture(_uri(content, form), width, height, alt, caption, is_chart)


def from_file(path: pathlib.Path, alt: str, caption: str = "", is_chart: bool = False) -> Picture:
    """Returns the picture of a .png or .svg file that cnnjax wrote, at the size that the figure had.

    Raises FileNotFoundError if there is none, and InputError if it cannot be read.
    """
    content, form = sealed.read(path), path.suffix[1:]
    if form == "svg":
        width, height = (float(value) / 72 for value in re.findall(rb'(?:width|height)="([\d.]+)pt"', content)[:2])
    else:
        width, height = (length / style.DPI for length in _open(content).size)
    return Picture(_uri(content, form), round(width * CSS_DPI), round(height * CSS_DPI), alt, caption, is_chart)


def linked(path: pathlib.Path, link: str, alt: str) -> Picture:
    """Returns the picture of a file that stays outside of the page, which finds it at `link`.

    It is as wide as a figure of `style.DPI`; an animation has half the pixels and is shown half as wide.
    """
    width, height = (round(length / style.DPI * CSS_DPI) for length in _open(sealed.read(path)).size)
    return Picture(link, width, height, alt)


def _uri(content: bytes, form: str) -> str:
    """Returns a data URI of a PNG, reduced to 256 colors, or of an SVG."""
    if form == "svg":
        return f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    buffer = io.BytesIO()
    _open(content).convert("RGB").quantize(COLORS).save(buffer, "png", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _open(content: bytes) -> Any:
    """Opens an image file with Pillow."""
    from PIL import Image

    return Image.open(io.BytesIO(content))
