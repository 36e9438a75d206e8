"""Variables of our networks out of files of weights, whichever library they are of."""

import pathlib

from flax import linen as nn

from cnnjax.errors import InputError
from cnnjax.pretrained import convert, formats
from cnnjax.pretrained.library import Arrays, Shape
from cnnjax.pretrained.names import LIBRARIES


def read(path: pathlib.Path, model: nn.Module, shape: Shape, library: str = "") -> Arrays:
    """A network's variables, by path, out of a file with the names of that library, or of any that fits.

    `shape` is that of images. Raises InputError for a file that is damaged or is not of that network.
    """
    kind, arrays = formats.read(path)
    return match(model, shape, kind, arrays, library).check(str(path))


def match(model: nn.Module, shape: Shape, kind: str, arrays: Arrays, library: str = "") -> convert.Imported:
    """A network's variables out of a file's arrays: by our names, that library's, or those of one that fits.

    Where none does, what does not match is that of the nearest. Raises InputError when no library has the network.
    """
    if any(name.startswith("params/") for name in arrays):  # as `cnnjax export --names=own` leaves them
        return convert.of_own(model, shape, arrays)
    names = [library, *(name for name, one in LIBRARIES.items() if name != library and (one.kind or name) == kind)]
    found: list[convert.Imported] = []
    reasons = []
    for name in filter(None, names):
        try:
            found.append(convert.to_ours(model, shape, arrays, name))
        except InputError as error:
            reasons.append(str(error))
        if found and not _wrong(found[-1]):
            return found[-1]
    if not found:
        raise InputError("; ".join(reasons) or f"there is no library of the kind {kind!r}")
    return min(found, key=_wrong)


def _wrong(found: convert.Imported) -> int:
    return len(found.missing) + len(found.misshaped) + len(found.unused)


def classes(found: convert.Imported) -> int:
    """The classes that arrays are for which match but for the biases of their head; 0 where it is more than that."""
    biases = {has[0] for _, _, has in found.misshaped.values() if len(has) == 1}
    return biases.pop() if len(biases) == 1 else 0
