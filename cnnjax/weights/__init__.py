"""Networks with trained weights: a run's, published ones, or a file's. To score with, to learn from, to start from."""

import functools
import pathlib
import re
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import checkpoint, config, optim, sharding, spec, workdir
from cnnjax.data import pipeline
from cnnjax.errors import InputError, nearest
from cnnjax.models import MODELS, create_model
from cnnjax.state import Tree, path_name, variables_of
from cnnjax.weights import catalogue, files, formats

NAMED = 6  # arrays in a line about those that do not match

Say = Callable[[str], None]


class Trained(NamedTuple):
    """A network, and all that it takes to score images with it; its weights are read when they are asked for."""

    settings: config.Config
    known: dict[str, Any]  # of the data that it learnt from: "classes", "shape", and the statistics that it needs
    model: nn.Module
    restore: Callable[[Mesh, str, Say], tuple[int, Tree]]  # (mesh, "last", say) -> its step, its variables on the mesh


def find(source: str | pathlib.Path, like: str = "") -> Trained:
    """The network of a run's folder, of published weights as 'torchvision:resnet50.v1', or of a file of weights.

    A file does not say of which network it is: `like` does, by the name of published weights that it is to be used as,
    or by a call string of a network, which is enough to start from. Raises InputError when there is no such source, or
    a file does not fit its network.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        return _of_run(path)
    if catalogue.is_name(str(source)):
        row = catalogue.find(str(source))
        settings, known, model = _like(row)
        return Trained(settings, known, model, functools.partial(_published, row, known, model))
    if not path.is_file():
        raise InputError(
            f"{source} is not a run's folder, nor a file of weights, nor one of `cnnjax weights`; "
            f"{nearest(str(source), catalogue.rows())}"
        )
    if not like:
        raise InputError(
            f"{source} is a file of weights, which does not say of which network: give --like=NAME, one of "
            "`cnnjax weights`"
        )
    return _of_file(path, like)


# --------------------------------------------------------------------------------------- of other people's making


def _like(row: catalogue.Published) -> tuple[config.Config, dict[str, Any], nn.Module]:
    """The settings, what is known of the data, and the network, of published weights."""
    data = catalogue.DATA_SETS[row.classes]
    settings = config.Config(
        model=row.model, dataset=data.name, test_split=data.split, preprocess=row.preprocess, normalize=row.normalize
    )
    shape = MODELS[spec.parse(row.model).name].input_shape
    if calls := pipeline.split_ops(row.preprocess)[0]:
        (shape,) = pipeline.by_size(np.array([[2 * max(shape), 2 * max(shape), shape[2]]]), calls)
    known = {"classes": list(data.classes), "shape": list(shape), "mean": list(data.mean), "std": list(data.std)}
    return settings, known, create_model(row.model, len(data.classes), settings.dtype)


def _of_file(path: pathlib.Path, like: str) -> Trained:
    kind, arrays = formats.read(path)
    if like in catalogue.rows():
        settings, known, model = _like(row := catalogue.find(like))
        library = row.library
    else:
        model, settings, library = create_model(like, 1), config.Config(model=like), ""
        known = {"classes": _numbers(1), "shape": list(MODELS[spec.parse(like).name].input_shape)}
    found = files.match(model, known["shape"], kind, arrays, library)
    if count := files.classes(found):
        known["classes"], model = _numbers(count), create_model(settings.model, count)
        found = files.match(model, known["shape"], kind, arrays, library)
    variables = found.check(str(path))
    return Trained(settings, known, model, lambda mesh, step, say: _placed(variables, mesh, step))


def _numbers(count: int) -> list[str]:
    """Classes that have no names."""
    return [str(number) for number in range(count)]


def _published(
    row: catalogue.Published, known: dict[str, Any], model: nn.Module, mesh: Mesh, step: str, say: Say
) -> tuple[int, Tree]:
    path = catalogue.fetch(row, say)
    return _placed(files.read(path, model, known["shape"], row.library), mesh, step)


def _placed(arrays: formats.Arrays, mesh: Mesh, step: str) -> tuple[int, Tree]:
    """A step, which is none, and the variables by path as a tree on the mesh."""
    if step != "last":
        raise InputError(f"step {step!r}: only a run has several; leave it out")
    tree = flax.traverse_util.unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    where = sharding.of_state(tree, mesh)
    return 0, jax.tree.map(lambda x, at: jax.make_array_from_callback(x.shape, at, x.__getitem__), tree, where)


# ------------------------------------------------------------------------------------------------------- of a run


def _of_run(folder: pathlib.Path) -> Trained:
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


def start_from(own: Tree, source: str, mesh: Mesh, say: Say, like: str = "") -> Tree:
    """A network's `own` variables, but for the layers of `source` whose arrays agree in path and shape.

    So Simonyan and Zisserman (2015, sec. 3.1) began their deeper networks with the layers of a trained shallow one.
    `like` is as of `find`. Says how many arrays agree, and which do not. Raises InputError when none does.
    """
    _, variables = find(source, like).restore(mesh, "last", say)
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
