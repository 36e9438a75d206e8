"""Networks with trained weights: a run's, published ones, or a file's. To score with, to learn from, to start from."""

import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import config, optim, spec
from cnnjax.data import pipeline
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, nearest
from cnnjax.models import MODELS, create_model
from cnnjax.optim import freezing
from cnnjax.pretrained import catalog, files, formats
from cnnjax.runs import checkpoint, workdir
from cnnjax.state import Tree, path_name, variables_of

NAMED = 6  # arrays in a line about those that do not match

Say = Callable[[str], None]


class LoadedNetwork(NamedTuple):
    """A network, and all that it takes to score images with it; its weights are read when they are asked for."""

    settings: config.Config
    known: dict[str, Any]  # of the data that it learnt from: "classes" ("numbered": only how many), "shape", statistics
    model: nn.Module
    restore: Callable[[Mesh, str, Say], tuple[int, Tree]]  # (mesh, "last", say) -> its step, its variables on the mesh


def load(source: str | pathlib.Path, like: str = "", model: str = "") -> LoadedNetwork:
    """The network of a run's folder, of published weights as 'torchvision:resnet50.v1', or of a file of weights.

    A file does not say of which network it is, or what that is to be shown: `like` does, by the name of published
    weights. To start from it, the call string of a `model` is enough. Raises InputError when there is no such source,
    or a file does not fit its network.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        return _of_run(path)
    if catalog.is_name(str(source)):
        row = catalog.find(str(source))
        settings, known, network = _like(row)
        return LoadedNetwork(settings, known, network, functools.partial(_published, row, known, network))
    if not path.is_file() and (index := path.with_name(f"{path.name}.index")).is_file():
        path = index  # TensorFlow's own name for a checkpoint is what the names of its files begin with
    if not path.is_file():
        names = "" if "/" in str(source) else f"; {nearest(str(source), catalog.rows())}"
        raise InputError(f"{source} is not a run's folder, nor a file of weights, nor one of `cnnjax weights`{names}")
    if like:
        row = catalog.find(like)
        return _of_file(path, *_like(row), row.library)
    if model:
        network = create_model(model, 1)
        shape = list(MODELS[spec.parse(model).name].input_shape)
        known = {"classes": _numbers(1), "numbered": True, "shape": shape}
        return _of_file(path, config.Config(model=model), known, network, "")
    raise InputError(
        f"{source} is a file of weights, which does not say of which network: give --like=NAME, one of `cnnjax weights`"
    )


# --------------------------------------------------------------------------------------- of other people's making


def _like(row: catalog.PublishedWeights) -> tuple[config.Config, dict[str, Any], nn.Module]:
    """The settings, what is known of the data, and the network, of published weights."""
    data = catalog.DATA_SETS[row.classes]
    settings = config.Config(
        model=row.model, dataset=data.name, test_split=data.split, preprocess=row.preprocess, normalize=row.normalize
    )
    shape = MODELS[spec.parse(row.model).name].input_shape
    if calls := pipeline.split_ops(row.preprocess)[0]:
        (shape,) = pipeline.group_by_shape(np.array([[2 * max(shape), 2 * max(shape), shape[2]]]), calls)
    known = {"classes": list(data.classes), "shape": list(shape), "mean": list(data.mean), "std": list(data.std)}
    return settings, known, create_model(row.model, len(data.classes), settings.dtype)


def _of_file(
    path: pathlib.Path, settings: config.Config, known: dict[str, Any], model: nn.Module, library: str
) -> LoadedNetwork:
    """The network of a file, which is that one, or has another number of classes."""
    kind, arrays = formats.read(path)
    found = files.match(model, known["shape"], kind, arrays, library)
    if count := files.num_classes(found):
        known["numbered"] = True
        known["classes"], model = _numbers(count), create_model(settings.model, count, settings.dtype)
        found = files.match(model, known["shape"], kind, arrays, library)
    variables = found.check(str(path))
    return LoadedNetwork(settings, known, model, lambda mesh, step, say: _placed(variables, mesh, step))


def _numbers(count: int) -> list[str]:
    """Classes that have no names."""
    return [str(number) for number in range(count)]


def _published(
    row: catalog.PublishedWeights, known: dict[str, Any], model: nn.Module, mesh: Mesh, step: str, say: Say
) -> tuple[int, Tree]:
    path = catalog.fetch(row, say)
    return _placed(files.read(path, model, known["shape"], row.library), mesh, step)


def _placed(arrays: formats.Arrays, mesh: Mesh, step: str) -> tuple[int, Tree]:
    """A step, which is none, and the variables by path as a tree on the mesh."""
    if step != "last":
        raise InputError(f"step {step!r}: only a run has several; leave it out")
    tree = flax.traverse_util.unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    where = sharding.state_sharding(tree, mesh)
    return 0, jax.tree.map(lambda x, at: jax.make_array_from_callback(x.shape, at, x.__getitem__), tree, where)


# ------------------------------------------------------------------------------------------------------- of a run


def _of_run(folder: pathlib.Path) -> LoadedNetwork:
    settings, known = config.load(folder / "config.json"), workdir.read_data_info(folder)
    model = create_model(settings.model, len(known["classes"]), settings.dtype)
    return LoadedNetwork(settings, known, model, functools.partial(_restore, folder, settings, known, model))


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
    averaged = freezing.trainable(settings, params) if optim.keeps_average(settings) else {}
    target = {"params": params, "model_state": model_state, "ema": averaged}
    target = sharding.with_sharding(target, sharding.state_sharding(target, mesh))
    number, found = checkpoint.restore_model(folder, target, step, say)
    return number, variables_of(**found)


class TransferPlan(NamedTuple):
    """What a network can start from of some weights."""

    taken: list[str]  # paths of arrays
    text: str  # what is taken, and what is not, in words


def match_for_transfer(
    own: Tree, network: LoadedNetwork, source: str, classes: Sequence[str], staged: bool = False
) -> TransferPlan:
    """What of a network for these classes, with these variables or their shapes, another, of `source`, has weights for.

    That is all but the head, which is new for other classes: another number of them, or other names, where those of
    the source are known. With `staged`, it is the layers whose arrays agree in path and shape, as Simonyan and
    Zisserman (2015, sec. 3.1) began their deeper networks with the layers of a trained shallow one. Raises InputError,
    naming the arrays that do not agree, for any other network.
    """
    theirs, mine = list(network.known["classes"]), list(classes)
    ours, found = _arrays(own), _arrays(_shapes(network, len(theirs)))
    heads = set()
    if len(mine) != len(theirs) or (mine != theirs and not network.known.get("numbered")):
        more = _arrays(_shapes(network, len(theirs) + 1))
        heads = {_layer(name) for name in found if found[name] != more[name]}  # another shape for one class more
    differing = [name for name in sorted(ours.keys() | found.keys()) if ours.get(name) != found.get(name)]
    layers = {_layer(name) for name in differing} | heads
    taken = [name for name in ours if _layer(name) not in layers]
    wrong = [name for name in differing if _layer(name) not in heads]
    if (wrong and not staged) or not taken:
        arrays = [f"{_short(name)} is {_shape(found, name)} there and {_shape(ours, name)} here" for name in wrong]
        hint = "; config.init_partial = True takes the layers that agree" if taken else ""
        raise InputError(f"config.init = {source!r} is of another network: {_few(arrays, '; ')}{hint}")

    said = [f"{len(taken)} of {len(ours)} arrays start as {source} has them"]
    if head := sorted(_short(layer) for layer in heads & {_layer(name) for name in ours}):
        other = [f"{b!r} here is {a!r} there" for a, b in zip(theirs, mine, strict=False) if a != b]
        why = other[0] if len(mine) == len(theirs) else f"{len(mine)} classes here, {len(theirs)} there"
        said.append(f"the head, {', '.join(map(repr, head))}, is new: {why}")
    elif mine != theirs:
        said.append("its classes have no names: the head is taken as if they were those here")
    for what, arrays in (("new are", ours), ("not used are", found)):
        if names := sorted(_short(name) for name in arrays if _layer(name) in layers - heads):
            said.append(f"{what} {_few(names, ', ')}")
    return TransferPlan(taken, "; ".join(said))


def apply_transfer(own: Tree, network: LoadedNetwork, fitting: TransferPlan, mesh: Mesh, say: Say) -> Tree:
    """A network's `own` variables, but for those that it takes from another; says which these are."""
    _, variables = network.restore(mesh, "last", say)
    found = {path_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}
    say(fitting.text)

    def pick(path: tuple, old: jax.Array) -> jax.Array:
        name = path_name(path)
        return jax.device_put(np.asarray(found[name], old.dtype), old.sharding) if name in fitting.taken else old

    return jax.tree_util.tree_map_with_path(pick, own)


def _shapes(network: LoadedNetwork, classes: int) -> Tree:
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
