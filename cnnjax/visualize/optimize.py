"""Feature visualization by optimization: images that excite a channel, or a class, as much as possible.

Olah, Mordvintsev, Schubert: Feature Visualization. Distill 2017, doi:10.23915/distill.00007. An image is a set of
coefficients in a Fourier basis with decorrelated colors. Adam ascends the excitation of a channel, averaged over small
random shifts, rotations and scales. This is the prior 'natural' of PRIORS.

The prior 'data' keeps the images closer to real ones, at the price of some excitation. It was made for networks for
32x32 images, and its weights were chosen by looking at images for the classes of ResNet-20 on CIFAR-10:

1. The image is white noise with the mean, contrast, colors and power spectrum of real images (`image_prior`), and Adam
   moves the values of that noise.
2. Every view has Gaussian noise of 4 % of the range, in which fainter patterns are lost.
3. The feature maps of all earlier layers stay typical: the means and deviations over their positions are held near
   those of real images.
4. The sum of squares of the noise is penalized a little. Half of it is the negative log-likelihood of the prior.

In the second half of the steps, 3 and 4 count only as far as an image excites its channel more than the best real one.

Shifts are small, 1/16 of a side. Nothing is upsampled: an image is as large as the network's input. There is no penalty
on the total variation.
"""

import dataclasses
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from cnnjax import style
from cnnjax.colors import RIGHT, WRONG
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize import excitation, image_prior
from cnnjax.visualize.ascent import Penalty, Targets, ascend
from cnnjax.visualize.excitation import Excitation
from cnnjax.visualize.image_prior import ImagePrior
from cnnjax.visualize.inputs import equally_spaced
from cnnjax.visualize.names import LOGITS, check_channel, check_layer, class_index

PRIORS = MappingProxyType({
    "data": Penalty(typical=1.0, code=0.004, noise=0.04),
    "natural": Penalty(),
    "none": Penalty(),
})  # fmt: skip
MAX_BATCH = 64  # images that are optimized at once
MIN_SPREAD = 0.1  # of a statistic, as a fraction of the median: a dead channel has none
NOISE_IMAGES = 64  # drawn from the prior, to compare excitations with, where there are no real images


