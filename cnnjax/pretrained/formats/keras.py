"""Reader of Keras's weight files: HDF5 of Keras 1 and 2, .weights.h5 and .keras of Keras 3.

Arrays are named '<layer>/<variable>' with Keras's names such as 'kernel', although older files have 'kernel:0' or
'conv1_W_1:0' and newer ones '0'. Optimizer variables are left out. Needs h5py, of the extra [keras].
"""

import importlib
import io
import json
import pathlib
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnjax.errors import InputError

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


def read(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a Keras file, by '<layer>/<variable>', in the order of the layers.

    Raises InputError if h5py is missing, and for a file that is damaged or not Keras's.
    """
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise InputError(
            f"{path}: reading it needs h5py, which is not installed: pip install 'cnnjax[keras]'"
        ) from None
    try:
        if not zipfile.is_zipfile(path):
            with h5py.File(path, "r") as file:
                return _arrays(file)
        with zipfile.ZipFile(path) as archive:
            config = json.loads(archive.read("config.json"))
            with h5py.File(io.BytesIO(archive.read("model.weights.h5")), "r") as file:
                return _arrays(file, _names(config))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a file of Keras's weights, or damaged: {str(error).splitlines()[0]}") from None


def _arrays(file: Any, names: dict[str, str] | None = None) -> dict[str, np.ndarray]:
    """Reads the arrays of an open HDF5 file by '<layer>/<variable>'. `names` is as in `_read_keras3`; None means {}."""
    layers = _read_keras3(file["layers"], names or {}) if "layers" in file else _read_keras2(file)
    arrays = {}
    for layer, variables in layers:
        variable_names = VARIABLES.get(tuple(array.ndim for array in variables), map(str, range(len(variables))))
        arrays |= {f"{layer}/{name}": array for name, array in zip(variable_names, variables, strict=True)}
    if not arrays:
        raise InputError("no weights in it")
    return arrays


def _read_keras2(file: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields (layer name, its arrays) of an HDF5 file of Keras 1 or 2."""
    root = file.get("model_weights", file)
    for layer in _attribute(root, "layer_names"):
        if names := _attribute(root[layer], "weight_names"):
            yield layer.replace("/", "_"), [root[layer][name][()] for name in names]  # Keras 3 allows no '/' in names


def _attribute(group: Any, name: str) -> list[str]:
    """Returns a list of names that is an attribute of an HDF5 group.

    A list too long for one attribute is stored in several: 'layer_names0', 'layer_names1' and so on. Raises InputError
    if there is none.
    """
    chunks = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(chunks)}" in group.attrs:
        chunks.append(group.attrs[f"{name}{len(chunks)}"])
    if not chunks:
        raise InputError(f"not a file of Keras's weights: no {name} in it")
    return [text.decode() if isinstance(text, bytes) else str(text) for chunk in chunks for text in chunk]


def _read_keras3(layers: Any, names: dict[str, str]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """Yields (layer name, its arrays) of an HDF5 file of Keras 3, where groups are named by class and number.

    `names` has the layers' own names by group, as in {'conv2d_1': 'block1_conv2'}; {} if the file stores them itself.
    """
    for group in sorted(layers, key=_class_and_number):
        if "layers" in layers[group]:  # a model as a layer
            yield from _read_keras3(layers[group]["layers"], {})
        variables = layers[group].get("vars", {})
        if not len(variables):
            continue
        name = variables.attrs.get("name", names.get(group))
        if name is None:
            raise InputError("it has no layer names; save the model as .keras, which has them")
        yield str(name), [variables[index][()] for index in sorted(variables, key=int)]


def _class_and_number(name: str) -> tuple[str, int]:
    """Splits 'conv2d_10' into ('conv2d', 10), to sort groups by; the number is 0 if there is none."""
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert match  # anything matches
    return match[1], int(match[2] or 0)


def _names(config: dict[str, Any]) -> dict[str, str]:
    """Returns {group of the weights: layer's own name} from the config of a .keras file.

    The group 'conv2d_1', for example, has the weights of the second Conv2D.
    """
    counts: dict[str, int] = {}
    names = {}
    for layer in config["config"]["layers"]:
        class_name = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", layer["class_name"]).lower()
        count = counts[class_name] = counts.get(class_name, -1) + 1
        names[f"{class_name}_{count}" if count else class_name] = layer["config"]["name"]
    return names
