"""Scores of a network on a split: every example exactly once, on any number of devices."""

import collections
import contextlib
import dataclasses
import functools
import math
import pathlib
import re
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import ScopeParamShapeError
from jax.sharding import Mesh

from cnnjax import augment, losses, metrics, spec
from cnnjax.data import pipeline
from cnnjax.data.build import Split
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols
from cnnjax.evaluation.recipe import EvalRecipe
from cnnjax.models import create_model
from cnnjax.ops.convolution import matmul_precision
from cnnjax.state import Tree

INSTALLED = str(pathlib.Path(jax.__file__).parents[1])  # the folder of JAX and its like, where no own network is
Scorer = Callable[[Tree], Iterator[pipeline.Batch]]  # variables -> batches of scores


@dataclasses.dataclass(frozen=True)
class Scores:
    """The scores of all examples of a split, in the order of the split.

    Attributes:
      scores: float32 [N, K], logits or log-probabilities.
      labels: int32 [N].
    """

    scores: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class BatchScorer:
    """A compiled function that scores batches of images of one shape.

    Attributes:
      batch_size: largest number of images per batch.
      scores: (variables, images uint8 [B, *shape], example int32 [B]) -> scores float32 [B, K], averaged over the views
        of each image. `example`, the index in the split, seeds random operations; None is all zeros.
    """

    batch_size: int
    scores: Callable[[Tree, jax.Array, jax.Array | None], jax.Array]


def view_logits(
    variables: Tree, images: jax.Array, example: jax.Array | None, start: jax.Array, *,
    model: nn.Module, prepare: Callable[..., jax.Array], views: int, flip: bool, precision: str = "", seed: int = 0,
) -> jax.Array:  # fmt: skip
    """Returns the logits of the views `start` to `start + views` of each image, in evaluation mode.

    Takes uint8 [N, V, H, W, C], or [N, H, W, C] for a single view, and returns float32 [N, views, K]. With `flip`, the
    logits of the horizontally flipped views follow: [N, 2 * views, K]. `prepare` maps (keys, uint8 images) to network
    input, and `precision` is config.matmul_precision. What random operations draw depends on `seed`, on `example`
    int32 [N] (None is all zeros) and on the view, not on the batch. Logits at several positions (of a fully
    convolutional network) are averaged.
    """
    images = images.reshape(len(images), -1, *images.shape[-3:])  # also accepts [N, H, W, C]
    chosen, numbers = jax.lax.dynamic_slice_in_dim(images, start, views, axis=1), start + jnp.arange(views)
    if flip:
        chosen = jnp.concatenate([chosen, chosen[:, :, :, ::-1]], axis=1)
        numbers = jnp.concatenate([numbers, numbers + images.shape[1]])
    example = jnp.zeros(len(images), jnp.int32) if example is None else example
    fold = jax.vmap(jax.random.fold_in, (None, 0))
    keys = jax.vmap(lambda i: fold(jax.random.fold_in(jax.random.key(seed), i), numbers))(example)
    inputs = prepare(keys.reshape(-1), chosen.reshape(-1, *chosen.shape[2:]))
    with matmul_precision(precision):
        logits: Any = model.apply(variables, inputs, train=False)
    logits = logits.mean(axis=tuple(range(1, logits.ndim - 1)))
    return logits.reshape(len(images), -1, logits.shape[-1])


