"""Encoded images to pixels, and pixels to PNG bytes.

Images are uint8 [height, width, channels] with 1 (gray) or 3 (RGB) channels. OpenCV decodes where it is installed and
correct; Pillow decodes the rest.
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from cnnjax.data import image_formats
from cnnjax.data.image_formats import JPEG, PNG
from cnnjax.data.info import FULL_DEPTH
from cnnjax.errors import InputError

cv2: Any = None  # without it Pillow decodes to the same pixels, at about 0.6 of the speed
with contextlib.suppress(ImportError):
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(0)  # the pipeline is parallel over images already

_EXIF_ORIENTATION = 0x0112  # 1 is upright; from 5 on, height and width are swapped


def decode(data: bytes, channels: int | None = None, bit_depth: int = FULL_DEPTH) -> np.ndarray:
    """Decodes a JPEG, PNG, WebP, GIF, BMP or TIFF to uint8 [H, W, C], turned upright as its EXIF tag says.

    Of an animation, the first frame is decoded. Alpha is dropped.

    Args:
      data: the encoded image.
      channels: 3 makes gray images RGB, and 1 makes RGB images gray. None keeps gray images gray and makes everything
        else RGB.
      bit_depth: how many bits, 8 to 16, the values have in images that store more than 8 bits per channel. Of these,
        the upper 8 are kept: a 12-bit value of a scanner in a 16-bit PNG is divided by 16. See `fitting_bit_depth`.

    Raises InputError for bytes that are no image, for too many pixels, and for values over `bit_depth` bits. A
    truncated file may pass without an error: `verify` detects it.
    """
    image = _decode_with_opencv(data) if cv2 is not None and _parse_header(data) else None
    return to_channels(_decode_with_pillow(data, bit_depth) if image is None else image, channels)


def to_channels(image: np.ndarray, channels: int | None) -> np.ndarray:
    """Converts uint8 [H, W, C] from gray to RGB by repetition (`channels` = 3), or from RGB to gray by luma (1).

    Returns an image that has as many channels already unchanged; None returns every image unchanged.
    """
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and image.shape[2] == 3:  # the luma weights of ITU-R 601, rounded
        luma = image.astype(np.int64) @ np.array([19595, 38470, 7471])
        return np.right_shift(luma + 32768, 16).astype(np.uint8)[:, :, None]
    return image


@dataclasses.dataclass(frozen=True)
class LazyJpeg:
    """A JPEG that is not decoded until it is indexed: lazy[top:bottom, left:right] decodes only that window.

    Attributes:
        data: encoded bytes.
        shape: height, width and channels of the decoded image.
        stored_channels: channels in the file; if those of `shape` differ, the decoded window is converted.
    """

    data: bytes
    shape: tuple[int, int, int]
    stored_channels: int

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        """Decodes a window, given as slices of rows and columns without a step: uint8 [rows, columns, channels]."""
        (top, bottom, _), (left, right, _) = (side.indices(n) for side, n in zip(window, self.shape, strict=False))
        pixels = jpeg_window()(self.data, self.stored_channels, top, left, bottom - top, right - left)
        if pixels is None:  # damaged, perhaps in a way that OpenCV tolerates
            return decode(self.data, self.shape[2])[window]
        return to_channels(pixels, self.shape[2])


def open_for_window(data: bytes, channels: int | None = None) -> LazyJpeg | np.ndarray:
    """Opens an image to be cropped: returns a LazyJpeg where possible, else the array `decode(data, channels)`.

    A LazyJpeg is returned for an upright 8-bit JPEG, gray or RGB, where `ops.jpeg` can be compiled. Both have a `shape`
    and give the same pixels for [top:bottom, left:right].
    """
    header = _parse_header(data)
    if header is None or data[:2] != JPEG or jpeg_window() is None or (header.has_exif and _is_turned(data)):
        return decode(data, channels)
    return LazyJpeg(data, (header.height, header.width, channels or header.channels), header.channels)


@functools.cache
def jpeg_window() -> Any:
    """Returns the decoder of JPEG windows of `ops.jpeg.load`, or None if it cannot be compiled.

    The first call imports and compiles it.
    """
    from cnnjax.ops import jpeg

    return jpeg.load()


def verify(data: bytes) -> tuple[int, int, int]:
    """Returns the (height, width, channels) of `decode(data)`, after decoding the image as a check.

    Raises InputError unless all of the image is readable. Slower and stricter than `decode`: OpenCV silently fills the
    missing rest of a truncated file with gray.
    """
    with image_formats.open_image(data) as image:
        image.verify()  # PNG: the checksum of every chunk
    return _decode_with_pillow(data, FULL_DEPTH).shape


def read_shape(data: bytes) -> tuple[int, int, int]:
    """Returns the (height, width, channels) of `decode(data)` from the header alone. Raises InputError for no image."""
    with image_formats.open_image(data) as image:
        width, height = image.size
        if image.format != "TIFF" and _orientation(image, data) >= 5:  # Pillow turns the size of a TIFF itself
            width, height = height, width
        return height, width, 1 if _is_gray(image) else 3


def is_stored_unchanged(data: bytes) -> bool:
    """Returns whether a data set keeps these bytes: those of a JPEG, or of a PNG of at most 8 bits per channel.

    Others are stored as PNGs of `decode(data, bit_depth=...)`, which any reader of TFDS data sets can decode.
    """
    return data[:2] == JPEG or (data[:8] == PNG and data[24] <= 8)


def deep_maximum(data: bytes) -> int | None:
    """Returns the largest value of an image with more than 8 bits per channel; None for all others.

    Raises InputError if the image cannot be decoded.
    """
    if data[:8] != PNG and data[:2] not in (b"II", b"MM"):  # only PNG and TIFF have more than 8 bits
        return None
    with image_formats.open_image(data) as image:
        return int(_deep_pixels(image, data).max()) if image_formats.sample_bits(image, data) > 8 else None


def fitting_bit_depth(maximum: int) -> int:
    """Returns the smallest usual bit depth (8, 10, 12, 14 or 16) whose values reach `maximum`, 0 to 65535."""
    return next(bits for bits in (8, 10, 12, 14, 16) if maximum < 1 << bits)


def encode_png(image: np.ndarray) -> bytes:
    """Encodes uint8 pixels, [H, W] or [H, W, 1] (gray) or [H, W, 3] (RGB), as the bytes of a PNG, without loss."""
    image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if cv2 is not None:
        return cv2.imencode(".png", image[:, :, ::-1] if image.ndim == 3 else image)[1].tobytes()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


@dataclasses.dataclass(frozen=True)
class _Header:
    """Describes an encoded image, as its header does.

    Attributes:
        height: rows as stored, before the EXIF orientation is applied.
        width: columns as stored.
        channels: 1 (gray) or 3 (color).
        has_exif: whether there are EXIF data, which may ask for a rotation.
    """

    height: int
    width: int
    channels: int
    has_exif: bool = False


def _parse_header(data: bytes) -> _Header | None:
    """Parses the header of an 8-bit gray or RGB image, JPEG or PNG, without palette or alpha.

    Returns None for all others, which OpenCV decodes wrongly. Raises InputError for too many pixels.
    """
    if data[:8] == PNG:
        channels = {b"\x08\x00": 1, b"\x08\x02": 3}.get(data[24:26])
        width, height = struct.unpack(">II", data[16:24].ljust(8))
        if channels:
            image_formats.check_pixels(height, width)
        return _Header(height, width, channels) if channels else None
    at, has_exif = 2, False
    while data[:2] == JPEG and at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start-of-frame segment
            depth, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            image_formats.check_pixels(height, width)
            return _Header(height, width, channels, has_exif) if depth == 8 and channels in (1, 3) else None
        has_exif |= data[at + 4 : at + 8] == b"Exif"
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _is_turned(data: bytes) -> bool:
    """Returns True if the EXIF tag of a JPEG says that the stored image is not upright, or if it cannot be read."""
    with contextlib.suppress(InputError), image_formats.open_image(data) as image:
        return _orientation(image, data) != 1
    return True


def _orientation(image: Image.Image, data: bytes) -> int:
    """Returns the EXIF orientation of an opened image, 1 to 8, or an invalid value as stored; 1 without EXIF data."""
    if image.format == "PNG" and not any(name in data for name in (b"eXIf", b"Raw profile type exif")):
        return 1  # Pillow would decode all pixels to find what follows them
    return image.getexif().get(_EXIF_ORIENTATION, 1)


def _is_gray(image: Image.Image) -> bool:
    """Returns True for an image without color, of any depth."""
    return image.mode in ("1", "L") or image.mode.startswith(("I", "F"))


def _decode_with_opencv(data: bytes) -> np.ndarray | None:
    """Decodes to uint8 [H, W, 1 or 3], gray or RGB; returns None if OpenCV cannot decode the bytes."""
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    if image is not None and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return None if image is None else image[:, :, None]


def _decode_with_pillow(data: bytes, bit_depth: int) -> np.ndarray:
    """Decodes to uint8 [H, W, 1 or 3], gray or RGB, without alpha. `bit_depth` and errors are those of `decode`."""
    with image_formats.open_image(data) as image:
        if image_formats.sample_bits(image, data) > 8:
            deep = _deep_pixels(image, data)
            if deep.max() >= 1 << bit_depth:
                raise InputError(
                    f"the image has values up to {deep.max():,}: more than the {bit_depth} bits of the training images"
                )
            return (deep >> (bit_depth - 8)).astype(np.uint8)
        image, gray = ImageOps.exif_transpose(image), _is_gray(image)
        if "transparency" in image.info:  # Pillow warns when it converts this straight to RGB
            image = image.convert("RGBA")
        pixels = np.array(image.convert("L" if gray else "RGB"))
        return pixels.reshape(*pixels.shape[:2], -1)


def _deep_pixels(image: Image.Image, data: bytes) -> np.ndarray:
    """Decodes an opened image of more than 8 bits per channel: uint16 [H, W, 1 or 3], gray or RGB, without alpha."""
    if _is_gray(image):
        return np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)[:, :, None]
    orientation = _orientation(image, data)
    deep = None if cv2 is None else cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if deep is None or deep.dtype != np.uint16 or deep.ndim != 3:  # Pillow keeps the upper 8 of 16 bits
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB")).astype(np.uint16) << 8
    rgb = deep[:, :, 2::-1]
    return rgb if image.format == "TIFF" else _UPRIGHT.get(orientation, _UPRIGHT[1])(rgb)


# EXIF orientation -> the operation on [H, W, C] that makes a stored image upright.
_UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: np.rot90(x),
}
