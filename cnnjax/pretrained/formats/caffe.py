"""Reader of Caffe's .caffemodel: a NetParameter message, of which only the fields with weights are decoded.

Arrays are named '<layer>/<blob number>': blob 0 is a kernel, 1 its bias. A BatchNorm's sums of means and variances are
divided by its third blob, as Caffe does when it runs.
"""

import functools
import math
import pathlib
from typing import Any

import numpy as np
from google.protobuf import message

from cnnjax import protobuf
from cnnjax.errors import InputError

# Messages of caffe.proto: {field: (number, type)}. Data fields are declared as bytes, for numpy: decoding to Python
# floats would take minutes. Files from before 2015 have V1LayerParameter, and four sizes in place of a BlobShape.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "BlobShape": {"dim": (1, "repeated int64")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "repeated bytes"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "repeated bytes"),
    },
    "V1LayerParameter": {"name": (4, "string"), "blobs": (6, "repeated BlobProto")},
    "LayerParameter": {"name": (1, "string"), "type": (2, "string"), "blobs": (7, "repeated BlobProto")},
    "NetParameter": {"layers": (2, "repeated V1LayerParameter"), "layer": (100, "repeated LayerParameter")},
}
MAX_LAYERS = 100_000


@functools.cache
def net_parameter() -> Any:
    """Builds the protobuf message class NetParameter from `MESSAGES`."""
    return protobuf.message_class("caffe", MESSAGES, "NetParameter")


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a .caffemodel, by '<layer>/<blob number>', in the order of the layers.

    Raises InputError for a file that is damaged or not Caffe's.
    """
    try:
        net = net_parameter().FromString(path.read_bytes())
        if len(net.layers) + len(net.layer) > MAX_LAYERS:
            raise ValueError(f"more than {MAX_LAYERS:,} layers")
        arrays = {}
        for layer in (*net.layers, *net.layer):
            blobs = [_array(blob) for blob in layer.blobs]
            if getattr(layer, "type", "") == "BatchNorm":
                *blobs, count = blobs
                with np.errstate(all="ignore"):  # whoever uses the arrays refuses what is not finite
                    blobs = [blob / count if count else np.zeros_like(blob) for blob in blobs]
            for i, blob in enumerate(blobs):
                arrays[f"{layer.name}/{i}"] = blob
    except (OSError, ValueError, message.DecodeError) as error:
        raise InputError(f"{path}: not a .caffemodel, or damaged: {str(error)[:200]}") from None
    if not arrays:
        raise InputError(f"{path}: not a .caffemodel: no layer with weights in it")
    return arrays


def _array(blob: Any) -> np.ndarray:
    """Converts a BlobProto to an array. Raises ValueError if the data does not fit the shape.

    The old form pads shapes to four sizes with 1 in front; these are removed.
    """
    data, dtype = (blob.data, np.float32) if blob.data else (blob.double_data, np.float64)
    shape = list(blob.shape.dim)
    if not shape:  # the old form pads shapes to four sizes with 1 in front
        shape = [blob.num, blob.channels, blob.height, blob.width]
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
    value = np.frombuffer(b"".join(data), np.dtype(dtype).newbyteorder("<"))
    if value.size != math.prod(shape):
        raise ValueError(f"{value.size} numbers for a blob of shape {shape}")
    return value.reshape(shape)
