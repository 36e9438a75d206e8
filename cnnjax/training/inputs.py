"""The input of a training: its splits, the source of its batches, the data statistics and the operations on images."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from cnnjax import augment
from cnnjax.config import Config
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.data.info import DataInfo
from cnnjax.errors import InputError
from cnnjax.runs import workdir
from cnnjax.training.recipe import Recipe


@dataclasses.dataclass(frozen=True)
class Splits:
    """The splits of a run. `val` and `test` are None where the config has none."""

    train: Split
    val: Split | None
    test: Split | None


@dataclasses.dataclass(frozen=True)
class InputFunctions:
    """The part of the input pipeline that runs in the training step."""

    prepare: Callable[..., jax.Array]  # (key, images uint8 [N, H, W, C], example, epoch) -> float32 [N, H, W, C]
    mix: Callable[..., tuple[jax.Array, jax.Array]]  # (key, inputs, labels) -> inputs, targets float32 [N, K]


def load_splits(config: Config, data_dir: str) -> Splits:
    """Opens the splits of a config. Raises InputError for a data set or a split that does not exist."""
    train, val = folds.resolve_splits(config, data_dir)
    opened = {name: load(config.dataset, name, data_dir) for name in (train, val, config.test_split) if name}
    return Splits(opened[train], opened.get(val), opened.get(config.test_split))


def open_train_source(recipe: Recipe, splits: Splits, mesh: Mesh) -> pipeline.Source:
    """Opens the training split for batches. One that is kept in device memory is read in the background."""
    cache, seed = recipe.config.cache, recipe.config.seed
    return pipeline.open_source(splits.train, recipe.operations.host, cache=cache, seed=seed, mesh=mesh)


def input_functions(recipe: Recipe, data: DataInfo) -> InputFunctions:
    """Builds the operations of a recipe for images and classes of `data`. Raises InputError where they do not fit."""
    prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, data.shape)
    return InputFunctions(prepare, augment.build_mixing(recipe.operations.mixing, len(data.classes)))


def data_info(recipe: Recipe, split: Split, source: pipeline.Source, folder: pathlib.Path | None) -> DataInfo:
    """Describes the training split, from the folder's data.json where that is of the same data, or anew."""
    identity = {**split.identity, "augment": recipe.config.augment}
    if folder:
        with contextlib.suppress(InputError, KeyError, TypeError):
            saved = workdir.read_data_info(folder)
            if saved.source == identity and recipe.statistics <= saved.statistics.keys():
                return _same_on_all_processes(saved, recipe)
    statistics = source.statistics(recipe.statistics)
    height, width, channels = source.shape
    data = DataInfo(tuple(split.classes), (height, width, channels), statistics, source=identity)
    return _same_on_all_processes(data, recipe)


def _same_on_all_processes(data: DataInfo, recipe: Recipe) -> DataInfo:
    """Replaces the statistics that are computed in floating point by those of process 0."""
    if jax.process_count() == 1 or not recipe.statistics:
        return data
    own: dict[str, Any] = {name: np.float32(data.statistics[name]) for name in sorted(recipe.statistics)}
    shared = multihost_utils.broadcast_one_to_all(own)
    return dataclasses.replace(data, statistics={**data.statistics, **shared})
