"""Networks with trained weights: of a run's folder. To score images with, to learn from, or to start from."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import checkpoint, config, freezing, optim, sharding, workdir
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.state import Tree, path_name, variables_of

NAMED = 6  # arrays in a line about those that do not match

Say = Callable[[str], None]


class Trained(NamedTuple):
    """A network, and all that it takes to score images with it; its weights are read when they are asked for."""

    settings: config.Config
    known: dict[str, Any]  # of the data that it learnt from: "classes", "shape", and the statistics that it needs
    model: nn.Module
    restore: Callable[[Mesh, str, Say], tuple[int, Tree]]  # (mesh, "last", say) -> its step, its variables on the mesh


def find(source: str | pathlib.Path) -> Trained:
    """The network of a run's folder. Raises InputError when there is none."""
    folder = pathlib.Path(source)
    settings, known = config.load(folder / "config.json"), workdir.read_known(folder)
    model = create_model(settings.model, len(known["classes"]), settings.dtype)
    return Trained(settings, known, model, functools.partial(_restore, folder, settings, known, model))


def _restore(
    folder: pathlib.Path,
    settings: config.Config,
    known: dict[str, Any],
    model: nn.Module,
    mesh: Mesh,
    step: str,
    say: Say,
) -> tuple[int, Tree]:
    """The step of a checkpoint of a run and the variables that its network is evaluated with, on the mesh."""
    image = np.zeros((1, *known["shape"]), np.float32)
    model_state = dict(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image))
    params = model_state.pop("params")
    averaged = freezing.trained(settings, params) if optim.averages(settings) else {}
    target = {"params": params, "model_state": model_state, "ema": averaged}
    target = sharding.placed(target, sharding.of_state(target, mesh))
    number, found = checkpoint.restore_model(folder, target, step, say)
    return number, variables_of(**found)


class Fit(NamedTuple):
    """What a network can start from of some weights."""

    taken: list[str]  # paths of arrays
    text: str  # what is taken, and what is not, in words


def fit(own: Tree, source: str, classes: Sequence[str], staged: bool = False) -> Fit:
    """What of a network for these classes, with these variables or their shapes, `source` has weights for.

    That is all but the head, which is new for another number of classes; with `staged`, the layers whose arrays agree
    in path and shape, as Simonyan and Zisserman (2015, sec. 3.1) began their deeper networks with the layers of a
    trained shallow one. Raises InputError, naming the arrays that do not agree, for any other network.
    """
    network = find(source)
    theirs = network.known["classes"]
    ours, found = _arrays(own), _arrays(_shapes(network, len(theirs)))
    heads = set()
    if len(classes) != len(theirs):  # the layers that have another shape for one class more
        more = _arrays(_shapes(network, len(theirs) + 1))
        heads = {_layer(name) for name in found if found[name] != more[name]}
    differing = [name for name in sorted(ours.keys() | found.keys()) if ours.get(name) != found.get(name)]
    layers = {_layer(name) for name in differing}
    taken = [name for name in ours if _layer(name) not in layers]
    wrong = [name for name in differing if _layer(name) not in heads]
    if (wrong and not staged) or not taken:
        arrays = [f"{_short(name)} is {_shape(found, name)} there and {_shape(ours, name)} here" for name in wrong]
        hint = "; config.staged = True takes the layers that agree" if taken else ""
        raise InputError(f"config.init = {source!r} is of another network: {_few(arrays, '; ')}{hint}")

    said = [f"{len(taken)} of {len(ours)} arrays start as {source} has them"]
    if head := sorted(_short(layer) for layer in heads & {_layer(name) for name in ours}):
        said.append(f"the head {', '.join(head)} is new: {len(classes)} classes here, {len(theirs)} there")
    elif other := [f"{a!r} there is {b!r} here" for a, b in zip(theirs, classes, strict=False) if a != b]:
        said.append(f"its classes are others: {other[0]}")
    for what, arrays in (("new are", ours), ("not used are", found)):
        if names := sorted(_short(name) for name in arrays if _layer(name) in layers - heads):
            said.append(f"{what} {_few(names, ', ')}")
    return Fit(taken, "; ".join(said))


def start_from(own: Tree, source: str, fitting: Fit, mesh: Mesh, say: Say) -> Tree:
    """A network's `own` variables, but for those that it takes from `source`; says which these are."""
    _, variables = find(source).restore(mesh, "last", say)
    found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    say(fitting.text)

    def pick(path: tuple, old: jax.Array) -> jax.Array:
        name = path_name(path)
        return jax.device_put(np.asarray(found[name], old.dtype), old.sharding) if name in fitting.taken else old

    return jax.tree_util.tree_map_with_path(pick, own)


def _shapes(network: Trained, classes: int) -> Tree:
    """The shapes of a network's variables, for so many classes."""
    image = np.zeros((1, *network.known["shape"]), np.float32)
    model = network.model.clone(num_classes=classes)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)


def _arrays(tree: Tree) -> dict[str, tuple[int, ...]]:
    """The shape of each array, by path."""
    return {path_name(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _short(name: str) -> str:
    return name.removeprefix("params/")


def _shape(arrays: dict[str, tuple[int, ...]], name: str) -> str:
    return str(list(arrays[name])) if name in arrays else "missing"


def _few(names: Sequence[str], separator: str) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return separator.join(names[:NAMED]) + more
