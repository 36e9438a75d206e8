"""Array names as training scripts leave them: prefixes of wrappers around a network, and arrays other than weights."""

import dataclasses
import re
from collections.abc import Iterator

from cnnjax.errors import InputError
from cnnjax.pretrained.formats import state_dicts
from cnnjax.pretrained.library import Arrays

# Attributes under which wrappers, such as DataParallel, torch.compile and Lightning modules, keep the network.
WRAPPERS = (
    "module", "_orig_mod", "model", "_model", "net", "_net", "network", "backbone", "encoder", "student", "base_model",
    "_forward_module",
)  # fmt: skip

# Arrays beside the weights: counters of BatchNorm, of averaged models and of FLOP counters.
_NO_WEIGHTS = re.compile(r"(^|\.)(num_batches_tracked|n_averaged|total_ops|total_params|_metadata)$")


@dataclasses.dataclass(frozen=True)
class View:
    """The arrays of a file, some of them under shorter names.

    Attributes:
      arrays: arrays by their shorter names.
      removed: prefixes that were taken off, such as 'module.', each once.
      left_out: full names of the arrays that are not in this view.
    """

    arrays: Arrays
    removed: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()

    def describe(self) -> str:
        """Returns a line that says what was taken off and left out; '' if nothing was."""
        shown = ", ".join(self.left_out[:3]) + (f" and {len(self.left_out) - 3} more" if len(self.left_out) > 3 else "")
        removed = f"without the prefix {', '.join(map(repr, self.removed))}" if self.removed else ""
        return "; ".join(filter(None, [removed, f"not used: {shown}" if shown else ""]))


def without_counters(arrays: Arrays) -> Arrays:
    """Returns the arrays without counters, such as 'bn1.num_batches_tracked' and thop's 'total_ops'."""
    return {name: array for name, array in arrays.items() if not _NO_WEIGHTS.search(name)}


def views(arrays: Arrays, size: int) -> Iterator[View]:
    """Yields the arrays under the names that a library may have given them, the most probable first.

    These are the names without prefixes of `WRAPPERS`, the names as they are, and the names below each common prefix.

    Args:
      arrays: the arrays of a file.
      size: number of arrays of the network. A prefix counts if at least half as many arrays have it.
    """
    seen: list[tuple[set[str], tuple[str, ...]]] = []
    for view in _all_views(arrays, size):
        if (content := (set(view.arrays), view.left_out)) not in seen:
            seen.append(content)
            yield view


def _all_views(arrays: Arrays, size: int) -> Iterator[View]:
    """Yields the views of `views`; some may have the same names."""
    for wrappers in (WRAPPERS, (*WRAPPERS, "head")):  # some put the classifier beside the backbone, in head.fc
        shorter = {name: _shortened(name, wrappers) for name in arrays}
        if len(set(shorter.values())) == len(arrays):
            removed = dict.fromkeys(name.removesuffix(short) for name, short in shorter.items() if name != short)
            yield View({shorter[name]: array for name, array in arrays.items()}, tuple(removed))
    yield View(arrays)
    counts: dict[str, int] = {}
    for name in arrays:
        parts = name.split(".")
        for depth in range(1, len(parts)):
            prefix = ".".join(parts[:depth]) + "."
            counts[prefix] = counts.get(prefix, 0) + 1
    for prefix, count in counts.items():
        if 2 * count >= size:
            inner = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
            left_out = tuple(name for name in arrays if not name.startswith(prefix))
            yield View(inner, (prefix,), left_out)


def _shortened(name: str, wrappers: tuple[str, ...]) -> str:
    """Returns a name without the wrappers in front, however many there are."""
    while (head := name.partition("."))[0] in wrappers and head[2]:
        name = head[2]
    return name


def choose_prefix(prefixes: list[str]) -> str:
    """Chooses between several prefixes of array names if the arrays below each of them fit a network.

    Those of averaged weights ('ema.') count only if there are no others. Raises InputError, which lists them, if
    several are left.
    """
    plain = [prefix for prefix in prefixes if not state_dicts.is_ema(prefix)] or prefixes
    if len(plain) > 1:
        shown = ", ".join(f"#{prefix.removesuffix('.')}" for prefix in plain)
        raise InputError(f"the file has weights under several prefixes: choose one of {shown} by FILE#NAME")
    return plain[0]
