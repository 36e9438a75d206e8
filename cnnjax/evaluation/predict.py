"""Predictions and feature maps for image files and arrays, preprocessed exactly as in evaluation."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, pretrained, spec
from cnnjax.data import images
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import probe, protocols, scoring
from cnnjax.evaluation.host_images import (
    HostImage,
    apply_operations,
    batch_rows,
    chunks,
    group_by_shapes,
    padded,
    read_in_threads,
    read_views,
    wrong_size,
)
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.ops.convolution import matmul_precision
from cnnjax.shell import quote


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most probable classes of an image file, or the error that prevented the prediction.

    Attributes:
      path: the image file.
      top: pairs (class index, probability), the most probable first; () with an error.
      error: '' if there is none.
    """

    path: pathlib.Path
    top: tuple[tuple[int, float], ...]
    error: str = ""


class Predictor:
    """Classifies images with a trained network. It keeps its compiled functions: use it for several calls."""

    def __init__(
        self,
        network: pretrained.LoadedNetwork,
        *,
        step: str | int = "last",
        mesh: Mesh | None = None,
        log: Callable[[str], None] = print,
    ) -> None:
        """Loads a checkpoint of `network`: "last", "best" or a step number. `mesh` None is all devices."""
        self.network = network
        self.mesh = mesh or sharding.make_mesh()
        self.log, self._has_logged_resize = log, False
        self.recipe = parse_eval_recipe(network.config)
        self.protocol, self.host_ops = self.recipe.protocol, self.recipe.operations.host
        self._passes = [(*self.host_ops, *views) for views in self.protocol.passes]
        self.model = network.model
        if self.protocol.fully_convolutional:
            self.model = scoring.as_fully_convolutional(self.recipe, network.data, self.model)
        self.variables = network.load_variables(self.mesh, step, log).variables
        self._scorers: dict[tuple[int, ...], scoring.BatchScorer] = {}
        self._feature_functions: dict[tuple[Any, ...], Callable] = {}
        mode = self.recipe.average
        self._probabilities = jax.jit(
            lambda passes: jax.nn.softmax(protocols.average(jnp.stack([*map(jnp.concatenate, passes)], axis=1), mode)),
            out_shardings=sharding.replicated(self.mesh),
        )

    def files(self, paths: Iterable[pathlib.Path], top: int = 5) -> Iterator[Prediction]:
        """Yields a Prediction with the `top` most probable classes of each file, in order; see `predict`."""
        bit_depth = self.network.data.bit_depth
        read = functools.partial(read_views, prepare=self._views, channels=self._shape[-1], bit_depth=bit_depth)
        for path, probabilities, error in self._classify(read_in_threads(list(paths), read)):
            most_probable = () if probabilities is None else _most_probable(probabilities, top)
            yield Prediction(pathlib.Path(path), most_probable, error)

    def probabilities(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Returns class probabilities float32 [N, classes] of uint8 images; see `predict_images`."""
        prepared = (self._array_views(image, str(i)) for i, image in enumerate(self._checked(pixels)))
        rows = []
        for name, probabilities, error in self._classify(prepared):
            if probabilities is None:
                raise InputError(f"image {name}: {error}")
            rows.append(probabilities)
        return np.stack(rows) if rows else np.zeros((0, len(self.network.data.classes)), np.float32)

    def feature_maps(
        self, pixels: np.ndarray | Sequence[np.ndarray], layer: str = ""
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Returns the activations of one named layer, or of all, for uint8 images; see the function `feature_maps`."""
        views = self.single_views(pixels)
        key = (layer, views.shape[1:])
        if key not in self._feature_functions:
            self._feature_functions[key] = self._make_feature_function(*key)
        outputs = []
        for batch, count in self._batches(views, self.recipe.batch_size):
            features = jax.device_get(self._feature_functions[key](self.variables, batch))
            outputs.append({name: values[:count] for name, values in features.items()})
        names = [layer] if layer else self._layers  # JAX sorts the keys of what a jitted function returns
        maps = {name: np.concatenate([output[name] for output in outputs]) for name in names}
        return maps[layer] if layer else maps

    @functools.cached_property
    def _layers(self) -> list[str]:
        """Returns the names of the layers, in the order of execution."""
        return list(probe.layer_shapes(probe.features_only_model(self.network), tuple(self.network.data.shape)))

    def single_views(self, pixels: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Returns uint8 images after host operations, one view of each, as the network sees them: uint8 [N, H, W, C].

        Raises InputError for an image that is not uint8 [H, W, C], and if the views are not all of one size.
        """
        sized = [self._resized(image, [self.host_ops]) for image in self._checked(pixels)]
        views = [apply_operations(image, self.host_ops) for image in sized]
        shapes = sorted({view.shape for view in views})
        if len(shapes) != 1:
            reason = f"they are {', '.join(map(str, shapes))}" if shapes else "there are none"
            raise InputError(f"expected images of one size after preprocessing; {reason}")
        return np.stack(views)

    def _make_feature_function(self, layer: str, shape: tuple[int, ...]) -> Callable:
        """Builds the jitted function (variables, uint8 [B, *shape]) -> {layer name: activations float32 [B, ...]}.

        `layer` "" stands for all layers. Raises InputError for an unknown layer, or if the network does not take the
        shape.
        """
        data, recipe = self.network.data, self.recipe
        model = probe.features_only_model(self.network, layer)
        scoring.check_accepts(recipe, data, self.network.model, shape)
        prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, shape)

        def apply(variables: Any, batch: jax.Array) -> dict[str, jax.Array]:
            with matmul_precision(recipe.matmul_precision):
                maps: Any = model.apply(variables, prepare(jax.random.key(0), batch), train=False)
            return {name: maps[name].astype(jnp.float32) for name in ([layer] if layer else maps)}

        return jax.jit(
            apply,
            in_shardings=(None, sharding.batch_sharding(self.mesh)),
            out_shardings=sharding.replicated(self.mesh),
            compiler_options=sharding.compiler_options(),
        )

    @property
    def _shape(self) -> tuple[int, ...]:
        """Returns the shape [H, W, C] of the images that the network was trained on, after host operations."""
        return self.network.data.shape

    def _views(self, image: np.ndarray) -> tuple[np.ndarray, ...]:
        """Returns the views of an image in each pass of the protocol, after host operations.

        Raises InputError if an operation does not fit the image, or if it has another size than the training images and
        no operation sets it.
        """
        if not self.protocol.variable_size and (size := wrong_size(image, self._passes, self._shape)):
            operations = "|".join([_resize_text(self._shape), *map(spec.render, self.host_ops)])
            raise InputError(
                f"the image is {size[0]}x{size[1]}, the network was trained on {self._shape[0]}x{self._shape[1]}: "
                f"pass --preprocess={quote(operations)}"
            )
        return tuple(apply_operations(image, operations) for operations in self._passes)

    def _checked(self, pixels: np.ndarray | Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns the images as a list of arrays, gray or RGB as the network takes them.

        Raises InputError if any is empty or not uint8 [H, W, 1 or 3].
        """
        arrays = [np.asarray(image) for image in pixels]
        for i, image in enumerate(arrays):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] not in (1, 3) or not image.size:
                raise InputError(
                    f"image {i} is {image.dtype} {list(image.shape)}: expected uint8 [height, width, channels] "
                    "with at least one pixel and 1 or 3 channels"
                )
        return [images.to_channels(image, self._shape[-1]) for image in arrays]

    def _array_views(self, image: np.ndarray, name: str) -> HostImage:
        """Returns the views of an image given as an array. `name` is the image's, for messages.

        The image is first resized by `_resized` unless the protocol takes any size. An InputError becomes the result's
        `error`.
        """
        try:
            takes_any = self.protocol.variable_size
            return HostImage(name, self._views(image if takes_any else self._resized(image, self._passes)))
        except InputError as error:
            return HostImage(name, (), str(error))

    def _resized(self, image: np.ndarray, passes: Sequence[Sequence[spec.Call]]) -> np.ndarray:
        """Resizes an image to the training size if `wrong_size` finds another after `passes`, and logs that once."""
        if not wrong_size(image, passes, self._shape):
            return image
        text = _resize_text(self._shape)
        if not self._has_logged_resize:
            self.log(f"the network's config sets no size: {text} is applied to images of other sizes")
            self._has_logged_resize = True
        return apply_operations(image, spec.parse_pipeline(text))

    def _classify(self, prepared: Iterable[HostImage]) -> Iterator[tuple[str, np.ndarray | None, str]]:
        """Yields (path, probabilities float32 [classes] or None, error or '') of each image, in order."""
        chunk_iterator = chunks(prepared, self.recipe.batch_size)
        for done in scoring.prefetch_to_host(map(self._classify_chunk, chunk_iterator)):
            rows = {i: row for indices, values in done["groups"] for i, row in zip(indices, values, strict=True)}
            for i, path in enumerate(done["paths"]):
                row, error = rows.get(i), done["errors"].get(i, "")
                if row is not None and not np.isfinite(row).all():
                    row, error = None, "the network's scores are not finite: its weights may be too large"
                yield path, row, error

    def _classify_chunk(self, chunk: list[HostImage]) -> dict[str, Any]:
        """Starts the computation for a chunk of images; returns {"paths", "errors", "groups"} without waiting.

        "errors" maps indices in the chunk to messages; "groups" has pairs of indices and probabilities, one per shape.
        """
        errors = {i: image.error for i, image in enumerate(chunk) if image.error}
        groups = []
        for indices in group_by_shapes(chunk):
            try:
                stacked = [np.stack(views) for views in zip(*(chunk[i].passes for i in indices), strict=True)]
                groups.append((indices, self._probabilities([self._scores(views) for views in stacked])))
            except InputError as error:
                errors |= dict.fromkeys(indices, str(error))
        return {"paths": [image.path for image in chunk], "errors": errors, "groups": groups}

    def _scores(self, views: np.ndarray) -> list[jax.Array]:
        """Scores uint8 images [N, H, W, C] or [N, views, H, W, C], batch by batch.

        Returns scores [n, classes] of each batch, averaged over the views of an image; the n add up to N.
        """
        shape = views.shape[1:]
        if shape not in self._scorers:
            data = self.network.data
            scoring.check_accepts(self.recipe, data, self.model, shape[-3:])
            self._scorers[shape] = scoring.make_batch_scorer(self.recipe, data, self.model, self.mesh, shape)
        scorer = self._scorers[shape]
        batches = self._batches(views, scorer.batch_size)
        return [scorer.scores(self.variables, batch, None)[:count] for batch, count in batches]

    def _batches(self, stacked: np.ndarray, batch_size: int) -> Iterator[tuple[jax.Array, int]]:
        """Yields (batch on the mesh, number of its rows that are not padding).

        The rows are those of `batch_rows`, rounded up to a multiple of the devices, and so may exceed `batch_size`.
        """
        devices = self.mesh.shape["data"]
        for start in range(0, len(stacked), batch_size):
            batch = stacked[start : start + batch_size]
            rows = -(-batch_rows(len(batch), batch_size) // devices) * devices
            whole = padded(batch, rows)
            yield sharding.put_batch(self.mesh, whole[sharding.local_rows(self.mesh, rows)]), len(batch)


# ------------------------------------------------------------------------------------------------------ the functions


def predict(
    network: pretrained.LoadedNetwork,
    paths: Iterable[pathlib.Path],
    *,
    top: int = 5,
    step: str | int = "last",
    mesh: Mesh | None = None,
    log: Callable[[str], None] = print,
) -> Iterator[Prediction]:
    """Yields the `top` most probable classes of each image file, in order, by the protocol of the network's config.

    `step` is the checkpoint: "last", "best" or a number. `mesh` is the devices to use, None for all. Threads read the
    files, and only a few batches are in memory. A file that cannot be read or does not fit the network gives a
    Prediction with an error, and the others are still classified. Raises InputError if the checkpoint does not exist or
    fit.
    """
    return Predictor(network, step=step, mesh=mesh, log=log).files(paths, top)


def predict_images(
    network: pretrained.LoadedNetwork,
    pixels: np.ndarray | Sequence[np.ndarray],
    *,
    step: str | int = "last",
    mesh: Mesh | None = None,
    log: Callable[[str], None] = print,
) -> np.ndarray:
    """Returns class probabilities float32 [N, classes], by the preprocessing and protocol of the network's config.

    Args:
      network: a network with trained weights.
      pixels: uint8 [N, H, W, C], or a sequence of N arrays uint8 [H, W, C] of any sizes; C is 1 or 3, and converted to
        the network's. Where the config sets no size, images of another size than the network was trained on are
        resized (shorter side) and center-cropped to it, and a line is logged.
      step: the checkpoint: "last", "best" or a number.
      mesh: devices to use; None for all.
      log: called with lines of text.

    Raises:
      InputError: an image that is not uint8 [H, W, C], or that the preprocessing or the network does not take.
    """
    return Predictor(network, step=step, mesh=mesh, log=log).probabilities(pixels)


def feature_maps(
    network: pretrained.LoadedNetwork,
    pixels: np.ndarray | Sequence[np.ndarray],
    layer: str = "",
    *,
    step: str | int = "last",
    mesh: Mesh | None = None,
    log: Callable[[str], None] = print,
) -> np.ndarray | dict[str, np.ndarray]:
    """Returns the activations of one named layer, or of all layers, in evaluation mode.

    Takes images and options as `predict_images` does, but scores each image in one view: config.protocol is not
    applied. After preprocessing all images must have one size.

    Returns:
      For a `layer` such as "conv4_x": float32 [N, height, width, channels], or [N, features]. For "": a dictionary of
      these by layer name, in the order of execution.

    Raises:
      InputError: an unknown layer, images of several sizes, or of a size that the network does not take.
    """
    return Predictor(network, step=step, mesh=mesh, log=log).feature_maps(pixels, layer)


def _resize_text(shape: tuple[int, ...]) -> str:
    """Returns the operations that bring any image to `shape` [H, W, C], as in 'resize(224)|center_crop(224)'."""
    height, width = shape[:2]
    return f"resize({height})|center_crop({height})" if height == width else f"resize({(height, width)})"


def _most_probable(probabilities: np.ndarray, count: int) -> tuple[tuple[int, float], ...]:
    """Returns the `count` largest probabilities as (class index, probability), largest first.

    Equal probabilities keep the order of the classes.
    """
    order = np.argsort(-probabilities, kind="stable")[:count]
    return tuple((int(i), float(probabilities[i])) for i in order)