@contextlib.contextmanager
def input_errors(model: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Context manager that raises any exception as an InputError: "`model` does not take images of `shape`: ...".

    `model` is the network as in config.model, such as 'resnet18(groups=1)'; `shape` is [H, W, C]. If the exception is
    not a ValueError, the network's code is at fault, and the message also names the file and line. An InputError passes
    unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except ScopeParamShapeError as error:
        layer = re.search(r'in "/([^"]+)"', str(error))
        crop = "a crop helps, as in --preprocess='resize(S)|center_crop(S)'"
        reason = f"layer {layer[1] if layer else model} was made for another size; {crop}"
        raise InputError(f"{model!r} does not take images of {tuple(shape)}: {reason}") from error
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if not isinstance(error, ValueError):  # of the network's own code, as a NameError is
            frames = traceback.extract_tb(error.__traceback__)
            last = ([frame for frame in frames if not frame.filename.startswith(INSTALLED)] or frames)[-1]
            reason = f"{type(error).__name__} in {last.filename}, line {last.lineno}: {reason}"
        raise InputError(f"{model!r} does not take images of {tuple(shape)}: {reason}") from error


def as_fully_convolutional(recipe: EvalRecipe, data: DataInfo, model: nn.Module) -> nn.Module:
    """Returns the network rebuilt with head='conv', so that it takes images larger than the training ones.

    The fully connected layers become convolutions with the same variables. A network without a head='fc', which ends in
    a global mean, is returned unchanged. Raises InputError if the network cannot be converted.
    """
    if getattr(model, "head", "") != "fc":
        return model
    text = spec.with_argument(recipe.model, ["head"], "conv")
    convolutional = create_model(text, len(data.classes), recipe.dtype)
    with input_errors(text, data.shape):
        shapes = [jax.tree.map(lambda x: x.shape, variable_shapes(net, data.shape)) for net in (model, convolutional)]
    if shapes[0] != shapes[1]:
        raise InputError(f"{recipe.model!r} has no dense form: its fully connected layers take one image size only")
    return convolutional


def variable_shapes(model: nn.Module, shape: tuple[int, ...]) -> Tree:
    """Returns the network's variables as jax.ShapeDtypeStructs, for images of `shape` [H, W, C]."""
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)


