"""Trained networks: those of runs, published ones, and those of weight files."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import config as configs
from cnnjax import optim, register, spec
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.info import DataInfo
from cnnjax.data.operations import parse_operations
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, nearest
from cnnjax.models import MODELS, create_model, with_num_classes
from cnnjax.optim import freezing
from cnnjax.pretrained import catalog, files, formats
from cnnjax.runs import checkpoint, workdir
from cnnjax.state import Tree, eval_variables

Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Restored:
    """The variables of a trained network, on the devices of a mesh.

    Attributes:
      step: training step of the checkpoint; 0 for weights that are not a run's.
      variables: Flax variables, {"params": ..., "batch_stats": ..., ...}, of sharded arrays.
    """

    step: int
    variables: Tree


@dataclasses.dataclass(frozen=True)
class LoadedNetwork:
    """A trained network, with the config and data description needed to score images. Weights are read on request.

    Attributes:
      config: the config of the run; for other weights, one with their model and preprocessing.
      data: classes, image shape and normalization statistics.
      model: our network.
      load_variables: (mesh, step, log) -> the variables, where step is 'last', 'best' or a number such as '500'.
    """

    config: Config
    data: DataInfo
    model: nn.Module
    load_variables: Callable[[Mesh, str, Log], Restored]

    def replace(self, **changes: Any) -> "LoadedNetwork":
        """Returns a copy with these fields replaced."""
        return dataclasses.replace(self, **changes)


def load(source: str | pathlib.Path, like: str = "", model: str = "") -> LoadedNetwork:
    """Loads a trained network from a run's folder, published weights, or a weight file of any supported library.

    A weight file names neither its network nor its preprocessing: pass `like` or `model`.

    Args:
      source: a run's folder, a name such as 'torchvision:resnet50.v1', or a weight file.
      like: for a file: published weights with the same network and preprocessing; "" for none.
      model: for a file: call string of the network, enough to initialize a training; "" for none. `like` comes first.

    Raises InputError if the source does not exist, or a file does not fit its network.
    """
    path = pathlib.Path(source)
    if path.is_dir():
        return _load_run(path)
    if catalog.is_name(str(source)):
        row = catalog.find(str(source))
        network = _published_network(row)
        return network.replace(load_variables=functools.partial(_load_published, row, network))
    if not path.is_file() and (index := path.with_name(f"{path.name}.index")).is_file():
        path = index  # a TensorFlow checkpoint is named by the common prefix of its files
    if not path.is_file():
        names = "" if "/" in str(source) else f"; {nearest(str(source), catalog.rows())}"
        raise InputError(f"{source} is neither a run's folder, a weight file nor a name of `cnnjax weights`{names}")
    if like:
        row = catalog.find(like)
        return _load_file(path, _published_network(row), row.library)
    if model:
        module = with_num_classes(create_model(model), 1)  # first, since it names an unknown model
        shape = MODELS[spec.parse(model).name].input_shape
        data = DataInfo(_numbered_classes(1), shape, has_class_names=False)
        return _load_file(path, LoadedNetwork(Config(model=model), data, module, _no_variables), "")
    raise InputError(
        f"{source} is a weight file, which does not name its network: give --like=NAME, one of `cnnjax weights`"
    )


# ------------------------------------------------------------------------------------- published weights and files


def _no_variables(mesh: Mesh, step: str, log: Log) -> Restored:
    """Stands for `load_variables` of a LoadedNetwork whose weights are not read yet. Raises AssertionError."""
    raise AssertionError("the variables are set once the file is read")


def _published_network(row: catalog.PublishedWeights) -> LoadedNetwork:
    """Returns the network, config and data description of published weights, without the weights."""
    data_set = catalog.DATA_SETS[row.classes]
    config = Config(
        model=row.model,
        dataset=data_set.name,
        test_split=data_set.split,
        preprocess=row.preprocess,
        normalize=row.normalize,
    )
    shape = MODELS[spec.parse(row.model).name].input_shape
    if calls := parse_operations(row.preprocess).host:
        larger = np.array([[2 * max(shape), 2 * max(shape), shape[2]]])
        (shape,) = pipeline.group_by_shape(larger, calls)
    statistics = {"mean": list(data_set.mean), "std": list(data_set.std)}
    height, width, channels = shape
    data = DataInfo(tuple(data_set.classes), (height, width, channels), statistics)
    model = create_model(row.model, len(data.classes), config.dtype)
    return LoadedNetwork(config, data, model, _no_variables)


def _load_file(path: pathlib.Path, network: LoadedNetwork, library: str) -> LoadedNetwork:
    """Reads a weight file for `network`; returns the network with these weights.

    If the file has another number of classes, the network gets that number, with classes named '0', '1', ... `library`
    is as in `files.match`.
    """
    kind, arrays = formats.read(path)
    match = files.match(network.model, network.data.shape, kind, arrays, library)
    if count := files.num_classes(match):
        data = dataclasses.replace(network.data, classes=_numbered_classes(count), has_class_names=False)
        model = with_num_classes(network.model, count)
        network = network.replace(data=data, model=model)
        match = files.match(model, data.shape, kind, arrays, library)
    variables = match.check(str(path))
    return network.replace(load_variables=lambda mesh, step, log: _put_variables(variables, mesh, step))


def _numbered_classes(count: int) -> tuple[str, ...]:
    """Returns the names '0', '1', ... of `count` classes."""
    return tuple(str(number) for number in range(count))


def _load_published(row: catalog.PublishedWeights, network: LoadedNetwork, mesh: Mesh, step: str, log: Log) -> Restored:
    """Downloads published weights, if needed, and puts them on the mesh. `step` has to be 'last'."""
    path = catalog.fetch(row, log)
    return _put_variables(files.read(path, network.model, network.data.shape, row.library), mesh, step)


def _put_variables(arrays: formats.Arrays, mesh: Mesh, step: str) -> Restored:
    """Converts arrays by path to a tree of variables on the mesh. Raises InputError unless `step` is 'last'."""
    if step != "last":
        raise InputError(f"step {step!r}: only a run has several; leave it out")
    tree = flax.traverse_util.unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    shardings = sharding.state_sharding(tree, mesh)
    put = lambda x, place: jax.make_array_from_callback(x.shape, place, x.__getitem__)  # noqa: E731
    return Restored(0, jax.tree.map(put, tree, shardings))


# ------------------------------------------------------------------------------------------------------------- runs


def _load_run(folder: pathlib.Path) -> LoadedNetwork:
    """Returns the network of a run's folder. Its variables are read when `load_variables` is called."""
    register.check_imports(folder)
    config, data = configs.load(folder / "config.json"), workdir.read_data_info(folder)
    model = create_model(config.model, len(data.classes), config.dtype)
    return LoadedNetwork(config, data, model, functools.partial(_restore, folder, config, data, model))


def _restore(
    folder: pathlib.Path, config: Config, data: DataInfo, model: nn.Module, mesh: Mesh, step: str, log: Log
) -> Restored:
    """Restores the variables with which a run's network is evaluated; averaged parameters replace the trained ones.

    `step` is 'last', 'best' or a number, as in `checkpoint.restore_model`.
    """
    image = np.zeros((1, *data.shape), np.float32)
    model_state = dict(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image))
    params = model_state.pop("params")
    recipe = optim.parse(config)
    average = freezing.trainable(recipe.freezing, params) if recipe.keeps_average else {}
    target = {"params": params, "model_state": model_state, "ema": average}
    target = sharding.with_sharding(target, sharding.state_sharding(target, mesh))
    number, items = checkpoint.restore_model(folder, target, step, log)
    return Restored(number, eval_variables(**items))
