"""Receptive fields on an image: the pixels that a unit can see, and those that it does look at.

The theoretical field follows from the sizes and strides of the windows alone. The effective field is where the gradient
of the unit with respect to the image is large (Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive Field in
Deep Convolutional Neural Networks. NIPS 2016).
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import style
from cnnjax.colors import VERMILION, as_rgb, heat
from cnnjax.errors import InputError
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.state import Tree
from cnnjax.summarize import trace
from cnnjax.summarize.receptive_field import ReceptiveField
from cnnjax.visualize.activations import features_model, layer_function, normalization
from cnnjax.visualize.names import check_channel, check_layer, layer_shapes

HELD = 0.9545  # of a normal distribution, two standard deviations: the threshold of Luo et al., sec. 3
SHOWN_LAYERS = 6
TILE = 240  # pixels of a drawn image, at least
DIMMED = 0.25  # of the contrast of what a unit does not see


@dataclasses.dataclass(frozen=True)
class ReceptiveFields:
    """Shows what one unit of each of some layers sees of an image, in theory and in effect.

    The effective area is the smallest number of pixels that hold 95.45% of the energy. It needs no shape: a fitted
    normal distribution would, and the fields of strided and residual networks have lattices and peaks.

    Attributes:
      image: the first image, as the network sees it: uint8 [H, W, C].
      fields: {layer: its theoretical receptive field}, in the order of the network.
      positions: {layer: (row, column) of the unit}.
      energy: {layer: squared gradient of the unit with respect to each pixel, float32 [H, W]}. It is summed over
        colors, averaged over images, and its sum is 1, or 0 where no image has a gradient.
      count: number of images.
    """

    image: np.ndarray
    fields: Mapping[str, ReceptiveField]
    positions: Mapping[str, tuple[int, int]]
    energy: Mapping[str, np.ndarray]
    count: int

    def window(self, layer: str) -> tuple[slice, slice]:
        """Returns the rows and columns of the image that the unit sees, apart from means over all positions."""
        rows, columns = self.fields[layer].window(self.positions[layer], within=self.image.shape[:2])
        return slice(*rows), slice(*columns)

    def theoretical_area(self, layer: str) -> int:
        """Returns the number of pixels of the image in the window."""
        return int(np.ones(self.image.shape[:2], bool)[self.window(layer)].sum())

    def effective(self, layer: str) -> np.ndarray:
        """Returns which pixels hold 95.45% of the energy, the fewest that do: bool [H, W]."""
        energy = self.energy[layer].astype(np.float64)
        order = np.argsort(-energy, axis=None, kind="stable")
        sums = np.cumsum(energy.ravel()[order])
        count = int(np.searchsorted(sums, HELD * sums[-1])) + 1 if sums[-1] else 0
        chosen = np.zeros(energy.size, bool)
        chosen[order[:count]] = True
        return chosen.reshape(energy.shape)

    def share(self, layer: str) -> float:
        """Returns the effective area as a fraction of the theoretical one inside the image.

        It exceeds 1 only if means over all positions let the unit see beyond its window.
        """
        return float(self.effective(layer).sum()) / self.theoretical_area(layer)

    def outside(self, layer: str) -> float:
        """Returns the fraction of the energy outside of the window: 0 without means over all positions."""
        energy = self.energy[layer].astype(np.float64)
        return max(float(energy.sum() - energy[self.window(layer)].sum()), 0.0) if self.fields[layer].is_global else 0.0

    @property
    def note(self) -> str:
        """Returns the sizes of the fields of the last layer."""
        layer = list(self.fields)[-1]
        height, width = self.image.shape[:2]
        area, share = int(self.effective(layer).sum()), 100 * self.share(layer)
        beyond = f", {100 * self.outside(layer):.1f}% beyond the window" if self.fields[layer].is_global else ""
        return (
            f"{layer}, unit {self.positions[layer]}: theoretical {_described(self.fields[layer])}, of which the "
            f"{height}x{width} image holds {self.theoretical_area(layer):,}; 95.45% of the gradient's energy is in "
            f"{area:,} pixels, {share:.0f}% of these{beyond}; mean of {self.count} image{'s' * (self.count != 1)}"
        )

    def figure(self) -> Any:
        """Draws a column for each layer: the theoretical field on the image, and below it the effective one."""
        shown = list(self.fields)
        above = [_framed(_dimmed(self.image, self.window(layer)), self.window(layer)) for layer in shown]
        below = [_framed(heat(np.sqrt(self.energy[layer])), self.window(layer)) for layer in shown]
        captions = []
        for layer in shown:
            size, (rows, columns) = self.fields[layer].size, self.window(layer)
            inside = rows.stop - rows.start, columns.stop - columns.start
            cut = "" if inside == size else f"\n{inside[0]}x{inside[1]} in the image"
            captions.append(_described(self.fields[layer]).replace(" and", "\nand") + cut)
        for layer in shown:
            area = int(self.effective(layer).sum())
            captions.append(f"{area:,} px, {100 * self.share(layer):.0f}%" if area else "no gradient")
        kinds = ("theoretical", "effective, 95.45% of the energy")
        options: dict[str, Any] = {"columns": len(shown), "column_titles": shown, "row_titles": kinds}
        if len(shown) == 1:
            options = {"columns": 2, "column_titles": kinds}
        title = f"Receptive field of one unit{f' of {shown[0]}' * (len(shown) == 1)}"
        return style.sheet([*above, *below], captions, title=title, note=self.note, **options)


def _described(field: ReceptiveField) -> str:
    """Returns the size of a field in words."""
    size = f"{field.size[0]}x{field.size[1]} px"
    return f"{size} and whole image" if field.is_global else size


def _enlarged(image: np.ndarray) -> tuple[np.ndarray, int]:
    """Returns an image [H, W] or [H, W, C] as float32 [H, W, 3] of TILE pixels or more, and the factor."""
    factor = -(-TILE // max(image.shape[:2]))
    return as_rgb(image).repeat(factor, axis=0).repeat(factor, axis=1), factor


def _dimmed(image: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Returns an image, paler outside of the window."""
    pixels = as_rgb(image)
    pale = 1 - DIMMED * (1 - pixels)
    pale[window] = pixels[window]
    return pale


