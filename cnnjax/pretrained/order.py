"""Matches the layers of a weight file to those of a network by their order and shapes, whatever their names are.

Files list their layers in the order in which they run or were built. Branches of a block, such as a shortcut, may come
in another order than in our network. So layers of the same shape are matched in their order, and the match counts only
if no other one keeps as much of the file's order: else there is an error that names the layers.
"""

import bisect
import collections
import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np

from cnnjax.errors import InputError
from cnnjax.pretrained.convert import ImportedVariables
from cnnjax.pretrained.file_layers import FileLayer, list_file_layers
from cnnjax.pretrained.library import Arrays, Layer, Shape

Signature = tuple[object, ...]


@dataclasses.dataclass(frozen=True)
class _Unit:
    """A layer, ours or the file's, or a convolution with the normalization that follows it.

    Attributes:
      signature: what has to be equal in a match: kinds and shapes.
      indices: positions of its layers in the list of layers.
    """

    signature: Signature
    indices: tuple[int, ...]


def match(layers: Sequence[Layer], heads: Sequence[Layer], framework: str, arrays: Arrays) -> ImportedVariables:
    """Matches the arrays of a file to the variables of our network by order and shape.

    A bias before a BatchNorm where our layer has none is subtracted from its mean. An offset or scale that the file
    lacks is 0 or 1. Reports mismatches in the result, and the matches as a table in its remarks.

    Args:
      layers: our layers, in the order in which they run.
      heads: those whose shapes depend on the number of classes.
      framework: framework of the file: 'torch', 'keras' or 'caffe'.
      arrays: the arrays of the file, in its order.

    Raises InputError if the match is ambiguous, or the file has no order.
    """
    theirs = list_file_layers(framework, arrays)
    if early := _other_sizes(layers, heads, theirs):
        return early
    ours = [FileLayer.of(layer) for layer in layers]
    theirs = [layer.like(ours) for layer in theirs]
    counts = [collections.Counter(layer.signature for layer in side) for side in (ours, theirs)]
    if counts[0] != counts[1]:
        return _different(ours, theirs, *counts)
    by_class = _is_by_class(theirs)
    groupings: list[Callable[[Sequence[FileLayer]], list[_Unit]]] = [_with_norms, _alone]
    errors = []
    for group in groupings:
        try:
            pairs = _pairs_by_kind(ours, theirs) if by_class else _pairs(group(ours), group(theirs), ours, theirs)
            return _import(layers, theirs, pairs)
        except InputError as error:
            errors.append(error)
    raise errors[0]


def with_flattened_inputs(layers: Sequence[Layer]) -> list[Layer]:
    """Returns the layers with `fc_input` set where a network flattens the image, or feature maps, by itself.

    Other frameworks may flatten with channels first. Raises InputError for a layer on several flattened feature maps.
    """
    found: list[Layer] = []
    for layer in layers:
        maps = [shape for shape in layer.flattened if shape[:2] != (1, 1)]
        if maps and math.prod(maps[0]) != math.prod(layer.fc_input):
            raise InputError(f"{layer.path} takes several flattened feature maps: match by name instead")
        found.append(dataclasses.replace(layer, fc_input=maps[0]) if maps else layer)
    return found


def _other_sizes(
    layers: Sequence[Layer], heads: Sequence[Layer], theirs: Sequence[FileLayer]
) -> ImportedVariables | None:
    """Returns a match that is misshaped in the number of classes or of input channels, if one of them differs.

    The number of classes is the number of outputs of the file's last kernel.
    """
    kernels = [layer for layer in theirs if layer.kind == "kernel"]
    misshaped: dict[str, tuple[str, Shape, Shape]] = {}
    if kernels:
        for layer in heads:
            for path, shape in layer.arrays.items():
                if path.endswith("/bias") and shape[-1] != (count := kernels[-1].shape[-1]):
                    misshaped[path] = kernels[-1].name, shape, (count,)
        first = next((path for layer in layers for path in layer.arrays if path.endswith("/kernel")), "")
        expected: Shape = next((layer.arrays[first] for layer in layers if first in layer.arrays), ())
        actual = kernels[0].shape
        if len(expected) == len(actual) == 4 and expected[:2] == actual[:2] and expected[2:3] != actual[2:3]:
            misshaped[first] = kernels[0].name, expected, actual
    return ImportedVariables({}, {}, misshaped, {}, []) if misshaped else None


