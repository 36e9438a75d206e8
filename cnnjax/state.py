"""The state of a training run: arrays, and nothing but arrays."""

from typing import Any

import flax.struct
import jax

Tree = Any


@flax.struct.dataclass
class TrainState:
    """What a step reads and writes, and what a checkpoint holds."""

    step: jax.Array  # int32: steps taken
    params: Tree
    model_state: dict[str, Tree]  # every other Flax collection, such as batch_stats; {} for a net that has none
    opt_state: Tree
    ema: Tree  # moving average of the parameters; {} when the config asks for none

    @property
    def variables(self) -> dict[str, Tree]:
        """What the network is evaluated with: the averaged parameters where there are any."""
        return {"params": self.ema or self.params, **self.model_state}
