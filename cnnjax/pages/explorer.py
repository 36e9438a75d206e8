"""A network as one HTML file: it classifies an image in the browser, and each layer can be looked into.

The file holds the nodes of the network's ONNX graph as JSON, and its weights in base 64. `static/kernels.js` computes
them with plain loops, `static/explorer.js` shows what they give.
"""

import base64
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax.errors import InputError
from cnnjax.onnx import Graph
from cnnjax.pages import page
from cnnjax.summarize.receptive_field import ReceptiveField

MAX_BYTES = 100_000_000  # of the weights: a browser decodes them all before it shows anything


@dataclasses.dataclass(frozen=True)
class Explorer:
    """Holds what the page of a network shows.

    Attributes:
      model: call string of the network.
      params: number of its trainable parameters.
      graph: its ONNX graph, from uint8 images [b, H, W, C] to logits and probabilities.
      shape: (H, W, C); C is 1 or 3.
      classes: their names.
      before: operations that make an image of this shape from a photograph, as text; '' for none.
      resize: the shorter side of a photograph before its middle is cut out; 0 for that of the image.
    """

    model: str
    params: int
    graph: Graph
    shape: tuple[int, ...]
    classes: Sequence[str]
    before: str
    resize: int = 0

    def data(self) -> dict[str, Any]:
        """Returns what the script needs besides the weights, as JSON."""
        nodes = [
            {
                "op": node.op,
                "inputs": node.inputs,
                "outputs": node.outputs,
                "attributes": dict(node.attributes),
                "field": _seen(self.graph.tensors[node.output].field),
            }
            for node in self.graph.nodes
        ]
        arrays = _plain(self.graph.constants)
        ends = np.cumsum([0, *(array.nbytes for array in arrays.values())])
        constants = [
            {"name": name, "shape": array.shape, "type": array.dtype.name, "offset": int(offset)}
            for (name, array), offset in zip(arrays.items(), ends, strict=False)
        ]
        return {
            "nodes": nodes,
            "constants": constants,
            "shape": self.shape,
            "classes": list(self.classes),
            "resize": self.resize,
        }

    def weights(self) -> str:
        """Returns the bytes of all constants, one after the other, in base 64."""
        return base64.b64encode(b"".join(array.tobytes() for array in _plain(self.graph.constants).values())).decode()


def _seen(field: ReceptiveField | None) -> dict[str, Any] | None:
    """Returns which pixels unit i sees: jump * i + low to jump * i + high, by axis; None for the whole image."""
    if field is None or field.is_global:
        return None
    high = [start + size - 1 for start, size in zip(field.start, field.size, strict=True)]
    return {"jump": field.jump, "low": field.start, "high": high}


def _plain(constants: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Converts constants to float32, and integers and booleans to int32, little-endian."""
    limits = np.iinfo(np.int32)
    return {
        name: array.astype("<f4") if array.dtype.kind == "f" else np.clip(array, limits.min, limits.max).astype("<i4")
        for name, array in constants.items()
    }


def html(explorer: Explorer) -> str:
    """Returns the page of a network.

    Raises InputError for images of other than 1 or 3 channels, and for more weights than `MAX_BYTES`.
    """
    if explorer.shape[-1] not in (1, 3):
        raise InputError(f"a page shows images of 1 or 3 channels; this network takes {explorer.shape[-1]}")
    if (size := sum(array.nbytes for array in explorer.graph.constants.values())) > MAX_BYTES:
        raise InputError(f"the weights have {size:,} bytes: a page has {MAX_BYTES:,} at most; export to .onnx instead")
    return page.render("explorer.html", page=explorer)