def _different(
    ours: Sequence[FileLayer], theirs: Sequence[FileLayer], expected: collections.Counter, actual: collections.Counter
) -> ImportedVariables:
    """Returns a match without variables: the layers of ours and of the file that have no partner of their shape."""

    def surplus(layers: Sequence[FileLayer], counts: collections.Counter) -> list[FileLayer]:
        """Returns the layers beyond `counts` of each signature."""
        left, rest = counts.copy(), []
        for layer in layers:
            left[layer.signature] -= 1
            rest += [layer] if left[layer.signature] < 0 else []
        return rest

    missing = {layer.name: (f"a {layer.kind}", layer.shape) for layer in surplus(ours, actual)}
    unused = {layer.name: layer.shape for layer in surplus(theirs, expected)}
    return ImportedVariables({}, missing, {}, unused, [])


def _is_by_class(theirs: Sequence[FileLayer]) -> bool:
    """Returns whether a file lists its layers by class, as the .weights.h5 of Keras 3: all normalizations, then ..."""
    kinds = [layer.group for layer in theirs]
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    return len(set(kinds)) > 1 and "norm" in kinds and changes == len(set(kinds)) - 1 and kinds[0] == "norm"


def _alone(layers: Sequence[FileLayer]) -> list[_Unit]:
    """Returns a unit for each layer."""
    return [_Unit((layer.signature,), (i,)) for i, layer in enumerate(layers)]


def _with_norms(layers: Sequence[FileLayer]) -> list[_Unit]:
    """Returns a unit for each layer, and joins a normalization to the first kernel before it that has its channels."""
    partners: dict[int, int] = {}
    for i, layer in enumerate(layers):
        if layer.kind == "norm":
            before = [k for k in range(i) if layers[k].kind == "kernel" and layers[k].shape[-1] == layer.shape[-1]]
            if free := [k for k in before if k not in partners]:
                partners[free[0]] = i
    joined = set(partners.values())
    units = []
    for i, layer in enumerate(layers):
        if i in partners:
            units.append(_Unit((layer.signature, layers[partners[i]].signature), (i, partners[i])))
        elif i not in joined:
            units.append(_Unit((layer.signature,), (i,)))
    return units


def _pairs_by_kind(ours: Sequence[FileLayer], theirs: Sequence[FileLayer]) -> list[tuple[int, int]]:
    """Pairs our layers with a file's that are listed by class. Raises InputError unless each class has our order."""
    pairs = []
    for group in dict.fromkeys(layer.group for layer in ours):
        mine = [i for i, layer in enumerate(ours) if layer.group == group]
        others = [i for i, layer in enumerate(theirs) if layer.group == group]
        for i, k in zip(mine, others, strict=True):
            if ours[i].signature != theirs[k].signature:
                raise _ambiguous(ours[i], ours[i], theirs[k], theirs[k])
            pairs.append((i, k))
    return pairs


