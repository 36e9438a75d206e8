"""Encoded bytes to pixels and back, and the random-size image operations that run on the host.

Images are uint8 [height, width, channels] with 1 (grey) or 3 (RGB) channels. OpenCV does the work where it is
installed and does it right; Pillow does the rest.

Every operation is a pure function and a row of `HOST_OPS`: a deterministic one is `f(image, size)`, a random one has
a parameter named `rng` and draws from nothing else. A size is an int or (height, width).
"""

import contextlib
import dataclasses
import functools
import importlib
import io
import math
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps

from cnnjax.errors import InputError

cv2: Any = None  # without it Pillow decodes to the same pixels, at about 0.6 of the speed
with contextlib.suppress(ImportError):
    cv2 = importlib.import_module("cv2")
    cv2.setNumThreads(0)  # the pipeline is parallel over images already

Size = int | tuple[int, int]

_JPEG = b"\xff\xd8"
_UNREADABLE = "not a readable JPEG or PNG"


def decode(data: bytes, channels: int | None = None) -> np.ndarray:
    """The pixels of a JPEG or PNG, turned upright as its EXIF tag says.

    `channels` 1 or 3 converts; None keeps grey images grey and makes everything else RGB (alpha is dropped).
    Raises InputError when the bytes are no image. A truncated file may pass: `check` is what notices.
    """
    image = _decode_with_opencv(data) if cv2 is not None and _frame(data) else None
    return _to_channels(_decode_with_pillow(data) if image is None else image, channels)


def _to_channels(image: np.ndarray, channels: int | None) -> np.ndarray:
    if channels == 3 and image.shape[2] == 1:
        return np.repeat(image, 3, axis=2)
    if channels == 1 and image.shape[2] == 3:  # the luma weights of ITU-R 601, rounded
        luma = image.astype(np.int64) @ np.array([19595, 38470, 7471])
        return np.right_shift(luma + 32768, 16).astype(np.uint8)[:, :, None]
    return image


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A JPEG that is indexed as its image would be, with two slices: that window alone is decoded."""

    data: bytes
    shape: tuple[int, int, int]  # of the image
    stored: int  # channels in the file

    def __getitem__(self, window: tuple[slice, slice]) -> np.ndarray:
        (top, bottom, _), (left, right, _) = (side.indices(n) for side, n in zip(window, self.shape, strict=False))
        pixels = jpeg_window()(self.data, self.stored, top, left, bottom - top, right - left)
        if pixels is None:  # damaged, in a way that OpenCV may not mind
            return decode(self.data, self.shape[2])[window]
        return _to_channels(pixels, self.shape[2])


def for_windows(data: bytes, channels: int | None = None) -> Encoded | np.ndarray:
    """What an operation of `WINDOWS` is given in place of the image of `decode`, and takes the same pixels from."""
    frame = _frame(data)
    if frame is None or data[:2] != _JPEG or jpeg_window() is None or (frame.exif and _is_turned(data)):
        return decode(data, channels)
    return Encoded(data, (frame.height, frame.width, channels or frame.channels), frame.channels)


@functools.cache
def jpeg_window() -> Any:
    """`ops.jpeg.load()`, imported when the first window is cut out."""
    from cnnjax.ops import jpeg

    return jpeg.load()


def check(data: bytes) -> tuple[int, int, int]:
    """The [height, width, channels] that `decode` gives. Raises InputError unless the whole image can be read.

    Slower than `decode`, and stricter: OpenCV fills what is missing of a truncated file with grey and says nothing.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.verify()  # PNG: every chunk's checksum, to the last
    except Exception as error:  # on hostile bytes Pillow raises half a dozen types, SyntaxError among them
        raise InputError(_UNREADABLE) from error
    return _decode_with_pillow(data).shape


def header(data: bytes) -> tuple[int, int, int]:
    """As `check`, but from the first few kilobytes alone."""
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) >= 5  # the EXIF orientations that swap the sides
            grey = _is_grey(image)
    except Exception as error:
        raise InputError(_UNREADABLE) from error
    return (*((width, height) if turned else (height, width)), 1 if grey else 3)


