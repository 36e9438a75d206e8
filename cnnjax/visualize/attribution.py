"""Attribution: which pixels of an image support a class, by methods whose maps can be compared.

METHODS names the methods. Each is a function (scorer, variables, inputs [N, H, W, C], classes [N]) -> values.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnnjax.errors import InputError, unknown
from cnnjax.evaluation.host_images import batch_rows, padded
from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.ops.convolution import matmul_precision
from cnnjax.visualize import cam, rules
from cnnjax.visualize.activations import features_model, normalization

BASELINES = {"black": 0.0, "gray": 127.5, "white": 255.0}  # pixel values; 'mean' is an input of 0 after normalization
Arrays = Mapping[str, np.ndarray]


class Scorer:
    """The jitted functions of a network that the methods share.

    Variables are arguments, so that `cnnjax.visualize.sanity` can pass shuffled ones without compiling again.

    Attributes:
      net: the network.
      layer: the layer of class activation maps.
      batch_size: largest number of images in a batch.
    """

    def __init__(self, net: TrainedNetwork, shape: tuple[int, ...], layer: str = "") -> None:
        """Prepares the functions for views of `shape` [H, W, C]; they are compiled when they are first called."""
        self.net, self.layer = net, layer
        self.batch_size = net.config.eval_batch_size
        self.normalize = jax.jit(normalization(net, shape))
        self.logits = jax.jit(self._apply)
        self.signal = jax.jit(self._signal, static_argnames="rule")
        self.class_maps = jax.jit(self._class_maps, static_argnames="is_exact")

    def _apply(self, variables: Any, x: jax.Array) -> jax.Array:
        """Returns logits float32 [N, classes]; of spatial logits, their mean."""
        with matmul_precision(self.net.config.matmul_precision):
            logits: Any = self.net.model.apply(variables, x, train=False)
        return logits.reshape(len(logits), -1, logits.shape[-1]).mean(1)

    def _signal(self, variables: Any, x: jax.Array, classes: jax.Array, rule: str) -> jax.Array:
        """Propagates the logit of each image's class back to the input by a backward rule: returns [N, H, W, C]."""
        logits, back = jax.vjp(rules.with_rule(lambda x: self._apply(variables, x), rule), x)
        return back(jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype))[0]

    def _class_maps(self, variables: Any, x: jax.Array, classes: jax.Array, is_exact: bool | None) -> cam.ClassMaps:
        """Returns the class activation maps of `layer`. `is_exact` is as in `cam.class_maps`."""
        networks = self.net.model, features_model(self.net)
        full, features = (functools.partial(_evaluated, network, variables) for network in networks)
        with matmul_precision(self.net.config.matmul_precision):
            return cam.class_maps(full, features, self.layer, x, classes, is_exact)

    def has_exact_maps(self, views: np.ndarray) -> bool:
        """Returns whether the class activation maps of `layer` are CAM, and not Grad-CAM, for views [N, H, W, C]."""
        batch, _ = next(_batches(views, self.batch_size))
        classes = jnp.zeros(len(batch), jnp.int32)
        return bool(self.class_maps(self.net.variables, self.normalize(batch), classes, is_exact=None).exact.all())

    def baseline(self, name: str, x: jax.Array) -> jax.Array:
        """Returns the uninformative input that x is compared with, [1, H, W, C]: see `BASELINES`.

        Raises InputError for an unknown name.
        """
        if name == "mean":
            return jnp.zeros((1, *x.shape[1:]), x.dtype)
        if name not in BASELINES:
            raise unknown("baseline", name, [*BASELINES, "mean"])
        return self.normalize(jnp.full((1, *x.shape[1:]), BASELINES[name], jnp.float32))

    def class_scores(self, variables: Any, x: jax.Array | np.ndarray, classes: jax.Array) -> jax.Array:
        """Returns the logit of each image's class, [N]."""
        return cam.class_logits(self.logits(variables, x), classes)


def _evaluated(model: nn.Module, variables: Any, x: jax.Array) -> Any:
    """Returns the output of a network in evaluation."""
    return model.apply(variables, x, train=False)


# ------------------------------------------------------------------------------------------------------------ methods


def saliency(scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array, *, rule: str = "gradient") -> Any:
    """Propagates the class's logit back to the input by a rule (Simonyan et al. 2014, sec. 3): see `rules`."""
    return scorer.signal(variables, x, classes, rule=rule)


def gradient_x_input(scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array) -> Any:
    """Computes the gradient times the normalized input (Shrikumar et al. 2016, sec. 2.2)."""
    return x * scorer.signal(variables, x, classes, rule="gradient")


