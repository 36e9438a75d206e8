"""Scores a network on a split, every example exactly once, and has it reported."""

import collections
import contextlib
import functools
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, config, losses, metrics, pretrained, spec
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols, report
from cnnjax.models import create_model
from cnnjax.state import Tree

Scorer = Callable[[Tree], Iterator[pipeline.Batch]]  # from variables to batches of scores


def view_logits(
    variables: Tree, images: jax.Array, start: jax.Array, *, model: nn.Module, prepare, views: int, mirror: bool
) -> jax.Array:
    """The logits of so many views of each image, from view `start` on: uint8 [N, V, H, W, C] -> float32 [N, views, K].

    With `mirror` those of their mirror images come behind them. Of maps of logits the mean counts.
    """
    images = images.reshape(len(images), -1, *images.shape[-3:])  # also of [N, H, W, C]
    part = jax.lax.dynamic_slice_in_dim(images, start, views, axis=1)
    if mirror:
        part = jnp.concatenate([part, part[:, :, :, ::-1]], axis=1)
    seen = prepare(jax.random.key(0), part.reshape(-1, *part.shape[2:]))
    logits: Any = model.apply(variables, seen, train=False)
    logits = logits.mean(axis=tuple(range(1, logits.ndim - 1)))
    return logits.reshape(len(images), -1, logits.shape[-1])


@contextlib.contextmanager
def input_errors(model: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turns the failure of a network on images of this shape into an InputError; each layer has its own way to fail."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{model!r} does not take images of {shape}: {reason}") from error


def as_fully_convolutional(settings: config.Config, known: dict[str, Any], model: nn.Module) -> nn.Module:
    """The network with its full connections as convolutions, for images larger than it learnt from.

    The mean of each map takes any size as it is: there the network stays. Raises InputError for one without that form.
    """
    if getattr(model, "head", "") != "fc":
        return model
    text = spec.with_argument(settings.model, ["head"], "conv")
    form = create_model(text, len(known["classes"]), settings.dtype)
    with input_errors(text, known["shape"]):
        plain, other = (_shapes(net, tuple(known["shape"])) for net in (model, form))
    if jax.tree.map(lambda x: x.shape, plain) != jax.tree.map(lambda x: x.shape, other):
        raise InputError(f"{settings.model!r} has no dense form: its full connections are for maps of one size")
    return form


def _shapes(model: nn.Module, shape: tuple[int, ...]) -> Tree:
    image = jax.ShapeDtypeStruct((1, *shape), np.float32)
    return jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image)


def check_accepts(settings: config.Config, known: dict[str, Any], model: nn.Module, shape: tuple[int, ...]) -> None:
    """Raises InputError when the network, made for images as it learnt from, does not take those of this shape."""
    if list(shape) == list(known["shape"]):
        return
    with input_errors(settings.model, shape):
        variables = _shapes(model, tuple(known["shape"]))
        image = jax.ShapeDtypeStruct((1, *shape), np.float32)
        jax.eval_shape(functools.partial(model.apply, train=False), variables, image)


