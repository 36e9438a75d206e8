"""What studies measure of a run, beside its metrics: how gradients and units fare, layer by layer."""

import functools
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import augment, losses, pretrained, spec
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.distributed import sharding
from cnnjax.evaluation.evaluate import evaluate
from cnnjax.evaluation.scoring import variable_shapes
from cnnjax.models import create_model
from cnnjax.state import path_name
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import make_setup
from cnnjax.training.state import new_state

IMAGES = 500  # of the training split, in what is measured of one batch
CONSTANT = 1e-4  # a unit whose values over all images differ by less says nothing of them


def accuracy(folder: pathlib.Path, data_dir: str, preprocess: str) -> float:
    """The accuracy of a run's network, from 0 to 1, on its test split as those operations make it."""
    return evaluate(folder, data_dir=data_dir, preprocess=preprocess, log=_silent)["accuracy"]


def parameters(folder: pathlib.Path) -> int:
    """How many numbers the network learns."""
    network = pretrained.load(folder)
    shapes = variable_shapes(network.model, network.data.shape)
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


def flow(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Of a run's network, before training and after it:

    'gradient_start', 'gradient_end': the norm of the loss's gradient by each kernel, over the square root of its size,
    from the first layer to the last, on the first IMAGES training images without augmentation; 'log_ratio_start' and
    'log_ratio_end', the power of ten between the first of these and the last; 'dead_start', 'dead_end': the share of
    hidden units whose values over all these images differ by less than CONSTANT. All as in a step of training.
    """
    network = pretrained.load(folder)
    config, data = network.config, network.data
    mesh = sharding.make_mesh(jax.devices()[:1])
    setup = make_setup(parse_recipe(config), data_dir=data_dir, mesh=mesh, log=_silent)
    assert setup.splits is not None
    rows = np.arange(min(IMAGES, len(setup.splits.train)))
    batch = pipeline.read(setup.splits.train, setup.recipe.evaluation.host_ops, rows, rows, config.seed)
    prepare = augment.build([], config.normalize, data.statistics, data.shape)
    images, labels = prepare(jax.random.key(0), batch["image"]), batch["label"]
    with_features = spec.with_argument(config.model, ["features_only"], True)
    features = create_model(with_features, len(data.classes), config.dtype)

    found: dict[str, Any] = {}
    trained = network.load_variables(mesh, "last", _silent).variables
    for when, variables in (("start", new_state(setup, _silent).variables), ("end", trained)):
        norms = _gradients(network.model, variables, images, labels, config)
        found[f"gradient_{when}"] = norms
        found[f"log_ratio_{when}"] = float(np.log10(max(norms[0], 1e-30) / max(norms[-1], 1e-30)))
        found[f"dead_{when}"] = _dead(features, variables, images)
    return found


def _silent(line: str) -> None:
    pass


def _gradients(model: Any, variables: Any, images: Any, labels: Any, config: Config) -> list[float]:
    loss = losses.build(config.loss)

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