def integrated_gradients(
    scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array, *, baseline: str = "black", steps: int = 32,
    max_steps: int = 512, tolerance: float = 0.01,
) -> Any:  # fmt: skip
    """Computes integrated gradients (Sundararajan et al. 2017, eq. 1 and 3), with `steps` points on the path.

    Their sum should be the logit of the image minus that of the baseline: 'black', 'gray', 'white' or 'mean'. Where it
    is off by more than the fraction `tolerance`, they are computed again with four times as many steps, until the sum
    fits or that would exceed `max_steps`.
    """
    start, pending = scorer.baseline(baseline, x), np.arange(len(x))
    before = scorer.class_scores(variables, jnp.repeat(start, len(x), axis=0), classes)
    difference = np.asarray(scorer.class_scores(variables, x, classes) - before)
    values = np.zeros(x.shape, np.float32)
    while True:
        rows = padded(pending, batch_rows(len(pending), len(x)))
        path, total = x[rows] - start, jnp.zeros_like(x[rows])
        for i in range(steps):
            total += scorer.signal(variables, start + (i + 0.5) / steps * path, classes[rows], rule="gradient")
        values[pending] = (path * total / steps)[: len(pending)]
        gap = np.abs(values.sum((1, 2, 3)) - difference)[pending]
        pending = pending[gap > tolerance * np.abs(difference[pending])]
        if not len(pending) or 4 * steps > max_steps:
            return values
        steps *= 4


def smoothgrad(
    scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array, *, samples: int = 32, noise: float = 0.15
) -> Any:
    """Computes the mean gradient over `samples` noisy copies of each image (Smilkov et al. 2017, sec. 3).

    The noise is Gaussian. Its standard deviation is `noise` times the range (max - min) of the normalized image.
    """
    spread = noise * (x.max((1, 2, 3), keepdims=True) - x.min((1, 2, 3), keepdims=True))
    total = jnp.zeros_like(x)
    for key in jax.random.split(jax.random.key(0), samples):
        total += scorer.signal(variables, x + spread * jax.random.normal(key, x.shape), classes, rule="gradient")
    return total / samples


def windows(side: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Returns (start, end) of the windows that cover `side` pixels; the last one is cut at the end."""
    count = max(0, -(-(side - window) // stride)) + 1
    return [(i * stride, min(i * stride + window, side)) for i in range(count)]


def default_squares(options: Mapping[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    """Returns the options of `occlusion` with zeros replaced, for images of `size` (height, width).

    A `window` of 0 becomes an eighth of the shorter side, a `stride` of 0 half the window.
    """
    window = options["window"] or max(1, round(min(size) / 8))
    return {**options, "window": window, "stride": options["stride"] or max(1, window // 2)}


def occlusion(
    scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array, *, window: int = 0, stride: int = 0,
    baseline: str = "gray",
) -> Any:  # fmt: skip
    """Computes how far the class's logit falls when a square is hidden (Zeiler, Fergus 2014, sec. 4.2, fig. 7).

    A pixel gets the mean over the squares that cover it: returns [N, H, W, 1]. Squares have sides of `window` pixels,
    `stride` pixels apart, and are filled with the baseline. `default_squares` replaces zeros beforehand. Raises
    InputError unless 1 <= stride <= window <= the shorter side.
    """
    if not 1 <= stride <= window <= min(x.shape[1:3]):
        raise InputError(f"window = {window}, stride = {stride}: expected 1 <= stride <= window <= {min(x.shape[1:3])}")
    fill, before = np.asarray(scorer.baseline(baseline, x)), scorer.class_scores(variables, x, classes)
    falls, counts = np.zeros(x.shape[:3], np.float32), np.zeros(x.shape[1:3], np.float32)
    for top, bottom in windows(x.shape[1], window, stride):
        for left, right in windows(x.shape[2], window, stride):
            hidden = np.array(x)  # in NumPy, since JAX would compile each square
            hidden[:, top:bottom, left:right] = fill[:, top:bottom, left:right]
            fall = before - scorer.class_scores(variables, hidden, classes)
            falls[:, top:bottom, left:right] += np.asarray(fall)[:, None, None]
            counts[top:bottom, left:right] += 1
    return (falls / counts)[..., None]


def class_activation(
    scorer: Scorer, variables: Any, x: jax.Array, classes: jax.Array, *, is_exact: bool | None = None
) -> Any:
    """Computes CAM if the head averages its maps and is linear, else Grad-CAM: returns [N, h, w, 1]. See `cam`.

    `is_exact` True or False forces CAM or Grad-CAM.
    """
    return scorer.class_maps(variables, x, classes, is_exact=is_exact).maps[..., None]


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of METHODS.

    Attributes:
      name: for titles.
      compute: (scorer, variables, inputs, classes, own keyword arguments) -> values [N, h, w, channels].
      fixed: keyword arguments that users cannot set.
      fill_in: (keyword arguments, height and width of the images) -> the same, with defaults that depend on the size.
      adds_up: a pixel's value is the sum over its channels; otherwise it is the largest absolute value.
    """

    name: str
    compute: Callable[..., Any]
    fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    fill_in: Callable[[Mapping[str, Any], tuple[int, int]], Mapping[str, Any]] = lambda options, size: options
    adds_up: bool = True

    def options(self) -> dict[str, Any]:
        """Returns the user's keyword arguments with their defaults."""
        parameters = inspect.signature(self.compute).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY and p.name not in self.fixed}


