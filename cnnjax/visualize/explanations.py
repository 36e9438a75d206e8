"""Explanations of predictions as pictures: attribution maps, each beside its sanity check."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from cnnjax import style
from cnnjax.colors import INK, VERMILION, overlay, signed
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.visualize import cam, sanity
from cnnjax.visualize.attribution import METHODS, Explanation, Scorer, attribute

CLIPPED = 99.5  # percentile of the absolute values at which colors saturate


@dataclasses.dataclass(frozen=True)
class Attribution:
    """The pixels that support a class, by one method, for several images.

    Attributes:
      method: a key of METHODS; 'grad_cam' if 'cam' was wanted of a network that has none.
      views: uint8 [N, H, W, C], the images as the network sees them.
      class_names: the class that each map explains.
      probabilities: float [N], of these classes.
      values: float32 [N, h, w, channels], as the method gives them.
      maps: float32 [N, H, W], the values without channels: with signs where METHODS says so, else at least 0.
      settings: the options of the method, as in 'baseline black, steps 32'; '' if it has none.
      check: the sanity check; None if it was not wanted.
      ignores_image: the deconvnet gives the same map for any image: without max pools, nothing tells it the image.
    """

    method: str
    views: np.ndarray
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    values: np.ndarray
    maps: np.ndarray
    settings: str
    check: sanity.SanityCheck | None
    ignores_image: bool = False

    @property
    def note(self) -> str:
        """Returns the settings of the method, and how much the maps change with random weights."""
        texts = [self.settings] if self.settings else []
        if self.ignores_image:
            texts.append("the maps of a class are the same for all images: no switches of max pools tell images apart")
        elif self.check is None:
            texts.append("without a sanity check")
        else:
            check, count = self.check, len(self.maps)
            text = f"mean rank correlation with the maps of random weights {check.similarity.mean():z.2f}"
            by_absolute = f", of absolute values {check.absolute_similarity.mean():z.2f}"
            texts.append(text + by_absolute * METHODS[self.method].adds_up)
            if same := int(check.unchanged.sum()):
                texts.append(f"{same} of {count} hardly change: they show the image, not what was learned")
            if signs := int(check.only_signs_change.sum()):
                texts.append(f"{signs} of {count} change in their signs alone: their strength shows the image")
        return "; ".join(texts)

    def figure(self) -> Any:
        """Draws a row for each image: the image, the map over it, the map, and the maps of random weights."""
        pictures, captions, colors = [], [], []
        for n, view in enumerate(self.views):
            row: list[Any] = [view, overlay(view, self.maps[n], _limit(self.maps[n])), self._picture(n, None)]
            texts, inks = [f"{self.class_names[n]}: {self.probabilities[n]:.0%}", "", ""], [INK] * 3
            if self.check is not None:
                stages = len(self.check.layers)
                row += [self._picture(n, self.check.explanations[stage]) for stage in range(stages)]
                texts += [f"{value:z.2f}" for value in self.check.correlations[:, n]]
                same, signs = bool(self.check.unchanged[n]), bool(self.check.only_signs_change[n])
                texts[2] = "hardly changes" if same else "signs change" if signs else ""
                inks = [INK, INK] + [VERMILION if same or signs else INK] * (1 + stages)
            pictures, captions, colors = pictures + row, captions + texts, colors + inks
        titles = ["image", "map on it", "map"]
        if self.check is not None:
            counts = self.check.layers[:-1]
            titles += [f"last {count} random" if count > 1 else "last random" for count in counts] + ["all random"]
        adds_up = METHODS[self.method].adds_up
        note = "Orange supports the class, blue opposes it. " if adds_up else "Gray is where the map is 0. "
        if self.check is not None:
            note += (
                "Right: the map when the last layers have random weights, with its rank correlation to the true one. "
            )
        return style.sheet(
            pictures, captions, columns=len(titles), column_titles=titles, caption_colors=colors, cell=1.0,
            title=f"{METHODS[self.method].name[0].upper()}{METHODS[self.method].name[1:]}: evidence for a class",
            note=note + self.note[0].upper() + self.note[1:],
        )  # fmt: skip

    def _picture(self, n: int, other: Explanation | None) -> np.ndarray:
        """Colors map n, or that of another explanation, around 0; a backward signal of a color image is a color."""
        source: Any = other or self
        values = source.maps[n] if METHODS[self.method].adds_up else source.values[n]
        values = values if values.ndim == 2 or values.shape[-1] in (1, 3) else values.sum(-1)
        return signed(values, _limit(values))


def explain(
    net: TrainedNetwork,
    images: Any,
    *,
    method: str = "integrated_gradients",
    class_index: int | None = None,
    layer: str = "",
    options: Mapping[str, Any] | None = None,
    check: bool = True,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Attribution:
    """Explains predictions: which pixels support a class, and whether the maps depend on the weights at all.

    Args:
      net: the network.
      images: uint8 [N, H, W, C], or N arrays [H, W, C], preprocessed as in evaluation.
      method: a key of `attribution.METHODS`: 'gradient', 'guided', 'deconvnet', 'smoothgrad', 'gradient_x_input',
        'integrated_gradients', 'occlusion', 'cam' or 'grad_cam'.
      class_index: the class to explain; None for the predicted class of each image.
      layer: the layer of 'cam' and 'grad_cam'; '' for the last one with maps.
      options: keyword arguments of the method.
      check: computes the maps for random weights, too: see `sanity`.
      progress: called with the number of steps done and the total.

    Raises InputError for an unknown method, option, class or layer, and for a network whose nonlinearities a backward
    rule does not know.
    """
    views = net.single_views(images)
    layer = cam.last_maps(net, layer) if method in ("cam", "grad_cam") else ""
    scorer, shared = Scorer(net, views.shape[1:], layer), {"layer": layer, "options": options}
    settings = []
    if method == "cam" and not scorer.has_exact_maps(views):
        method = "grad_cam"
        settings = ["in place of CAM, which needs a linear head on averages of the maps"]
    found = attribute(net, images, method, class_index, scorer=scorer, **shared)
    progress(1, 1 + len(sanity.STAGES) * check)
    checked = None
    if check:
        checked = sanity.check(
            net, images, method, found, scorer, progress=lambda done, total: progress(1 + done, 1 + total), **shared
        )
    fixed = False
    if method == "deconvnet":
        other = attribute(net, 255 - found.views, method, found.classes, scorer=scorer)
        fixed = bool(np.allclose(other.values, found.values, rtol=1e-3, atol=1e-6 * np.abs(found.values).max()))
    shifted = np.exp(found.logits - found.logits.max(-1, keepdims=True))
    probabilities = (shifted / shifted.sum(-1, keepdims=True))[np.arange(len(views)), found.classes]
    settings += [f"{name} {value}" for name, value in found.options.items()]
    names, text = tuple(net.classes[i] for i in found.classes), ", ".join(settings)
    return Attribution(method, found.views, names, probabilities, found.values, found.maps, text, checked, fixed)


def _limit(values: np.ndarray) -> float | None:
    """Returns the value of the strongest color; None if all are 0."""
    return float(np.percentile(np.abs(values), CLIPPED)) or None
