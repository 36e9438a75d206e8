"""What a library's names and layouts are, as data: what `cnnjax.pretrained.names` has for each.

A layer's arrays are by our path, as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'.
"""

import re
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnjax.models.layers import FullyConnected

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]


class Layer(NamedTuple):
    """A layer of ours that has arrays."""

    path: str  # 'conv2_1/conv1'
    arrays: dict[str, Shape]  # by their paths: 'params/conv2_1/conv1/kernel'
    window: Shape  # of a full connection: height, width and number of the maps that its inputs are; else ()


def layers(model: nn.Module, shape: Shape) -> list[Layer]:
    """The layers of a network that have arrays, in the order in which they run on images of [height, width, channels].

    Auxiliary classifiers are among them. Computes shapes only.
    """
    found: dict[str, Layer] = {}

    def record(run: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        out = run(*args, **kwargs)
        module = context.module
        path = "/".join(module.path)
        arrays = {
            f"{collection}/{path}/{name}": leaf.shape
            for collection, own in module.variables.items()
            for name, leaf in own.items()
            if hasattr(leaf, "shape")
        }
        if context.method_name == "__call__" and arrays:
            found.setdefault(path, Layer(path, arrays, _window(module, args[0].shape)))
        return out

    with nn.intercept_methods(record):
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        jax.eval_shape(lambda x: model.init(jax.random.key(0, impl="rbg"), x, train=False), image)
    return list(found.values())


def _window(module: nn.Module, given: Shape) -> Shape:
    """Of a full connection; in one at every position of maps, and in one of vectors, the inputs are maps of 1x1."""
    if isinstance(module, FullyConnected):
        size = (module.window, module.window) if module.window else given[1:3]
        return *size, given[-1]
    return (1, 1, given[-1]) if isinstance(module, nn.Dense) else ()


def rules(table: Mapping[str, str]) -> Callable[[list[Layer], Arrays], dict[str, str]]:
    """Names by patterns: our layers' whole paths -> their layers.

    A '{}' of a name is the pattern's next group, and '{-1}' that number less 1. A layer takes the first pattern that
    matches; one that none does has no name there.
    """

    def pair(ours: list[Layer], arrays: Arrays) -> dict[str, str]:
        names = {}
        for layer in ours:
            for pattern, name in table.items():
                if found := re.fullmatch(pattern, layer.path):
                    names[layer.path] = _fill(name, found)
                    break
        return names

    return pair


def rewrite(table: Mapping[str, str]) -> Callable[[list[Layer], Arrays], dict[str, str]]:
    """Names that are our layers' paths, rewritten: patterns -> what stands in their place, one after the other.

    A '{}' there is the pattern's next group, and '{-1}' that number less 1. What is left of '/' becomes '.'.
    """
    return lambda ours, arrays: {layer.path: renamed(layer.path, table).replace("/", ".") for layer in ours}


def renamed(name: str, table: Mapping[str, str]) -> str:
    """The name, with what the patterns find replaced, one after the other: see `rewrite`."""
    for pattern, new in table.items():
        name = re.sub(pattern, partial(_fill, new), name)
    return name


def _fill(text: str, found: re.Match[str]) -> str:
    groups = iter(found.groups())

    def put(hole: re.Match[str]) -> str:
        group = next(groups)
        return str(int(group) + int(hole[1])) if hole[1] else group

    return re.sub(r"\{([+-]\d+)?\}", put, text)


class Library(NamedTuple):
    """How a library names and lays out what our networks have."""

    # By our family, a file of cnnjax/models: (our layers, their arrays, {} in export) -> their layers' names by ours.
    families: Mapping[str, Callable[[list[Layer], Arrays], Mapping[str, str]]]
    array: Callable[[Layer, str, str], str]  # (layer, its name there, 'kernel') -> the array's name there
    to_theirs: Callable[[np.ndarray, Layer, str], np.ndarray]  # (array, layer, the layer's name there)
    to_ours: Callable[[np.ndarray, Layer, Shape], np.ndarray]  # (array, layer, our shape)
    no_weights: str = "$^"  # a pattern of their arrays that are no weights
    counts: Callable[[Layer, str], Arrays] = lambda layer, name: {}  # such arrays, that a layer of theirs is to have
    aux: str = "$^"  # a pattern of their arrays that a network of ours without auxiliary classifiers has no use for
    blue_first: Callable[[str, list[Layer]], bool] = lambda family, ours: False  # whether they get BGR for our RGB
    background: str = "$^"  # a pattern of their arrays that may have a class before ours, for images of none of them
    ones: str = "$^"  # a pattern of their arrays that are 1 where there are none
    # Patterns of biases before a normalisation, where we have none -> the names of the means that they are taken from.
    folded: Mapping[str, str] = MappingProxyType({})
    former: Mapping[str, str] = MappingProxyType({})  # patterns in names of older files -> today's, as in `rewrite`
    kind: str = ""  # of the files that are exported: 'torch', or none


def torch_layout(convs: str = "$^", former: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """`Library`'s fields for PyTorch's names and layouts: outputs come first, and maps before their positions.

    `convs` is a pattern of layers, as 'ours theirs', that are convolutions there and full connections here.
    """
    leaves = {"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"}
    leaves |= {"mean": "running_mean", "var": "running_var"}

    def theirs(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        if array.ndim == 2:
            array = array.reshape(*layer.window, -1).transpose(3, 2, 0, 1)
            return array if re.search(convs, f"{layer.path} {name}") else array.reshape(len(array), -1)
        return array

    def ours(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        if len(shape) == 4:
            return array.transpose(2, 3, 1, 0)
        if len(shape) == 2:
            height, width, maps = layer.window
            return array.reshape(-1, maps, height, width).transpose(2, 3, 1, 0).reshape(shape)
        return array

    def counts(layer: Layer, name: str) -> Arrays:
        """The batches that a normalisation has seen; it asks for the number only where it has no momentum."""
        has = any(path.endswith("/mean") for path in layer.arrays)
        return {f"{name}.num_batches_tracked": np.array(0)} if has else {}

    return {
        "array": lambda layer, name, leaf: f"{name}.{leaves[leaf]}",
        "to_theirs": theirs,
        "to_ours": ours,
        "no_weights": r"\.num_batches_tracked$",
        "counts": counts,
        "former": {r"^module\.": "", **former},  # which DataParallel puts before all
        "kind": "torch",
    }
