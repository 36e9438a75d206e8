"""Writes an ONNX graph as an .onnx file, a ModelProto of protocol buffers (onnx.proto3 of ONNX 1.13)."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax import protobuf
from cnnjax.errors import InputError
from cnnjax.onnx.graph import IMAGES, Attribute, Graph, Node, Tensor

OPSET, IR_VERSION = 18, 8  # both of ONNX 1.13
MAX_BYTES = 2**31 - 1  # of one message

# The messages and fields that our files have: {message: {field: (number, type)}}.
MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Dimension": {"dim_value": (1, "int64"), "dim_param": (2, "string")},
    "TensorShapeProto": {"dim": (1, "repeated Dimension")},
    "TensorType": {"elem_type": (1, "int32"), "shape": (2, "TensorShapeProto")},
    "TypeProto": {"tensor_type": (1, "TensorType")},
    "ValueInfoProto": {"name": (1, "string"), "type": (2, "TypeProto")},
    "TensorProto": {
        "dims": (1, "repeated int64"), "data_type": (2, "int32"), "name": (8, "string"), "raw_data": (9, "bytes"),
    },
    "AttributeProto": {
        "name": (1, "string"), "f": (2, "float"), "i": (3, "int64"), "s": (4, "bytes"), "ints": (8, "repeated int64"),
        "type": (20, "int32"),
    },
    "NodeProto": {
        "input": (1, "repeated string"), "output": (2, "repeated string"), "name": (3, "string"),
        "op_type": (4, "string"), "attribute": (5, "repeated AttributeProto"),
    },
    "GraphProto": {
        "node": (1, "repeated NodeProto"), "name": (2, "string"), "initializer": (5, "repeated TensorProto"),
        "input": (11, "repeated ValueInfoProto"), "output": (12, "repeated ValueInfoProto"),
        "value_info": (13, "repeated ValueInfoProto"),
    },
    "OperatorSetIdProto": {"domain": (1, "string"), "version": (2, "int64")},
    "StringStringEntryProto": {"key": (1, "string"), "value": (2, "string")},
    "ModelProto": {
        "ir_version": (1, "int64"), "producer_name": (2, "string"), "producer_version": (3, "string"),
        "graph": (7, "GraphProto"), "opset_import": (8, "repeated OperatorSetIdProto"),
        "metadata_props": (14, "repeated StringStringEntryProto"),
    },
}  # fmt: skip

ELEMENT_TYPES = {  # TensorProto.DataType
    "float32": 1, "uint8": 2, "int8": 3, "uint16": 4, "int16": 5, "int32": 6, "int64": 7, "bool": 9, "float16": 10,
    "float64": 11, "uint32": 12, "uint64": 13, "bfloat16": 16,
}  # fmt: skip
ATTRIBUTE_TYPES = {float: ("f", 1), int: ("i", 2), str: ("s", 3), tuple: ("ints", 7)}  # AttributeProto.AttributeType


@functools.cache
def model_proto() -> Any:
    """Builds the message class ModelProto from `MESSAGES`."""
    return protobuf.message_class("onnx", MESSAGES, "ModelProto")


def serialize(graph: Graph, name: str, metadata: Mapping[str, str], version: str) -> bytes:
    """Returns the content of an .onnx file.

    Args:
      graph: the network.
      name: name of the graph.
      metadata: texts that the file carries, by key.
      version: that of this package.

    Raises:
      InputError: the file would have more than the 2 GiB that a message can have.
    """
    if (size := sum(array.nbytes for array in graph.constants.values())) > MAX_BYTES:
        raise InputError(f"the weights have {size:,} bytes: an ONNX file has {MAX_BYTES:,} at most")
    inner = [name for name in graph.tensors if name != IMAGES and name not in graph.outputs]
    content = {
        "ir_version": IR_VERSION,
        "producer_name": "cnnjax",
        "producer_version": version,
        "opset_import": [{"domain": "", "version": OPSET}],
        "graph": {
            "name": name,
            "node": list(map(_node, graph.nodes)),
            "initializer": [_constant(name, array) for name, array in graph.constants.items()],
            "input": [_value_info(IMAGES, graph.tensors[IMAGES])],
            "output": [_value_info(name, graph.tensors[name]) for name in graph.outputs],
            "value_info": [_value_info(name, graph.tensors[name]) for name in inner],
        },
        "metadata_props": [{"key": key, "value": value} for key, value in metadata.items()],
    }
    return model_proto()(**content).SerializeToString(deterministic=True)


def element_type(dtype: np.dtype) -> int:
    """Returns ONNX's number of a dtype. Raises InputError if there is none."""
    if dtype.name not in ELEMENT_TYPES:
        raise InputError(f"ONNX has no arrays of {dtype.name}")
    return ELEMENT_TYPES[dtype.name]


def _node(node: Node) -> dict[str, Any]:
    """Returns the fields of a NodeProto."""
    attributes = [_attribute(name, value) for name, value in node.attributes.items()]
    ends = {"input": node.inputs, "output": node.outputs}
    return {"name": node.output, "op_type": node.op, **ends, "attribute": attributes}


def _attribute(name: str, value: Attribute) -> dict[str, Any]:
    """Returns the fields of an AttributeProto."""
    field, kind = ATTRIBUTE_TYPES[type(value)]
    return {"name": name, field: value.encode() if isinstance(value, str) else value, "type": kind}


def _constant(name: str, array: np.ndarray) -> dict[str, Any]:
    """Returns the fields of a TensorProto."""
    data = np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
    return {"name": name, "dims": array.shape, "data_type": element_type(array.dtype), "raw_data": data}


def _value_info(name: str, tensor: Tensor) -> dict[str, Any]:
    """Returns the fields of a ValueInfoProto."""
    sizes = [{"dim_value" if isinstance(size, int) else "dim_param": size} for size in tensor.shape]
    described = {"elem_type": element_type(tensor.dtype), "shape": {"dim": sizes}}
    return {"name": name, "type": {"tensor_type": described}}
