"""Conversion of weights between our variables and the arrays of other libraries, in both directions.

Our variables are named by path, such as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'; other arrays as
their files name them. `cnnjax.pretrained.names` has the differences between libraries as data.
"""

import dataclasses
import re
from collections.abc import Iterator

import numpy as np
from flax import linen as nn

from cnnjax.errors import InputError, unknown
from cnnjax.pretrained.finite import check_finite, to_float32
from cnnjax.pretrained.library import Arrays, Layer, Library, Shape, list_layers, substitute
from cnnjax.pretrained.names import LIBRARIES

MAX_LISTED = 3  # arrays of each kind of mismatch in an error


@dataclasses.dataclass(frozen=True)
class ImportedVariables:
    """The variables converted from the arrays of a weight file, and the arrays that did not match.

    Attributes:
      variables: float32 arrays by our path, such as 'params/conv1/kernel'.
      missing: {our path: (array name, shape)} for arrays that the file should have and lacks.
      misshaped: {our path: (array name, expected shape, shape in the file)}.
      unused: {array name: shape} for arrays of the file that our network does not use.
      dropped_auxiliary: names of the file's arrays of auxiliary classifiers that our network lacks; not a mismatch.
      names: {our path: array name}, also of arrays that are missing or misshaped.
      remarks: further lines about the match for the user.
      missing_allowed: our paths of arrays that the file lacks, although that is no mismatch.
    """

    variables: Arrays
    missing: dict[str, tuple[str, Shape]]
    misshaped: dict[str, tuple[str, Shape, Shape]]
    unused: dict[str, Shape]
    dropped_auxiliary: list[str]
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    missing_allowed: frozenset[str] = frozenset()

    def check(self, source: str) -> Arrays:
        """Returns the variables if everything matched. Else raises InputError that counts and names the mismatches.

        Raises InputError as well if a variable is NaN or infinite. `source` names the file in the messages.
        """
        if not self.mismatches:
            check_finite({self.names.get(path, path): array for path, array in self.variables.items()}, source)
            return self.variables
        ours = lambda path, name: f" for {path}" if name != path else ""  # noqa: E731
        kinds = {
            "missing": [f"{name} {list(shape)}{ours(path, name)}" for path, (name, shape) in self.missing.items()],
            "of another shape": [
                f"{name} is {list(actual)}, expected {list(expected)}{ours(path, name)}"
                for path, (name, expected, actual) in self.misshaped.items()
            ],
            "not used": [f"{name} {list(shape)}" for name, shape in self.unused.items()],
        }
        counts = ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items() if found)
        examples = "; ".join(f"{kind}: {_shortened(found)}" for kind, found in kinds.items() if found)
        hint = "" if self.variables or not self.names else "; --match=order matches by order and shape"
        raise InputError(f"{source}: the arrays do not match the network: {counts}{hint}\n  {examples}")

    @property
    def mismatches(self) -> int:
        """Returns the number of arrays that are missing, misshaped or unused."""
        return len(self.missing) + len(self.misshaped) + len(self.unused)


def _shortened(texts: list[str]) -> str:
    """Joins the first `MAX_LISTED` texts, and says how many more there are."""
    more = f" and {len(texts) - MAX_LISTED} more" if len(texts) > MAX_LISTED else ""
    return ", ".join(texts[:MAX_LISTED]) + more


def family(model: nn.Module) -> str:
    """Returns the name of the module in cnnjax/models that defines a network, such as 'resnet'."""
    return type(model).__module__.rpartition(".")[2]


def import_variables(model: nn.Module, shape: Shape, arrays: Arrays, library: str) -> ImportedVariables:
    """Converts a library's arrays to the variables of our network. Reports mismatches in the result.

    Args:
      model: our network.
      shape: [height, width, channels] of its images.
      arrays: the arrays of a weight file by the library's names.
      library: a key of `LIBRARIES`.

    Raises InputError if the library is unknown or has no such network.
    """
    spec, variables, missing, misshaped, used, names = find_library(library), {}, {}, {}, {}, {}
    arrays = {substitute(name, spec.legacy_names): array for name, array in arrays.items()}
    for match in _matches(model, shape, arrays, library):
        path, name, our_shape = match.path, match.array_name, match.layer.arrays[match.path]
        expected = spec.export_layout(np.broadcast_to(np.int8(0), our_shape), match.layer, match.layer_name).shape
        used[name], names[path] = path, name
        if name not in arrays:
            if re.search(spec.default_ones, name):
                variables[path] = np.ones(our_shape, np.float32)
            else:
                missing[path] = name, expected
            continue
        array = arrays[name]
        if re.search(spec.background, name) and array.shape == (*expected[:-1], expected[-1] + 1):
            array = array[..., 1:]
        if array.shape != expected:
            misshaped[path] = name, expected, array.shape
        else:
            converted = to_float32(spec.import_layout(array, match.layer, our_shape))
            variables[path] = _swap_red_and_blue(converted, match)
    # Subtracting a bias from the running mean of the BatchNorm after it computes the same.
    for pattern, mean in spec.folded_biases.items():
        for bias in [name for name in arrays if name not in used and re.fullmatch(pattern, name)]:
            if (path := used.get(re.sub(pattern, mean, bias), "")) in variables:
                with np.errstate(invalid="ignore"):  # of two infinities, which `check` refuses
                    variables[path] = variables[path] - arrays[bias]
                used[bias] = path
    rest = [name for name in arrays if name not in used and not re.search(spec.ignored, name)]
    dropped = [name for name in rest if re.search(spec.auxiliary, name)]
    unused = {name: arrays[name].shape for name in rest if name not in dropped}
    return ImportedVariables(variables, missing, misshaped, unused, dropped, names)


