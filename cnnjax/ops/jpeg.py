"""Decodes windows of JPEG files with libjpeg-turbo, where its headers and a C++ compiler exist: see jpeg.cc."""

import ctypes
import functools
from collections.abc import Callable

import numpy as np

from cnnjax.ops import compiler

EXTRA_COLUMNS = 64  # decoded beside a window: up to the border of the widest block on its left, and two margins

DecodeWindow = Callable[[bytes, int, int, int, int, int], np.ndarray | None]


@functools.cache
def load() -> DecodeWindow | None:
    """Returns the function that decodes a window of a JPEG file, or None if it cannot be compiled.

    It maps (data, channels, top, left, height, width) to the pixels, uint8 [height, width, channels], which equal those
    of decoding the whole image and cropping it. `channels` is 1 for gray or 3 for RGB. It returns None for data that is
    damaged or not a JPEG of 1 or 3 channels.
    """
    if not compiler.is_enabled():
        return None
    try:
        function = ctypes.CDLL(str(compiler.compile_library("jpeg", ["-ljpeg"]))).cnnjax_jpeg_window
    except Exception:  # no headers, no compiler, a full disk, ...: the caller decodes whole images instead
        return None
    function.argtypes = [ctypes.c_char_p, ctypes.c_size_t, *[ctypes.c_int] * 5, ctypes.c_void_p, ctypes.c_size_t]

    def window(data: bytes, channels: int, top: int, left: int, height: int, width: int) -> np.ndarray | None:
        """Decodes one window; see `load`."""
        rows = np.empty((height, width + EXTRA_COLUMNS, channels), np.uint8)
        offset = function(data, len(data), channels, top, left, height, width, rows.ctypes.data, rows.strides[0])
        return None if offset < 0 else rows[:, offset : offset + width]

    return window
