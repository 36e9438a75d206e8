"""Files of images before decoding: sizes that are refused, values of more than 8 bits, and files cut or altered."""

import contextlib
import io
import resource
import struct
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnjax.data import image_formats, images
from cnnjax.errors import InputError
from tests.data.original_files import encoded, png_of

NEW_KINDS = ("WEBP", "GIF", "BMP", "TIFF")
READERS = (images.decode, images.open_for_window, images.verify, images.read_shape, images.deep_maximum)


def patched(kind: str, at: int, form: str, *values: int, **options: Any) -> bytes:
    """An image of 17x33 pixels, whose bytes from `at` on are replaced."""
    data = bytearray(encoded((17, 33), "RGB", kind, **options))
    struct.pack_into(form, data, at, *values)
    return bytes(data)


def tiff_of(sides: tuple[int, int], **tags: int) -> bytes:
    """A gray TIFF of one byte, whose tags may claim anything."""
    entries = {256: sides[1], 257: sides[0], 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: sides[0], 279: 1}
    entries |= {int(tag.removeprefix("tag")): value for tag, value in tags.items()}
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<I", 12) + b"\0" * 4 + struct.pack("<H", len(entries)) + rows + b"\0" * 4


LARGE = {
    "png": png_of(60_000, 60_000),
    "16-bit png": png_of(60_000, 60_000, depth=16),
    "rgb png": png_of(10_000, 10_000, color=2),
    "jpeg": encoded((17, 33), "L", "JPEG").replace(struct.pack(">HH", 17, 33), b"\xff\xff\xff\xff"),
    "gif": patched("GIF", 6, "<HH", 65_000, 65_000),
    "bmp": patched("BMP", 18, "<ii", 50_000, 50_000),
    "webp": patched("WEBP", 26, "<HH", 16_383, 16_383),
    "webp without loss": patched("WEBP", 21, "<I", 0x0FFFFFFF, lossless=True),
    "webp with a canvas": b"RIFF\0\0\0\0WEBPVP8X\n\0\0\0\0\0\0\0" + b"\xff" * 6,
    "tiff": tiff_of((50_000, 50_000)),
    "tile of a tiff": tiff_of((16, 16), tag322=65_536, tag323=65_536),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_size_over_the_limit_is_refused_before_memory_is_taken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    readers = READERS[:4] if name not in ("16-bit png", "tiff") else READERS
    for reader in readers:
        with pytest.raises(InputError, match=r"pixels: more than the limit of 89,478,485; .* CNNJAX_MAX_PIXELS raises"):
            reader(LARGE[name])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    monkeypatch.setenv("CNNJAX_MAX_PIXELS", "99999999999")
    if name in ("png", "tiff"):
        assert images.read_shape(LARGE[name])[0] >= 50_000


def test_the_limit_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded((17, 33), "RGB", "PNG")
    monkeypatch.setenv("CNNJAX_MAX_PIXELS", "561")
    assert images.verify(data) == (17, 33, 3)
    monkeypatch.setenv("CNNJAX_MAX_PIXELS", "560")
    with pytest.raises(InputError, match=r"the image is 17x33, 561 pixels: more than the limit of 560"):
        images.verify(data)
    monkeypatch.setenv("CNNJAX_MAX_PIXELS", "1e9")
    with pytest.raises(InputError, match=r"CNNJAX_MAX_PIXELS='1e9': expected a number of pixels, such as 89478485"):
        images.verify(data)


def test_a_jpeg_of_very_many_scans_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "MAX_PIXELS", 500)
    monkeypatch.setenv("CNNJAX_MAX_PIXELS", "600")
    data = encoded((17, 33), "RGB", "JPEG", progressive=True)
    assert images.verify(data) == (17, 33, 3)
    with pytest.raises(InputError, match=r"JPEG of \d+ scans of 561 pixels each: too slow to decode"):
        images.verify(data[:-2] + data[data.index(b"\xff\xda") : -2] * 20 + data[-2:])


# ------------------------------------------------------------------------------- more than 8 bits per channel


def deep(kind: str, maximum: int, color: bool, shape: tuple[int, int] = (5, 7)) -> tuple[np.ndarray, bytes]:
    """Pixels uint16 [H, W, C] with values up to `maximum`, and their file, as OpenCV writes it."""
    pixels = np.random.default_rng(0).integers(0, maximum + 1, (*shape, 3 if color else 1)).astype(np.uint16)
    pixels[0, 0] = maximum
    return pixels, cv2.imencode(f".{kind}", pixels[:, :, ::-1])[1].tobytes()