def _pairs(
    mine: Sequence[_Unit], others: Sequence[_Unit], ours: Sequence[FileLayer], theirs: Sequence[FileLayer]
) -> list[tuple[int, int]]:
    """Pairs (index of our layer, index of the file's layer). Raises InputError if another match is as good.

    The longest run of units in the same order in both tells how good a match is.
    """
    places: dict[Signature, list[int]] = collections.defaultdict(list)
    for k, unit in enumerate(others):
        places[unit.signature].append(k)
    if collections.Counter(unit.signature for unit in mine) != {key: len(found) for key, found in places.items()}:
        raise InputError("the normalizations of the file follow other layers than ours")
    ranks: dict[Signature, int] = collections.defaultdict(int)
    order = []
    for unit in mine:
        order.append(places[unit.signature][ranks[unit.signature]])
        ranks[unit.signature] += 1
    if order != sorted(order):
        best, last = _longest_run(order), {}
        for i, unit in enumerate(mine):
            if (before := last.get(unit.signature)) is not None:
                swapped = [*order]
                swapped[before], swapped[i] = swapped[i], swapped[before]
                if _longest_run(swapped) >= best:
                    a, b = (ours[mine[index].indices[0]] for index in (before, i))
                    raise _ambiguous(a, b, *(theirs[others[order[index]].indices[0]] for index in (before, i)))
            last[unit.signature] = i
    return [pair for i, unit in enumerate(mine) for pair in zip(unit.indices, others[order[i]].indices, strict=True)]


def _ambiguous(a: FileLayer, b: FileLayer, c: FileLayer, d: FileLayer) -> InputError:
    """Returns the error for our layers a and b, each of which may be the file's c or d."""
    ours, theirs = (" and ".join(dict.fromkeys((repr(x.name), repr(y.name)))) for x, y in ((a, b), (c, d)))
    where = f"{ours} {list(a.shape)} of ours may be {theirs} of the file"
    return InputError(f"the order of the layers is ambiguous, since the file has another order of branches: {where}")


def _longest_run(numbers: Sequence[int]) -> int:
    """Returns the length of the longest increasing subsequence."""
    ends: list[int] = []
    for number in numbers:
        ends[(at := bisect.bisect_left(ends, number)) : at + 1] = [number]
    return len(ends)


def _import(
    layers: Sequence[Layer], theirs: Sequence[FileLayer], pairs: Sequence[tuple[int, int]]
) -> ImportedVariables:
    """Returns the variables of matched layers, pairs (index of ours, index of the file's), and a table of them."""
    variables: Arrays = {}
    names: dict[str, str] = {}
    unused: dict[str, Shape] = {}
    biases: dict[str, tuple[str, np.ndarray]] = {}
    for i, k in pairs:
        layer, other = layers[i], theirs[k]
        leaves = {path.rpartition("/")[2]: path for path in layer.arrays}
        for leaf, path in leaves.items():
            if leaf in other.arrays:
                names[path] = other.names[leaf]
                variables[path] = other.converted(leaf, layer)
            else:
                names[path] = "(none: 1)" if leaf == "scale" else "(none: 0)"
                variables[path] = np.full(layer.arrays[path], float(leaf == "scale"), np.float32)
        for leaf in other.arrays.keys() - leaves.keys():
            biases[layer.path] = other.names[leaf], other.arrays[leaf]
    for layer in layers:
        mean = f"batch_stats/{layer.path}/mean"
        if layer.follows in biases and mean in variables:  # computes the same
            name, bias = biases.pop(layer.follows)
            variables[mean] = variables[mean] - bias
            names[mean] = f"{names[mean]} - {name}"
    unused = {name: bias.shape for name, bias in biases.values()}
    ordered = {path: names[path] for layer in layers for path in layer.arrays if path in names}
    return ImportedVariables(variables, {}, {}, unused, [], names, (_table(ordered, variables),))


def _table(names: dict[str, str], variables: Arrays) -> str:
    """Returns a text table of our paths, the file's names and the shapes."""
    rows = [("ours", "in the file", "shape")]
    rows += [
        (path.removeprefix("params/"), name, "x".join(map(str, variables[path].shape))) for path, name in names.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    lines = [f"  {ours:{widths[0]}}  {name:{widths[1]}}  {shape}" for ours, name, shape in rows]
    return "\n".join(["matched by order and shape", *lines])
