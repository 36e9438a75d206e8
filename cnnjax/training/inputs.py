"""The input of a training: its splits, the source of its batches, the data statistics and the operations on images."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from cnnjax import augment
from cnnjax.config import Config
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.data.info import DataInfo, changed_since
from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Splits:
    """The opened splits of a run: training, validation and test.

    `val` and `test` are None where the config has no such split.
    """

    train: Split
    val: Split | None
    test: Split | None


@dataclasses.dataclass(frozen=True)
class InputFunctions:
    """The part of the input pipeline that is compiled into the training step.

    Attributes:
      prepare: (key, images uint8 [N, H, W, C], example int32 [N], epoch int32 [N]) -> augmented and normalized images,
        float32 [N, H, W, C].
      mix: (key, prepared images, labels int32 [N]) -> images and targets float32 [N, K]; it applies mixup and the like,
        or only makes the labels one-hot.
    """

    prepare: Callable[..., jax.Array]
    mix: Callable[..., tuple[jax.Array, jax.Array]]


def load_splits(config: Config, data_dir: str) -> Splits:
    """Opens the training, validation and test splits that a config names.

    `data_dir` is the folder of the data sets, '' for the default one. Raises InputError for an unknown data set or
    split.
    """
    train, val = folds.resolve_splits(config, data_dir)
    opened = {name: load(config.dataset, name, data_dir) for name in (train, val, config.test_split) if name}
    return Splits(opened[train], opened.get(val), opened.get(config.test_split))


def open_train_source(recipe: Recipe, splits: Splits, mesh: Mesh) -> pipeline.Source:
    """Opens the training split as a source of batches, after the host's operations of the recipe.

    Reading starts in the background if the split is to be kept in device memory.
    """
    cache, seed = recipe.config.cache, recipe.config.seed
    return pipeline.open_source(splits.train, recipe.operations.host, cache=cache, seed=seed, mesh=mesh)


def input_functions(recipe: Recipe, data: DataInfo) -> InputFunctions:
    """Builds `prepare` and `mix` from the recipe's operations, for the image shape, statistics and classes of `data`.

    Raises InputError if an operation does not fit these.
    """
    prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, data.shape)
    return InputFunctions(prepare, augment.build_mixing(recipe.operations.mixing, len(data.classes)))


def data_info(
    recipe: Recipe,
    split: Split,
    source: pipeline.Source,
    folder: pathlib.Path | None,
    log: Callable[[str], None] = print,
) -> DataInfo:
    """Returns the classes, image shape and statistics of the training split.

    They are read from data.json in the run's `folder` if it describes the same split and augmentation, and has all
    statistics that the recipe needs. Otherwise, or if `folder` is None, the statistics are computed from `source`,
    which may read the whole split. `log` gets a line if data.json is damaged. Does not write data.json. Raises
    InputError if data.json describes the same data set with other classes, images or version, or files of other sizes:
    it was rebuilt since the run started.
    """
    identity = {**split.identity, "augment": recipe.config.augment}
    saved = None
    if folder and (folder / "data.json").exists():
        try:
            saved = workdir.read_data_info(folder)
        except InputError:
            log(f"{folder}: data.json or statistics.npz is damaged, and is recomputed from the data set")
    if saved and (change := changed_since(saved, split)):
        raise InputError(
            f"{folder}: {change}. A run resumes only with the data it started with; pass another --workdir"
        )
    if saved and _same_source(saved.source, identity) and recipe.statistics <= saved.statistics.keys():
        return _same_on_all_processes(dataclasses.replace(saved, source=identity), recipe)
    statistics = source.statistics(recipe.statistics)
    height, width, channels = source.shape
    data = DataInfo(
        tuple(split.classes), (height, width, channels), statistics, source=identity, bit_depth=split.bit_depth
    )
    return _same_on_all_processes(data, recipe)


def _same_source(saved: Mapping[str, Any], identity: Mapping[str, Any]) -> bool:
    """Returns whether two `DataInfo.source` are equal, but for the digests: these were compared by `changed_since`.

    Data sets and runs of earlier versions have none.
    """
    return {**saved, "digests": None} == {**identity, "digests": None}


def _same_on_all_processes(data: DataInfo, recipe: Recipe) -> DataInfo:
    """Replaces the statistics that `recipe` asks for by those of process 0.

    They are computed in floating point, and may differ in the last bits between processes.
    """
    if jax.process_count() == 1 or not recipe.statistics:
        return data
    own: dict[str, Any] = {name: np.float32(data.statistics[name]) for name in sorted(recipe.statistics)}
    shared = multihost_utils.broadcast_one_to_all(own)
    return dataclasses.replace(data, statistics={**data.statistics, **shared})
