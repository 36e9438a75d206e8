"""Reads the HDF5 file of a Keras network in a process of its own, and writes its arrays to the standard output.

The library of HDF5 can crash or loop on a damaged file, so `keras.read` runs this script under limits of memory and
time. It needs h5py and NumPy alone. The output is a safetensors file. On an error, the status is 1 and the standard
error has the reason.

Usage: keras_worker.py FILE < LIMITS, where LIMITS is a JSON list: the most bytes of all arrays, the seconds of CPU
time, the bytes of address space, and the names as in `_read_keras3`.
"""

import json
import math
import re
import struct
import sys
from collections.abc import Iterator
from typing import IO, Any, NoReturn

import h5py
import numpy as np
from h5py import h5l  # pyright: ignore[reportAttributeAccessIssue]

# Names of a layer's variables by their numbers of dimensions, in the order in which every version stores them.
_MOVING = ("moving_mean", "moving_variance")
VARIABLES: dict[tuple[int, ...], tuple[str, ...]] = {
    (4,): ("kernel",),
    (4, 1): ("kernel", "bias"),
    (2,): ("kernel",),
    (2, 1): ("kernel", "bias"),
    (4, 4): ("depthwise_kernel", "pointwise_kernel"),
    (4, 4, 1): ("depthwise_kernel", "pointwise_kernel", "bias"),
    (1, 1, 1, 1): ("gamma", "beta", *_MOVING),
    (1, 1, 1): ("beta", *_MOVING),  # with scale=False
}
GAMMA = re.compile(r"(^|[/_])gamma(_\d+)?(:0)?$")  # the first of three vectors with center=False, in Keras 1 and 2
TYPES = {"float16": "F16", "float32": "F32", "float64": "F64", "bool": "BOOL"} | {
    f"{sign}int{8 * size}": f"{letter}{8 * size}" for sign, letter in (("", "I"), ("u", "U")) for size in (1, 2, 4, 8)
}
VARIABLE = "CNNJAX_MAX_UNPACKED_GIB"  # of cnnjax.limits
MAX_ATTRIBUTE_BYTES = 1 << 24
MAX_DEPTH = 32


def refuse(reason: str) -> NoReturn:
    """Ends the process with the status 1 and a reason."""
    sys.exit(reason)


def main(path: str, max_bytes: int, names: dict[str, str], out: IO[bytes]) -> None:
    """Writes the arrays of an HDF5 file, at most `max_bytes` in all, to `out` as a safetensors file."""
    with h5py.File(path, "r") as file:
        root = member(file, "layers", h5py.Group) if has(file, "layers") else None
        layers = _read_keras2(file) if root is None else _read_keras3(root, names, 0)
        datasets: dict[str, Any] = {}
        for layer, variables in layers:
            variable_names = VARIABLES.get(
                tuple(len(v.shape or ()) for v in variables), map(str, range(len(variables)))
            )
            if variable_names == ("beta", *_MOVING) and GAMMA.search(variables[0].name):
                variable_names = ("gamma", *_MOVING)
            datasets |= {f"{layer}/{name}": v for name, v in zip(variable_names, variables, strict=True)}
        if not datasets:
            refuse("no weights in it")
        header, at = {}, 0
        for name, dataset in datasets.items():
            start, at = at, at + check(name, dataset, max_bytes - at)
            header[name] = {"dtype": TYPES[dataset.dtype.name], "shape": dataset.shape, "data_offsets": [start, at]}
        encoded = json.dumps(header).encode()
        out.write(struct.pack("<Q", len(encoded)) + encoded)
        for dataset in datasets.values():
            array = np.asarray(dataset[()], dataset.dtype.newbyteorder("<"), order="C")
            out.write(array.reshape(-1).view(np.uint8).data)


def check(name: str, dataset: Any, max_bytes: int) -> int:
    """Returns the number of bytes of a data set. Refuses one that is not plain numbers in this file, or too large."""
    plist = dataset.id.get_create_plist()
    if plist.get_external_count() or dataset.is_virtual:
        refuse(f"{name!r} is stored in another file")
    if dataset.dtype.name not in TYPES or dataset.shape is None:
        refuse(f"{name!r} is not an array of real numbers, but {str(dataset.dtype)[:40]}")
    size, stored = dataset.dtype.itemsize * math.prod(map(int, dataset.shape)), dataset.id.get_storage_size()
    if not plist.get_nfilters() and size > stored:
        refuse(f"{name!r} claims {size:,} bytes, of which the file has {stored:,}")
    if size > max_bytes:
        more = f"more than the limit leaves, {max_bytes:,}; the environment variable {VARIABLE} raises it"
        refuse(f"{name!r} claims {size:,} bytes, {more}")
    return size


def has(group: Any, name: str) -> bool:
    """Returns whether a group has a link of this name, without following it as `name in group` would."""
    return group.id.links.exists(name.encode())


