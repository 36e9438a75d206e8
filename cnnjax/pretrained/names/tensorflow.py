"""Layouts of TensorFlow, which Keras and TF-Slim share: kernels are [height, width, inputs, outputs], as ours.

A layer's name may end in its kernel's, as 'conv:depthwise_weights': two layers of ours can be one of theirs.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cnnjax.pretrained.library import Layer, Shape


def tensorflow_layout(
    kernel: str, bias: str, convs: str, depthwise: str, multipliers: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """`Library`'s fields for TensorFlow's layouts, with the names there of kernels and their biases.

    `convs` is a pattern of their layers that are convolutions where ours are full connections, and `depthwise` one of
    those of each map by itself: [height, width, maps, multiplier], which is 1 but for the layers in `multipliers`.
    """
    statistics = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}

    def array(layer: Layer, name: str, leaf: str) -> str:
        name, _, own = name.partition(":")
        if any(path.startswith("batch_stats/") for path in layer.arrays):
            return f"{name}/{statistics[leaf]}"
        return f"{name}/{own or kernel if leaf == 'kernel' else bias}"

    def theirs(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        if array.ndim == 4 and re.search(depthwise, name):
            return array.reshape(*array.shape[:2], -1, multipliers.get(name, 1))
        if array.ndim == 2 and re.search(convs, name):
            return array.reshape(*layer.window, -1)
        return array

    def ours(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        return array.reshape(shape)

    return {"array": array, "to_theirs": theirs, "to_ours": ours}
