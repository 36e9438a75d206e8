"""The layers of a weight file, put together from its arrays: kernels with their biases, and normalizations."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from cnnjax.errors import InputError
from cnnjax.pretrained.finite import to_float32
from cnnjax.pretrained.library import Arrays, Layer, Shape

# Our names of the arrays of a layer by those of PyTorch and of Keras; a weight of one dimension is a scale or a slope.
_LEAVES = {
    "weight": "kernel", "running_mean": "mean", "running_var": "var",
    "gamma": "scale", "beta": "bias", "moving_mean": "mean", "moving_variance": "var", "alpha": "slope",
    "depthwise_kernel": "kernel", "pointwise_kernel": "kernel",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class FileLayer:
    """A layer of a weight file, or of our network, as the matching by order sees it.

    Attributes:
      name: name of the layer.
      kind: 'kernel', 'norm' for a normalization with statistics, or the names of its arrays.
      shape: shape of the kernel in our layout, [height, width, in, out] or [in, out], or else of its first array.
      arrays: arrays by our names: 'kernel', 'bias', 'scale', 'mean', 'var', 'slope'; {} for our network.
      names: names in the file by our names.
      channels_first: whether a fully connected layer flattens feature maps with channels first.
    """

    name: str
    kind: str
    shape: Shape
    arrays: Arrays = dataclasses.field(default_factory=dict)
    names: dict[str, str] = dataclasses.field(default_factory=dict)
    channels_first: bool = False

    @property
    def signature(self) -> tuple[str, Shape]:
        """Returns what two layers must have in common to be matched."""
        return self.kind, self.shape

    @property
    def group(self) -> str:
        """Returns the class of the layer, as a file may list layers by class."""
        return f"{self.kind}{len(self.shape)}" if self.kind == "kernel" else self.kind

    @classmethod
    def of(cls, layer: Layer) -> "FileLayer":
        """Returns a layer of our network, without arrays."""
        shapes = {path.rpartition("/")[2]: shape for path, shape in layer.arrays.items()}
        return cls(layer.path, *_kind(shapes))

    def like(self, ours: Sequence["FileLayer"]) -> "FileLayer":
        """Returns this layer with a kernel of another rank or layout, if that is what our network has in its place.

        A fully connected layer on a whole feature map is a convolution, and a depthwise kernel of Keras,
        [height, width, channels, multiplier], is one with one input channel.
        """
        shapes = {layer.shape for layer in ours if layer.kind == "kernel"}
        if self.kind != "kernel" or self.shape in shapes:
            return self
        inputs, outputs = math.prod(self.shape[:-1]), self.shape[-1]
        same = [shape for shape in shapes if (math.prod(shape[:-1]), shape[-1]) == (inputs, outputs)]
        ranks = [shape for shape in same if len(shape) != len(self.shape)]
        if len(ranks) == 1:
            return dataclasses.replace(self, shape=ranks[0])
        depthwise = (*self.shape[:2], 1, math.prod(self.shape[2:]))
        if len(self.shape) == 4 and not self.channels_first and depthwise in shapes:
            return dataclasses.replace(self, shape=depthwise)
        return self

    def converted(self, leaf: str, layer: Layer) -> np.ndarray:
        """Returns an array as float32 in our layout, for our `layer`."""
        array, shape = (
            to_float32(self.arrays[leaf]),
            next(shape for path, shape in layer.arrays.items() if path.endswith(f"/{leaf}")),
        )
        if leaf != "kernel" or not self.channels_first:
            return array.reshape(shape)
        if array.ndim == 4 and len(shape) == 4:
            return array.transpose(2, 3, 1, 0)
        if len(shape) == 4:  # a fully connected layer there
            height, width, channels = shape[:3]
        else:
            height, width, channels = layer.fc_input
        return array.reshape(-1, channels, height, width).transpose(2, 3, 1, 0).reshape(shape)


def list_file_layers(framework: str, arrays: Arrays) -> list[FileLayer]:
    """Lists the layers of a file in its order, from its arrays by name.

    Raises InputError for a framework whose files have no order, and for vectors of Caffe that are of no known layer.
    """
    if framework == "caffe":
        return _caffe_layers(arrays)
    if framework not in ("torch", "keras"):
        raise InputError("a TensorFlow checkpoint lists its arrays by name, so they have no order")
    separator, layers = "." if framework == "torch" else "/", {}
    for name, array in arrays.items():
        layer, _, leaf = name.rpartition(separator)
        layer = f"{layer}:{leaf}" if leaf in ("depthwise_kernel", "pointwise_kernel") else layer
        if leaf == "bias" and f"{layer}:pointwise_kernel" in layers:
            layer = f"{layer}:pointwise_kernel"
        layers.setdefault(layer, {})[_LEAVES.get(leaf, leaf)] = name, array
    return [_layer(name, found, framework == "torch") for name, found in layers.items()]


def _layer(name: str, found: dict[str, tuple[str, np.ndarray]], channels_first: bool) -> FileLayer:
    """Returns a layer of a file from its arrays: {our name: (name in the file, array)}."""
    if "kernel" in found and found["kernel"][1].ndim == 1:  # the weight of a normalization or a PReLU
        found["scale" if len(found) > 1 else "slope"] = found.pop("kernel")
    arrays = {leaf: array for leaf, (_, array) in found.items()}
    shapes = {leaf: array.shape for leaf, array in arrays.items()}
    if channels_first and "kernel" in shapes:
        o, i, *window = shapes["kernel"]
        shapes["kernel"] = (*window, i, o)
    return FileLayer(name, *_kind(shapes), arrays, {leaf: name for leaf, (name, _) in found.items()}, channels_first)


def _kind(shapes: dict[str, Shape]) -> tuple[str, Shape]:
    """Returns `FileLayer.kind` and `FileLayer.shape` of a layer with arrays of these shapes by our names."""
    for leaf, kind in (("kernel", "kernel"), ("mean", "norm")):
        if leaf in shapes:
            return kind, shapes[leaf]
    return ", ".join(sorted(shapes)), next(iter(shapes.values()))


def _caffe_layers(arrays: Arrays) -> list[FileLayer]:
    """Lists the layers of a .caffemodel: a BatchNorm and the Scale that follows it are one layer here."""
    blobs: dict[str, list[tuple[str, np.ndarray]]] = {}
    for name, array in arrays.items():
        blobs.setdefault(name.rpartition("/")[0], []).append((name, array))
    layers: list[FileLayer] = []
    norm: dict[str, tuple[str, np.ndarray]] = {}
    for layer, rows in [*blobs.items(), ("", [])]:
        is_vectors = bool(rows) and all(array.ndim == 1 for _, array in rows)
        if norm:  # the layer before was a BatchNorm
            if not is_vectors or rows[0][1].shape != norm["mean"][1].shape:
                raise InputError(f"{norm['mean'][0].rpartition('/')[0]!r}: no Scale layer follows this BatchNorm")
            both = norm | dict(zip(("scale", "bias"), rows, strict=False))
            layers.append(_layer(both["mean"][0].rpartition("/")[0], both, True))
            norm = {}
        elif is_vectors and len(rows) == 2:
            norm = dict(zip(("mean", "var"), rows, strict=True))
        elif is_vectors:
            layers.append(_layer(layer, {"slope": rows[0]}, True))
        elif rows:
            layers.append(_layer(layer, dict(zip(("kernel", "bias"), rows, strict=False)), True))
    return layers