def make_batch_scores(
    settings: config.Config,
    known: dict[str, Any],
    model: nn.Module,
    mesh: Mesh,
    protocol: protocols.Protocol,
    shape: tuple[int, ...],
) -> tuple[int, Callable[[Tree, jax.Array], jax.Array]]:
    """How many images are a batch, and the function from variables and a batch, uint8 [B, *shape], to float32 [B, K].

    `shape` is [H, W, C], or [V, H, W, C] for so many views of each image, whose scores are averaged. A call of the
    device has eval_batch_size views at most: of several images, or some of the views of each.
    """
    count = math.prod(shape[:-3])
    prepare = augment.build(pipeline.split_ops(settings.preprocess)[1], settings.normalize, known, shape[-3:])
    most = max(1, settings.eval_batch_size // (2 if protocol.mirror else 1))
    batch_size = max(1, most // count)
    held = -(-batch_size // mesh.shape["data"]) * mesh.shape["data"]
    at_once = max(n for n in range(1, count + 1) if count % n == 0 and (n == 1 or n * held <= most))
    logits = jax.jit(
        functools.partial(view_logits, model=model, prepare=prepare, views=at_once, mirror=protocol.mirror),
        in_shardings=(None, sharding.batch_sharding(mesh), None),
        out_shardings=sharding.batch_sharding(mesh),
        compiler_options=sharding.compiler_options(),
    )
    average = jax.jit(lambda each: protocols.average(jnp.concatenate(each, axis=1), settings.average))
    return batch_size, lambda variables, images: average(
        [logits(variables, images, start) for start in range(0, count, at_once)]
    )


def make_scores(
    settings: config.Config,
    known: dict[str, Any],
    examples: Split,
    model: nn.Module,
    mesh: Mesh,
    protocol: protocols.Protocol,
    views: Sequence[spec.Call],
) -> Scorer:
    """The function from variables to the scores of `examples` in one pass of a protocol, batch by batch.

    A batch is {"scores": float32 [B, K], "label", "example": int32 [B], "mask": bool [B]}, divided among the devices.
    `known` is what a run's data.json holds of the training split. Raises InputError when the images do not fit.
    """
    host_ops, _ = pipeline.split_ops(settings.preprocess)
    calls = [*host_ops, *views]
    sizes = pipeline.group_by_shape(pipeline.image_shapes(examples), calls) if protocol.whole else {}
    cache = "host" if len(sizes) > 1 else settings.cache
    source = pipeline.open_source(examples, calls, cache=cache, seed=settings.seed, mesh=mesh)
    shape = source.shape[-3:]
    if shape[-1] != known["shape"][-1]:
        hint = "; preprocess='rgb' makes them colour" if shape[-1] == 1 else ""
        raise InputError(f"the images of {examples.name} are {shape}; the network learnt from {known['shape']}{hint}")
    if protocol.dense:
        model = as_fully_convolutional(settings, known, model)
    by_side = sorted(sizes or [shape], key=lambda one: (min(one[:2]), max(one[:2])))
    for one in (by_side[0], by_side[-1]):  # the smallest first; where these fit, those between do
        check_accepts(settings, known, model, one)
    batch_size, of_batch = make_batch_scores(settings, known, model, mesh, protocol, source.shape)

    def scores(variables: Tree) -> Iterator[pipeline.Batch]:
        for batch in pipeline.eval_batches(source, batch_size=batch_size, mesh=mesh, groups=sizes.values() or None):
            images = batch.pop("image")
            yield batch | {"scores": of_batch(variables, images)}

    return scores


def batch_sums(batch: pipeline.Batch, loss: Callable[[jax.Array, jax.Array], jax.Array]) -> dict[str, jax.Array]:
    """The sums of `metrics.sums` over one batch of scores; padding does not count."""
    target = jax.nn.one_hot(batch["label"], batch["scores"].shape[-1])
    return metrics.sums(batch["scores"], batch["label"], loss(batch["scores"], target), batch["mask"])


def make_scorer(
    settings: config.Config, known: dict[str, Any], examples: Split, model: nn.Module, mesh: Mesh
) -> Callable[[Tree], metrics.Sums]:
    """The function from variables to the sums over all of `examples`, and their "scores" and "label", as set.

    Raises InputError as `make_scores` does, and for a protocol of several passes.
    """
    protocol = protocols.build(settings.protocol)
    if len(protocol.passes) > 1:
        raise InputError(
            f"config.protocol = {settings.protocol!r} shows images in several sizes, which training does not: "
            "give it to `evaluate` as --protocol"
        )
    scores = make_scores(settings, known, examples, model, mesh, protocol, protocol.passes[0])
    sums = jax.jit(
        functools.partial(batch_sums, loss=losses.build(settings.loss, len(known["classes"]))),
        out_shardings=sharding.replicated(mesh),
    )
    return lambda variables: metrics.add(list(prefetch_to_host(map(sums, scores(variables)))))


def prefetch_to_host(results: Iterable[Tree]) -> Iterator[Tree]:
    """The results on the host, two batches late, so that the device always has the next one."""
    waiting: collections.deque[Tree] = collections.deque()
    for one in results:
        waiting.append(one)
        if len(waiting) > 2:
            yield jax.device_get(waiting.popleft())
    yield from map(jax.device_get, waiting)


def collect(scores: Scorer, variables: Tree, examples: Split, mesh: Mesh) -> tuple[np.ndarray, np.ndarray]:
    """The scores float32 [N, K] and labels int32 [N] of all examples, in the order of the split."""
    everywhere = jax.jit(
        lambda batch: [batch[name] for name in ("mask", "example", "label", "scores")],
        out_shardings=sharding.replicated(mesh),
    )
    all_scores, labels = np.empty((0, 0), np.float32), np.empty(len(examples), np.int32)
    for mask, example, label, part in prefetch_to_host(map(everywhere, scores(variables))):
        if not all_scores.size:
            all_scores = np.full((len(examples), part.shape[1]), np.nan, np.float32)
        all_scores[example[mask]], labels[example[mask]] = part[mask], label[mask]
    return all_scores, labels


def score(
    network: pretrained.LoadedNetwork, examples: Split, mesh: Mesh, step: str, say: Callable[[str], None]
) -> tuple[int, np.ndarray, np.ndarray]:
    """The step of a checkpoint of a network, its scores float32 [N, K] of `examples`, and their labels int32 [N]."""
    settings, known, model, restore = network
    protocol = protocols.build(settings.protocol)
    make = functools.partial(make_scores, settings, known, examples, model, mesh, protocol)
    passes = [make(views) for views in protocol.passes]
    number, variables = restore(mesh, step, say)
    each, labels = zip(*(collect(scores, variables, examples, mesh) for scores in passes), strict=True)
    return number, _averaged(each, settings.average), labels[0]


PART = 1000  # examples in what is computed of all scores, to save memory


def _averaged(each: Sequence[np.ndarray], how: str) -> np.ndarray:
    """`protocols.average` of several [N, K]."""
    parts = (np.stack([one[i : i + PART] for one in each], axis=1) for i in range(0, len(each[0]), PART))
    return np.concatenate([np.asarray(protocols.average(part, how)) for part in parts])


def mean_loss(text: str, scores: np.ndarray, labels: np.ndarray) -> float:
    """The mean of the loss that a call string names."""
    loss, classes, total = losses.build(text), scores.shape[1], 0.0
    for i in range(0, len(scores), PART):
        total += float(loss(jnp.asarray(scores[i : i + PART]), jax.nn.one_hot(labels[i : i + PART], classes)).sum())
    return total / len(scores)


def with_views(
    settings: config.Config, batch_size: int, preprocess: str | None, protocol: str | None, average: str | None
) -> None:
    """Sets how a network that was trained is to see images; None, and a batch_size of 0, leave what its run had.

    Raises InputError where the `protocol` does not go with the run's own preprocess.
    """
    if protocol not in (None, settings.protocol) and preprocess is None:
        protocols.check_preprocess(protocol, pipeline.split_ops(settings.preprocess)[0])
    settings.cache, settings.eval_batch_size = "host", batch_size or settings.eval_batch_size
    for name, value in {"preprocess": preprocess, "protocol": protocol, "average": average}.items():
        if value is not None:
            setattr(settings, name, value)
    config.check(settings)


def evaluate(
    workdir: pathlib.Path,
    *,
    init: str = "",
    like: str = "",
    ensemble: Sequence[pathlib.Path] = (),
    step: str = "last",
    dataset: str = "",
    split: str = "",
    protocol: str = "",
    average: str = "",
    batch_size: int = 0,
    preprocess: str | None = None,
    data_dir: str = "",
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Restores a checkpoint of a run and scores it; everything else comes from the run's folder.

    With `init`, published weights or a file, these are scored in place of the run's, and `workdir` is only where the
    evaluation is left; `like` is as of `weights.find`.
    Without a `dataset` and `split` these are the run's own test split; `preprocess`, `protocol` and `average` are its
    config's. The scores of the runs in `ensemble` are averaged with its own, as `average` has it, each of a network
    with its own settings. Returns what `evaluations/.../metrics.json` in the first folder holds. Raises InputError for
    a folder, step, data set, split or protocol that does not exist or does not fit.
    """
    sources = list(dict.fromkeys([init or workdir, *ensemble]))
    networks = {source: pretrained.load(source, like) for source in sources}
    first = networks[sources[0]].settings
    asked = {"preprocess": preprocess, "protocol": protocol or None, "average": average or None}
    of: dict[str, Any] = {name: value for name, value in asked.items() if value not in (None, getattr(first, name))}
    if init:
        of["init"] = init
    for settings, *_ in networks.values():
        with_views(settings, batch_size, **asked)
    _check_classes({source: network.known["classes"] for source, network in networks.items()})
    name, split = dataset or first.dataset, split or first.test_split or folds.resolve_splits(first, data_dir)[1]
    if not split:
        raise InputError(f"{sources[0]} has no test_split in its config; give --split")
    mesh = mesh or sharding.make_mesh()
    examples = load(name, split, data_dir)

    for source, network in networks.items():
        if len(examples.classes) != (count := len(network.known["classes"])):
            raise InputError(f"{examples.name} has {len(examples.classes)} classes; the network of {source} {count}")
    numbers, each, labels = zip(
        *(score(network, examples, mesh, step, say) for network in networks.values()), strict=True
    )
    if len(networks) > 1:
        of["ensemble"] = ", ".join(f"{source} step {number}" for source, number in zip(networks, numbers, strict=True))
    scores, label = _averaged(each, first.average), labels[0]
    loss = mean_loss(first.loss, scores, label)
    of = {"dataset": name, "split": split, "step": numbers[0], **of}
    return report.write(scores, label, loss, workdir, of, examples.classes)


def _check_classes(classes: Mapping[pathlib.Path | str, Sequence[str]]) -> None:
    """Raises InputError when the networks of these runs tell other classes apart, or in another order."""
    (first, names), *others = classes.items()
    for folder, other in others:
        if other != names:
            counts = f"{len(names)} and {len(other)}"
            different = next((f"{a!r} and {b!r}" for a, b in zip(names, other, strict=False) if a != b), counts)
            raise InputError(f"{first} and {folder} are no ensemble: their classes differ ({different})")