def member(group: Any, path: str, *kinds: type) -> Any:
    """Returns what is at a path in a group. Refuses links to elsewhere, and what is of none of the `kinds`."""
    found = group
    for name in path.strip("/").split("/"):
        if not isinstance(found, h5py.Group) or not has(found, name):
            refuse(f"no {path!r} in it")
        if found.id.links.get_info(name.encode()).type != h5l.TYPE_HARD:
            refuse(f"{path!r} is a link to elsewhere")
        found = found[name]
    if not isinstance(found, kinds):
        refuse(f"{path!r} is of the wrong kind")
    return found


def _read_keras2(file: Any) -> Iterator[tuple[str, list[Any]]]:
    """Yields (layer name, its data sets) of an HDF5 file of Keras 1 or 2."""
    root = member(file, "model_weights", h5py.Group) if has(file, "model_weights") else file
    for layer in _attribute(root, "layer_names"):
        group = member(root, layer, h5py.Group)
        if names := _attribute(group, "weight_names"):
            # Keras 3 allows no '/' in names.
            yield layer.replace("/", "_"), [member(group, name, h5py.Dataset) for name in names]


def _attribute(group: Any, name: str) -> list[str]:
    """Returns a list of names that is an attribute of an HDF5 group. Refuses a group without it.

    A list too long for one attribute is stored in several: 'layer_names0', 'layer_names1' and so on.
    """
    chunks = [_strings(group, name)] if name in group.attrs else []
    while f"{name}{len(chunks)}" in group.attrs:
        chunks.append(_strings(group, f"{name}{len(chunks)}"))
    if not chunks:
        refuse(f"not a file of Keras's weights: no {name} in it")
    return [text for chunk in chunks for text in chunk]


def _strings(group: Any, name: str) -> list[str]:
    """Returns the strings of an attribute, as a list even if there is only one. Refuses other attributes."""
    attribute = group.attrs.get_id(name)
    size = attribute.dtype.itemsize * math.prod(map(int, attribute.shape))
    if size > MAX_ATTRIBUTE_BYTES:
        refuse(f"the attribute {name!r} claims {size:,} bytes, and the limit is {MAX_ATTRIBUTE_BYTES:,}")
    if attribute.dtype.kind == "S" or h5py.check_string_dtype(attribute.dtype) is not None:
        values = np.asarray(group.attrs[name]).reshape(-1).tolist()
        return [value.decode() if isinstance(value, bytes) else str(value) for value in values]
    return [] if size == 0 else refuse(f"the attribute {name!r} is not a list of names")


def _read_keras3(layers: Any, names: dict[str, str], depth: int) -> Iterator[tuple[str, list[Any]]]:
    """Yields (layer name, its data sets) of an HDF5 file of Keras 3, where groups are named by class and number.

    `names` has the layers' own names by group, as in {'conv2d_1': 'block1_conv2'}; {} if the file stores them itself.
    """
    if depth > MAX_DEPTH:
        refuse(f"nested models, {MAX_DEPTH} deep")
    places = {name: place for place, name in enumerate(names)}  # the order of the layers, where it is known
    for key in sorted(layers, key=lambda key: (places.get(key, len(places)), *_class_and_number(key))):
        group = member(layers, key, h5py.Group)
        if has(group, "layers"):  # a model as a layer
            yield from _read_keras3(member(group, "layers", h5py.Group), {}, depth + 1)
        if not has(group, "vars") or not len(variables := member(group, "vars", h5py.Group)):
            continue
        name = _strings(variables, "name")[0] if "name" in variables.attrs else names.get(key)
        if name is None:
            refuse("it has no layer names; save the model as .keras, which has them")
        if not all(index.isdecimal() and len(index) < 6 for index in variables):
            refuse("not a file of Keras's weights: its variables have no numbers")
        yield str(name), [member(variables, index, h5py.Dataset) for index in sorted(variables, key=int)]


def _class_and_number(name: str) -> tuple[str, int]:
    """Splits 'conv2d_10' into ('conv2d', 10), to sort groups by; the number is 0 if there is none."""
    match = re.fullmatch(r"(.*?)(?:_(\d{1,9}))?", name, re.DOTALL)
    assert match  # anything matches
    return match[1], int(match[2] or 0)


def limit(seconds: int, addresses: int) -> None:
    """Limits CPU time and address space of this process, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    values = {resource.RLIMIT_CPU: seconds, resource.RLIMIT_CORE: 0}
    if sys.platform == "linux":
        values[resource.RLIMIT_AS] = addresses
    for kind, value in values.items():
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))


if __name__ == "__main__":
    max_bytes, seconds, addresses, names = json.load(sys.stdin)
    limit(seconds, addresses)
    try:
        main(sys.argv[1], max_bytes, names, sys.stdout.buffer)
    except MemoryError:
        refuse("reading it takes more memory than its size allows")
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, RecursionError) as error:
        refuse(f"not a file of Keras's weights, or damaged: {ascii((str(error).splitlines() or [''])[0][:200])[1:-1]}")
