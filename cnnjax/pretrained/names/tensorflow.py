"""TensorFlow's layouts, which Keras and TF-Slim share: kernels are [height, width, in, out], as ours.

A layer's name may end in a kernel's, as in 'conv:depthwise_weights': a separable convolution there is two layers here.
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from cnnjax.pretrained.library import Layer, Shape


def tensorflow_layout(
    kernel: str, bias: str, fc_as_conv: str, depthwise: str, multipliers: Mapping[str, int] = MappingProxyType({})
) -> dict[str, Any]:
    """Returns the fields of a `Library` for TensorFlow's layouts.

    Args:
      kernel: name of a kernel there, unless the layer's name has one.
      bias: name of a bias there.
      fc_as_conv: pattern on their layer names that are convolutions there and fully connected here.
      depthwise: pattern on their depthwise convolutions, whose kernels are [height, width, channels, multiplier].
      multipliers: the multiplier by their layer name, where it is not 1.
    """
    statistics = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}

    def array_name(layer: Layer, name: str, leaf: str) -> str:
        name, _, own_kernel = name.partition(":")
        if any(path.startswith("batch_stats/") for path in layer.arrays):
            return f"{name}/{statistics[leaf]}"
        return f"{name}/{own_kernel or kernel if leaf == 'kernel' else bias}"

    def export_layout(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        if array.ndim == 4 and re.search(depthwise, name):
            return array.reshape(*array.shape[:2], -1, multipliers.get(name, 1))
        if array.ndim == 2 and re.search(fc_as_conv, name):
            return array.reshape(*layer.fc_input, -1)
        return array

    def import_layout(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        return array.reshape(shape)

    return {"array_name": array_name, "export_layout": export_layout, "import_layout": import_layout}
