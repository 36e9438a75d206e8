"""Feature maps of an image: the channels of a layer as a sheet, or the strongest channels of every layer."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax import style
from cnnjax.colors import heat, signed
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize.names import check_channel, check_layer, layer_shapes

ORDERS = ("activation", "index")
CHANNELS_OF_A_LAYER = 64  # drawn on its own sheet
CHANNELS_OF_EACH = 10  # drawn where all layers are
CLIPPED = 99.8  # percentile of the absolute activations at which colors saturate


@dataclasses.dataclass(frozen=True)
class FeatureMaps:
    """The activations of an image in one layer or several, as far as they are drawn.

    Attributes:
      image: the image, uint8 [H, W, C], before preprocessing.
      maps: {layer: activations float32 [height, width, K]}, in the order of execution.
      channels: {layer: index int [K] of each of its maps}.
      zeros: {layer: number of its channels, drawn or not, that are 0 everywhere}.
      totals: {layer: number of its channels}.
      limit: {layer: absolute activation at which its colors saturate}.
      order: 'activation', the largest mean absolute activation first, or 'index'.
    """

    image: np.ndarray
    maps: Mapping[str, np.ndarray]
    channels: Mapping[str, np.ndarray]
    zeros: Mapping[str, int]
    totals: Mapping[str, int]
    limit: Mapping[str, float]
    order: str

    @property
    def note(self) -> str:
        """Returns the sizes of the layers, and how many channels are 0 everywhere."""
        texts = []
        for layer, maps in self.maps.items():
            height, width, shown = maps.shape
            count = self.totals[layer]
            of = f"{count} channels" if shown == count else f"{shown} of {count} channels"
            texts.append(f"{layer}: {of}, {height}x{width}, {self.zeros[layer]} zero everywhere")
        if len(texts) == 1:
            return texts[0]
        dead, total = sum(self.zeros.values()), sum(self.totals.values())
        return (
            f"{len(texts)} layers, {texts[0].partition(':')[0]} to {texts[-1].partition(':')[0]}; "
            f"{dead:,} of {total:,} channels are zero everywhere"
        )

    def figure(self, limit: Mapping[str, float] | None = None) -> Any:
        """Draws a sheet of a single layer, or a row of maps for each of several layers.

        `limit` replaces the result's own, for several figures on one scale.
        """
        single = len(self.maps) == 1
        columns = min(max(map(len, self.channels.values())) + single, 8 if single else CHANNELS_OF_EACH)
        images: list[np.ndarray | None] = [self.image]
        captions, rows = ["image" if single else ""], ["" if single else "image"]
        for layer, maps in self.maps.items():
            if not single:
                padding = -len(images) % columns
                images, captions = images + [None] * padding, captions + [""] * padding
                rows.append(f"{layer}\n{maps.shape[0]}x{maps.shape[1]}")
            images += colored(maps, (limit or self.limit)[layer])
            captions += map(str, self.channels[layer])
        order = "strongest first" if self.order == "activation" else "in order"
        return style.sheet(
            images, captions, columns=columns, row_titles=[] if single else rows, cell=0.9,
            note=self.note if single else f"{self.note}. Each layer has its own scale of colors.",
            title=f"Feature maps{f' of {next(iter(self.maps))}' * single}: channels by number, {order}",
        )  # fmt: skip


def colored(maps: np.ndarray, limit: float) -> list[np.ndarray]:
    """Colors maps [height, width, K] from 0, white, to `limit`, or around 0, gray, if there are negative values."""
    color = signed if (maps < 0).any() else heat
    return [color(maps[:, :, i], limit) for i in range(maps.shape[-1])]


def maps(
    net: TrainedNetwork,
    image: np.ndarray,
    *,
    layer: str = "",
    channel: int | None = None,
    order: str = "activation",
    count: int = 0,
) -> FeatureMaps:
    """Returns the feature maps of an image, uint8 [H, W, C], preprocessed as in evaluation.

    Args:
      net: the network.
      image: an image of any size.
      layer: a layer of `net.features`; '' for all layers that have feature maps.
      channel: the only channel of `layer` to return; None for several.
      order: 'activation' sorts the channels by their mean absolute activation, the largest first; 'index' does not.
      count: the number of channels to return of a layer, the first in this order; 0 for 64 of one layer, or 10 of each.

    Raises InputError for an unknown layer, channel or order, a layer of a vector, and a channel without a layer.
    """
    if order not in ORDERS:
        raise unknown("order of the channels", order, ORDERS)
    if count < 0:
        raise InputError(f"count = {count}: expected at least 1, or 0 for the default")
    if layer and len(shape := check_layer(net, layer)) != 3:
        raise InputError(f"layer {layer!r} has {shape[-1]} features and no maps; {_with_maps(net)}")
    if channel is not None:
        if not layer:
            raise InputError(f"channel {channel}: expected the name of its layer, too; {_with_maps(net)}")
        check_channel(net, layer, channel)
    features = net.features([image], layer)
    outputs = features if isinstance(features, dict) else {layer: features}
    names = [layer] if layer else [name for name, shape in layer_shapes(net).items() if len(shape) == 3]
    if not names:
        raise InputError(f"{net.config.model!r} has no feature maps: the outputs of its layers are vectors")
    shown, channels, zeros = {}, {}, {}
    for name in names:
        values = outputs[name][0]
        strength = np.abs(values).mean(axis=(0, 1))
        by = np.argsort(-strength, kind="stable") if order == "activation" else np.arange(len(strength))
        by = by if channel is None else np.array([channel])
        channels[name] = by[: count or (CHANNELS_OF_A_LAYER if layer else CHANNELS_OF_EACH)]
        shown[name] = values[:, :, channels[name]]
        zeros[name] = int((strength == 0).sum())
    totals = {name: outputs[name].shape[-1] for name in names}
    limit = {name: float(np.percentile(np.abs(maps), CLIPPED)) or 1.0 for name, maps in shown.items()}
    return FeatureMaps(image, shown, channels, zeros, totals, limit, order)


def _with_maps(net: TrainedNetwork) -> str:
    """Returns the end of a message: the layers that have feature maps."""
    names = [name for name, shape in layer_shapes(net).items() if len(shape) == 3]
    return f"layers with maps: {', '.join(names) or 'none'}"
