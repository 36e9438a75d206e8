"""Keras's files of weights: HDF5 of Keras 1 and 2, .weights.h5 and .keras of Keras 3.

Arrays are '<layer>/<variable>' with Keras's own names, whichever version wrote them: the older files say 'kernel:0' or
'conv1_W_1:0', the newer ones '0'. Optimisers' variables are left out. It takes h5py, which is in the extra [keras].
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

# What a layer's variables are, by their numbers of axes, in the order in which every version keeps them.
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
    """The arrays of a file, in its order of layers. Raises InputError for one that is damaged, or not of Keras."""
    try:
        h5py: Any = importlib.import_module("h5py")
    except ImportError:
        raise InputError(f"{path}: h5py reads it, which is not installed: pip install 'cnnjax[keras]'") from None
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
    layers = _of_keras3(file["layers"], names or {}) if "layers" in file else _of_keras2(file)
    arrays = {}
    for layer, variables in layers:
        known = VARIABLES.get(tuple(one.ndim for one in variables), map(str, range(len(variables))))
        arrays |= {f"{layer}/{name}": one for name, one in zip(known, variables, strict=True)}
    if not arrays:
        raise InputError("no weights in it")
    return arrays


def _of_keras2(file: Any) -> Iterator[tuple[str, list[np.ndarray]]]:
    root = file.get("model_weights", file)
    for layer in _attribute(root, "layer_names"):
        if names := _attribute(root[layer], "weight_names"):
            yield layer.replace("/", "_"), [root[layer][name][()] for name in names]  # no '/' in today's names


def _attribute(group: Any, name: str) -> list[str]:
    """A list of names; those that are too long for one attribute are in several, 'layer_names0' and so on."""
    parts = [group.attrs[name]] if name in group.attrs else []
    while f"{name}{len(parts)}" in group.attrs:
        parts.append(group.attrs[f"{name}{len(parts)}"])
    if not parts:
        raise InputError(f"not a file of Keras's weights: no {name} in it")
    return [one.decode() if isinstance(one, bytes) else str(one) for part in parts for one in part]


def _of_keras3(layers: Any, names: dict[str, str]) -> Iterator[tuple[str, list[np.ndarray]]]:
    """A layer is under its class with a number there; its name is beside it, or for older files in config.json."""
    for number in sorted(layers, key=_number):
        if "layers" in layers[number]:  # a model as a layer
            yield from _of_keras3(layers[number]["layers"], {})
        own = layers[number].get("vars", {})
        if not len(own):
            continue
        name = own.attrs.get("name", names.get(number))
        if name is None:
            raise InputError("it does not tell the layers' names; save the model as .keras, which does")
        yield str(name), [own[one][()] for one in sorted(own, key=int)]


def _number(name: str) -> tuple[str, int]:
    found = re.fullmatch(r"(.*?)(?:_(\d+))?", name)
    assert found  # anything matches
    return found[1], int(found[2] or 0)


def _names(config: dict[str, Any]) -> dict[str, str]:
    """The names of a .keras file's layers, by what its weights are under: 'conv2d_1' is the second Conv2D."""
    counts: dict[str, int] = {}
    names = {}
    for layer in config["config"]["layers"]:
        kind = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=.)(?=[A-Z][a-z])", "_", layer["class_name"]).lower()
        count = counts[kind] = counts.get(kind, -1) + 1
        names[f"{kind}_{count}" if count else kind] = layer["config"]["name"]
    return names
