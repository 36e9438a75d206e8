"""Weights between our names and layouts and those of other libraries, both ways.

Ours are by path, as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'; theirs as their files have them. What
differs between libraries is data: a `Library` in `cnnjax.weights.names` says how each of our layers is called there.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from cnnjax.errors import InputError, unknown
from cnnjax.weights.library import Arrays, Layer, Library, Shape, layers, renamed
from cnnjax.weights.names import LIBRARIES

LISTED = 20  # arrays of each kind in an error about those that do not match


class Imported(NamedTuple):
    """What `to_ours` makes of a library's arrays, and all that does not match."""

    variables: Arrays  # by our path
    missing: dict[str, tuple[str, Shape]]  # our path -> the name and shape that theirs would have
    misshaped: dict[str, tuple[str, Shape, Shape]]  # our path -> their name, the shape it should have, and has
    unused: dict[str, Shape]  # by their name
    left: list[str]  # theirs of auxiliary classifiers that our network does not have

    def check(self, source: str) -> Arrays:
        """The variables. Raises InputError that lists what does not match, unless all does."""
        kinds = (
            [f"{path}: no {name} {list(shape)} there" for path, (name, shape) in self.missing.items()],
            [
                f"{path}: {name} is {list(has)} there, expected {list(shape)}"
                for path, (name, shape, has) in self.misshaped.items()
            ],
            [f"not used of theirs: {name} {list(shape)}" for name, shape in self.unused.items()],
        )
        if count := sum(map(len, kinds)):
            lines = [f"{source}: {count} arrays do not match"]
            for kind in kinds:
                lines += kind[:LISTED] + (
                    [f"... and {len(kind) - LISTED} more like that"] if len(kind) > LISTED else []
                )
            raise InputError("\n  ".join(lines))
        return self.variables


def family(model: nn.Module) -> str:
    """The file of cnnjax/models that a network is in."""
    return type(model).__module__.rpartition(".")[2]


def to_ours(model: nn.Module, shape: Shape, arrays: Arrays, library: str) -> Imported:
    """A library's arrays as variables of our network, for images of [height, width, channels].

    Raises InputError where the library does not have that network. What does not match is in the result: see there.
    """
    known, variables, missing, misshaped, used = find(library), {}, {}, {}, set()
    arrays = {renamed(name, known.former): array for name, array in arrays.items()}
    for layer, ours, theirs, name in _matches(model, shape, arrays, library):
        size = layer.arrays[ours]
        expected = known.to_theirs(np.broadcast_to(np.int8(0), size), layer, name).shape
        used.add(theirs)
        if theirs not in arrays:
            missing[ours] = theirs, expected
        elif arrays[theirs].shape != expected:
            misshaped[ours] = theirs, expected, arrays[theirs].shape
        else:
            variables[ours] = np.asarray(known.to_ours(arrays[theirs], layer, size), np.float32)
    rest = [name for name in arrays if name not in used and not re.search(known.no_weights, name)]
    left = [name for name in rest if re.search(known.aux, name)]
    unused = {name: arrays[name].shape for name in rest if name not in left}
    return Imported(variables, missing, misshaped, unused, left)


def to_theirs(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """The inverse of `to_ours`: our variables by path, under the library's names and in its layouts."""
    known, arrays = find(library), {}
    for layer, ours, theirs, name in _matches(model, shape, {}, library):
        arrays[theirs] = known.to_theirs(np.asarray(variables[ours]), layer, name)
        arrays |= known.counts(layer, name)
    return arrays


def torch_libraries(model: nn.Module) -> list[str]:
    """The libraries for PyTorch that have networks of its family."""
    return [name for name, known in LIBRARIES.items() if known.kind == "torch" and family(model) in known.families]


def find(library: str) -> Library:
    """The library of that name. Raises InputError that names those there are."""
    if library not in LIBRARIES:
        raise unknown("library", library, LIBRARIES)
    return LIBRARIES[library]


def _matches(model: nn.Module, shape: Shape, arrays: Arrays, library: str) -> Iterator[tuple[Layer, str, str, str]]:
    """Each array of ours: its layer, its path, its name there and that of its layer there."""
    known, kind = find(library), family(model)
    if kind not in known.families:
        raise InputError(f"{library} has no network of the family {kind!r}")
    ours = layers(model, shape)
    names = known.families[kind](ours, arrays)
    if nameless := [layer.path for layer in ours if layer.path not in names]:
        raise InputError(f"{library} has no such network: it has no name for {', '.join(nameless)}")
    for layer in ours:
        name = names[layer.path]
        for path in layer.arrays:
            yield layer, path, known.array(layer, name, path.rpartition("/")[2]), name
