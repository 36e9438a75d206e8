"""Windows of JPEGs by libjpeg-turbo, where its headers and a C++ compiler are: see jpeg.cc."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from cnnjax.ops import compiler

SIDES = 64  # pixels that may be decoded beside a window: to the widest block's border on the left, and two margins

Window = Callable[[bytes, int, int, int, int, int], np.ndarray | None]


@functools.cache
def load() -> Window | None:
    """The function (data, channels, top, left, height, width) -> uint8 [height, width, channels], or None without it.

    That gives the pixels of the whole image, or None for an image that is damaged or of another kind.
    """
    if not compiler.wanted():
        return None
    try:
        function = ctypes.CDLL(str(compiler.compiled("jpeg", ["-ljpeg"]))).cnnjax_jpeg_window
    except Exception:  # no headers, no compiler, a full disk: whatever it is, the whole image is decoded
        return None
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[ctypes.c_int] * 5, ctypes.c_void_p, ctypes.c_size_t]

    def window(data: bytes, channels: int, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        rows = np.empty((height, width + SIDES, channels), np.uint8)
        at = function(data, len(data), channels, top, left, height, width, rows.ctypes.data, rows.strides[0])
        return None if at < 0 else rows[:, at : at + width]

    return window