METHODS: dict[str, Method] = {
    "gradient": Method("gradient", saliency, {"rule": "gradient"}, adds_up=False),
    "guided": Method("guided backpropagation", saliency, {"rule": "guided"}, adds_up=False),
    "deconvnet": Method("deconvnet", saliency, {"rule": "deconvnet"}, adds_up=False),
    "smoothgrad": Method("SmoothGrad", smoothgrad, adds_up=False),
    "gradient_x_input": Method("gradient x input", gradient_x_input),
    "integrated_gradients": Method("integrated gradients", integrated_gradients),
    "occlusion": Method("occlusion", occlusion, fill_in=default_squares),
    "cam": Method("class activation map", class_activation, {"is_exact": None}),
    "grad_cam": Method("Grad-CAM", class_activation, {"is_exact": False}),
}


@dataclasses.dataclass(frozen=True)
class Explanation:
    """The maps of a method: see `attribute`.

    Attributes:
      views: uint8 [N, H, W, C], the images after preprocessing.
      classes: int [N], the class that each map explains.
      logits: float32 [N, classes].
      values: float32 [N, h, w, channels], the output of the method.
      maps: float32 [N, H, W], the values reduced over the channels and resized to the views: see `to_maps`.
      options: all keyword arguments of the method as used, with their defaults.
    """

    views: np.ndarray
    classes: np.ndarray
    logits: np.ndarray
    values: np.ndarray
    maps: np.ndarray
    options: Mapping[str, Any]


def attribute(
    net: TrainedNetwork,
    images: Any,
    method: str,
    classes: Any = None,
    layer: str = "",
    options: Mapping[str, Any] | None = None,
    variables: Any = None,
    scorer: Scorer | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Explanation:
    """Computes the maps of a method for images, batch by batch.

    Args:
      net: the network.
      images: uint8 [N, H, W, C], or N arrays [H, W, C], preprocessed as in evaluation.
      method: a key of METHODS.
      classes: index of the class to explain, or one for each image; None for the predicted classes.
      layer: the layer of 'cam' and 'grad_cam'; '' for the last one with feature maps.
      options: keyword arguments of the method.
      variables: used instead of the network's own.
      scorer: compiled functions to reuse; it must have the same network, image shape and layer.
      progress: called with the number of images done and the total.

    Raises InputError for an unknown method, option, class or layer.
    """
    if method not in METHODS:
        raise unknown("method of attribution", method, METHODS)
    row = METHODS[method]
    for name in options or {}:
        if name not in row.options():
            raise unknown(f"option of {method!r}", name, row.options())
    views = net.single_views(images)
    options = row.fill_in({**row.options(), **(options or {})}, views.shape[1:3])
    layer = cam.last_maps(net, layer) if row.compute is class_activation else ""
    scorer = scorer or Scorer(net, views.shape[1:], layer)
    variables = net.variables if variables is None else variables
    given = None if classes is None else np.broadcast_to(np.asarray(classes, np.int32), len(views))
    if given is not None and not ((given >= 0) & (given < len(net.classes))).all():
        raise InputError(
            f"class {given.min() if given.min() < 0 else given.max()}: expected 0 to {len(net.classes) - 1}"
        )
    parts = []
    for batch, rows in _batches(views, scorer.batch_size):
        x = scorer.normalize(batch)
        logits = scorer.logits(variables, x)
        chosen = jnp.argmax(logits, -1) if given is None else jnp.asarray(padded(given[rows], len(batch)))
        values = row.compute(scorer, variables, x, chosen, **row.fixed, **options)
        parts.append([np.asarray(array)[: rows.stop - rows.start] for array in (chosen, logits, values)])
        progress(rows.stop, len(views))
    chosen, logits, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Explanation(views, chosen, logits, values, to_maps(values, views.shape[1:3], row.adds_up), options)


def to_maps(values: np.ndarray, size: tuple[int, int], adds_up: bool) -> np.ndarray:
    """Reduces values [N, h, w, channels] to maps [N, *size], by sums or largest absolute values; resizes linearly."""
    maps = values.sum(-1) if adds_up else np.abs(values).max(-1)
    return maps if maps.shape[1:] == size else np.asarray(jax.image.resize(maps, (len(maps), *size), "linear"))


def _batches(views: np.ndarray, size: int) -> Iterator[tuple[np.ndarray, slice]]:
    """Yields batches of views and the rows of `views` in each; padding them to a few sizes saves compilations."""
    for start in range(0, len(views), size):
        rows = slice(start, min(start + size, len(views)))
        yield padded(views[rows], batch_rows(rows.stop - start, size)), rows