def check_accepts(recipe: EvalRecipe, data: DataInfo, model: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises InputError if a network trained on images of data.shape does not take images of `shape` [H, W, C].

    Traces the network, without computing anything.
    """
    if tuple(shape) == tuple(data.shape):
        return
    with input_errors(recipe.model, shape):
        variables = variable_shapes(model, data.shape)
        image = jax.ShapeDtypeStruct((1, *shape), np.float32)
        jax.eval_shape(functools.partial(model.apply, train=False), variables, image)


def make_batch_scorer(
    recipe: EvalRecipe, data: DataInfo, model: nn.Module, mesh: Mesh, shape: tuple[int, ...]
) -> BatchScorer:
    """Builds the function that scores a batch of images of `shape`, [H, W, C] or, with several views, [V, H, W, C].

    Scores are averaged over an image's views, and their flips if the protocol has any. A device call takes at most
    `recipe.batch_size` views where possible: all views of several images, or some views of each.
    """
    flip, view_count = recipe.protocol.flip, math.prod(shape[:-3])
    prepare = augment.build(recipe.operations.step, recipe.normalization, data.statistics, shape[-3:])
    max_batch = max(1, recipe.batch_size // (2 if flip else 1))
    batch_size = max(1, max_batch // view_count)
    padded_batch = -(-batch_size // mesh.shape["data"]) * mesh.shape["data"]
    divisors = (n for n in range(1, view_count + 1) if view_count % n == 0)
    views_per_call = max(n for n in divisors if n == 1 or n * padded_batch <= max_batch)
    logits = jax.jit(
        functools.partial(
            view_logits,
            model=model,
            prepare=prepare,
            views=views_per_call,
            flip=flip,
            precision=recipe.matmul_precision,
            seed=recipe.seed,
        ),
        in_shardings=(None, sharding.batch_sharding(mesh), sharding.batch_sharding(mesh), None),
        out_shardings=sharding.batch_sharding(mesh),
        compiler_options=sharding.compiler_options(),
    )
    starts = range(0, view_count, views_per_call)
    weights = _view_weights(recipe.protocol, starts)
    average = jax.jit(lambda chunks: protocols.average(jnp.concatenate(chunks, axis=1), recipe.average, weights))
    return BatchScorer(
        batch_size,
        lambda variables, images, example: average([logits(variables, images, example, start) for start in starts]),
    )


def _view_weights(protocol: protocols.Protocol, starts: range) -> np.ndarray | None:
    """Returns the weights of views and flips, in the order of `view_logits` called at `starts`; None: equal ones."""
    if not protocol.weights:
        return None
    parts = [protocol.weights[start : start + starts.step] for start in starts]
    return np.concatenate([np.tile(part, 2) / 2 if protocol.flip else np.array(part) for part in parts])


def make_scores(
    recipe: EvalRecipe,
    data: DataInfo,
    examples: Split,
    model: nn.Module,
    mesh: Mesh,
    views: Sequence[spec.Call],
    scorers: dict[tuple[int, ...], BatchScorer] | None = None,
) -> Scorer:
    """Builds a function from variables to the scores of `examples` in one pass of the protocol, batch by batch.

    `views` are the host operations of the pass. The function yields {"scores": float32 [B, K], "label" and "example":
    int32 [B], "mask": bool [B]}, sharded along the mesh axis `data`; "example" is the index in the split, and "mask" is
    False for padding. `scorers` keeps compiled functions by image shape: pass the same dictionary to score one network
    on several versions of the images. Raises InputError if the images do not fit the network.
    """
    calls = [*recipe.operations.host, *views]
    groups = pipeline.group_by_shape(pipeline.image_shapes(examples), calls) if recipe.protocol.variable_size else {}
    cache = "host" if len(groups) > 1 else recipe.cache
    source = pipeline.open_source(examples, calls, cache=cache, seed=recipe.seed, mesh=mesh)
    shape = source.shape[-3:]
    if shape[-1] != data.shape[-1]:
        hint = "; preprocess='rgb' makes them color" if shape[-1] == 1 else ""
        raise InputError(
            f"the images of {examples.name} are {shape}; the network was trained on {list(data.shape)}{hint}"
        )
    if recipe.protocol.fully_convolutional:
        model = as_fully_convolutional(recipe, data, model)
    by_side = sorted(groups or [shape], key=lambda size: (min(size[:2]), max(size[:2])))
    for size in (by_side[0], by_side[-1]):  # where the smallest and the largest fit, those between do
        check_accepts(recipe, data, model, size)
    scorers = {} if scorers is None else scorers
    if source.shape not in scorers:
        scorers[source.shape] = make_batch_scorer(recipe, data, model, mesh, source.shape)
    scorer = scorers[source.shape]

    def scores(variables: Tree) -> Iterator[pipeline.Batch]:
        batches = pipeline.eval_batches(source, batch_size=scorer.batch_size, mesh=mesh, groups=groups.values() or None)
        for batch in batches:
            images = batch.pop("image")
            yield batch | {"scores": scorer.scores(variables, images, batch["example"])}

    return scores


def batch_sums(batch: pipeline.Batch, loss: Callable[[jax.Array, jax.Array], jax.Array]) -> dict[str, jax.Array]:
    """Computes the metric sums of one batch from `make_scores`, without its padding.

    `loss` maps scores and one-hot targets [B, K] to [B].
    """
    target = jax.nn.one_hot(batch["label"], batch["scores"].shape[-1])
    return metrics.sums(batch["scores"], batch["label"], loss(batch["scores"], target), batch["mask"])


def make_scorer(
    recipe: EvalRecipe, data: DataInfo, examples: Split, model: nn.Module, mesh: Mesh
) -> Callable[[Tree], metrics.Sums]:
    """Builds a function from variables to the metric sums over all of `examples`, for use during a training.

    Raises InputError as `make_scores` does, and for a protocol with several passes.
    """
    passes = recipe.protocol.passes
    if len(passes) > 1:
        raise InputError(
            f"config.protocol = {recipe.protocol_text!r} shows images in several sizes, which training does not: "
            "give it to `evaluate` as --protocol"
        )
    scores = make_scores(recipe, data, examples, model, mesh, passes[0])
    sums = jax.jit(
        functools.partial(batch_sums, loss=losses.from_call(recipe.loss)),
        out_shardings=sharding.replicated(mesh),
    )
    return lambda variables: metrics.add(list(prefetch_to_host(map(sums, scores(variables)))))


def prefetch_to_host(results: Iterable[Tree]) -> Iterator[Tree]:
    """Yields the results in order, copied from the device to the host.

    The copy of a result waits until two more have been started, so that the device always has work.
    """
    waiting: collections.deque[Tree] = collections.deque()
    for result in results:
        waiting.append(result)
        if len(waiting) > 2:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


def collect(scores: Scorer, variables: Tree, examples: Split, mesh: Mesh) -> Scores:
    """Computes the scores of all examples, and returns them with the labels in the order of the split.

    `scores` is a function from `make_scores`.
    """
    gather = jax.jit(
        lambda batch: {name: batch[name] for name in ("mask", "example", "label", "scores")},
        out_shardings=sharding.replicated(mesh),
    )
    all_scores, labels = np.empty((0, 0), np.float32), np.empty(len(examples), np.int32)
    for batch in prefetch_to_host(map(gather, scores(variables))):
        mask, example = batch["mask"], batch["example"]
        if not all_scores.size:
            all_scores = np.full((len(examples), batch["scores"].shape[1]), np.nan, np.float32)
        all_scores[example[mask]], labels[example[mask]] = batch["scores"][mask], batch["label"][mask]
    return Scores(all_scores, labels)
