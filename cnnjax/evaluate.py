"""Scores a network on a split, every example exactly once, and has it reported."""

import contextlib
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, checkpoint, config, losses, metrics, optim, report, sharding
from cnnjax import workdir as workdirs
from cnnjax.data import folds, pipeline
from cnnjax.data.build import Split, load
from cnnjax.errors import InputError, unknown
from cnnjax.models import create_model
from cnnjax.state import Tree, variables_of

EvalStep = Callable[[Tree, pipeline.Batch], dict[str, jax.Array]]


# What a network is shown of an image: the mean of its logits counts.
PROTOCOLS: dict[str, Callable[[jax.Array], Sequence[jax.Array]]] = {
    "single": lambda images: [images],
    "flip": lambda images: [images, images[:, :, ::-1]],
}


def eval_step(
    variables: Tree, batch: pipeline.Batch, *, model: nn.Module, prepare, loss, protocol: str
) -> dict[str, jax.Array]:
    """The sums of `metrics.sums` over one batch, without its padding, and each image's "scores" [N, K]."""
    views = PROTOCOLS[protocol](prepare(jax.random.key(0), batch["image"]))
    each: list[Any] = [model.apply(variables, view, train=False) for view in views]
    logits: Any = sum(each) / len(each)
    target = jax.nn.one_hot(batch["label"], logits.shape[-1])
    sums = metrics.sums(logits, batch["label"], loss(logits, target), batch["mask"])
    return sums | {"scores": logits.astype(jnp.float32), "label": batch["label"], "mask": batch["mask"]}


def make_eval_step(model: nn.Module, prepare, loss, protocol: str, mesh: Mesh) -> EvalStep:
    """`eval_step`, compiled for the mesh: variables stay where they are, batches are divided among the devices."""
    return jax.jit(
        functools.partial(eval_step, model=model, prepare=prepare, loss=loss, protocol=protocol),
        in_shardings=(None, sharding.split(mesh)),
        out_shardings=sharding.replicated(mesh),
        compiler_options=sharding.compiler_options(),
    )


@contextlib.contextmanager
def naming(model: str, shape: tuple[int, ...]) -> Iterator[None]:
    """Turns the failure of a network on images of this shape into an InputError; each layer has its own way to fail."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{model!r} does not take images of {shape}: {reason}") from error


def make_scorer(
    settings: config.Config, known: dict[str, Any], examples: Split, model: nn.Module, mesh: Mesh
) -> Callable[[Tree], metrics.Sums]:
    """The function from variables to the sums over all of `examples`, and their "scores" and "label", as set.

    `known` is what a run's data.json holds of the training split. Raises InputError when the images do not fit.
    """
    if settings.protocol not in PROTOCOLS:
        raise unknown("protocol", settings.protocol, PROTOCOLS)
    host_ops, step_ops = pipeline.split_ops(settings.preprocess)
    source = pipeline.open_source(examples, host_ops, cache=settings.cache, seed=settings.seed, mesh=mesh)
    if source.shape[-1] != known["shape"][-1]:
        raise InputError(f"the images of {examples.name} are {source.shape}; the network learnt from {known['shape']}")
    if list(source.shape) != known["shape"]:
        sizes = [jax.ShapeDtypeStruct((1, *shape), np.float32) for shape in (known["shape"], source.shape)]
        with naming(settings.model, source.shape):
            variables = jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), sizes[0])
            jax.eval_shape(functools.partial(model.apply, train=False), variables, sizes[1])
    prepare = augment.build(step_ops, settings.normalize, known, source.shape)
    step = make_eval_step(model, prepare, losses.build(settings.loss, len(known["classes"])), settings.protocol, mesh)

    def score(variables: Tree) -> metrics.Sums:
        batches = pipeline.eval_batches(source, batch_size=settings.eval_batch_size, mesh=mesh)
        waiting, done = [], []
        for batch in batches:
            waiting.append(step(variables, batch))
            if len(waiting) > 2:  # fetched two batches late, so that the device always has the next one
                done.append(jax.device_get(waiting.pop(0)))
        done += jax.device_get(waiting)
        masks = [part.pop("mask") for part in done]
        rows = {
            name: np.concatenate([part.pop(name)[mask] for part, mask in zip(done, masks, strict=True)])
            for name in ("scores", "label")
        }
        return metrics.add(done) | rows

    return score


def restore(
    workdir: pathlib.Path,
    settings: config.Config,
    known: dict[str, Any],
    model: nn.Module,
    mesh: Mesh,
    step: str,
    say: Callable[[str], None],
) -> tuple[int, Tree]:
    """The step of a checkpoint of a run and the variables that its network is evaluated with, on the mesh."""
    image = np.zeros((1, *known["shape"]), np.float32)
    model_state = dict(jax.eval_shape(functools.partial(model.init, train=False), jax.random.key(0), image))
    params = model_state.pop("params")
    target = {"params": params, "model_state": model_state, "ema": params if optim.averages(settings) else {}}
    target = sharding.placed(target, sharding.of_state(target, mesh))
    number, found = checkpoint.restore_model(workdir, target, step, say)
    return number, variables_of(**found)


def evaluate(
    workdir: pathlib.Path,
    *,
    step: str = "last",
    dataset: str = "",
    split: str = "",
    batch_size: int = 0,
    preprocess: str | None = None,
    data_dir: str = "",
    mesh: Mesh | None = None,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Restores a checkpoint of a run and scores it; everything else comes from the run's folder.

    Without a `dataset` and `split` these are the run's own test split, and `preprocess` is its config's. Returns what
    `evaluations/.../metrics.json` holds. Raises InputError for a folder, step, data set or split that does not exist or
    does not fit.
    """
    settings = config.load(workdir / "config.json")
    settings.cache, settings.eval_batch_size = "host", batch_size or settings.eval_batch_size
    known = workdirs.read_known(workdir)
    of = {}
    if preprocess not in (None, settings.preprocess):
        settings.preprocess = of["preprocess"] = preprocess
    name, split = dataset or settings.dataset, split or settings.test_split or folds.splits_of(settings, data_dir)[1]
    if not split:
        raise InputError(f"{workdir} has no test_split in its config; give --split")
    mesh = mesh or sharding.make_mesh()
    examples = load(name, split, data_dir)
    if len(examples.classes) != len(known["classes"]):
        raise InputError(
            f"{name} has {len(examples.classes)} classes; the network of {workdir} {len(known['classes'])}"
        )
    model = create_model(settings.model, len(known["classes"]), settings.dtype)
    score = make_scorer(settings, known, examples, model, mesh)

    number, variables = restore(workdir, settings, known, model, mesh, step, say)
    total = score(variables)
    of = {"dataset": name, "split": split, "step": number, **of}
    loss = metrics.means(total)["loss"]
    return report.write(total["scores"], total["label"], loss, workdir, of, examples.classes)
