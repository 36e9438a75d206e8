"""Trained networks for the tests of pictures: of the zoo, with random variables, as `cnnjax.load` returns them."""

import functools

import numpy as np

from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.evaluation.trained import TrainedNetwork
from tests.models import zoo

CLASSES = tuple("abcdefghij")


@functools.cache
def trained(model: str) -> TrainedNetwork:
    """Returns a network of the zoo with random variables, for images of the smallest size that it takes."""
    module, variables = zoo.made(model)
    shape = zoo.smallest(model)
    data = DataInfo(CLASSES, shape, {"mean": np.full(shape[2], 0.5), "std": np.full(shape[2], 0.25)})
    return TrainedNetwork(Config(model=model, eval_batch_size=8, cache="host"), data, module, variables, 0)


def images(net: TrainedNetwork, count: int = 2, seed: int = 0) -> np.ndarray:
    """Returns random images, uint8 [count, H, W, C], of the size that a network takes."""
    return np.random.default_rng(seed).integers(0, 256, (count, *net.data.shape)).astype(np.uint8)
