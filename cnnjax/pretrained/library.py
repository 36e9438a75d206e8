"""Name mappings between our parameter paths and another library's array names, as data.

`cnnjax.pretrained.names` has one module per library, each with a `Library`. To add one: write, for each of our families
(a file of cnnjax/models), a function from our layers to that library's layer names, most easily with
`names_by_pattern` or `names_by_substitution`, and add the `Library` to `names.LIBRARIES`.

Our arrays are named by path, such as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnjax.models.layers import FullyConnected

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]
NOTHING = "$^"  # a pattern that matches no name


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of our network that has arrays."""

    path: str  # 'conv2_1/conv1'
    arrays: dict[str, Shape]  # by path: {'params/conv2_1/conv1/kernel': (3, 3, 64, 64)}
    fc_input: Shape  # of a fully connected layer: [height, width, channels] of the feature map it flattens; else ()


# (our layers in order, the file's arrays, or {} in export) -> the library's layer names by our layer paths
NameMapping = Callable[[Sequence[Layer], Arrays], Mapping[str, str]]


def list_layers(model: nn.Module, shape: Sequence[int]) -> tuple[Layer, ...]:
    """Lists the layers with arrays in the order in which they run on images [height, width, channels].

    Includes auxiliary classifiers. Computes shapes only, once for each network and shape.
    """
    return _trace_layers(model, tuple(shape))


@functools.lru_cache(maxsize=64)  # a large network traces for seconds, and a file is tried with several libraries
def _trace_layers(model: nn.Module, shape: Shape) -> tuple[Layer, ...]:
    layers: dict[str, Layer] = {}

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
            layers.setdefault(path, Layer(path, arrays, _fc_input(module, args[0].shape)))
        return out

    with nn.intercept_methods(record):
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        jax.eval_shape(lambda x: model.init(jax.random.key(0, impl="rbg"), x, train=False), image)
    return tuple(layers.values())


def _fc_input(module: nn.Module, input_shape: Shape) -> Shape:
    """Returns `Layer.fc_input`; a layer applied to vectors, or at each position, flattens maps of 1x1."""
    if isinstance(module, FullyConnected):
        size = (module.window, module.window) if module.window else input_shape[1:3]
        return *size, input_shape[-1]
    return (1, 1, input_shape[-1]) if isinstance(module, nn.Dense) else ()


def names_by_pattern(table: Mapping[str, str]) -> Callable[[Sequence[Layer], Arrays], dict[str, str]]:
    """Returns a mapping that names each layer by the first regular expression that matches its whole path.

    In the name, '{}' is replaced by the next group of the expression and '{-1}' by that number less 1. A layer that
    nothing matches gets no name, which is an error later.
    """

    def names(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
        layer_names = {}
        for layer in layers:
            for pattern, name in table.items():
                if match := re.fullmatch(pattern, layer.path):
                    layer_names[layer.path] = _fill(name, match)
                    break
        return layer_names

    return names


def names_by_substitution(table: Mapping[str, str]) -> Callable[[Sequence[Layer], Arrays], dict[str, str]]:
    """Returns a mapping that rewrites our paths by all substitutions of `table`, in order, and '/' to '.' at the end.

    Its replacements have '{}' and '{-1}' as in `names_by_pattern`.
    """
    return lambda layers, arrays: {layer.path: substitute(layer.path, table).replace("/", ".") for layer in layers}


def substitute(name: str, table: Mapping[str, str]) -> str:
    """Applies {regular expression: replacement} in order; see `names_by_substitution`."""
    for pattern, replacement in table.items():
        name = re.sub(pattern, functools.partial(_fill, replacement), name)
    return name


def _fill(template: str, match: re.Match[str]) -> str:
    groups = iter(match.groups())

    def fill(placeholder: re.Match[str]) -> str:
        group = next(groups)
        return str(int(group) + int(placeholder[1])) if placeholder[1] else group

    return re.sub(r"\{([+-]\d+)?\}", fill, template)


def _no_extra_arrays(layer: Layer, name: str) -> Arrays:
    return {}


def _rgb_input(family: str, layers: Sequence[Layer]) -> bool:
    return False


@dataclasses.dataclass(frozen=True)
class Library:
    """Array names and layouts of another library. Patterns are regular expressions on its array names."""

    families: Mapping[str, NameMapping]  # by our family, a file of cnnjax/models: 'resnet'
    array_name: Callable[[Layer, str, str], str]  # (layer, its name there, 'kernel') -> the array's name there
    export_layout: Callable[[np.ndarray, Layer, str], np.ndarray]  # (our array, layer, its name there) -> their layout
    import_layout: Callable[[np.ndarray, Layer, Shape], np.ndarray]  # (their array, layer, our shape) -> our layout
    ignored: str = NOTHING  # arrays that are not weights, such as counters
    extra_arrays: Callable[[Layer, str], Arrays] = (
        _no_extra_arrays  # (layer, its name there) -> such arrays, for export
    )
    auxiliary: str = NOTHING  # arrays of auxiliary classifiers, dropped where our network has none
    takes_bgr: Callable[[str, Sequence[Layer]], bool] = _rgb_input  # (family, layers): input channels are BGR there
    background: str = NOTHING  # arrays of the head that may have a background class in front, which is dropped
    default_ones: str = NOTHING  # arrays that are all 1 if the file has none, such as gamma with scale=False
    # Biases before a BatchNorm, where our layers have none: pattern -> name of the mean from which they are subtracted.
    folded_biases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    legacy_names: Mapping[str, str] = dataclasses.field(
        default_factory=dict
    )  # substitutions from the names in older files
    framework: str = ""  # whose file formats hold these names ('torch'); "" for the library's own


def torch_layout(fc_as_conv: str = NOTHING, legacy_names: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Returns the fields of a `Library` for PyTorch: kernels [out, in, height, width] and PyTorch's array names.

    Args:
      fc_as_conv: pattern on 'our_path their_name' of our fully connected layers that are 1x1 convolutions there.
      legacy_names: substitutions from the names in older files.
    """
    leaves = {"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"}
    leaves |= {"mean": "running_mean", "var": "running_var"}

    def export_layout(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        if array.ndim == 2:
            array = array.reshape(*layer.fc_input, -1).transpose(3, 2, 0, 1)
            return array if re.search(fc_as_conv, f"{layer.path} {name}") else array.reshape(len(array), -1)
        return array

    def import_layout(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        if len(shape) == 4:
            return array.transpose(2, 3, 1, 0)
        if len(shape) == 2:
            height, width, channels = layer.fc_input
            return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(shape)
        return array

    def batch_counters(layer: Layer, name: str) -> Arrays:
        """Returns a BatchNorm's num_batches_tracked, which PyTorch reads only with momentum=None."""
        is_norm = any(path.endswith("/mean") for path in layer.arrays)
        return {f"{name}.num_batches_tracked": np.array(0)} if is_norm else {}

    return {
        "array_name": lambda layer, name, leaf: f"{name}.{leaves[leaf]}",
        "export_layout": export_layout,
        "import_layout": import_layout,
        "ignored": r"\.num_batches_tracked$",
        "extra_arrays": batch_counters,
        "legacy_names": {r"^module\.": "", **legacy_names},  # the prefix of DataParallel
        "framework": "torch",
    }
