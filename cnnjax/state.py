"""The state of a training run: arrays, and nothing but arrays."""

from typing import Any

import flax.struct
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

Tree = Any


def path_name(path: tuple) -> str:
    """The path of a leaf, as jax.tree_util gives it, in words: 'stage1_block2/conv1/kernel'."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def overlaid(tree: Tree, other: Tree) -> Tree:
    """A tree of dictionaries with the leaves that `other` has at some of its paths in place of its own."""
    return unflatten_dict(flatten_dict(tree) | flatten_dict(other))


def variables_of(params: Tree, model_state: dict[str, Tree], ema: Tree) -> dict[str, Tree]:
    """What a network is evaluated with: the averaged parameters where there are any."""
    return {"params": overlaid(params, ema), **model_state}


@flax.struct.dataclass
class TrainState:
    """What a step reads and writes, and what a checkpoint holds."""

    step: jax.Array  # int32: steps taken
    params: Tree
    model_state: dict[str, Tree]  # every other Flax collection, such as batch_stats; {} for a net that has none
    opt_state: Tree
    ema: Tree  # the average, of the parameters that are trained, that is evaluated; {} when the config asks for none
    watched: dict[str, Tree] = flax.struct.field(
        default_factory=dict
    )  # what `optim.update_monitors` remembers of evaluations

    @property
    def variables(self) -> dict[str, Tree]:
        """What the network is evaluated with."""
        return variables_of(self.params, self.model_state, self.ema)
