"""Variables of our networks from weight files of any supported library."""

import pathlib

from flax import linen as nn

from cnnjax.errors import InputError
from cnnjax.pretrained import convert, formats
from cnnjax.pretrained.library import Arrays, Shape
from cnnjax.pretrained.names import LIBRARIES


def read(path: pathlib.Path, model: nn.Module, shape: Shape, library: str = "") -> Arrays:
    """Reads the variables of a network, by our path, from a weight file of any supported format.

    Args:
      path: the weight file.
      model: our network.
      shape: [height, width, channels] of its images.
      library: key of `LIBRARIES` to try first, for the names of the arrays; "" for none. If it does not fit, the others
        of the file's framework are tried.

    Raises InputError if the file is damaged, or of another network.
    """
    framework, arrays = formats.read(path)
    return match(model, shape, framework, arrays, library).check(str(path))


def match(
    model: nn.Module, shape: Shape, framework: str, arrays: Arrays, library: str = ""
) -> convert.ImportedVariables:
    """Converts the arrays of a weight file to the variables of a network, by whichever library's names fit.

    Arrays with our own names need no library. Otherwise tries `library`, then the other libraries of the file's
    framework, and returns the first conversion without mismatches, or else the one with the fewest.

    Args:
      model: our network.
      shape: [height, width, channels] of its images.
      framework: framework of the file, as `formats.read` returns it: 'torch', 'keras', 'slim' or 'caffe'.
      arrays: arrays by their names in the file.
      library: key of `LIBRARIES` to try first; "" for none.

    Raises InputError if no library has such a network.
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
    """Guesses the number of classes in a file whose head differs from ours: the common length of all misshaped biases.

    Returns 0 if no bias is misshaped, or if their lengths in the file differ.
    """
    lengths = {actual[0] for _, _, actual in imported.misshaped.values() if len(actual) == 1}
    return lengths.pop() if len(lengths) == 1 else 0
