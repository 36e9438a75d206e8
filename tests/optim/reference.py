"""Parameters, gradients and a runner that the tests of update rules share."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import optim
from cnnjax.config import Config

PARAMS = {"conv": {"kernel": [[1.0, -2.0], [0.5, 3.0]], "bias": [0.3, -0.7]}, "norm": {"scale": [1.5, 0.25]}}
LR = 0.1


def params() -> Any:
    """Returns PARAMS as arrays."""
    return jax.tree.map(lambda x: jnp.array(x, jnp.float32), PARAMS, is_leaf=lambda x: isinstance(x, list))


def apply(p: Any, updates: Any) -> Any:
    """Returns the parameters after an update."""
    return optax.apply_updates(p, updates)


def gradient(step: int, name: str, p: np.ndarray) -> np.ndarray:
    """Returns a gradient that depends on the step, the name and the value of the parameter `p`."""
    return (np.sin(step + len(name)) + 0.5 * p).astype(np.float32)


def run(config: Config, steps: int = 5) -> dict[str, np.ndarray]:
    """Returns the parameters by name after some steps of a config's update rule, on `gradient`."""
    p = params()
    tx = optim.build(optim.parse(config), p, optim.build_schedule(optim.parse(config), epoch=1, total=10))
    state = tx.init(p)
    for step in range(steps):
        grads = jax.tree_util.tree_map_with_path(
            lambda path, x, step=step: jnp.array(gradient(step, path[-1].key, np.asarray(x))), p
        )
        updates, state = tx.update(grads, state, p)
        p = apply(p, updates)
    return {"kernel": p["conv"]["kernel"], "bias": p["conv"]["bias"], "scale": p["norm"]["scale"]}
