"""Networks with random weights, as `pretrained.load` returns trained ones."""

from typing import Any

import jax
import jax.numpy as jnp

from cnnjax import pretrained
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.models import create_model


def random_network(model: str, data: DataInfo, kernel_scale: float = 1.0, **changes: Any) -> pretrained.LoadedNetwork:
    """Returns a network for the classes and image shape of `data`, with random weights and a config with `changes`.

    A `kernel_scale` above 1 makes the logits of two images differ more than at initialization.
    """
    config = Config(**{"model": model, "eval_batch_size": 16, "cache": "host", **changes})
    module = create_model(model, len(data.classes))
    variables = module.init(jax.random.key(3, impl="rbg"), jnp.zeros((1, *data.shape)), train=False)
    variables = jax.tree.map(lambda x: kernel_scale * x if x.ndim > 1 else x, variables)
    return pretrained.LoadedNetwork(config, data, module, lambda mesh, step, log: pretrained.Restored(0, variables))


def mesh_of(devices: int = 1) -> Any:
    return sharding.make_mesh(jax.devices()[:devices])
