"""Message classes of protocol buffers from tables of fields, without a compiler of .proto files."""

from collections.abc import Mapping
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

REPEATED = "repeated "


def message_class(package: str, messages: Mapping[str, Mapping[str, tuple[int, str]]], name: str) -> Any:
    """Builds the message class `name`.

    `messages` is {message: {field: (number, type)}}. A type is a scalar of protocol buffers, such as 'int64', or
    another message, after 'repeated ' for a list. Fields that are left out are skipped when a file is read.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package)
    for message, fields in messages.items():
        message_type = file.message_type.add(name=message)
        for field, (number, declared) in fields.items():
            descriptor = message_type.field.add(name=field, number=number)
            kind = declared.removeprefix(REPEATED)
            descriptor.label = descriptor.LABEL_OPTIONAL if kind == declared else descriptor.LABEL_REPEATED
            if kind in messages:
                descriptor.type, descriptor.type_name = descriptor.TYPE_MESSAGE, f".{package}.{kind}"
            else:
                descriptor.type = descriptor_pb2.FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
