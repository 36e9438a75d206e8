"""Networks with trained weights: of a run's folder. To score images with, to learn from, or to start from."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import checkpoint, config, optim, sharding, workdir
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
    target = {"params": params, "model_state": model_state, "ema": params if optim.averages(settings) else {}}
    target = sharding.placed(target, sharding.of_state(target, mesh))
    number, found = checkpoint.restore_model(folder, target, step, say)
    return number, variables_of(**found)


def start_from(own: Tree, source: str, mesh: Mesh, say: Say) -> Tree:
    """A network's `own` variables, but for the layers of `source` whose arrays agree in path and shape.

    So Simonyan and Zisserman (2015, sec. 3.1) began their deeper networks with the layers of a trained shallow one.
    Says how many arrays agree, and which do not. Raises InputError when none does.
    """
    _, variables = find(source).restore(mesh, "last", say)
    found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    leaves = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(own)}
    differing = {_layer(name) for name, leaf in leaves.items() if name not in found or found[name].shape != leaf.shape}
    new = [name for name in leaves if _layer(name) in differing]
    if len(new) == len(leaves):
        raise InputError(f"config.init = {source!r}: none of its layers has a name and shapes of this network's")
    text = f"{len(leaves) - len(new)} of {len(leaves)} arrays start as {source} has them"
    unused = [name for name in found if name in new or name not in leaves]
    say("; ".join([text, *_named("new are", new), *_named("not used are", unused)]))

    def pick(path: tuple, old: jax.Array) -> jax.Array:
        name = path_name(path)
        return old if name in new else jax.device_put(np.asarray(found[name], old.dtype), old.sharding)

    return jax.tree_util.tree_map_with_path(pick, own)


def _layer(name: str) -> str:
    return name.rpartition("/")[0]


def _named(what: str, paths: list[str]) -> list[str]:
    names = sorted(re.sub(r"^params/", "", path) for path in paths)
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return [f"{what} {', '.join(names[:NAMED])}{more}"] if names else []
