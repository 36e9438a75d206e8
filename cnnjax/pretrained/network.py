"""A trained network with the config and data description that it needs, wherever its weights come from."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
from jax.sharding import Mesh

from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.pretrained.library import Arrays
from cnnjax.state import Tree

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
      load_variables: (mesh, step, log) -> the variables, where step is 'last', 'best' or a number such as 500.
      absent: paths of the arrays that `load_variables` does not return, as in 'params/head/kernel'. Only a weight file
        that initializes a training may lack arrays.
    """

    config: Config
    data: DataInfo
    model: nn.Module
    load_variables: Callable[[Mesh, str | int, Log], Restored]
    absent: frozenset[str] = frozenset()

    def replace(self, **changes: Any) -> "LoadedNetwork":
        """Returns a copy with these fields replaced."""
        return dataclasses.replace(self, **changes)


def no_variables(mesh: Mesh, step: str | int, log: Log) -> Restored:
    """Stands for `load_variables` of a LoadedNetwork whose weights are not read yet. Raises AssertionError."""
    raise AssertionError("the variables are set once the file is read")


def put_variables(arrays: Arrays, mesh: Mesh, step: str | int) -> Restored:
    """Converts arrays by path to a tree of variables on the mesh. Raises InputError unless `step` is 'last'."""
    if step != "last":
        raise InputError(f"step {step!r}: only a run has checkpoints to choose from; leave it out")
    tree = flax.traverse_util.unflatten_dict({tuple(path.split("/")): array for path, array in arrays.items()})
    shardings = sharding.state_sharding(tree, mesh)
    put = lambda x, place: jax.make_array_from_callback(x.shape, place, x.__getitem__)  # noqa: E731
    return Restored(0, jax.tree.map(put, tree, shardings))
