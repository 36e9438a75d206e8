"""Networks to export, and what they compute."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, pretrained
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.models import create_model
from tests.models import zoo


def network(
    model: str, shape: tuple[int, ...], zeros: bool = False, drawn: bool = False, **changes: Any
) -> pretrained.LoadedNetwork:
    """A network as training starts with it, with `zeros`, or `drawn` at random by `zoo.drawn`."""
    config = Config(**{"model": model, "normalize": "symmetric", **changes})
    statistics = {"mean": [0.5] * shape[-1], "std": [0.3] * shape[-1]}
    data = DataInfo(tuple("abcdefghij"), (shape[0], shape[1], shape[2]), statistics)
    made = create_model(model, 10, config.dtype)
    init = functools.partial(made.init, jax.random.key(0, impl="rbg"), train=False)
    image = jnp.zeros((1, *shape))
    if drawn:
        variables: Any = zoo.drawn(model, shape)[1]
    elif zeros:
        variables = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), jax.eval_shape(init, image))
    else:
        variables = jax.jit(init)(image)
    return pretrained.LoadedNetwork(config, data, made, lambda mesh, step, log: pretrained.Restored(7, variables))


def logits(trained: pretrained.LoadedNetwork, images: np.ndarray) -> jax.Array:
    """The logits as in an evaluation on this machine."""
    prepare = augment.build([], trained.config.normalize, trained.data.statistics, images.shape[1:])
    variables = trained.load_variables(sharding.make_mesh(jax.devices()[:1]), "last", print).variables

    @jax.jit
    def compute(images: jax.Array) -> jax.Array:
        out: Any = trained.model.apply(variables, prepare(jax.random.key(0), images), train=False)
        return out.mean(axis=tuple(range(1, out.ndim - 1)))

    return compute(images)


def images_of(count: int, shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, *shape), np.uint8)
