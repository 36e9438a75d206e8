"""Name mappings between our parameter paths and another library's array names, as data.

`cnnjax.pretrained.names` has one module per library, each with a `Library`. To add one: write, for each of our families
(a file of cnnjax/models), a function from our layers to that library's layer names, most easily with
`names_by_pattern` or `names_by_substitution`, and add the `Library` to `names.LIBRARIES`.

Our arrays are named by path, such as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from cnnjax.models.layers import FullyConnected
from cnnjax.state import path_name

Arrays = dict[str, np.ndarray]
Shape = tuple[int, ...]
NOTHING = "$^"  # a pattern that matches no name
MARK = "cnnjax input of "  # and the path of a layer: name of an identity operation, to find its input in a jaxpr
PRODUCTS = ("dot_general", "conv_general_dilated", "convolution")  # primitives of layers, which do not flatten


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer of our network that has arrays.

    Attributes:
      path: path of the layer, as in 'conv2_1/conv1'.
      arrays: {path: shape} of its arrays, as in {'params/conv2_1/conv1/kernel': (3, 3, 64, 64)}.
      fc_input: for a fully connected layer, (height, width, channels) of the feature map that it flattens; else ().
      follows: path of the layer whose output is this layer's input as it is; '' if something lies between them.
      flattened: (height, width, channels) of the image or feature maps that the network flattens to this layer's input,
        of several if it concatenates them; () if it does not, or puts the channels first.
    """

    path: str
    arrays: dict[str, Shape]
    fc_input: Shape
    follows: str = ""
    flattened: tuple[Shape, ...] = ()


# (our layers in order, the file's arrays, or {} in export) -> the library's layer names by our layer paths
NameMapping = Callable[[Sequence[Layer], Arrays], Mapping[str, str]]


def list_layers(model: nn.Module, shape: Sequence[int]) -> tuple[Layer, ...]:
    """Lists the layers of our network that have arrays, in the order in which they run, auxiliary classifiers included.

    `shape` is [height, width, channels] of the images. Computes shapes only, and caches the result.
    """
    return _trace_layers(model, tuple(shape))


