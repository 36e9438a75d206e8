"""Weights between our names and layouts and those of other libraries, both ways.

Ours are by path, as 'params/conv2_1/conv1/kernel' or 'batch_stats/norm1/mean'; theirs as their files have them. What
differs between libraries is data: a `Library` in `cnnjax.pretrained.names` says how each of our layers is called there.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from flax import linen as nn

from cnnjax.errors import InputError, unknown
from cnnjax.pretrained.library import Arrays, Layer, Library, Shape, layers, renamed
from cnnjax.pretrained.names import LIBRARIES

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
    known, variables, missing, misshaped, used = find(library), {}, {}, {}, {}
    arrays = {renamed(name, known.former): array for name, array in arrays.items()}
    for match in _matches(model, shape, arrays, library):
        ours, theirs, size = match.path, match.theirs, match.layer.arrays[match.path]
        expected = known.to_theirs(np.broadcast_to(np.int8(0), size), match.layer, match.name).shape
        used[theirs] = ours
        if theirs not in arrays:
            if re.search(known.ones, theirs):
                variables[ours] = np.ones(size, np.float32)
            else:
                missing[ours] = theirs, expected
            continue
        array = arrays[theirs]
        if re.search(known.background, theirs) and array.shape == (*expected[:-1], expected[-1] + 1):
            array = array[..., 1:]
        if array.shape != expected:
            misshaped[ours] = theirs, expected, array.shape
        else:
            variables[ours] = _red_first(np.asarray(known.to_ours(array, match.layer, size), np.float32), match)
    for pattern, mean in known.folded.items():
        for bias in [name for name in arrays if name not in used and re.fullmatch(pattern, name)]:
            if (ours := used.get(re.sub(pattern, mean, bias), "")) in variables:
                variables[ours] = variables[ours] - arrays[bias]
                used[bias] = ours
    rest = [name for name in arrays if name not in used and not re.search(known.no_weights, name)]
    left = [name for name in rest if re.search(known.aux, name)]
    unused = {name: arrays[name].shape for name in rest if name not in left}
    return Imported(variables, missing, misshaped, unused, left)


def of_own(model: nn.Module, shape: Shape, arrays: Arrays) -> Imported:
    """As `to_ours`, of arrays that have our own names and layouts."""
    expected = {path: size for layer in layers(model, shape) for path, size in layer.arrays.items()}
    there = {path: arrays[path].shape for path in expected if path in arrays}
    return Imported(
        variables={path: np.asarray(arrays[path], np.float32) for path, has in there.items() if has == expected[path]},
        missing={path: (path, size) for path, size in expected.items() if path not in there},
        misshaped={path: (path, expected[path], has) for path, has in there.items() if has != expected[path]},
        unused={name: array.shape for name, array in arrays.items() if name not in expected},
        left=[],
    )


def to_theirs(model: nn.Module, shape: Shape, variables: Arrays, library: str) -> Arrays:
    """The inverse of `to_ours`: our variables by path, under the library's names and in its layouts."""
    known, arrays = find(library), {}
    for match in _matches(model, shape, {}, library):
        array = _red_first(np.asarray(variables[match.path]), match)
        arrays[match.theirs] = known.to_theirs(array, match.layer, match.name)
        arrays |= known.counts(match.layer, match.name)
    return arrays


def torch_libraries(model: nn.Module) -> list[str]:
    """The libraries for PyTorch that have networks of its family."""
    return [name for name, known in LIBRARIES.items() if known.kind == "torch" and family(model) in known.families]


def find(library: str) -> Library:
    """The library of that name. Raises InputError that names those there are."""
    if library not in LIBRARIES:
        raise unknown("library", library, LIBRARIES)
    return LIBRARIES[library]


class _Match(NamedTuple):
    """An array of ours and the same one of theirs."""

    layer: Layer  # ours that has it
    path: str  # of it
    theirs: str  # its name there
    name: str  # that of its layer there
    blue_first: bool


def _matches(model: nn.Module, shape: Shape, arrays: Arrays, library: str) -> Iterator[_Match]:
    """Each array of ours."""
    known, kind = find(library), family(model)
    if kind not in known.families:
        raise InputError(f"{library} has no network of the family {kind!r}")
    ours = layers(model, shape)
    names, blue_first = known.families[kind](ours, arrays), known.blue_first(kind, ours)
    if nameless := [layer.path for layer in ours if layer.path not in names]:
        raise InputError(f"{library} has no such network: it has no name for {', '.join(nameless)}")
    for layer in ours:
        name = names[layer.path]
        for path in layer.arrays:
            yield _Match(layer, path, known.array(layer, name, path.rpartition("/")[2]), name, blue_first)


def _red_first(array: np.ndarray, match: _Match) -> np.ndarray:
    """A kernel of colours with these turned round, if they need it; other arrays as they are."""
    return array[:, :, ::-1] if match.blue_first and array.ndim == 4 and array.shape[2] == 3 else array
