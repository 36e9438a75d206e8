"""Encoded images before decoding: their formats, sizes and bit depths, read from the header and checked."""

import contextlib
import importlib
import io
import logging
import os
import pathlib
import stat
import struct
import threading
import warnings
from collections.abc import Iterator

from PIL import Image

from cnnjax.errors import InputError

logging.getLogger("PIL").addHandler(logging.NullHandler())  # what is wrong with an image is in our error, in one line
warnings.filterwarnings("ignore", module=r"PIL\.")
for _plugin in ("Bmp", "Gif", "Jpeg", "Png", "Tiff", "WebP"):  # importing one registers it in `Image.OPEN`
    importlib.import_module(f"PIL.{_plugin}ImagePlugin")

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # as Pillow names them
SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff",
)  # of file names, case-insensitive # fmt: skip
UNREADABLE = "not a readable JPEG, PNG, WebP, GIF, BMP or TIFF image, or truncated"

MAX_PIXELS = 89_478_485  # height * width; Pillow's own limit. As RGB, 0.25 GB, and up to six times that while decoding
LARGE_PIXELS = MAX_PIXELS // 2  # larger images are decoded one at a time, so that threads do not multiply the memory
MAX_BYTES_PER_PIXEL = 8  # of a file: four channels of 16 bits
MAX_PIXELS_VARIABLE = "CNNJAX_MAX_PIXELS"
MAX_SCANS = 20  # of a JPEG with MAX_PIXELS; proportionally more of a smaller one. Progressive JPEGs have about 10

JPEG = b"\xff\xd8"
PNG = b"\x89PNG\r\n\x1a\n"
_START_OF_SCAN = b"\xff\xda"
_TIFF_BITS, _TIFF_TILE_SIDES, _TIFF_SAMPLE_FORMAT = 258, (322, 323), 339
_UNSIGNED = 1
_one_large_image = threading.RLock()


def max_pixels() -> int:
    """Returns the most pixels (height * width) that an image may have: $CNNJAX_MAX_PIXELS, by default MAX_PIXELS."""
    text = os.environ.get(MAX_PIXELS_VARIABLE) or str(MAX_PIXELS)
    if not text.isdecimal() or not int(text):
        raise InputError(f"{MAX_PIXELS_VARIABLE}={text!r}: expected a number of pixels, such as {MAX_PIXELS}")
    return int(text)


def check_pixels(height: int, width: int, what: str = "the image") -> None:
    """Raises InputError for an image of no pixels, or of more than `max_pixels()`. `what` begins the message."""
    if height < 1 or width < 1:
        raise InputError(f"{what} is {height}x{width} pixels: expected at least one")
    if height * width > (limit := max_pixels()):
        raise InputError(
            f"{what} is {height}x{width}, {height * width:,} pixels: more than the limit of {limit:,}; "
            f"the environment variable {MAX_PIXELS_VARIABLE} raises it"
        )


def read_file(path: pathlib.Path) -> bytes:
    """Reads an image file. Raises InputError, without the path, if it cannot be read or is too large for an image."""
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise InputError("not a regular file")
        if status.st_size > (limit := max_pixels() * MAX_BYTES_PER_PIXEL):
            raise InputError(
                f"{status.st_size:,} bytes: more than the {limit:,} that the largest image needs; the environment "
                f"variable {MAX_PIXELS_VARIABLE} raises that"
            )
        return path.read_bytes()
    except OSError as error:
        missing = path.is_symlink() and not path.exists()
        raise InputError("a broken link" if missing else error.strerror or str(error)) from error


@contextlib.contextmanager
def open_image(data: bytes) -> Iterator[Image.Image]:
    """Opens an encoded image with Pillow, which reads the header alone; of an animation, the first frame.

    Raises InputError for bytes that are no image of `FORMATS`, also if Pillow finds that out later, inside the `with`;
    for too many pixels, before memory is allocated for them; and for values that are not unsigned integers of at most
    16 bits.
    """
    # Not Image.open: its limit of pixels is global, and writes a warning to stderr.
    try:
        if data[:4] == b"RIFF":
            check_pixels(*_webp_size(data))  # Pillow allocates the pixels of a WebP when it opens it
        accepted = next((name for name in FORMATS if (Image.OPEN[name][1] or bool)(data[:16]) is True), None)
        if accepted is None:
            raise InputError(UNREADABLE)
        with Image.OPEN[accepted][0](io.BytesIO(data), b"") as image:
            _check_header(image, data)
            with _one_large_image if image.height * image.width > LARGE_PIXELS else contextlib.nullcontext():
                yield image
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("the image needs more memory than is available") from error
    except Exception as error:  # on hostile bytes Pillow raises half a dozen types, SyntaxError among them
        raise InputError(UNREADABLE) from error


def sample_bits(image: Image.Image, data: bytes) -> int:
    """Returns how many bits each channel of an opened image has in its file: 8 for anything up to 8, else 9 to 64."""
    if image.format == "PNG":
        return max(8, data[24])
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2")  # noqa: B009  (of Pillow's TiffImageFile alone)
        return max(8, *tags.get(_TIFF_BITS, (1,)))
    return 8


def _check_header(image: Image.Image, data: bytes) -> None:
    """Raises InputError for an opened image that is too large, takes too long, or has values we cannot convert."""
    check_pixels(image.height, image.width)
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2")  # noqa: B009
        check_pixels(*(int(tags.get(tag, 1)) for tag in _TIFF_TILE_SIDES), what="a tile of the image")
        kinds = set(tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,)))
        bits = sample_bits(image, data)
        if kinds != {_UNSIGNED} or bits > 16:
            kind = "integers" if kinds == {_UNSIGNED} else "signed or floating-point numbers"
            raise InputError(f"the image has {bits}-bit {kind}: expected unsigned integers of at most 16 bits")
    if data[:2] == JPEG:
        scans, pixels = data.count(_START_OF_SCAN), image.height * image.width
        if scans > MAX_SCANS and scans * pixels > MAX_SCANS * MAX_PIXELS:
            raise InputError(f"the image is a JPEG of {scans:,} scans of {pixels:,} pixels each: too slow to decode")


def _webp_size(data: bytes) -> tuple[int, int]:
    """Returns the (height, width) of a WebP: of its canvas, or else of its only frame. Raises InputError for others."""
    kind, header = data[12:16], data[20:30]
    if data[8:12] != b"WEBP" or len(header) < 10:
        raise InputError(UNREADABLE)
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(header[at : at + 3], "little") for at in (4, 7))
    elif kind == b"VP8L":
        (packed,) = struct.unpack("<I", header[1:5])
        width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack("<HH", header[6:10]))
    else:
        raise InputError(UNREADABLE)
    return height, width