@dataclasses.dataclass(frozen=True)
class OptimizedImages:
    """Images optimized for K channels of a layer, beside the real images that excite these most.

    Attributes:
      layer: name of the layer.
      channels: index of each channel, int [K].
      names: name of each channel: its class for the layer 'logits', else its number.
      objective: what was maximized, 'mean' or 'center'.
      prior: key of PRIORS.
      images: the optimized images, uint8 [K, H, W, C], in the size of the network's input.
      floats: the same before rounding, float32 [K, H, W, C] in (0, 1).
      excitation: how much each of `images` excites its channel, float32 [K].
      best_images: the M real images that excite each channel most, uint8 [K, M, H, W, C], the best first, as the
        network is given them. M is 0 without real images.
      best_excitation: the excitation of these, float32 [K, M].
      best_indices: their places among the given images, int [K, M].
      num_real: number of real images that were searched.
    """

    layer: str
    channels: np.ndarray
    names: tuple[str, ...]
    objective: str
    prior: str
    images: np.ndarray
    floats: np.ndarray
    excitation: np.ndarray
    best_images: np.ndarray
    best_excitation: np.ndarray
    best_indices: np.ndarray
    num_real: int

    @property
    def exceeds(self) -> np.ndarray:
        """Returns whether each image excites its channel more than the best real one: bool [K]."""
        return self.excitation > (self.best_excitation[:, 0] if self.num_real else -np.inf)

    @property
    def ratios(self) -> np.ndarray:
        """Returns the excitation of each image over that of the best real one; NaN unless that is positive: [K]."""
        best = self.best_excitation[:, 0] if self.num_real else np.zeros(len(self.channels))
        return np.divide(self.excitation, best, out=np.full(len(best), np.nan), where=best > 0)

    @property
    def note(self) -> str:
        """Returns how many of the images excite their channel more than the best real one, and how much more."""
        count = len(self.channels)
        if not self.num_real:
            return f"{self.layer}: {count} optimized images, no real ones to compare them with"
        ratios = self.ratios[np.isfinite(self.ratios)]
        typical = f", the median {np.median(ratios):.1f}x as much" if len(ratios) else ""
        dead = int(((self.excitation <= 0) & (self.best_excitation[:, 0] <= 0)).sum())
        silent = f"; {dead} channels are never excited" if dead and self.layer != LOGITS else ""
        return (
            f"{self.layer}: {self.exceeds.sum()} of {count} optimized images excite more than the best of "
            f"{self.num_real:,} real ones{typical}{silent}"
        )

    def figure(self) -> Any:
        """Draws each optimized image with the best real ones to its right, one channel or several in a row."""
        title = f"{self.layer}: optimized images"
        if not self.num_real:
            return style.sheet([*self.images], self.names, title=title, note=self.note)
        count, real = self.best_excitation.shape
        across, shown = (1, 7) if count <= 6 else (2, 4) if count <= 20 else (4, 2)
        shown = min(shown, real)
        tiles: list[np.ndarray | None] = []
        captions, colors = [], []
        for k in range(-(-count // across) * across):
            if k % across:
                tiles, captions, colors = [*tiles, None], [*captions, ""], [*colors, RIGHT]
            inside = k < count
            ratio = f" ({self.ratios[k]:.1f}x)" if inside and np.isfinite(self.ratios[k]) else ""
            tiles += [self.images[k], *self.best_images[k, :shown]] if inside else [None] * (1 + shown)
            captions += [f"{self.names[k]}{ratio}" if inside else ""] + [""] * shown
            colors += [RIGHT if inside and self.exceeds[k] else WRONG] * (1 + shown)
        title += f", then the {shown} best of {self.num_real:,} real ones"
        columns = across * (2 + shown) - 1
        return style.sheet(tiles, captions, columns=columns, caption_colors=colors, note=self.note, title=title)


def _ignore(done: int, total: int) -> None:
    """Drops a report of progress."""


def optimized_images(
    net: TrainedNetwork, images: np.ndarray | Sequence[np.ndarray] = (), *, layer: str,
    channels: Sequence[int | str] = (), count: int = 16, objective: str = "mean", prior: str = "", steps: int = 128,
    beside: int = 8, seed: int = 0, progress: Callable[[int, int], None] = _ignore,
) -> OptimizedImages:  # fmt: skip
    """Optimizes an image for each of several channels, to excite it as much as possible.

    The images are rounded to uint8 before their excitation is measured, with the same normalization as real ones.

    Args:
      net: the network, of any size of images, gray or color.
      images: real images, as in `net.predict`: to fit the prior to, and to compare with. A thousand suffice for the
        prior; with more, the best of them is better.
      layer: a layer of `net.features`, or 'logits'.
      channels: indices of channels; for 'logits' also names of classes. () for `count` of them, equally spaced.
      count: number of channels where `channels` is (); fewer if the layer has fewer.
      objective: 'mean' maximizes the mean of the channel over all positions, 'center' its central activation.
      prior: 'data' is described above and needs images; 'natural' is that of the article, with 1/f amplitudes and the
        colors of photographs; 'none' optimizes pixels. '' is 'data' with images, else 'natural'.
      steps: steps of Adam.
      beside: number of the best real images to return.
      seed: seed of the noise to start from and of the random views.
      progress: called with the number of steps done and the total.

    Raises InputError for an unknown layer, channel, class, objective or prior, and for images that do not fit.
    """
    for name, value in (("count", count), ("steps", steps), ("beside", beside)):
        if value < 1:
            raise InputError(f"{name} = {value}: expected at least 1")
    indices, names = _channels(net, layer, channels, count)
    prior = prior or ("data" if len(images) else "natural")
    if prior not in PRIORS:
        raise unknown("prior", prior, PRIORS)
    if prior == "data" and not len(images):
        raise InputError("prior = 'data' is fitted to real images: give some, or choose 'natural'")
    functions = excitation.build(net, layer, objective)
    shape = tuple(net.data.shape)
    views = net.single_views(images) if len(images) else np.zeros((0, *shape), np.uint8)
    if views.shape[1:] != shape:
        raise InputError(f"after preprocessing the images are {views.shape[1:]}; the network was trained on {shape}")

    size = net.config.eval_batch_size
    fitted = _prior(net, prior, views)
    compared = views if len(views) else _noise(fitted, seed)
    values = excitation.measure(functions.of_channels, net.variables, compared, size)[:, indices]
    targets = _targets(functions, net, image_prior.choose(compared), indices, values, size)
    floats = ascend(
        functions, net.variables, fitted, targets, PRIORS[prior], steps=steps, batch_size=min(size, MAX_BATCH),
        seed=seed, progress=progress,
    )  # fmt: skip
    pixels = np.round(floats * 255).astype(np.uint8)
    reached = excitation.measure(functions.of_channels, net.variables, pixels, size)[np.arange(len(indices)), indices]
    best = np.argsort(-values, axis=0, kind="stable")[: min(beside, len(views))].T
    return OptimizedImages(
        layer=layer, channels=indices, names=names, objective=objective, prior=prior, images=pixels, floats=floats,
        excitation=reached, best_images=views[best], best_excitation=np.take_along_axis(values, best.T, axis=0).T,
        best_indices=best, num_real=len(views),
    )  # fmt: skip


def _channels(
    net: TrainedNetwork, layer: str, channels: Sequence[int | str], count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Returns the indices, int [K], and the names of the given channels, or of `count` channels if none are given."""
    total = check_layer(net, layer, with_logits=True)[-1]
    indices = equally_spaced(total, count)
    if len(channels):
        named = [class_index(net, c) if isinstance(c, str) and layer == LOGITS else c for c in channels]
        if wrong := [c for c in named if isinstance(c, str)]:
            raise InputError(f"channel {wrong[0]!r} of {layer!r}: expected a number; only 'logits' has names")
        indices = np.array([check_channel(net, layer, int(c), with_logits=True) for c in named])
    return indices, tuple(net.classes[i] if layer == LOGITS else str(i) for i in indices)


def _prior(net: TrainedNetwork, name: str, views: np.ndarray) -> ImagePrior:
    """Returns the prior of this name, a key of PRIORS, for the images that the network takes."""
    if name == "data":
        return image_prior.fit(views)
    mean, std = image_prior.NATURAL_MEAN, image_prior.NATURAL_STD
    if len(views):
        mean, std = (f(views, axis=(0, 1, 2)) / 255 for f in (np.mean, np.std))
    elif net.data.source:  # else the statistics are not those of images
        mean, std = (np.asarray(net.data.statistics[name]) for name in ("mean", "std"))
    return image_prior.default(net.data.shape, mean, std, fourier=name == "natural")


def _noise(prior: ImagePrior, seed: int) -> np.ndarray:
    """Draws NOISE_IMAGES images from the prior, uint8."""
    code = jax.random.normal(jax.random.key(seed), (NOISE_IMAGES, *prior.mean.shape))
    return np.round(np.asarray(image_prior.decode(prior, code)) * 255).astype(np.uint8)


def _targets(
    functions: Excitation, net: TrainedNetwork, sample: np.ndarray, indices: np.ndarray, values: np.ndarray,
    batch_size: int,
) -> Targets:  # fmt: skip
    """Returns the targets for excitations `values`, float32 [N, K], and measures typical maps over images `sample`."""
    _, statistics = excitation.measure(functions.with_statistics, net.variables, sample, batch_size)
    units = values.std(axis=0)
    spread = statistics.std(axis=0)
    usual = np.median(spread[spread > 0]) if (spread > 0).any() else 1.0
    return Targets(
        channels=indices,
        units=np.where(units > 0, units, units.max() or 1.0),
        best=values.max(axis=0),
        center=statistics.mean(axis=0),
        spread=np.maximum(spread, MIN_SPREAD * usual),
    )
