"""Filters: the kernels of a convolution as images, their norms, and which of them are dead."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from cnnjax import style
from cnnjax.colors import INK, MUTED, WRONG, signed
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.pretrained.library import list_layers
from cnnjax.visualize.names import layer_shapes

DEAD_NORM = 0.01  # a filter is dead by its norm below this fraction of the median norm
SCALES = ("all", "each")
MAX_FILTERS = 128  # drawn of the first layer
MAX_ROWS, SLICES = 6, 10  # drawn of a deeper layer: output channels, and input channels of each
MAX_SLICES = 96  # drawn of a single output channel
MAX_GROUPS = 4  # with more, as in a depthwise convolution, a group is no part of the network of its own


@dataclasses.dataclass(frozen=True)
class Filters:
    """The filters of a convolution.

    Attributes:
      layer: path of the convolution, as in 'conv1' or 'stage1_block1/conv1'.
      kernels: float32 [height, width, inputs per group, outputs].
      norms: float32 [outputs], the Euclidean norm of each.
      dead_by_norm: bool [outputs]: the norm is below 1% of the median.
      dead_by_activation: bool [outputs]: the activation is the same at every position of all images; None without any.
      images: how many images that was.
      next_groups: number of groups in which the next convolution reads the outputs; 1 if it is not grouped.
      next_layer: its path; '' if there is none.
      channel: the only output channel to draw; None for all.
      scale: 'all' filters are drawn on one scale, or 'each' on its own.
      limit: the largest absolute weight that is drawn.
    """

    layer: str
    kernels: np.ndarray
    norms: np.ndarray
    dead_by_norm: np.ndarray
    dead_by_activation: np.ndarray | None
    images: int
    next_groups: int
    next_layer: str
    channel: int | None
    scale: str
    limit: float

    @property
    def note(self) -> str:
        """Returns the number and size of the filters, their norms, and how many are dead by which measure."""
        height, width, inputs, count = self.kernels.shape
        low, middle, high = np.percentile(self.norms, (0, 50, 100))
        texts = [
            f"{self.layer}: {count} filters of {height}x{width}x{inputs}",
            f"norms {low:.3g} to {high:.3g}, median {middle:.3g}",
            f"{self.dead_by_norm.sum()} dead by norm (below 1% of the median)",
        ]
        if self.dead_by_activation is not None:
            texts.append(f"{self.dead_by_activation.sum()} dead by activation (constant on {self.images:,} images)")
        return "; ".join(texts)

    @property
    def dead(self) -> np.ndarray:
        """Returns bool [outputs]: dead by norm or by activation."""
        return self.dead_by_norm | (False if self.dead_by_activation is None else self.dead_by_activation)

    def figure(self, limit: float | None = None) -> Any:
        """Draws filters of 1 or 3 input channels as images, others as one slice per input channel.

        `limit` replaces the largest weight of the scale, for several figures of one scale.
        """
        inputs = self.kernels.shape[2]
        limit = limit or self.limit
        if self.channel is not None:
            return self._one_channel(self.channel, limit)
        return self._images(limit) if inputs in (1, 3) else self._slices(limit)

    def _images(self, limit: float) -> Any:
        """Draws each filter as an image: in color, or by sign if it has one input channel; a block for each group."""
        count = min(self.kernels.shape[3], MAX_FILTERS)
        columns = min(16, style_columns(count, self.next_groups))
        images: list[np.ndarray | None] = []
        captions, colors, rows = [], [], []
        for group, members in enumerate(np.array_split(np.arange(count), self.next_groups)):
            padding = -len(images) % columns
            images, captions, colors = images + [None] * padding, captions + [""] * padding, colors + [INK] * padding
            rows += [""] * (len(images) // columns - len(rows))
            rows += [f"group {group + 1} of {self.next_layer}" if self.next_groups > 1 else ""]
            images += [signed(self.kernels[..., k], self._limit(k, limit)) for k in members]
            captions += [str(k) for k in members]
            colors += [WRONG if self.dead[k] else MUTED for k in members]
        shown = f", the first {count} of {self.kernels.shape[3]}" if count < self.kernels.shape[3] else ""
        return style.sheet(
            images, captions, columns=columns, caption_colors=colors, cell=1.2 if count <= 12 else 0.75,
            row_titles=rows if any(rows) else [], title=f"Filters of {self.layer}{shown}", note=self._legend(),
        )  # fmt: skip

    def _slices(self, limit: float) -> Any:
        """Draws a row for each of the output channels with the largest norms: its strongest slices."""
        outputs = np.argsort(-self.norms, kind="stable")[:MAX_ROWS]
        images, captions = [], []
        for k in outputs:
            slices = self._strongest_slices(k, SLICES)
            images += [signed(self.kernels[:, :, i, k], self._limit(k, limit)) for i in slices]
            captions += [str(i) for i in slices]
        columns = min(SLICES, self.kernels.shape[2])
        rows = [f"channel {k}{' (dead)' * bool(self.dead[k])}" for k in outputs]
        return style.sheet(
            images, captions, columns=columns, row_titles=rows, cell=0.7, note=self._legend(),
            title=f"Filters of {self.layer}: the strongest channels, each with its strongest input channels",
        )  # fmt: skip

    def _one_channel(self, channel: int, limit: float) -> Any:
        """Draws the slices of one output channel, for all of its input channels or the strongest."""
        if self.kernels.shape[2] == 3:
            images, captions = [signed(self.kernels[..., channel], self._limit(channel, limit))], [str(channel)]
        else:
            slices = self._strongest_slices(channel, MAX_SLICES)
            images = [signed(self.kernels[:, :, i, channel], self._limit(channel, limit)) for i in slices]
            captions = [str(i) for i in slices]
        return style.sheet(
            images, captions, cell=0.7, note=self._legend(),
            title=f"Filter {channel} of {self.layer}, norm {self.norms[channel]:.3g}: strongest input channels first",
        )  # fmt: skip

    def _strongest_slices(self, channel: int, count: int) -> np.ndarray:
        """Returns the input channels of an output channel with the largest norms, the largest first."""
        norms = np.linalg.norm(self.kernels[..., channel], axis=(0, 1))
        return np.argsort(-norms, kind="stable")[:count]

    def _limit(self, channel: int, limit: float) -> float:
        """Returns the weight at which the colors of a filter saturate."""
        return limit if self.scale == "all" else float(np.abs(self.kernels[..., channel]).max()) or 1.0

    def _legend(self) -> str:
        """Returns the note, and what the colors mean."""
        zero = "mid-gray is 0" if self.kernels.shape[2] == 3 else "blue is negative, orange positive"
        scale = "one scale for all" if self.scale == "all" else "each by its own scale"
        return f"{self.note}. {zero.capitalize()}, {scale}."


def style_columns(count: int, groups: int) -> int:
    """Returns how many of `count` filters are in a row, so that each group has whole rows and is wide on a slide."""
    size = -(-count // groups)
    wide = [columns for columns in range(8, 17) if size % columns == 0]
    return max(wide) if wide else min(12, size)


def convolutions(net: TrainedNetwork) -> dict[str, tuple[int, ...]]:
    """Returns {path: shape of the kernel [height, width, inputs per group, outputs]} of each convolution, in order."""
    found = {}
    for layer in list_layers(net.model, net.data.shape):
        shape = layer.arrays.get(f"params/{layer.path}/kernel", ())
        if len(shape) == 4:
            found[layer.path] = shape
    return found


def find_convolution(net: TrainedNetwork, layer: str = "") -> str:
    """Returns the path of a convolution: `layer` itself, or the only convolution inside; the first for ''.

    So 'conv1' finds 'conv1/conv'. Raises InputError, which gives the nearest paths, if there is none or several.
    """
    paths = list(convolutions(net))
    if not paths:
        raise InputError(f"{net.config.model!r} has no convolution, and so no filters")
    inside = [path for path in paths if path == layer or path.startswith(f"{layer}/")]
    if not layer or layer in paths:
        return layer or paths[0]
    if len(inside) != 1:
        raise unknown(f"convolution of {net.config.model!r}:", layer, inside or paths)
    return inside[0]


def kernel_of(net: TrainedNetwork, path: str) -> np.ndarray:
    """Returns the kernel of the convolution at `path`, float32 [height, width, inputs per group, outputs]."""
    node: Any = net.variables["params"]
    for name in path.split("/"):
        node = node[name]
    return np.asarray(node["kernel"], np.float32)


def filters(
    net: TrainedNetwork,
    images: np.ndarray | Sequence[np.ndarray] = (),
    *,
    layer: str = "",
    channel: int | None = None,
    scale: str = "all",
) -> Filters:
    """Returns the filters of a convolution, as in figure 3 of Krizhevsky et al. (NIPS 2012) for the first.

    Args:
      net: the network.
      images: uint8 [N, H, W, C] or a list of [H, W, C], used to find dead filters; without images, only norms are used.
      layer: path of the convolution, as `cnnjax summary` lists it; '' for the first.
      channel: draws this output channel alone; None draws all.
      scale: 'all' draws the filters on one scale, 'each' every filter on its own.

    Raises InputError for an unknown convolution, channel or scale, and for images if the network has no feature maps of
    the convolution.
    """
    if scale not in SCALES:
        raise unknown("scale of the filters", scale, SCALES)
    path = find_convolution(net, layer)
    kernels = kernel_of(net, path)
    count = kernels.shape[3]
    if channel is not None and not 0 <= channel < count:
        raise InputError(f"channel {channel} of {path!r}: expected 0 to {count - 1}")
    norms = np.linalg.norm(kernels.reshape(-1, count), axis=0)
    shapes = convolutions(net)
    following = list(shapes)[list(shapes).index(path) + 1 :][:1]
    groups, rest = divmod(count, shapes[following[0]][2]) if following else (1, 0)
    is_split = following and not rest and 1 < groups <= MAX_GROUPS
    return Filters(
        layer=path,
        kernels=kernels,
        norms=norms,
        dead_by_norm=norms <= DEAD_NORM * np.median(norms),
        dead_by_activation=_constant_channels(net, images, path, count) if len(images) else None,
        images=len(images),
        next_groups=groups if is_split else 1,
        next_layer=following[0] if following else "",
        channel=channel,
        scale=scale,
        limit=float(np.abs(kernels).max()) or 1.0,
    )


def _constant_channels(
    net: TrainedNetwork, images: np.ndarray | Sequence[np.ndarray], path: str, count: int
) -> np.ndarray:
    """Returns bool [count]: whether a channel of a convolution, after its activation, is constant on all images."""
    name = path.removesuffix("/conv")
    if layer_shapes(net).get(name, ())[-1:] != (count,):
        raise InputError(f"{net.config.model!r} has no feature maps of {path!r}: give no images, or another layer")
    maps: Any = net.features(images, name)
    maps = maps.reshape(-1, count)
    return maps.max(axis=0) == maps.min(axis=0)