@functools.lru_cache(maxsize=64)  # a large network traces for seconds, and a file is tried with several libraries
def _trace_layers(model: nn.Module, shape: Shape) -> tuple[Layer, ...]:
    """Does the work of `list_layers`, with a cache: `shape` has to be a tuple."""
    layers: dict[str, Layer] = {}
    outputs: list[tuple[Any, str]] = []  # of the layers, with their paths

    def record(run: Callable[..., Any], args: Any, kwargs: Any, context: Any) -> Any:
        """Interceptor of `nn.intercept_methods`: calls the method and records the layer if it has arrays."""
        module = context.module
        path = "/".join(module.path)
        is_dense = isinstance(module, (nn.Dense, FullyConnected)) and context.method_name == "__call__"
        marked = (checkpoint_name(args[0], f"{MARK}{path}"), *args[1:]) if is_dense else args
        out = run(*marked, **kwargs)
        arrays = {
            "/".join((collection, *module.path, name)): leaf.shape
            for collection, own in module.variables.items()
            for name, leaf in own.items()
            if hasattr(leaf, "shape")
        }
        if context.method_name == "__call__" and arrays:
            follows = next((name for output, name in outputs if output is args[0]), "")
            layers.setdefault(path, Layer(path, arrays, _fc_input(module, args[0].shape), follows))
            outputs.append((out, path))
        return out

    with nn.intercept_methods(record):
        image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
        init = lambda x: model.init(jax.random.key(0, impl="rbg"), x, train=False)  # noqa: E731
        jaxpr, variables = jax.make_jaxpr(init, return_shape=True)(image)
    flattened = _flattened(jaxpr.jaxpr)
    # While a loop (nn.scan) is traced, its arrays lack the axis of the loop.
    shapes = {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    return tuple(
        dataclasses.replace(
            layer,
            arrays={path: shapes.get(path, size) for path, size in layer.arrays.items()},
            flattened=flattened.get(layer.path, ()),
        )
        for layer in layers.values()
    )


def _flattened(jaxpr: core.Jaxpr) -> dict[str, tuple[Shape, ...]]:
    """Returns `Layer.flattened`, by path, of a traced network in which the inputs of such layers are marked."""
    sources = {out: eqn for eqn in jaxpr.eqns for out in eqn.outvars}
    found: dict[str, tuple[Shape, ...]] = {}
    for eqn in jaxpr.eqns:
        for inner in core.jaxprs_in_params(eqn.params):
            found |= _flattened(inner)
        if eqn.primitive.name == "name" and eqn.params["name"].startswith(MARK):
            found[eqn.params["name"].removeprefix(MARK)] = _before_reshape(eqn.invars[0], sources)
    return found


def _before_reshape(atom: Any, sources: Mapping[Any, Any]) -> tuple[Shape, ...]:
    """Returns (height, width, channels) of each of the feature maps that a vector in a jaxpr is a reshape of; else ().

    Passes over activation functions and the like. `sources` are the equations by the variables that they compute.
    """
    while (eqn := sources.get(atom)) is not None and math.prod(atom.aval.shape) == atom.aval.shape[-1]:
        name, operand = eqn.primitive.name, next(iter(eqn.invars), atom)
        if name == "concatenate":
            return tuple(shape for part in eqn.invars for shape in _before_reshape(part, sources))
        if name == "reshape" and operand.aval.ndim == 4:
            before = sources.get(operand)
            is_transposed = before is not None and before.primitive.name == "transpose"
            return () if is_transposed else (operand.aval.shape[1:],)
        same = [x for x in eqn.invars if x.aval.ndim and math.prod(x.aval.shape) == math.prod(atom.aval.shape)]
        if len(same) != 1 or name in PRODUCTS:
            return ()
        atom = same[0]
    return ()


def head_layers(model: nn.Module, shape: Sequence[int]) -> tuple[Layer, ...]:
    """Lists the layers whose arrays depend on the number of classes, of `list_layers`.

    `shape` is [height, width, channels] of the images. Returns () for a network that takes one number of classes only.
    """
    layers = list_layers(model, shape)
    try:
        larger = list_layers(model.clone(num_classes=model.num_classes + 1), shape)  # pyright: ignore[reportAttributeAccessIssue]
    except (AttributeError, TypeError, ValueError):
        return ()
    pairs = zip(layers, larger, strict=True)
    return tuple(layer for layer, other in pairs if layer.arrays != other.arrays)


def _fc_input(module: nn.Module, input_shape: Shape) -> Shape:
    """Returns `Layer.fc_input` of a layer whose input has this shape, batch included.

    A layer applied to vectors or at each position flattens a feature map of 1x1.
    """
    if isinstance(module, FullyConnected):
        size = (module.window, module.window) if module.window else input_shape[1:3]
        return *size, input_shape[-1]
    return (1, 1, input_shape[-1]) if isinstance(module, nn.Dense) else ()


def names_by_pattern(table: Mapping[str, str]) -> Callable[[Sequence[Layer], Arrays], dict[str, str]]:
    """Returns a function, for `Library.families`, that names our layers by the first matching pattern in `table`.

    `table` is {regular expression on the whole path of our layer: library's name}. In a name, '{}' stands for the next
    group of the expression, '{-1}' for the next group, a number, less 1, '{+1}' for it plus 1, and so on. A layer that
    no expression matches is left out.
    """

    def names(layers: Sequence[Layer], arrays: Arrays) -> dict[str, str]:
        """Returns the library's layer names by our path. `arrays` is not used."""
        layer_names = {}
        for layer in layers:
            for pattern, name in table.items():
                if match := re.fullmatch(pattern, layer.path):
                    layer_names[layer.path] = _fill(name, match)
                    break
        return layer_names

    return names


def names_by_substitution(table: Mapping[str, str]) -> Callable[[Sequence[Layer], Arrays], dict[str, str]]:
    """Returns a function, for `Library.families`, that names each of our layers by substitutions in its path.

    Every substitution in `table` is applied, in order, as in `substitute`. Afterwards '/' becomes '.'.
    """
    return lambda layers, arrays: {layer.path: substitute(layer.path, table).replace("/", ".") for layer in layers}


def substitute(name: str, table: Mapping[str, str]) -> str:
    """Replaces every match of each regular expression in `table`, {expression: replacement}, in order.

    Replacements may contain '{}' and '{-1}', as in `names_by_pattern`.
    """
    for pattern, replacement in table.items():
        name = re.sub(pattern, functools.partial(_fill, replacement), name)
    return name


def _fill(template: str, match: re.Match[str]) -> str:
    """Replaces the placeholders '{}', '{-1}', '{+1}' in `template`, in order, by the groups of `match`.

    A number in a placeholder is added to its group.
    """
    groups = iter(match.groups())

    def fill(placeholder: re.Match[str]) -> str:
        """Returns the text that replaces one placeholder."""
        group = next(groups)
        return str(int(group) + int(placeholder[1])) if placeholder[1] else group

    return re.sub(r"\{([+-]\d+)?\}", fill, template)


def _no_extra_arrays(layer: Layer, name: str) -> Arrays:
    """Returns no arrays: the default of `Library.extra_arrays`."""
    return {}


def _rgb_input(family: str, layers: Sequence[Layer]) -> bool:
    """Returns False, for RGB images: the default of `Library.takes_bgr`."""
    return False


@dataclasses.dataclass(frozen=True)
class Library:
    """The array names and layouts of another library, compared with ours.

    Patterns are regular expressions, searched in the library's array names.

    Attributes:
      families: {family, a module of cnnjax/models such as 'resnet': function (our layers, arrays of the file, {} in an
        export) -> {our layer's path: library's layer name}}.
      array_name: (our layer, library's layer name, 'kernel') -> library's array name.
      export_layout: (our array, our layer, library's layer name) -> array in the library's layout.
      import_layout: (library's array, our layer, our shape) -> array in our layout.
      ignored: pattern of arrays that are not weights, such as counters.
      extra_arrays: (our layer, library's layer name) -> arrays that only an export adds, such as counters, by name.
      auxiliary: pattern of the arrays of auxiliary classifiers, dropped where our network has none.
      takes_bgr: (family, our layers) -> whether the library's network takes BGR images.
      background: pattern of arrays of the head, which may have a background class before ours; it is dropped.
      default_ones: pattern of arrays that are all 1 if the file has none, such as gamma with scale=False.
      folded_biases: {pattern of a bias before a BatchNorm, where our layer has none: name of the BatchNorm's mean}. The
        bias is subtracted from the mean.
      legacy_names: substitutions from array names in older files to today's.
      framework: framework whose file formats hold these names, such as 'torch'; "" for a format of the library's own.
    """

    families: Mapping[str, NameMapping]
    array_name: Callable[[Layer, str, str], str]
    export_layout: Callable[[np.ndarray, Layer, str], np.ndarray]
    import_layout: Callable[[np.ndarray, Layer, Shape], np.ndarray]
    ignored: str = NOTHING
    extra_arrays: Callable[[Layer, str], Arrays] = _no_extra_arrays
    auxiliary: str = NOTHING
    takes_bgr: Callable[[str, Sequence[Layer]], bool] = _rgb_input
    background: str = NOTHING
    default_ones: str = NOTHING
    folded_biases: Mapping[str, str] = dataclasses.field(default_factory=dict)
    legacy_names: Mapping[str, str] = dataclasses.field(default_factory=dict)
    framework: str = ""


def torch_layout(fc_as_conv: str = NOTHING, legacy_names: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """Returns the keyword arguments of a `Library` for PyTorch's array names and layouts.

    PyTorch's kernels are [out, in, height, width], and [out, in] in fully connected layers.

    Args:
      fc_as_conv: pattern on 'our_path their_name' of our fully connected layers that are convolutions there.
      legacy_names: substitutions from array names in older files to today's.
    """
    leaves = {"kernel": "weight", "scale": "weight", "slope": "weight", "bias": "bias"}
    leaves |= {"mean": "running_mean", "var": "running_var"}

    def export_layout(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        """Converts our array to PyTorch's layout; see `Library.export_layout`."""
        if array.ndim == 4:
            return array.transpose(3, 2, 0, 1)
        if array.ndim == 2:
            array = array.reshape(*layer.fc_input, -1).transpose(3, 2, 0, 1)
            return array if re.search(fc_as_conv, f"{layer.path} {name}") else array.reshape(len(array), -1)
        return array

    def import_layout(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        """Converts PyTorch's array to our layout; see `Library.import_layout`."""
        if len(shape) == 4:
            return array.transpose(2, 3, 1, 0)
        if len(shape) == 2:
            height, width, channels = layer.fc_input
            return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(shape)
        return array

    def batch_counters(layer: Layer, name: str) -> Arrays:
        """Returns num_batches_tracked = 0 for a BatchNorm, which strict=True expects; {} for other layers."""
        is_norm = any(path.endswith("/mean") for path in layer.arrays)
        return {f"{name}.num_batches_tracked": np.array(0)} if is_norm else {}

    return {
        "array_name": lambda layer, name, leaf: f"{name}.{leaves[leaf]}",
        "export_layout": export_layout,
        "import_layout": import_layout,
        "ignored": r"\.num_batches_tracked$",
        "extra_arrays": batch_counters,
        "legacy_names": legacy_names,
        "framework": "torch",
    }
