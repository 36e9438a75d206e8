"""The patches of a data set that excite a channel most, each with its projection back to pixels by the deconvnet.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, sec. 4.1 and fig. 2. Without max pools
the deconvnet has no switches, and its projections tell little of the image; guided backpropagation is made for such
networks (Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity. ICLR workshop 2015, sec. 3.4).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import style
from cnnjax.colors import as_rgb
from cnnjax.data.build import Split
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.state import Tree
from cnnjax.summarize import trace
from cnnjax.summarize.receptive_field import ReceptiveField
from cnnjax.visualize.activations import features_model, layer_function, normalization
from cnnjax.visualize.names import check_channel, check_layer, layer_shapes
from cnnjax.visualize.rules import RULES, with_rule

PATCHES = 9  # of each channel
CHANNELS = 6  # drawn where none are chosen
COLUMNS = 3  # channels in a row of the figure
CELL = 1.8  # inches of a drawn block of 3x3 patches, at most
GAP = 2  # pixels between the patches of a block
OUTSIDE = 0.9  # gray of what is outside of the image
SATURATED = 99.5  # percentile of a projection's absolute values at which its colors saturate


@dataclasses.dataclass(frozen=True)
class Patches:
    """The strongest patches of some channels of a layer, at most one of each image, the strongest first.

    A channel that fewer images excite has fewer: the other places hold zeros, with activation 0 and example -1.

    Attributes:
      layer: the layer.
      channels: int [K].
      activations: float32 [K, 9].
      examples: index in the data set of the image of each patch: int [K, 9].
      positions: (row, column) of the unit in the feature map: int [K, 9, 2].
      labels: class index of each image, -1 without a label: int [K, 9].
      patches: pixels in the unit's receptive field, float32 [K, 9, h, w, C] in [0, 1]; NaN outside of the image.
      projections: the activation projected back to the pixels of the patch by the deconvnet: float32 of the same shape;
        in units of normalized pixels, and 0 outside of the image.
      rule: of the projections, a key of `rules.RULES`.
      has_switches: the network has max pools, whose switches tell where in the image the maxima were.
      field: receptive field of the layer. A patch is as large, but no larger than the image.
      classes: names of the classes; () without labels.
      count: number of images that were searched.
    """

    layer: str
    channels: np.ndarray
    activations: np.ndarray
    examples: np.ndarray
    positions: np.ndarray
    labels: np.ndarray
    patches: np.ndarray
    projections: np.ndarray
    rule: str
    has_switches: bool
    field: ReceptiveField
    classes: tuple[str, ...]
    count: int

    @property
    def note(self) -> str:
        """Returns the size of the data and of the patches, and whether the projections tell little of the image."""
        height, width = self.patches.shape[2:4]
        size = f"{self.field.size[0]}x{self.field.size[1]}"
        cut = "" if self.field.size == (height, width) else f", cut to {height}x{width}"
        beyond = "; a mean over all positions adds to it" if self.field.is_global else ""
        hint = "" if self.has_switches else "; no max pools and so no switches: "
        if hint:
            hint += "these projections tell little" if self.rule == "deconvnet" else f"projected by rule {self.rule!r}"
        return (
            f"{self.layer}: the {PATCHES} strongest of {self.count:,} images for {len(self.channels)} channels; "
            f"receptive field {size} px{cut}{beyond}{hint}"
        )

    def figure(self) -> Any:
        """Draws two blocks of 3x3 for each channel: the projections, on gray, and the patches."""
        columns = 2 * min(COLUMNS, len(self.channels))
        side = (min(CELL, style.FULL_WIDTH / columns) * style.DPI - style.GAP - 2 * GAP) / 3
        images, captions = [], []
        for k, channel in enumerate(self.channels):
            found = self.examples[k] >= 0
            pixels = [as_rgb(np.nan_to_num(patch, nan=OUTSIDE)) for patch in self.patches[k]]
            images += [_block([*map(_on_gray, self.projections[k])], found, side), _block(pixels, found, side)]
            captions += [f"channel {channel}\n{self._range(k)}", self._most_frequent_class(k)]
        return style.sheet(
            images, captions, columns=columns, note=self.note, cell=CELL,
            title=f"Strongest patches of {self.layer}, and their projections ({self.rule})",
        )  # fmt: skip

    def _range(self, k: int) -> str:
        """Returns the activations of a channel's patches as text."""
        values = self.activations[k][self.examples[k] >= 0]
        return f"{values.min():.3g} to {values.max():.3g}" if len(values) else "no image"

    def _most_frequent_class(self, k: int) -> str:
        """Returns the most frequent class of a channel's patches, as in 'frog: 7 of 9'; '' without labels."""
        labels = self.labels[k][self.labels[k] >= 0]
        if not self.classes or not len(labels):
            return ""
        counts = np.bincount(labels)
        return f"{self.classes[counts.argmax()]}: {counts.max()} of {len(labels)}"


