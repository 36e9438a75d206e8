"""The state of a training run: a pytree of arrays."""

from typing import Any

import flax.struct
import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

Tree = Any


def path_name(path: tuple) -> str:
    """Converts a jax.tree_util key path of a leaf to a string such as 'stage1_block2/conv1/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def merge_trees(tree: Tree, other: Tree) -> Tree:
    """Returns a copy of the nested dictionary `tree`, updated at every leaf path that `other` has.

    Paths that only `other` has are added.
    """
    return unflatten_dict(flatten_dict(tree) | flatten_dict(other))


def eval_variables(params: Tree, model_state: dict[str, Tree], ema: Tree) -> dict[str, Tree]:
    """Returns the Flax variables for evaluation: {"params": ..., **model_state}.

    Parameters that have an average in `ema` are replaced by it.
    """
    return {"params": merge_trees(params, ema), **model_state}


@flax.struct.dataclass
class TrainState:
    """The arrays that a training step updates and a checkpoint holds.

    Attributes:
      step: int32 [], training steps taken.
      params: all parameters, the frozen ones included.
      model_state: every other Flax collection, such as "batch_stats"; {} if the network has none.
      opt_state: optax state of the trained parameters.
      ema: averages of the trained parameters, which evaluation uses; {} if the config asks for none.
      monitors: state of each validation monitor by name; checkpoints call this item "watched".
    """

    step: jax.Array
    params: Tree
    model_state: dict[str, Tree]
    opt_state: Tree
    ema: Tree
    monitors: dict[str, Tree] = flax.struct.field(default_factory=dict)

    @property
    def variables(self) -> dict[str, Tree]:
        """Returns the Flax variables for evaluation, with averaged parameters where there are any."""
        return eval_variables(self.params, self.model_state, self.ema)


def check_finite(state: TrainState) -> None:
    """Raises FloatingPointError, with the path and step, if a parameter or running statistic is infinite or NaN.

    The arrays are on the host.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.model_state)):
        if not np.isfinite(leaf).all():
            raise FloatingPointError(f"{path_name(path[1:])} became infinite or NaN by step {int(state.step)}")