def encode_png(image: np.ndarray) -> bytes:
    """A lossless PNG of [height, width] or [height, width, 1 or 3] uint8 pixels."""
    image = image[:, :, 0] if image.ndim == 3 and image.shape[2] == 1 else image
    if cv2 is not None:
        return cv2.imencode(".png", image[:, :, ::-1] if image.ndim == 3 else image)[1].tobytes()
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="PNG")
    return buffer.getvalue()


class _Frame(NamedTuple):
    """What an image says of itself before its pixels."""

    height: int  # as it is stored
    width: int
    channels: int
    exif: bool = False  # may say that the image is to be turned


def _frame(data: bytes) -> _Frame | None:
    """None for what OpenCV reads wrongly: all but 8-bit grey and RGB, without palette or alpha."""
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        channels = {b"\x08\x00": 1, b"\x08\x02": 3}.get(data[24:26])
        width, height = struct.unpack(">II", data[16:24].ljust(8))
        return _Frame(height, width, channels) if channels else None
    at, exif = 2, False
    while data[:2] == _JPEG and at + 9 < len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            depth, height, width, channels = struct.unpack(">BHHB", data[at + 4 : at + 10])
            return _Frame(height, width, channels, exif) if depth == 8 and channels in (1, 3) else None
        exif |= data[at + 4 : at + 8] == b"Exif"
        at += 1 if marker == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return None


def _is_turned(data: bytes) -> bool:
    with contextlib.suppress(Exception), Image.open(io.BytesIO(data), formats=("JPEG",)) as image:
        return image.getexif().get(0x0112, 1) != 1
    return True  # for another decoder to judge


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L") or image.mode.startswith(("I", "F"))


def _decode_with_opencv(data: bytes) -> np.ndarray | None:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_ANYCOLOR)
    if image is not None and image.ndim == 3:
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return None if image is None else image[:, :, None]


def _decode_with_pillow(data: bytes) -> np.ndarray:
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image, grey = ImageOps.exif_transpose(image), _is_grey(image)
            if image.mode.startswith("I"):  # 16-bit grey, which convert("L") would clip
                return (np.asarray(image) >> 8).astype(np.uint8)[:, :, None]
            if "transparency" in image.info:  # straight to RGB, Pillow warns of what it drops
                image = image.convert("RGBA")
            pixels = np.array(image.convert("L" if grey else "RGB"))
    except Exception as error:
        raise InputError(_UNREADABLE) from error
    return pixels.reshape(*pixels.shape[:2], -1)


def _sides(size: Size) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"size {size!r}: expected at least 1 pixel")
    return height, width


def _resample(image: np.ndarray, height: int, width: int, average: bool) -> np.ndarray:
    """Area averages, or bilinear interpolation."""
    if (height, width) == image.shape[:2]:
        return image
    if cv2 is not None:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if average else cv2.INTER_LINEAR)
    else:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        if average:
            picture = picture.resize((width, height), Image.Resampling.BOX)
        else:  # transform, for resize would average, too
            whole = (0, 0, *picture.size)
            picture = picture.transform((width, height), Image.Transform.EXTENT, whole, Image.Resampling.BILINEAR)
        image = np.array(picture)
    return image.reshape(height, width, -1)


