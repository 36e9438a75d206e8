"""Variables of our networks from weight files of any supported library."""

import pathlib

from flax import linen as nn

from cnnjax.errors import InputError
from cnnjax.pretrained import convert, formats
from cnnjax.pretrained.library import Arrays, Shape
from cnnjax.pretrained.names import LIBRARIES


def read(path: pathlib.Path, model: nn.Module, shape: Shape, library: str = "") -> Arrays:
    """Reads the variables of a network, by path, from a file with the names of `library` ("": of any that fits).

    `shape` is [height, width, channels] of the images. Raises InputError for a file that is damaged or of another
    network.
    """
    framework, arrays = formats.read(path)
    return match(model, shape, framework, arrays, library).check(str(path))


def match(
    model: nn.Module, shape: Shape, framework: str, arrays: Arrays, library: str = ""
) -> convert.ImportedVariables:
    """Matches a file's arrays to a network's variables: in our own names, those of `library`, or of any that fits.

    Tries all libraries of the file's `framework`. If none fits, returns the one with the fewest mismatches. Raises
    InputError if no library has the network.
    """
    if any(name.startswith("params/") for name in arrays):  # as `cnnjax export --names=own` writes them
        return convert.import_own(model, shape, arrays)
    others = [name for name, spec in LIBRARIES.items() if name != library and (spec.framework or name) == framework]
    candidates: list[convert.ImportedVariables] = []
    reasons = []
    for name in filter(None, [library, *others]):
        try:
            candidates.append(convert.import_variables(model, shape, arrays, name))
        except InputError as error:
            reasons.append(str(error))
        if candidates and not candidates[-1].mismatches:
            return candidates[-1]
    if not candidates:
        raise InputError("; ".join(reasons) or f"there are no names for files of {framework!r}")
    return min(candidates, key=lambda candidate: candidate.mismatches)


def num_classes(imported: convert.ImportedVariables) -> int:
    """Returns the number of classes in the file if only the head's shape differs from ours, else 0.

    That is so if the misshaped biases, arrays of one dimension, all have one length.
    """
    lengths = {actual[0] for _, _, actual in imported.misshaped.values() if len(actual) == 1}
    return lengths.pop() if len(lengths) == 1 else 0
