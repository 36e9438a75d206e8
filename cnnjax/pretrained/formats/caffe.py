"""Caffe's .caffemodel: a NetParameter of protocol buffers, of which the few fields that hold weights are read.

Arrays are '<layer>/<number of the blob>', as Caffe counts them: 0 is a kernel, 1 its biases. The sums of means and of
variances that a BatchNorm layer keeps are divided by its third blob, as Caffe does when it runs.
"""

import functools
import math
import pathlib
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message, message_factory

from cnnjax.errors import InputError

# Messages, and their fields with number and type, as caffe.proto has them. Data are read as the bytes they are, for
# NumPy: a list of Python's numbers takes minutes. V1, and the four sides of a blob, are of files from before 2015.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "BlobShape": {"dim": (1, "int64")},
    "BlobProto": {
        "num": (1, "int32"),
        "channels": (2, "int32"),
        "height": (3, "int32"),
        "width": (4, "int32"),
        "data": (5, "bytes"),
        "shape": (7, "BlobShape"),
        "double_data": (8, "bytes"),
    },
    "V1LayerParameter": {"name": (4, "string"), "blobs": (6, "BlobProto")},
    "LayerParameter": {"name": (1, "string"), "type": (2, "string"), "blobs": (7, "BlobProto")},
    "NetParameter": {"layers": (2, "V1LayerParameter"), "layer": (100, "LayerParameter")},
}
REPEATED = ("dim", "data", "double_data", "blobs", "layers", "layer")


@functools.cache
def net_parameter() -> Any:
    """The class of NetParameter, with the fields of MESSAGES."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe")
    for name, fields in MESSAGES.items():
        made = file.message_type.add(name=name)
        for field, (number, kind) in fields.items():
            one = made.field.add(name=field, number=number)
            one.label = one.LABEL_REPEATED if field in REPEATED else one.LABEL_OPTIONAL
            if kind in MESSAGES:
                one.type, one.type_name = one.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                one.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.NetParameter"))


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays of a file, in its order of layers. Raises InputError for one that is damaged, or not of Caffe."""
    try:
        net = net_parameter().FromString(path.read_bytes())
        arrays = {}
        for layer in (*net.layers, *net.layer):
            blobs = [_array(blob) for blob in layer.blobs]
            if getattr(layer, "type", "") == "BatchNorm":
                *blobs, count = blobs
                blobs = [blob / count if count else np.zeros_like(blob) for blob in blobs]
            arrays |= {f"{layer.name}/{i}": blob for i, blob in enumerate(blobs)}
    except (OSError, ValueError, message.DecodeError) as error:
        raise InputError(f"{path}: not a .caffemodel, or damaged: {error}") from None
    if not arrays:
        raise InputError(f"{path}: not a .caffemodel: no layer with weights in it")
    return arrays


def _array(blob: Any) -> np.ndarray:
    data, dtype = (blob.data, np.float32) if blob.data else (blob.double_data, np.float64)
    shape = list(blob.shape.dim)
    if not shape:  # four sides, of which the first are 1 for what has fewer
        shape = [blob.num, blob.channels, blob.height, blob.width]
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
    value = np.frombuffer(b"".join(data), np.dtype(dtype).newbyteorder("<"))
    if value.size != math.prod(shape):
        raise ValueError(f"{value.size} numbers for a blob of shape {shape}")
    return value.reshape(shape)