def _scale(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Area averages along the sides that shrink, then bilinear interpolation along the others."""
    rows, columns = image.shape[:2]
    image = _resample(image, min(rows, height), min(columns, width), average=True)
    return _resample(image, height, width, average=False)


def _scale_fast(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear interpolation; to a whole multiple of a side that shrinks to half or less, of which pixels are averaged.

    As in `_scale`, no pixel is left out, in a seventh to a half of the time: averages of parts of pixels are slow.
    """
    rows, columns = (max(1, have // want) * want for have, want in zip(image.shape, (height, width), strict=False))
    return _resample(_resample(image, rows, columns, average=False), height, width, average=True)


def _crop(image: np.ndarray | Encoded, top: int, left: int, height: int, width: int) -> np.ndarray:
    return image[top : top + height, left : left + width]


def _room(image: np.ndarray, size: Size, name: str) -> tuple[int, int, int, int]:
    """The crop's sides and the rows and columns left over. Raises InputError when the image is smaller."""
    height, width = _sides(size)
    rows, columns = image.shape[0] - height, image.shape[1] - width
    if min(rows, columns) < 0:
        raise InputError(
            f"{name}({size!r}): the image is {image.shape[0]}x{image.shape[1]}; resize it first, as in 'resize(256)'"
        )
    return height, width, rows, columns


def resize(image: np.ndarray, size: Size) -> np.ndarray:
    """An int is the length of the shorter side, and the aspect stays; (height, width) is exactly that."""
    height, width = _sides(size)
    if isinstance(size, int):
        short = min(image.shape[:2])
        height, width = (max(1, size * side // short) for side in image.shape[:2])
    return _scale(image, height, width)


def random_resize(image: np.ndarray, rng: np.random.Generator, low: int, high: int) -> np.ndarray:
    """The shorter side to any length from `low` to `high` with equal chance: VGG's scale jitter (2015, 3.1).

    With 'random_resize(256, 512)|random_crop(224)' as there; He et al. (2016) have 256 to 480.
    """
    if not 0 < low <= high:
        raise InputError(f"random_resize({low}, {high}): expected two lengths, the first at least 1 and not the larger")
    return resize(image, int(rng.integers(low, high + 1)))


def center_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """The middle; where the margins cannot be equal, the smaller one is above and to the left."""
    height, width, rows, columns = _room(image, size, "center_crop")
    return _crop(image, rows // 2, columns // 2, height, width)


def pad(image: np.ndarray, size: Size, value: int = 0) -> np.ndarray:
    """The image in the middle of one of that size, in a frame of `value`; an odd pixel goes below or to the right."""
    height, width = _sides(size)
    rows, columns = height - image.shape[0], width - image.shape[1]
    if min(rows, columns) < 0:
        raise InputError(f"pad({size!r}): the image is {image.shape[0]}x{image.shape[1]}, larger than that")
    frame = [(rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)]
    return np.pad(image, frame, constant_values=value)


def random_crop(image: np.ndarray, rng: np.random.Generator, size: Size) -> np.ndarray:
    """A window of that size, anywhere in the image with equal chance."""
    height, width, rows, columns = _room(image, size, "random_crop")
    return _crop(image, int(rng.integers(rows + 1)), int(rng.integers(columns + 1)), height, width)


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: Size,
    scale: tuple[float, float] = (0.08, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> np.ndarray:
    """A window of random area (a share in `scale`) and aspect (width / height in `ratio`), scaled to `size`.

    The crop of Inception (Szegedy et al. 2015, 6), without its random choice of how to interpolate, of which the paper
    cannot tell whether it helped: up to ten tries to fit one in, else the largest central window of an allowed aspect.
    """
    height, width = _sides(size)
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = rows * columns * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= rows and 0 < w <= columns:
            top, left = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
            return _scale_fast(_crop(image, top, left, h, w), height, width)
    h = min(rows, round(columns / ratio[0]) if columns / rows < ratio[0] else rows)
    w = min(columns, round(rows * ratio[1]) if columns / rows > ratio[1] else columns)
    return _scale_fast(_crop(image, (rows - h) // 2, (columns - w) // 2, h, w), height, width)


def rgb(image: np.ndarray) -> np.ndarray:
    """A grey image with three channels, all alike, for a network that learnt from coloured ones."""
    return _to_channels(image, 3)


HOST_OPS: dict[str, Callable[..., np.ndarray]] = {
    "resize": resize,
    "random_resize": random_resize,
    "center_crop": center_crop,
    "pad": pad,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "rgb": rgb,
}
WINDOWS = {"center_crop", "random_crop", "random_resized_crop"}  # need the image's size, and a window of its pixels
