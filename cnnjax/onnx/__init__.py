"""ONNX files: a network's inference function as a graph, and the graph as a file, without the onnx library."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from cnnjax.onnx.convert import to_graph
from cnnjax.onnx.file import serialize
from cnnjax.onnx.graph import Graph
from cnnjax.onnx.simplify import simplify

__all__ = ["Graph", "network_graph", "serialize"]


def network_graph(logits: Callable[[jax.Array], jax.Array], shape: Sequence[int], dtype: Any) -> Graph:
    """Converts a function images [b, *shape] -> logits [b, classes] to a graph of few operations, for any b.

    Its input is 'images', in the order of axes and the `dtype` of JAX's; its outputs are 'logits' and 'probabilities',
    the softmax of them. What does not depend on the images, such as the scale of a batch normalization, is computed,
    and becomes part of the convolutions before it. Raises InputError, which names the primitive and the layer, if an
    operation has no counterpart.
    """
    return simplify(to_graph(logits, shape, dtype))
