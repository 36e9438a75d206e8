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
    """Returns keyword arguments of a `Library` for TensorFlow's array names and layouts.

    Args:
      kernel: TensorFlow's name of a kernel, unless the layer's name ends in one, as in 'conv:depthwise_weights'.
      bias: TensorFlow's name of a bias.
      fc_as_conv: pattern on TensorFlow's layer names; a fully connected layer of ours is a convolution there if it
        matches.
      depthwise: pattern on the names of depthwise convolutions, whose kernels are [height, width, channels,
        multiplier].
      multipliers: channel multipliers by TensorFlow's layer name; 1 for the others.
    """
    statistics = {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "var": "moving_variance"}

    def array_name(layer: Layer, name: str, leaf: str) -> str:
        """Returns TensorFlow's name of our array `leaf`; see `Library.array_name`."""
        name, _, own_kernel = name.partition(":")
        if any(path.startswith("batch_stats/") for path in layer.arrays):
            return f"{name}/{statistics[leaf]}"
        return f"{name}/{own_kernel or kernel if leaf == 'kernel' else bias}"

    def export_layout(array: np.ndarray, layer: Layer, name: str) -> np.ndarray:
        """Converts our array to TensorFlow's layout; see `Library.export_layout`."""
        if array.ndim == 4 and re.search(depthwise, name):
            return array.reshape(*array.shape[:2], -1, multipliers.get(name, 1))
        if array.ndim == 2 and re.search(fc_as_conv, name):
            return array.reshape(*layer.fc_input, -1)
        return array

    def import_layout(array: np.ndarray, layer: Layer, shape: Shape) -> np.ndarray:
        """Converts TensorFlow's array to our layout; see `Library.import_layout`."""
        return array.reshape(shape)

    return {"array_name": array_name, "export_layout": export_layout, "import_layout": import_layout}
