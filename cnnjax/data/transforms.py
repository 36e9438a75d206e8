"""Image operations on the host, where the size of an image may change: resizing, cropping, padding, corruptions.

Each is a pure function of a uint8 image [H, W, C] and a row of `HOST_OPS`. A random one has a parameter named `rng`
and draws from nothing else. A size is an int or (height, width), in pixels. Other code may add rows to `HOST_OPS`.
"""

import math
from collections.abc import Callable
from typing import Annotated

import numpy as np
from PIL import Image

from cnnjax.data import image_formats, images
from cnnjax.data.corruptions import corrupt
from cnnjax.errors import InputError, unknown
from cnnjax.spec import Ascending, Pixels, Positive, PositiveFraction, Range

Size = Pixels | tuple[Pixels, Pixels]
Offset = Annotated[int, Range(-65_535, 65_535)]
Scale = Annotated[tuple[PositiveFraction, PositiveFraction], Ascending()]
Ratio = Annotated[tuple[Positive, Positive], Ascending()]

FILTERS = ("area", "nearest", "bilinear", "bicubic")


def resize(image: np.ndarray, size: Size, filter: str = "area", antialias: bool = True) -> np.ndarray:  # noqa: A002
    """Resizes the shorter side to an int `size`, keeping the aspect ratio, or the image to exactly (height, width).

    `filter` is one of `FILTERS`: "area" averages over area along sides that shrink, and interpolates the others
    linearly. The others are those of Pillow, and so of torchvision and timm: where a side shrinks, the filter of
    "bilinear" and "bicubic" is widened as much. With "bilinear" and antialias=False it is not, as in TensorFlow 1 and
    OpenCV. Raises InputError for an unknown filter, and for a result of too many pixels.
    """
    height, width = _height_and_width(size)
    if isinstance(size, int):
        short = min(image.shape[:2])
        height, width = (max(1, size * side // short) for side in image.shape[:2])
    image_formats.check_pixels(height, width, f"resize({size!r}): the result")
    if filter not in FILTERS:
        raise unknown("filter of resize:", filter, FILTERS)
    if not antialias:
        if filter != "bilinear":
            raise InputError(f"resize(filter={filter!r}, antialias=False): only 'bilinear' supports this")
        return _resample(image, height, width, average=False)
    if filter == "area":
        return _resize_exactly(image, height, width)
    picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
    return np.array(picture.resize((width, height), Image.Resampling[filter.upper()])).reshape(height, width, -1)


def random_resize(image: np.ndarray, rng: np.random.Generator, low: Pixels, high: Pixels) -> np.ndarray:
    """Resizes the shorter side to a random length in {low, ..., high}, keeping the aspect ratio.

    This is VGG's scale jitter (Simonyan & Zisserman 2015, sec. 3.1): 'random_resize(256, 512)|random_crop(224)'. ResNet
    (He et al. 2016) uses 256 to 480.
    """
    if low > high:
        raise InputError(f"random_resize({low}, {high}): expected the smaller length first")
    return resize(image, int(rng.integers(low, high + 1)))


def center_crop(image: np.ndarray, size: Size) -> np.ndarray:
    """Crops the center, of `size` x `size` or (height, width) pixels.

    Where the margins cannot be equal, the smaller one is above or to the left. Raises InputError for a smaller image.
    """
    height, width, rows, columns = _crop_margins(image, size, "center_crop")
    return _crop(image, rows // 2, columns // 2, height, width)


def pad(image: np.ndarray, size: Size, value: Annotated[int, Range(0, 255)] = 0) -> np.ndarray:
    """Pads to `size` x `size` or (height, width) pixels with `value` (0 to 255), equally on both sides.

    An odd pixel goes below or to the right. Raises InputError for a larger image.
    """
    height, width = _height_and_width(size)
    rows, columns = height - image.shape[0], width - image.shape[1]
    if min(rows, columns) < 0:
        raise InputError(f"pad({size!r}): the image is {image.shape[0]}x{image.shape[1]}, larger than that")
    frame = [(rows // 2, rows - rows // 2), (columns // 2, columns - columns // 2), (0, 0)]
    return np.pad(image, frame, constant_values=value)


def random_crop(image: np.ndarray, rng: np.random.Generator, size: Size) -> np.ndarray:
    """Crops a window of `size` x `size` or (height, width) pixels at a random position. Does not pad."""
    height, width, rows, columns = _crop_margins(image, size, "random_crop")
    return _crop(image, int(rng.integers(rows + 1)), int(rng.integers(columns + 1)), height, width)


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: Size,
    scale: Scale = (0.08, 1.0),
    ratio: Ratio = (3 / 4, 4 / 3),
) -> np.ndarray:
    """Crops a window of random area and aspect ratio, and resizes it to `size` x `size` or (height, width) pixels.

    `scale` is the range of the area as a fraction of the image, `ratio` that of width / height. This is the crop of
    Inception (Szegedy et al. 2015, sec. 6), without its random choice of interpolation. Up to ten windows are drawn
    until one fits into the image; otherwise it is the largest central window whose aspect ratio is in `ratio`.
    """
    height, width = _height_and_width(size)
    rows, columns = image.shape[:2]
    for _ in range(10):
        area = rows * columns * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= rows and 0 < w <= columns:
            top, left = int(rng.integers(rows - h + 1)), int(rng.integers(columns - w + 1))
            return _resize_fast(_crop(image, top, left, h, w), height, width)
    h = min(rows, round(columns / ratio[0]) if columns / rows < ratio[0] else rows)
    w = min(columns, round(rows * ratio[1]) if columns / rows > ratio[1] else columns)
    return _resize_fast(_crop(image, (rows - h) // 2, (columns - w) // 2, h, w), height, width)


def rgb(image: np.ndarray) -> np.ndarray:
    """Repeats a gray image over three channels, for a network trained on RGB; returns an RGB image unchanged."""
    return images.to_channels(image, 3)


def move(image: np.ndarray, down: Offset, right: Offset) -> np.ndarray:
    """Moves an image by whole pixels, up or to the left if negative; mirrors it into the rows and columns left free.

    The augmentation 'shift' fills them with the mean instead. Raises InputError unless the image is larger.
    """
    height, width = image.shape[:2]
    if not (abs(down) < height and abs(right) < width):
        raise InputError(f"move({down}, {right}): the image is {height}x{width}, smaller than that")
    rows, columns = ((max(amount, 0), max(-amount, 0)) for amount in (down, right))
    padded = np.pad(image, [rows, columns, (0, 0)], mode="reflect")
    return _crop(padded, rows[1], columns[1], height, width)


HOST_OPS: dict[str, Callable[..., np.ndarray]] = {
    "resize": resize,
    "random_resize": random_resize,
    "center_crop": center_crop,
    "pad": pad,
    "random_crop": random_crop,
    "random_resized_crop": random_resized_crop,
    "rgb": rgb,
    "move": move,
    "corrupt": corrupt,
}
# Operations that read nothing but the shape of an image and one window of it: they also take an `images.LazyJpeg`.
WINDOW_OPS = {"center_crop", "random_crop", "random_resized_crop"}


def _height_and_width(size: Size) -> tuple[int, int]:
    """Converts a size, an int or (height, width), to (height, width)."""
    return (size, size) if isinstance(size, int) else size


def _crop(image: np.ndarray | images.LazyJpeg, top: int, left: int, height: int, width: int) -> np.ndarray:
    """Returns the `height` x `width` window whose upper left pixel is (top, left)."""
    return image[top : top + height, left : left + width]


def _crop_margins(image: np.ndarray, size: Size, name: str) -> tuple[int, int, int, int]:
    """Returns the height and width of a crop, then how many rows and columns of the image lie outside it.

    Raises InputError, naming the operation `name`, for a crop that is larger than the image.
    """
    height, width = _height_and_width(size)
    rows, columns = image.shape[0] - height, image.shape[1] - width
    if min(rows, columns) < 0:
        raise InputError(
            f"{name}({size!r}): the image is {image.shape[0]}x{image.shape[1]}; resize it first, as in 'resize(256)'"
        )
    return height, width, rows, columns


def _resample(image: np.ndarray, height: int, width: int, average: bool) -> np.ndarray:
    """Resizes to `height` x `width`: averages over area if `average`, else interpolates without antialiasing."""
    if (height, width) == image.shape[:2]:
        return image
    if cv2 := images.cv2:
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if average else cv2.INTER_LINEAR)
    else:
        picture = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        if average:
            picture = picture.resize((width, height), Image.Resampling.BOX)
        else:  # `transform`, because Pillow's `resize` averages as well
            box = (0, 0, *picture.size)
            picture = picture.transform((width, height), Image.Transform.EXTENT, box, Image.Resampling.BILINEAR)
        image = np.array(picture)
    return image.reshape(height, width, -1)


def _resize_exactly(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes to `height` x `width`: averages along the sides that shrink, then interpolates along the others."""
    rows, columns = image.shape[:2]
    image = _resample(image, min(rows, height), min(columns, width), average=True)
    return _resample(image, height, width, average=False)


def _resize_fast(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes to `height` x `width`: interpolates to a multiple of that size, then averages whole pixels.

    Antialiased like `_resize_exactly`, in 1/7 to 1/2 of the time, because averaging fractions of pixels is slow.
    """
    rows, columns = (max(1, have // want) * want for have, want in zip(image.shape, (height, width), strict=False))
    return _resample(_resample(image, rows, columns, average=False), height, width, average=True)