@pytest.mark.parametrize("color", [False, True], ids=["gray", "color"])
@pytest.mark.parametrize("kind", ["png", "tiff"])
@pytest.mark.parametrize(("maximum", "bits"), [(200, 8), (1023, 10), (1255, 12), (4095, 12), (9000, 14), (65535, 16)])
def test_values_of_more_than_8_bits_are_divided_by_what_the_bit_depth_says(
    kind: str, color: bool, maximum: int, bits: int
) -> None:
    pixels, data = deep(kind, maximum, color)
    assert images.deep_maximum(data) == maximum
    assert images.fitting_bit_depth(maximum) == bits
    assert images.read_shape(data) == images.verify(data) == pixels.shape
    np.testing.assert_array_equal(images.decode(data), pixels >> 8)
    np.testing.assert_array_equal(images.decode(data, bit_depth=bits), pixels >> (bits - 8))
    if bits > 8:
        with pytest.raises(InputError, match=f"values up to {maximum:,}: more than the 8 bits of the training images"):
            images.decode(data, bit_depth=8)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_deep_images_are_turned_upright_as_others_are(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    flat = encoded((6, 9), "RGB", "PNG", exif=exif.tobytes())
    chunk = flat[flat.index(b"eXIf") - 4 :]
    pixels = (np.asarray(Image.open(io.BytesIO(flat))).astype(np.uint16) << 8).astype(">u2")
    turned = png_of(6, 9, 16, 2, b"".join(b"\0" + row.tobytes() for row in pixels))
    turned = turned[:33] + chunk[: 12 + struct.unpack(">I", chunk[:4])[0]] + turned[33:]
    np.testing.assert_array_equal(images.decode(turned), images.decode(flat))


@pytest.mark.parametrize("mode", ["I", "F"])
def test_values_of_32_bits_are_refused(mode: str) -> None:
    with pytest.raises(InputError, match=r"32-bit .*: expected unsigned integers of at most 16 bits"):
        images.decode(of_mode(mode))


def of_mode(mode: str) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (5, 5), 70_000).save(buffer, "TIFF")
    return buffer.getvalue()


# ---------------------------------------------------------------------------------------- cut and altered files


@pytest.mark.parametrize("kind", NEW_KINDS)
def test_every_truncation_of_the_other_formats_is_noticed(kind: str) -> None:
    data = encoded((17, 33), "RGB", kind)
    end = {"GIF": 3}.get(kind, 1)  # of a GIF, the end of the data and of the file may be missing
    for length in range(0, len(data) - end, max(1, len(data) // 60)):
        with pytest.raises(InputError, match="not a readable JPEG"):
            images.verify(data[:length])


SOURCES = [
    *(encoded((17, 33), mode, kind) for mode, kind in [
        ("RGB", "JPEG"), ("CMYK", "JPEG"), ("RGB", "PNG"), ("P", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("RGB", "WEBP"),
        ("RGBA", "WEBP"), ("P", "GIF"), ("L", "GIF"), ("RGB", "BMP"), ("P", "BMP"), ("1", "BMP"), ("RGB", "TIFF"),
        ("CMYK", "TIFF"), ("P", "TIFF"), ("1", "TIFF"),
    ]),
    encoded((17, 33), "RGB", "JPEG", progressive=True),
    encoded((17, 33), "RGB", "WEBP", lossless=True),
    *(encoded((17, 33), "RGB", "TIFF", compression=name) for name in ("tiff_lzw", "jpeg", "packbits")),
    *(deep(kind, 3000, color)[1] for kind in ("png", "tiff") for color in (False, True)),
]  # fmt: skip


@st.composite
def altered(draw: st.DrawFn) -> bytes:
    """An image file of any format with bytes replaced, most of them in its header, or cut, or with a piece repeated."""
    data = bytearray(draw(st.sampled_from(SOURCES)))
    for _ in range(draw(st.integers(1, 4))):
        end = len(data) if draw(st.booleans()) else min(len(data), 120)
        at = draw(st.integers(0, max(0, end - 1)))
        match draw(st.sampled_from(["set", "number", "cut", "repeat", "drop"])):
            case "set":
                data[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "number":
                data[at : at + 4] = draw(st.sampled_from([b"\xff" * 4, b"\0" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0"]))
            case "cut":
                del data[at:]
            case "repeat":
                data[at:at] = data[at : at + draw(st.integers(1, 64))] * draw(st.integers(1, 20))
            case "drop":
                del data[at : at + draw(st.integers(1, 16))]
    return bytes(data)


@settings(max_examples=3000, deadline=10_000, database=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=altered())
def decode_or_refuse(data: bytes) -> None:
    for reader in READERS:
        result: Any = None
        with contextlib.suppress(InputError):
            result = reader(data)
        if reader is images.decode and result is not None:
            assert (result.dtype, result.ndim) == (np.uint8, 3)
            assert result.shape[2] in (1, 3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Pillow's, about damaged EXIF
def test_altered_images_are_decoded_or_refused() -> None:
    """3,000 altered files of all formats: an image or an InputError, each within 10 seconds and 2 GB."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decode_or_refuse()
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2 * 2**20  # KiB
