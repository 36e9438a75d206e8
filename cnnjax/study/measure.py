"""What studies measure of a run, beside its metrics: how gradients and units fare, layer by layer."""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, losses, optim, pretrained, spec
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.evaluation.scoring import evaluate
from cnnjax.models import create_model
from cnnjax.state import path_name
from cnnjax.training import loop

IMAGES = 500  # of the training split, in what is measured of one batch
CONSTANT = 1e-4  # a unit whose values over all images differ by less says nothing of them


def accuracy(folder: pathlib.Path, data_dir: str, preprocess: str) -> float:
    """The accuracy of a run's network, from 0 to 1, on its test split as those operations make it."""
    return evaluate(folder, data_dir=data_dir, preprocess=preprocess, say=lambda line: None)["accuracy"]


def parameters(folder: pathlib.Path) -> int:
    """How many numbers the network learns."""
    _, known, model, _ = pretrained.load(folder)
    shapes = jax.eval_shape(
        functools.partial(model.init, train=False), jax.random.key(0), jnp.zeros((1, *known["shape"]))
    )
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


def flow(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Of a run's network, before training and after it:

    'gradient_start', 'gradient_end': the norm of the loss's gradient by each kernel, over the square root of its size,
    from the first layer to the last, on the first IMAGES training images without augmentation; 'log_ratio_start' and
    'log_ratio_end', the power of ten between the first of these and the last; 'dead_start', 'dead_end': the share of
    hidden units whose values over all these images differ by less than CONSTANT. All as in a step of training.
    """
    settings, known, model, restore = pretrained.load(folder)
    mesh = sharding.make_mesh(jax.devices()[:1])
    split = load(settings.dataset, settings.train_split, data_dir)
    rows = np.arange(min(IMAGES, len(split)))
    host_ops, _ = pipeline.split_ops(settings.preprocess)
    batch = pipeline.read(split, host_ops, rows, rows, settings.seed)
    prepare = augment.build([], settings.normalize, known, tuple(known["shape"]))
    images, labels = prepare(jax.random.key(0), batch["image"]), batch["label"]
    with_maps = spec.with_argument(settings.model, ["features_only"], True)
    ends = create_model(with_maps, len(known["classes"]), settings.dtype)

    found: dict[str, Any] = {}
    _, trained = restore(mesh, "last", lambda line: None)
    for when, variables in (("start", _initial(settings, known, model)), ("end", trained)):
        norms = _gradients(model, variables, images, labels, settings)
        found[f"gradient_{when}"] = norms
        found[f"log_ratio_{when}"] = float(np.log10(max(norms[0], 1e-30) / max(norms[-1], 1e-30)))
        found[f"dead_{when}"] = _dead(ends, variables, images)
    return found


def _initial(settings: Config, known: dict[str, Any], model: Any) -> Any:
    """The variables that the run began with."""
    schedule = optim.build_schedule(settings, epoch=1000, total=1_000_000)
    shape = tuple(known["shape"])
    init = functools.partial(loop.init_state, config=settings, model=model, schedule=schedule, shape=shape)
    return jax.jit(init)(jax.random.split(jax.random.key(settings.seed))[0]).variables


def _gradients(model: Any, variables: Any, images: Any, labels: Any, settings: Config) -> list[float]:
    loss = losses.build(settings.loss)

    @jax.jit
    def gradient(variables: Any) -> Any:
        def mean_loss(params: Any) -> jax.Array:
            state = {**variables, "params": params}
            mutable = [name for name in variables if name != "params"]
            logits, _ = model.apply(state, images, train=True, mutable=mutable, rngs={"dropout": jax.random.key(0)})
            return loss(logits, jax.nn.one_hot(labels, logits.shape[-1])).mean()

        return jax.grad(mean_loss)(variables["params"])

    leaves = jax.tree_util.tree_leaves_with_path(gradient(variables))
    kernels = {path_name(path): leaf for path, leaf in leaves if path_name(path).endswith("kernel")}
    return [float(jnp.sqrt(jnp.mean(jnp.square(kernels[name])))) for name in sorted(kernels, key=_natural)]


def _natural(name: str) -> list:
    """'hidden2' before 'hidden10'; the last layer, whose name has no number, last."""
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return [not numbers, numbers, name]


def _dead(ends: Any, variables: Any, images: Any) -> float:
    """As in training: normalised by these images, for before it nothing else is known of them."""
    mutable = [name for name in variables if name != "params"]
    apply = functools.partial(ends.apply, train=True, mutable=mutable, rngs={"dropout": jax.random.key(0)})
    maps, _ = jax.jit(apply)(variables, images)
    shares = []
    for values in jax.tree.leaves(maps):
        flat = values.reshape(-1, values.shape[-1])
        shares.append(np.asarray(flat.max(axis=0) - flat.min(axis=0) < CONSTANT))
    return float(np.concatenate(shares).mean())