def _framed(image: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
    """Returns an enlarged image with a colored line around the window."""
    from matplotlib.colors import to_rgb

    tile, factor = _enlarged(image)
    tile, width = tile.copy(), max(factor // 4, 1, tile.shape[0] // 100)
    (top, bottom), (left, right) = ((side.start * factor, side.stop * factor) for side in window)
    inner = slice(top + width, bottom - width), slice(left + width, right - width)
    kept = tile[inner].copy()
    tile[top:bottom, left:right] = to_rgb(VERMILION)
    tile[inner] = kept
    return tile


# ------------------------------------------------------------------------------------------------------- computing them


def receptive_fields(
    net: TrainedNetwork,
    images: np.ndarray | Sequence[np.ndarray],
    *,
    layer: str = "",
    position: tuple[int, int] | None = None,
    channel: int | None = None,
) -> ReceptiveFields:
    """Returns the theoretical and the effective receptive field of a unit in one layer, or in several.

    Args:
      net: the network.
      images: uint8 [N, H, W, C] or a list of [H, W, C], over which the effective field is averaged.
      layer: a layer of `net.features`; '' for some with feature maps, from the first to the last.
      position: (row, column) of the unit in the layer's feature map; None for the middle one.
      channel: the unit's channel. None for all channels at this position: their gradients are added with random signs,
        so that on average their energies add up and none cancels another.

    Raises InputError for an unknown layer, and a position or channel that it does not have.
    """
    views = net.single_views(images)
    all_fields = trace.receptive_fields(features_model(net), views.shape[1:])
    with_maps = [name for name, shape in layer_shapes(net).items() if len(shape) == 3]
    if layer:
        check_layer(net, layer)
    elif position is not None or channel is not None:
        raise InputError("a position or channel belongs to a layer: pass the layer, too")
    chosen = [layer] if layer else _spread(with_maps or list(all_fields), SHOWN_LAYERS)
    if channel is not None:
        check_channel(net, layer, channel)
    positions, energy = {}, {}
    for name in chosen:
        inputs = jax.ShapeDtypeStruct(views.shape, jnp.float32)
        _, height, width, _ = jax.eval_shape(layer_function(net, name), net.variables, inputs).shape
        positions[name] = _checked_position(position, height, width, name)
        total = _energy(net, views, name, positions[name], channel)
        energy[name] = (total / (total.sum() or 1)).astype(np.float32)
    return ReceptiveFields(views[0], {name: all_fields[name] for name in chosen}, positions, energy, len(views))


def _energy(
    net: TrainedNetwork, views: np.ndarray, layer: str, position: tuple[int, int], channel: int | None
) -> np.ndarray:
    """Returns the energy of the gradients of units at `position`, float64 [H, W], summed over the views."""
    function, prepare = layer_function(net, layer), normalization(net, views.shape[1:])
    compute = jax.jit(functools.partial(_summed_energy, function, prepare, position, channel))
    size, total = min(net.config.eval_batch_size, len(views)), np.zeros(views.shape[1:3])
    for start in range(0, len(views), size):
        batch = views[start : start + size]
        padded = np.pad(batch, ((0, size - len(batch)), *[(0, 0)] * 3), mode="edge")  # of one shape, to compile once
        is_image = np.arange(size) < len(batch)
        total += np.asarray(compute(net.variables, padded, is_image, jax.random.key(start)))
    return total


def _summed_energy(
    function: Any, prepare: Any, position: tuple[int, int], channel: int | None,
    variables: Tree, views: jax.Array, is_image: jax.Array, key: jax.Array,
) -> jax.Array:  # fmt: skip
    """Returns the energy of the gradients of units at `position`, float32 [H, W], summed over views that are images."""
    row, column = position

    def unit(inputs: jax.Array) -> jax.Array:
        values = function(variables, inputs)[:, row, column]
        signs = jax.random.rademacher(key, values.shape, jnp.float32)
        weights = signs if channel is None else jax.nn.one_hot(channel, values.shape[-1])[None]
        return (values * weights * is_image[:, None]).sum()

    return jnp.square(jax.grad(unit)(prepare(views))).sum(axis=(0, 3))


def _checked_position(position: tuple[int, int] | None, height: int, width: int, layer: str) -> tuple[int, int]:
    """Returns the position, by default the middle one. Raises InputError if the layer's maps do not have it."""
    row, column = position or (height // 2, width // 2)
    if not (0 <= row < height and 0 <= column < width):
        raise InputError(f"position {position} in {layer!r}: expected (0, 0) to {(height - 1, width - 1)}")
    return row, column


def _spread(names: list[str], count: int) -> list[str]:
    """Returns at most `count` of the names, equally spaced, the first and the last among them."""
    indices = np.linspace(0, len(names) - 1, min(count, len(names))).round().astype(int)
    return [names[i] for i in indices]
