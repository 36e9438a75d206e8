"""Weights that a network starts from in place of random ones: taken where it has them, and nothing in silence."""

import pathlib
import re
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import config, evaluate, workdir
from cnnjax.errors import InputError
from cnnjax.models import create_model
from cnnjax.state import Tree, path_name

NAMED = 6  # arrays in a line about those that do not match


def check_source(source: str) -> None:
    """Raises InputError unless `source` is a run's folder, before anything else is done."""
    config.load(pathlib.Path(source) / "config.json")


def of_run(folder: pathlib.Path, mesh: Mesh, say: Callable[[str], None]) -> dict[str, jax.Array]:
    """What a run's newest checkpoint is evaluated with, by path: 'params/conv1/kernel'. Raises InputError for none."""
    settings, known = config.load(folder / "config.json"), workdir.read_known(folder)
    model = create_model(settings.model, len(known["classes"]), settings.dtype)
    _, variables = evaluate.restore(folder, settings, known, model, mesh, "last", say)
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}


def start_from(own: Tree, source: str, mesh: Mesh, say: Callable[[str], None]) -> Tree:
    """A network's `own` variables, but for the layers of `source` whose arrays agree in path and shape.

    So Simonyan and Zisserman (2015, sec. 3.1) began their deeper networks with the layers of a trained shallow one.
    Says how many arrays agree, and which do not. Raises InputError when none does.
    """
    found = of_run(pathlib.Path(source), mesh, say)
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