def _on_gray(values: np.ndarray) -> np.ndarray:
    """Returns a projection [h, w, C] as an image around mid-gray; 0 is gray, and both signs have one scale."""
    limit = float(np.percentile(np.abs(values), SATURATED)) or float(np.abs(values).max()) or 1.0
    return as_rgb(0.5 + 0.5 * np.clip(values / limit, -1, 1))


def _block(images: Sequence[np.ndarray], found: np.ndarray, side: float) -> np.ndarray:
    """Returns nine images [h, w, 3] as one of 3x3, each enlarged to at most `side` pixels, with white lines between.

    Those not `found` are white.
    """
    height, width = images[0].shape[:2]
    factor = max(int(side // max(height, width)), 1)
    step = height * factor + GAP, width * factor + GAP
    block = np.ones((3 * step[0] - GAP, 3 * step[1] - GAP, 3), np.float32)
    for i, image in enumerate(images):
        if found[i]:
            top, left = i // 3 * step[0], i % 3 * step[1]
            tile = image.repeat(factor, axis=0).repeat(factor, axis=1)
            block[top : top + len(tile), left : left + tile.shape[1]] = tile
    return block


# ------------------------------------------------------------------------------------------------------- computing them


def strongest_patches(
    net: TrainedNetwork,
    images: Split | np.ndarray | Sequence[np.ndarray],
    *,
    layer: str = "",
    channel: int | Sequence[int] | None = None,
    rule: str = "",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Patches:
    """Returns the nine strongest patches of some channels, with projections of their activations to pixels.

    Args:
      net: the network.
      images: a split of a data set, or uint8 [N, H, W, C] or a list of [H, W, C].
      layer: a layer of `net.features` with feature maps; '' for the last.
      channel: a channel or several; None for six that are equally spaced among those that any image excites.
      rule: of the projections, a key of `rules.RULES`; '' for 'deconvnet', or 'guided' if the network has no max pools.
      progress: called with the number of images done and the total.

    Of equal activations the first counts, so that the result is always the same. Raises InputError for an unknown layer
    or channel, a layer of vectors, and a data set without images.
    """
    with_maps = [name for name, shape in layer_shapes(net).items() if len(shape) == 3]
    layer = layer or (with_maps or [""])[-1]
    if len(shape := check_layer(net, layer)) != 3:
        raise InputError(f"layer {layer!r} has {shape[-1]} features and no maps; layers with maps: {with_maps}")
    wanted = None if channel is None else np.atleast_1d(channel).tolist()
    for number in wanted or ():
        check_channel(net, layer, number)
    if len(images) < 1:
        raise InputError("no images to search for patches")
    has_switches = any(row.kind == "max pool" for row in trace.layers(net.model, net.data.shape))
    if (rule := rule or ("deconvnet" if has_switches else "guided")) not in RULES:
        raise unknown("rule", rule, RULES)
    best = _search(net, images, layer, progress)
    excited = np.flatnonzero(best.activations[:, 0] > 0)
    if wanted is None:
        wanted = excited[np.linspace(0, len(excited) - 1, min(CHANNELS, len(excited))).round().astype(int)]
    channels = np.asarray(wanted, int)
    if not set(channels) & set(excited):
        raise InputError(f"no image excites {f'channels {wanted}' if len(channels) else 'any channel'} of {layer!r}")
    best = _Best(*(values[channels] for values in best))
    field, cut = _cut(net, images, layer, channels, best, rule)
    classes = tuple(images.classes) if isinstance(images, Split) else ()
    return Patches(
        layer, channels, best.activations, best.examples, **cut, rule=rule, has_switches=has_switches, field=field,
        classes=classes, count=len(images),
    )  # fmt: skip


class _Best(NamedTuple):
    """The strongest activations of each of K channels so far, the strongest first; each field is [K, 9]."""

    activations: np.ndarray  # float32; 0 in a place without an image
    examples: np.ndarray  # int; -1 in a place without an image
    units: np.ndarray  # int, the position in the flattened feature map


def _search(net: TrainedNetwork, images: Any, layer: str, progress: Callable[[int, int], None]) -> _Best:
    """Finds the strongest activations of all channels of a layer."""
    function, size = layer_function(net, layer), min(net.config.eval_batch_size, len(images))
    best = compute = None
    for start, views, _ in _read(net, images, range(len(images)), size):
        compute = compute or jax.jit(_maxima_function(function, normalization(net, views.shape[1:])))
        count = len(views)
        batch = np.pad(views, ((0, size - count), *[(0, 0)] * 3), mode="edge")  # of one shape, to compile once
        maxima, units = (values[:count].T for values in jax.device_get(compute(net.variables, batch)))
        examples = np.broadcast_to(np.arange(start, start + count), maxima.shape)
        new = _Best(maxima, examples, units)
        best = _merged([new] if best is None else [best, new])
        progress(start + count, len(images))
    assert best is not None  # there are images
    return best


def _maxima_function(function: Any, prepare: Any) -> Callable[[Tree, jax.Array], tuple[jax.Array, jax.Array]]:
    """Returns the function (variables, views [B, H, W, C]) -> maxima over positions [B, K] and their indices."""

    def maxima(variables: Tree, views: jax.Array) -> tuple[jax.Array, jax.Array]:
        maps = function(variables, prepare(views))
        flat = maps.reshape(len(maps), -1, maps.shape[-1])
        return flat.max(axis=1), flat.argmax(axis=1)

    return maxima


def _merged(parts: Sequence[_Best]) -> _Best:
    """Returns the nine strongest of several, each [K, n]; those that are not above 0 are replaced by empty places."""
    joined = _Best(*(np.concatenate(values, axis=1) for values in zip(*parts, strict=True)))
    short = max(PATCHES - joined.activations.shape[1], 0)
    joined = _Best(*(np.pad(values, ((0, 0), (0, short))) for values in joined))
    order = np.argsort(-joined.activations, axis=1, kind="stable")[:, :PATCHES]
    activations, examples, units = (np.take_along_axis(values, order, axis=1) for values in joined)
    is_found = activations > 0
    return _Best(np.where(is_found, activations, 0), np.where(is_found, examples, -1), np.where(is_found, units, 0))


def _read(
    net: TrainedNetwork, images: Any, indices: Sequence[int] | np.ndarray, size: int
) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Yields (first, views uint8 [n, H, W, C], labels int [n]) of at most `size` of the images at a time.

    `first` counts in `indices`. Labels of images without any are -1.
    """
    for start in range(0, len(indices), size):
        part = np.asarray(indices[start : start + size])
        if isinstance(images, Split):
            pixels, labels = images.read(part)
        else:
            pixels, labels = [images[i] for i in part], np.full(len(part), -1)
        yield start, net.single_views(pixels), np.asarray(labels, int)


def _cut(
    net: TrainedNetwork, images: Any, layer: str, channels: np.ndarray, best: _Best, rule: str
) -> tuple[ReceptiveField, dict[str, np.ndarray]]:
    """Cuts the patches out of the images, and projects the activations to their pixels.

    Returns the layer's receptive field, and the arrays of `Patches` with the keys of its fields.
    """
    network = features_model(net)
    function, size = layer_function(net, layer), min(net.config.eval_batch_size, best.examples.size)
    flat = best.examples.ravel()
    places = np.flatnonzero(flat >= 0)
    arrays: dict[str, np.ndarray] = {"labels": np.full(flat.shape, -1), "positions": np.zeros((len(flat), 2), int)}
    field = project = None
    for start, views, labels in _read(net, images, flat[places], size):
        here, shape = places[start : start + len(views)], views.shape[1:]
        if field is None or project is None:
            field = trace.receptive_fields(network, shape)[layer]
            sides = tuple(min(pair) for pair in zip(field.size, shape[:2], strict=True))
            arrays |= {name: np.zeros((len(flat), *sides, shape[2]), np.float32) for name in ("patches", "projections")}
            project = jax.jit(_projection_function(function, normalization(net, shape), rule))
        padding = (0, size - len(views))
        padded, batch = np.pad(here, padding, mode="edge"), np.pad(views, (padding, *[(0, 0)] * 3), mode="edge")
        units, numbers = best.units.ravel()[padded], np.repeat(channels, PATCHES)[padded]
        signals, positions = jax.device_get(project(net.variables, batch, units, numbers))
        arrays["labels"][here], arrays["positions"][here] = labels, positions[: len(here)]
        for i, place in enumerate(here):
            window = _window(field, positions[i], shape)
            arrays["patches"][place] = _crop(views[i] / np.float32(255), window, np.nan)
            arrays["projections"][place] = _crop(signals[i], window, 0)
    assert field is not None  # an image excites a channel
    return field, {name: values.reshape(*best.examples.shape, *values.shape[1:]) for name, values in arrays.items()}


def _projection_function(function: Any, prepare: Any, rule: str) -> Callable[..., tuple[jax.Array, jax.Array]]:
    """Returns the function that projects one activation of each image of a batch back to its pixels.

    It takes (variables, views [B, H, W, C], units int [B] in the flattened maps, channels int [B]), and returns
    projections float32 [B, H, W, C] and the units' positions int [B, 2]. All other activations are set to zero.
    """

    def project(
        variables: Tree, views: jax.Array, units: jax.Array, channels: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        maps, backward = jax.vjp(with_rule(lambda x: function(variables, x), rule), prepare(views))
        rows, columns = units // maps.shape[2], units % maps.shape[2]
        place = (jnp.arange(len(maps)), rows, columns, channels)
        (signal,) = backward(jnp.zeros_like(maps).at[place].set(maps[place]))
        return signal, jnp.stack([rows, columns], axis=1)

    return project


def _window(field: ReceptiveField, position: np.ndarray, shape: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Returns the rows and columns of a patch: the unit's window, or all of the image where that is smaller."""
    sides = zip(field.window((*position,)), shape[:2], strict=True)
    return tuple((0, size) if high - low >= size else (low, high) for (low, high), size in sides)


def _crop(image: np.ndarray, window: tuple[tuple[int, int], ...], fill: float) -> np.ndarray:
    """Returns the pixels of an image [H, W, C] in a window, which may leave it; there they are `fill`."""
    pads = [(max(-low, 0), max(high - size, 0)) for (low, high), size in zip(window, image.shape[:2], strict=True)]
    padded = np.pad(image, (*pads, (0, 0)), constant_values=fill)
    rows, columns = (slice(low + before, high + before) for (low, high), (before, _) in zip(window, pads, strict=True))
    return padded[rows, columns]
