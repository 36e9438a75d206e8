"""The state of a training run: a pytree of arrays."""

from typing import Any

import flax.struct
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

Tree = Any


def path_name(path: tuple) -> str:
    """Converts the path of a leaf, as jax.tree_util gives it, to a string: 'stage1_block2/conv1/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def merge_trees(tree: Tree, other: Tree) -> Tree:
    """Returns `tree`, nested dictionaries, with the leaves of `other` in place of its own at the same paths."""
    return unflatten_dict(flatten_dict(tree) | flatten_dict(other))


def eval_variables(params: Tree, model_state: dict[str, Tree], ema: Tree) -> dict[str, Tree]:
    """Returns the Flax variables to evaluate with: parameters that have an average are replaced by it."""
    return {"params": merge_trees(params, ema), **model_state}


@flax.struct.dataclass
class TrainState:
    """The arrays that a training step updates and a checkpoint holds."""

    step: jax.Array  # int32: training steps taken
    params: Tree
    model_state: dict[str, Tree]  # every other Flax collection, such as batch_stats; {} for a network without
    opt_state: Tree
    ema: Tree  # averages of the trainable parameters, used in evaluation; {} when the config asks for none
    monitors: dict[str, Tree] = flax.struct.field(default_factory=dict)  # MonitorState by name; "watched" on disk

    @property
    def variables(self) -> dict[str, Tree]:
        """The Flax variables to evaluate with."""
        return eval_variables(self.params, self.model_state, self.ema)
