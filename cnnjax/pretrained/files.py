"""Variables of our networks from weight files of any supported library."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from flax import linen as nn

from cnnjax.errors import InputError
from cnnjax.pretrained import array_names, convert, formats, order
from cnnjax.pretrained.convert import ImportedVariables
from cnnjax.pretrained.formats import state_dicts
from cnnjax.pretrained.library import Arrays, Shape, head_layers, list_layers
from cnnjax.pretrained.names import LIBRARIES
from cnnjax.pretrained.network import Log


@dataclasses.dataclass(frozen=True)
class WeightSet:
    """A set of weights in a file.

    Attributes:
      framework: framework of the file: 'torch', 'keras', 'slim' or 'caffe'.
      arrays: arrays by their names in the file, in the file's order.
    """

    framework: str
    arrays: Arrays


def open_file(path: pathlib.Path, key: str = "", log: Log = lambda line: None) -> WeightSet:
    """Reads one set of weights of a file.

    Args:
      path: the weight file.
      key: the set, as in `state_dicts.choose`, or a prefix of array names; '' for the most usual set.
      log: receives a line if the file has other sets.

    Raises InputError if the file is damaged, or it is not clear which set is meant.
    """
    names: list[str] = [""]

    def choose(found: Sequence[str]) -> str:
        names[:] = found
        return state_dicts.choose(found, key if state_dicts.has(found, key) else "")

    framework, arrays = formats.read(path, choose)
    if key and not state_dicts.has(names, key):
        if not (inner := state_dicts.under(arrays, key)):
            raise InputError(f"{path}: {state_dicts.no_such_set(names, key)}")
        return WeightSet(framework, inner)
    if not key and (line := state_dicts.describe_choice(names, state_dicts.choose(names))):
        log(f"{path.name}: {line}")
    if framework == "keras" and path.name.endswith(".weights.h5"):
        betas = [name for name in arrays if name.endswith("/beta") and f"{name[:-5]}/gamma" not in arrays]
        if betas:  # Keras 3 numbers the variables there
            log(f"{path.name}: {betas[0]!r} is assumed to be beta, not gamma; a .keras file says which")
    return WeightSet(framework, arrays)


def read(path: pathlib.Path, model: nn.Module, shape: Shape, library: str = "") -> Arrays:
    """Reads the variables of a network, by our path, from a weight file of any supported format.

    `shape` is [height, width, channels] of the images; `library` is as in `match`. Raises InputError if the file is
    damaged, or of another network.
    """
    return match(model, shape, open_file(path), library).check(str(path))


def match(model: nn.Module, shape: Shape, weights: WeightSet, library: str = "", how: str = "") -> ImportedVariables:
    """Converts the arrays of a weight file to the variables of a network, by whichever library's names fit.

    Arrays with our own names need no library. Otherwise tries `library`, then the other libraries of the file's
    framework, for names with and without prefixes such as 'module.'. Returns the first conversion without mismatches,
    or else the one with the fewest.

    Args:
      model: our network.
      shape: [height, width, channels] of its images.
      weights: the arrays of the file.
      library: key of `LIBRARIES` to try first; "" for none.
      how: '' to match by name, 'order' by order and shape: see `order.match`.

    Raises InputError if no library has such a network, or several sets of arrays fit.
    """
    layers = list_layers(model, shape)
    if how == "order":
        layers = order.with_flattened_inputs(layers)
        heads = head_layers(model, shape)
        return order.match(layers, heads, weights.framework, array_names.without_counters(weights.arrays))
    if any(name.startswith("params/") for name in weights.arrays):  # as `cnnjax export --names=own` writes them
        return convert.import_own(model, shape, weights.arrays)
    framework, reasons = weights.framework, []
    others = [name for name, spec in LIBRARIES.items() if name != library and (spec.framework or name) == framework]
    arrays, candidates, fitting = weights.arrays, [], {}
    views = [array_names.View(arrays)]
    if framework == "torch":
        views = array_names.views(array_names.without_counters(arrays), sum(len(layer.arrays) for layer in layers))
    for view in views:
        for name in filter(None, [library, *others]):
            try:
                found = convert.import_variables(model, shape, view.arrays, name)
            except InputError as error:
                reasons.append(str(error))
                continue
            candidates.append(dataclasses.replace(found, remarks=tuple(filter(None, [view.describe()]))))
            if not found.mismatches and not view.left_out:
                return candidates[-1]
            if not found.mismatches:
                fitting.setdefault(view.removed[0], candidates[-1])
    if fitting:
        return fitting[array_names.choose_prefix(list(fitting))]
    if not candidates:
        reason = "; ".join(dict.fromkeys(reasons)) or f"there are no names for files of {framework!r}"
        raise InputError(f"{reason}. --match=order matches by order and shape")
    return min(candidates, key=lambda candidate: candidate.mismatches)


def num_classes(imported: ImportedVariables) -> int:
    """Guesses the number of classes in a file whose head differs from ours: the common length of all misshaped biases.

    Returns 0 if no bias is misshaped, or if their lengths in the file differ.
    """
    lengths = {actual[0] for _, _, actual in imported.misshaped.values() if len(actual) == 1}
    return lengths.pop() if len(lengths) == 1 else 0


def input_channels(imported: ImportedVariables, model: nn.Module, shape: Shape) -> int:
    """Returns the number of input channels of the first kernel in a file, if it is 1 or 3 and ours differs; else 0."""
    first = next(path for layer in list_layers(model, shape) for path in layer.arrays if path.endswith("/kernel"))
    if first not in imported.misshaped:
        return 0
    _, expected, actual = imported.misshaped[first]
    differing = [(a, b) for a, b in zip(expected, actual, strict=False) if a != b]
    fits = len(expected) == len(actual) == 4 and len(differing) == 1 and differing[0][0] == shape[2]
    return differing[0][1] if fits and differing[0][1] in (1, 3) else 0


def without_missing(imported: ImportedVariables, model: nn.Module, shape: Shape, may_lack: str) -> ImportedVariables:
    """Returns a match in which arrays that the file lacks, and may lack, do not count as mismatches.

    Args:
      imported: the match.
      model: our network.
      shape: [height, width, channels] of its images.
      may_lack: 'head' if the file may lack the classifier, or have another instead; 'any' if it may lack any array.

    Returns `imported` itself if it has other mismatches.
    """
    lacking = imported.missing.keys() | imported.misshaped.keys()
    heads = {path for layer in head_layers(model, shape) for path in layer.arrays}
    if not imported.variables or (may_lack == "head" and (lacking - heads or _is_deeper(imported, heads))):
        return imported
    unused = ", ".join(f"{name} {list(shape)}" for name, shape in list(imported.unused.items())[:4])
    more = f" and {len(imported.unused) - 4} more" if len(imported.unused) > 4 else ""
    remark = (f"not used: {unused}{more}",) if unused else ()
    return dataclasses.replace(
        imported,
        missing={},
        misshaped={},
        unused={},
        remarks=imported.remarks + remark,
        missing_allowed=frozenset(lacking),
    )


def _is_deeper(imported: ImportedVariables, heads: set[str]) -> bool:
    """Returns whether unused arrays of the file belong to parts of the network that are used, such as extra blocks.

    A part is the first word of a name, such as 'layer1'. `heads` are the paths of our classifier's arrays, whose part
    may have others.
    """
    part = lambda name: re.split("[./]", name)[0]  # noqa: E731
    head_parts = {part(imported.names[path]) for path in heads if path in imported.names}
    body_parts = {part(name) for path, name in imported.names.items() if path not in heads} - head_parts
    return any(part(name) in body_parts for name in imported.unused)
