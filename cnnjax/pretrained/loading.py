"""Trained networks: those of runs, published ones, and those of weight files."""

import functools
import os
import pathlib

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np
from jax.sharding import Mesh

from cnnjax import config as configs
from cnnjax import optim, register
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, missing, nearest
from cnnjax.hub import address
from cnnjax.models import create_model
from cnnjax.optim import freezing
from cnnjax.pretrained import catalog, file_networks, files
from cnnjax.pretrained.file_networks import FileOptions
from cnnjax.pretrained.finite import check_finite
from cnnjax.pretrained.formats import READERS
from cnnjax.pretrained.network import LoadedNetwork, Log, Restored, put_variables
from cnnjax.runs import checkpoint, workdir
from cnnjax.shell import command_line
from cnnjax.state import eval_variables


def _ignore(line: str) -> None:
    """Drops a line: the default of `log`."""


def load(source: str | pathlib.Path, options: FileOptions | None = None, log: Log = _ignore) -> LoadedNetwork:
    """Loads a trained network from a run's folder, published weights, or a weight file of any supported library.

    Args:
      source: a run's folder, a name such as 'torchvision:resnet50.v1', or a weight file. 'FILE#KEY' selects one of
        several sets of weights in a file, such as 'FILE#ema' for averaged weights.
      options: what a weight file does not say of itself; None for nothing. A file that `cnnjax export` wrote says all.
      log: receives a line about each thing in a file that is not used.

    Raises InputError if the source does not exist, or a file does not fit its network.
    """
    options, path = options or FileOptions(), pathlib.Path(source)
    if os.path.isdir(path):
        _check_no_options(options, f"{path} is a run's folder")
        return _load_run(path)
    if catalog.is_name(str(source)):
        _check_no_options(options, f"{source} are published weights")
        row = catalog.find(str(source))
        network = file_networks.published_network(row)
        return network.replace(load_variables=functools.partial(_load_published, row, network))
    path, key = _find_file(path)
    return file_networks.load_file(path, key, options, log)


def _check_no_options(options: FileOptions, reason: str) -> None:
    """Raises InputError if `options` describe a network, which only a weight file needs."""
    for_training = ("model",) if options.may_lack else ()  # config.model is in the options of any config.init
    if given := [name for name in options.given() if name not in ("may_lack", "preprocess", *for_training)]:
        raise InputError(f"{given[0]} is only for a weight file, and {reason}")


def _find_file(path: pathlib.Path) -> tuple[pathlib.Path, str]:
    """Returns a weight file and the key after '#' in its name, '' if there is none.

    Raises InputError, with the nearest name of published weights, if there is no such file.
    """
    whole, _, key = str(path).rpartition("#")
    for candidate, chosen in ((path, ""), (pathlib.Path(whole), key)):
        for name in (candidate.name, f"{candidate.name}.index"):  # a TensorFlow checkpoint is named by a prefix
            if candidate.name and os.path.isfile(found := candidate.with_name(name)):
                return found, chosen
    if str(path).startswith(address.PREFIX):
        raise InputError(f"{path} is on the Hugging Face Hub; fetch it first: {command_line('pull', str(path))}")
    file = pathlib.Path(whole or path)
    if not os.path.exists(file) and ("/" in str(file) or any(file.suffix in row.suffixes for row in READERS.values())):
        raise InputError(missing(file))
    names = "" if "/" in str(path) else f"; {nearest(str(path), catalog.rows(), kind='weights')}"
    raise InputError(f"{path} is neither a run's folder, a weight file nor a name of `cnnjax weights`{names}")


def _load_published(
    row: catalog.PublishedWeights, network: LoadedNetwork, mesh: Mesh, step: str | int, log: Log
) -> Restored:
    """Downloads published weights, if needed, and puts them on the mesh. `step` has to be 'last'."""
    path = catalog.fetch(row, log)
    return put_variables(files.read(path, network.model, network.data.shape, row.library), mesh, step)


def _load_run(folder: pathlib.Path) -> LoadedNetwork:
    """Returns the network of a run's folder. Its variables are read when `load_variables` is called."""
    register.check_imports(folder)
    config, data = configs.load(folder / "config.json"), workdir.read_data_info(folder)
    model = create_model(config.model, len(data.classes), config.dtype)
    return LoadedNetwork(config, data, model, functools.partial(_restore, folder, config, data, model))


def _restore(
    folder: pathlib.Path, config: Config, data: DataInfo, model: nn.Module, mesh: Mesh, step: str | int, log: Log
) -> Restored:
    """Restores the variables with which a run's network is evaluated; averaged parameters replace the trained ones.

    `step` is 'last', 'best' or a number, as in `checkpoint.restore_model`. Raises InputError if a variable is NaN or
    infinite.
    """
    image = np.zeros((1, *data.shape), np.float32)
    model_state = dict(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image))
    params = model_state.pop("params")
    recipe = optim.parse(config)
    average = freezing.trainable(recipe.freezing, params) if recipe.keeps_average else {}
    target = {"params": params, "model_state": model_state, "ema": average}
    target = sharding.with_sharding(target, sharding.state_sharding(target, mesh))
    number, items = checkpoint.restore_model(folder, target, step, log)
    variables = eval_variables(**items)
    check_finite(flax.traverse_util.flatten_dict(variables, sep="/"), f"{folder}, step {number}")
    return Restored(number, variables)
