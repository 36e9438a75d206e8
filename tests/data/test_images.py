"""Decoding: every kind of image file as Pillow reads it, whole or a window of it, and errors for truncated files."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from cnnjax.data import images
from cnnjax.errors import InputError
from tests.data.original_files import encoded


def with_exif(orientation: int, kind: str = "JPEG") -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded((17, 33), "RGB", kind, exif=exif.tobytes())


def cmyk(transform: int) -> bytes:
    """A JPEG of four inverted colors, as Photoshop writes them: as they are (0), or as luma, chroma and black (2)."""
    data = bytearray(encoded((17, 33), "CMYK", "JPEG"))
    at = data.index(b"Adobe")
    data[at + 11] = transform
    return bytes(data)


def deep_rgb() -> bytes:
    """An RGB PNG of 16 bits, by hand: Pillow writes none."""
    rows = np.random.default_rng(0).integers(0, 65536, (5, 4, 3)).astype(">u2")
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", 4, 5, 16, 2, 0, 0, 0),
        b"IDAT": zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows)),
        b"IEND": b"",
    }
    parts = (
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks.items()
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def deep(kind: str) -> bytes:
    image = Image.fromarray((np.arange(35 * 17, dtype=np.uint16) * 100).reshape(35, 17))
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def animated(kind: str) -> bytes:
    """Two frames (or pages) of 17x33 pixels, of which the first counts."""
    frames = [Image.open(io.BytesIO(encoded((17, 33), "RGB", "PNG", seed))) for seed in (0, 1)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


ENCODED = {
    "gray jpeg": (encoded((17, 33), "L", "JPEG"), (17, 33, 1)),
    "rgb jpeg": (encoded((17, 33), "RGB", "JPEG"), (17, 33, 3)),
    "progressive": (encoded((17, 33), "RGB", "JPEG", progressive=True), (17, 33, 3)),
    "cmyk": (encoded((17, 33), "CMYK", "JPEG"), (17, 33, 3)),
    "upright": (with_exif(1), (17, 33, 3)),
    "mirrored": (with_exif(2), (17, 33, 3)),
    "turned": (with_exif(6), (33, 17, 3)),
    "turned back": (with_exif(8), (33, 17, 3)),
    "gray png": (encoded((17, 33), "L", "PNG"), (17, 33, 1)),
    "rgb png": (encoded((17, 33), "RGB", "PNG"), (17, 33, 3)),
    "bilevel": (encoded((17, 33), "1", "PNG"), (17, 33, 1)),
    "palette": (encoded((17, 33), "P", "PNG"), (17, 33, 3)),
    "alpha": (encoded((17, 33), "RGBA", "PNG"), (17, 33, 3)),
    "gray with alpha": (encoded((17, 33), "LA", "PNG"), (17, 33, 3)),
    "palette with transparency": (encoded((17, 33), "P", "PNG", transparency=bytes(range(256))), (17, 33, 3)),
    "16-bit": (deep("PNG"), (35, 17, 1)),
    "16-bit rgb": (deep_rgb(), (5, 4, 3)),
    "cmyk of adobe": (cmyk(0), (17, 33, 3)),
    "ycck of adobe": (cmyk(2), (17, 33, 3)),
    "rgb inside": (encoded((17, 33), "RGB", "JPEG", keep_rgb=True), (17, 33, 3)),
    "turned png": (with_exif(6, "PNG"), (33, 17, 3)),
    "gray with a transparent value": (encoded((17, 33), "L", "PNG", transparency=9), (17, 33, 1)),
    "rgb with a transparent value": (encoded((17, 33), "RGB", "PNG", transparency=(9, 9, 9)), (17, 33, 3)),
    "bilevel with a transparent value": (encoded((17, 33), "1", "PNG", transparency=0), (17, 33, 1)),
    "webp": (encoded((17, 33), "RGB", "WEBP"), (17, 33, 3)),
    "webp without loss": (encoded((17, 33), "RGB", "WEBP", lossless=True), (17, 33, 3)),
    "webp with alpha": (encoded((17, 33), "RGBA", "WEBP"), (17, 33, 3)),
    "turned webp": (with_exif(6, "WEBP"), (33, 17, 3)),
    "animated webp": (animated("WEBP"), (17, 33, 3)),
    "gif": (encoded((17, 33), "RGB", "GIF"), (17, 33, 3)),
    "gray gif": (encoded((17, 33), "L", "GIF"), (17, 33, 3)),  # a GIF has a palette
    "gif with transparency": (encoded((17, 33), "P", "GIF", transparency=3), (17, 33, 3)),
    "animated gif": (animated("GIF"), (17, 33, 3)),
    "animated png": (animated("PNG"), (17, 33, 3)),
    "bmp": (encoded((17, 33), "RGB", "BMP"), (17, 33, 3)),
    "gray bmp": (encoded((17, 33), "L", "BMP"), (17, 33, 1)),
    "bilevel bmp": (encoded((17, 33), "1", "BMP"), (17, 33, 1)),
    "bmp with a palette": (encoded((17, 33), "P", "BMP"), (17, 33, 3)),
    "bmp with alpha": (encoded((17, 33), "RGBA", "BMP"), (17, 33, 3)),
    "tiff": (encoded((17, 33), "RGB", "TIFF"), (17, 33, 3)),
    "compressed tiff": (encoded((17, 33), "RGB", "TIFF", compression="tiff_lzw"), (17, 33, 3)),
    "jpeg in a tiff": (encoded((17, 33), "RGB", "TIFF", compression="jpeg"), (17, 33, 3)),
    "gray tiff": (encoded((17, 33), "L", "TIFF"), (17, 33, 1)),
    "bilevel tiff": (encoded((17, 33), "1", "TIFF", compression="group4"), (17, 33, 1)),
    "tiff with a palette": (encoded((17, 33), "P", "TIFF"), (17, 33, 3)),
    "tiff with alpha": (encoded((17, 33), "RGBA", "TIFF"), (17, 33, 3)),
    "cmyk tiff": (encoded((17, 33), "CMYK", "TIFF"), (17, 33, 3)),
    "turned tiff": (with_exif(6, "TIFF"), (33, 17, 3)),
    "16-bit tiff": (deep("TIFF"), (35, 17, 1)),
    "two pages": (animated("TIFF"), (17, 33, 3)),
}


@pytest.mark.parametrize("name", ENCODED)
def test_decode_agrees_with_pillow_and_its_header(name, monkeypatch):
    data, shape = ENCODED[name]
    image = images.decode(data)
    assert image.dtype == np.uint8
    assert image.shape == images.verify(data) == images.read_shape(data) == shape
    assert [images.decode(data, channels).shape[2] for channels in (1, 3)] == [1, 3]
    with Image.open(io.BytesIO(data)) as opened:
        upright = ImageOps.exif_transpose(opened)
        upright = upright.convert("RGBA") if upright.mode == "P" else upright
        deep_gray = name.startswith("16-bit") and shape[2] == 1
        wanted = np.asarray(upright) >> 8 if deep_gray else upright.convert("L" if shape[2] == 1 else "RGB")
    for backend in (images.cv2, None):
        monkeypatch.setattr(images, "cv2", backend)
        difference = images.decode(data).astype(int) - np.asarray(wanted).reshape(shape)
        assert np.abs(difference).max() <= 1  # two builds of libjpeg may round apart


def photo(**options: Any) -> bytes:
    """A JPEG of several of the largest blocks, with sharp edges in all channels."""
    pixels = np.random.default_rng(0).integers(0, 256, (13, 19, 3), np.uint8).repeat(7, 0).repeat(7, 1)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(options.pop("mode", "RGB")).save(buffer, "JPEG", **options)
    return buffer.getvalue()


WINDOWED = {
    **{name: data for name, (data, _) in ENCODED.items()},
    "4:4:4": photo(subsampling="4:4:4"),
    "4:2:2": photo(subsampling="4:2:2"),
    "4:2:0": photo(subsampling="4:2:0"),
    "4:2:0, progressive": photo(subsampling="4:2:0", progressive=True),
    "4:2:0, with restarts": photo(subsampling="4:2:0", restart_marker_blocks=3),
    "gray": photo(mode="L"),
}


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("name", WINDOWED)
def test_a_window_is_decoded_to_the_pixels_of_the_whole(name: str, channels: int | None) -> None:
    whole, found = images.decode(WINDOWED[name], channels), images.open_for_window(WINDOWED[name], channels)
    assert found.shape == whole.shape
    rng = np.random.default_rng(1)
    for _ in range(30):
        (top, bottom), (left, right) = (np.sort(rng.choice(side + 1, 2, replace=False)) for side in whole.shape[:2])
        np.testing.assert_array_equal(found[top:bottom, left:right], whole[top:bottom, left:right])


def test_a_window_of_what_is_missing_is_an_error() -> None:
    with pytest.raises(InputError, match="not a readable JPEG"):
        images.open_for_window(photo()[:3000], 3)[80:, :]


def test_windows_of_jpegs_alone_are_decoded_where_that_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    if images.jpeg_window() is None:
        pytest.skip("there is no compiler, or there are no headers of libjpeg")
    lazy = {name for name, data in WINDOWED.items() if isinstance(images.open_for_window(data), images.LazyJpeg)}
    turned = {"mirrored", "turned", "turned back"}
    assert lazy == set(WINDOWED) - turned - {"cmyk", "cmyk of adobe", "ycck of adobe"} - {
        name for name, data in WINDOWED.items() if not data.startswith(b"\xff\xd8")
    }
    monkeypatch.setattr(images, "jpeg_window", lambda: None)
    assert isinstance(images.open_for_window(WINDOWED["4:2:0"]), np.ndarray)


def test_decode_gets_the_values_right():
    rgb = np.random.default_rng(0).integers(0, 256, (5, 6, 3), np.uint8)
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb)), rgb)
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb[..., :1])), rgb[..., :1])
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb[..., 0]), 3), rgb[..., [0, 0, 0]])
    np.testing.assert_array_equal(images.decode(images.encode_png(rgb), 1)[..., 0], Image.fromarray(rgb).convert("L"))
    np.testing.assert_array_equal(images.decode(deep("PNG")).ravel(), np.arange(35 * 17) * 100 // 256)


@pytest.mark.parametrize("name", ["rgb jpeg", "gray jpeg", "progressive", "rgb png", "palette", "bilevel"])
def test_every_truncation_is_noticed(name):
    data = ENCODED[name][0]
    end = 4 if data[:2] != b"\xff\xd8" else 0  # of a PNG, the checksum of the empty last chunk may be missing
    for length in [*range(0, len(data) - end, max(1, len(data) // 60)), len(data) - end - 1]:
        with pytest.raises(InputError, match="not a readable JPEG"):
            images.verify(data[:length])


@pytest.mark.parametrize(
    "data", [b"", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\x00\x00" * 9]
)
def test_no_image_is_no_image(data):
    for function in (images.decode, images.open_for_window, images.verify, images.read_shape):
        with pytest.raises(InputError, match="not a readable JPEG"):
            function(data)