def import_own(model: nn.Module, shape: Shape, arrays: Arrays) -> ImportedVariables:
    """Matches arrays with our own names and layouts to the variables of our network. Reports mismatches in the result.

    `shape` is [height, width, channels] of the images.
    """
    expected = {path: size for layer in list_layers(model, shape) for path, size in layer.arrays.items()}
    actual = {path: arrays[path].shape for path in expected if path in arrays}
    matching = [path for path, size in actual.items() if size == expected[path]]
    return ImportedVariables(
        variables={path: to_float32(arrays[path]) for path in matching},
        missing={path: (path, size) for path, size in expected.items() if path not in actual},
        misshaped={path: (path, expected[path], size) for path, size in actual.items() if size != expected[path]},
        unused={name: array.shape for name, array in arrays.items() if name not in expected},
        dropped_auxiliary=[],
        names={path: path for path in expected},
    )


def export_variables(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """Converts our variables, by path, to arrays with a library's names and layouts: the inverse of `import_variables`.

    `shape` is [height, width, channels] of the images. Raises InputError if the library has no such network.
    """
    spec, arrays = find_library(library), {}
    for match in _matches(model, shape, {}, library):
        array = _swap_red_and_blue(np.asarray(variables[match.path]), match)
        arrays[match.array_name] = spec.export_layout(array, match.layer, match.layer_name)
        arrays |= spec.extra_arrays(match.layer, match.layer_name)
    return arrays


def torch_libraries(model: nn.Module) -> list[str]:
    """Returns the keys of `LIBRARIES` that are PyTorch's and have networks of the model's family.

    [] for a network with scan=True, whose loops stack layers.
    """
    if getattr(model, "scan", False):
        return []
    return [name for name, spec in LIBRARIES.items() if spec.framework == "torch" and family(model) in spec.families]


def find_library(name: str) -> Library:
    """Returns the library of this name. Raises InputError that lists the valid names."""
    if name not in LIBRARIES:
        raise unknown("library", name, LIBRARIES)
    return LIBRARIES[name]


@dataclasses.dataclass(frozen=True)
class _Match:
    """Pairs one of our arrays with its name in another library.

    Attributes:
      layer: our layer that has the array.
      path: our path of the array, as in 'params/conv1/kernel'.
      array_name: the library's name of the array, as in 'conv1.weight'.
      layer_name: the library's name of the layer, as in 'conv1'.
      takes_bgr: whether the library's network takes BGR images.
    """

    layer: Layer
    path: str
    array_name: str
    layer_name: str
    takes_bgr: bool


def _matches(model: nn.Module, shape: Shape, arrays: Arrays, library: str) -> Iterator[_Match]:
    """Yields a match for each array of our network on images of this shape, in the order of the layers.

    `arrays` are those of the file to import, or {} for an export. Raises InputError if the library is unknown or has no
    name for one of the layers.
    """
    spec, model_family = find_library(library), family(model)
    if model_family not in spec.families:
        raise InputError(f"{library} has no network of the family {model_family!r}")
    if getattr(model, "scan", False):
        raise InputError(f"{library} has no network with scan=True, whose loops stack layers; expected scan=False")
    layers = list_layers(model, shape)
    names, takes_bgr = spec.families[model_family](layers, arrays), spec.takes_bgr(model_family, layers)
    if nameless := [layer.path for layer in layers if layer.path not in names]:
        raise InputError(f"{library} has no such network: it has no name for {', '.join(nameless)}")
    for layer in layers:
        name = names[layer.path]
        for path in layer.arrays:
            yield _Match(layer, path, spec.array_name(layer, name, path.rpartition("/")[2]), name, takes_bgr)


def _swap_red_and_blue(array: np.ndarray, match: _Match) -> np.ndarray:
    """Reverses the input channels of the first layer's kernel [height, width, 3, out] if the library takes BGR.

    Returns any other array unchanged.
    """
    return array[:, :, ::-1] if match.takes_bgr and array.ndim == 4 and array.shape[2] == 3 else array
