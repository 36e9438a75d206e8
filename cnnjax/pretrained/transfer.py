"""Transfer: which arrays of a network are initialized from another one's weights."""

import contextlib
import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax.errors import InputError
from cnnjax.models import with_num_classes
from cnnjax.pretrained.network import LoadedNetwork, Log
from cnnjax.state import Tree, path_name

MAX_NAMES_SHOWN = 6  # array names in a message

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class TransferPlan:
    """The arrays that a network takes from another network.

    Attributes:
      paths: paths of these arrays, as in 'params/conv1/kernel'.
      description: a line for the log: which arrays are taken, which are new and which of the source are not used.
    """

    paths: frozenset[str]
    description: str


def match_for_transfer(
    variables: Tree, source_network: LoadedNetwork, source: str, classes: Sequence[str], partial: bool = False
) -> TransferPlan:
    """Plans a transfer: decides which arrays of our network are initialized from `source_network`.

    All arrays are taken, but not those of the head if the classes differ in number or name: the head stays new.

    Args:
      variables: our network's variables, or their shapes.
      source_network: the trained network.
      source: name of the trained network, for messages.
      classes: names of our classes.
      partial: takes only the layers whose arrays agree in path and shape, as in Simonyan & Zisserman (2015, sec. 3.1),
        who initialized deep networks with layers of a shallow one.

    Raises InputError, with the differing arrays, if no arrays agree, or if arrays outside the head differ and `partial`
    is False.
    """
    theirs, ours_classes = list(source_network.data.classes), list(classes)
    ours, others = _shapes_by_path(variables), _shapes_by_path(_variable_shapes(source_network, len(theirs)))
    heads: set[str] = set()  # one class more changes their shapes
    same_names = ours_classes == theirs or not source_network.data.has_class_names
    differs, absent = len(ours_classes) != len(theirs) or not same_names, source_network.absent
    if differs or absent:
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # takes one number of classes only
            larger = _shapes_by_path(_variable_shapes(source_network, len(theirs) + 1))
            heads = {_layer(path) for path in others if others[path] != larger[path]}
        heads = heads if differs else heads & {_layer(path) for path in absent}
    others = {path: shape for path, shape in others.items() if path not in absent}
    differing = [path for path in sorted(ours.keys() | others.keys()) if ours.get(path) != others.get(path)]
    untouched = {_layer(path) for path in differing} | heads
    taken = frozenset(path for path in ours if _layer(path) not in untouched)
    wrong = [path for path in differing if _layer(path) not in heads]
    if (wrong and not partial) or not taken:
        arrays = [f"{_short(p)} is {_shown(others, p)} there and {_shown(ours, p)} here" for p in wrong]
        hint = "; config.init_partial = True takes the layers that agree" if taken else ""
        raise InputError(f"config.init = {source!r} has another network: {_first_names(arrays, '; ')}{hint}")

    lines = [f"{len(taken)} of {len(ours)} arrays are initialized from {source}"]
    if head := sorted(_short(layer) for layer in heads & {_layer(path) for path in ours}):
        renamed = [f"{b!r} here is {a!r} there" for a, b in zip(theirs, ours_classes, strict=False) if a != b]
        counts = f"{len(ours_classes)} classes here, {len(theirs)} there"
        reason = renamed[0] if len(ours_classes) == len(theirs) and renamed else counts
        if any(_layer(path) in heads for path in absent):
            reason = "the source has none that fits"
        lines.append(f"the head, {', '.join(map(repr, head))}, is new: {reason}")
    elif differs:
        lines.append("the classes are others, but no layer depends on their number, so none is new")
    elif ours_classes != theirs:
        lines.append("the source has no class names: its head is used for the classes here, in their order")
    for what, arrays in (("new", ours), ("not used", others)):
        if paths := sorted(_short(path) for path in arrays if _layer(path) in untouched - heads):
            lines.append(f"{what}: {_first_names(paths, ', ')}")
    return TransferPlan(taken, "; ".join(lines))


def apply_transfer(variables: Tree, source_network: LoadedNetwork, plan: TransferPlan, mesh: Mesh, log: Log) -> Tree:
    """Returns `variables` with the arrays in `plan` replaced by those of `source_network`. Logs the plan.

    The arrays keep the dtype and sharding of `variables`. Reads the source's last checkpoint.
    """
    restored = source_network.load_variables(mesh, "last", log)
    others = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(restored.variables)}
    log(plan.description)

    def pick(path: tuple, ours: jax.Array) -> jax.Array:
        """Returns the array at `path`, from the source if the plan has that path."""
        name = path_name(path)
        if name not in plan.paths:
            return ours
        return jax.device_put(np.asarray(others[name], ours.dtype), ours.sharding)

    return jax.tree_util.tree_map_with_path(pick, variables)


def _variable_shapes(network: LoadedNetwork, num_classes: int) -> Tree:
    """Returns the shapes of a network's variables, as ShapeDtypeStructs, if it had this number of classes."""
    image = np.zeros((1, *network.data.shape), np.float32)
    model = with_num_classes(network.model, num_classes)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)


def _shapes_by_path(tree: Tree) -> dict[str, Shape]:
    """Returns {path: shape} of a tree of arrays."""
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _layer(path: str) -> str:
    """Returns the path of the layer that has the array at `path`."""
    return path.rpartition("/")[0]


def _short(path: str) -> str:
    """Returns the path without 'params/' in front."""
    return path.removeprefix("params/")


def _shown(shapes: dict[str, Shape], path: str) -> str:
    """Returns the shape at `path` as text, such as '[3, 3, 64, 64]'; 'missing' if there is none."""
    return str(list(shapes[path])) if path in shapes else "missing"


def _first_names(names: Sequence[str], separator: str) -> str:
    """Joins the first `MAX_NAMES_SHOWN` names, and says how many more there are."""
    more = f" and {len(names) - MAX_NAMES_SHOWN} more" if len(names) > MAX_NAMES_SHOWN else ""
    return separator.join(names[:MAX_NAMES_SHOWN]) + more
