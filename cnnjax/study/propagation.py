"""Propagation of signals through a run's network: gradients per convolution, and responses of residual branches."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cnnjax import augment, losses, pretrained
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.distributed import sharding
from cnnjax.models.normalization import BatchNorm
from cnnjax.state import Tree
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import make_setup
from cnnjax.training.state import new_state

IMAGES = 200  # training images in the batch that is measured
SMALLEST = 1e-30  # of a gradient whose logarithm is taken


@dataclasses.dataclass(frozen=True)
class RunBatch:
    """A run's network before and after its training, and a batch of its training images.

    Attributes:
        config: settings of the run.
        model: the network.
        start: its variables before training, initialized again.
        end: its variables after training.
        images: normalized images without augmentation, float32 [N, H, W, C].
        labels: int32 [N].
        num_classes: number of classes of the data.
    """

    config: Config
    model: nn.Module
    start: Tree
    end: Tree
    images: jax.Array
    labels: np.ndarray
    num_classes: int


def load_run_batch(folder: pathlib.Path, data_dir: str, count: int = IMAGES) -> RunBatch:
    """Loads the network of a run's folder, and the first `count` images of its training split, or all of fewer."""

    def silent(line: str) -> None:
        """Discards a line of progress."""

    network = pretrained.load(folder)
    config, data = network.config, network.data
    mesh = sharding.make_mesh(jax.devices()[:1])
    setup = make_setup(parse_recipe(config), data_dir=data_dir, mesh=mesh, log=silent)
    assert setup.splits is not None
    rows = np.arange(min(count, len(setup.splits.train)))
    batch = pipeline.read(setup.splits.train, setup.recipe.evaluation.operations.host, rows, rows, config.seed)
    prepare = augment.build([], config.normalize, data.statistics, data.shape)
    start, end = new_state(setup, silent).variables, network.load_variables(mesh, "last", silent).variables
    images = prepare(jax.random.key(0), batch["image"])
    return RunBatch(config, network.model, start, end, images, batch["label"], len(data.classes))


# ------------------------------------------------------------------------------------------------------------ gradients


def gradient_flow(folder: pathlib.Path, data_dir: str, when: Sequence[str] = ("start",)) -> dict[str, Any]:
    """Measures how a gradient changes on its way from the last convolution of a run's network to the first.

    `when` holds 'start' and 'end', for before and after training. Returns for each of them, with '_start' or '_end':
    'gradient', the root mean square of the loss's gradient for each convolution's kernel, in the order of the network;
    'decades', log10 of the first convolution's value divided by the last one's: negative if gradients vanish on their
    way back, positive if they explode; 'unevenness', the absolute value of 'decades'.
    """
    run, result = load_run_batch(folder, data_dir), {}
    for time in when:
        by_layer = kernel_gradients(run, run.start if time == "start" else run.end)
        norms = list(by_layer.values())
        decades = float(np.log10(max(norms[0], SMALLEST) / max(norms[-1], SMALLEST)))
        result |= {f"gradient_{time}": norms, f"decades_{time}": decades, f"unevenness_{time}": abs(decades)}
    return result


def module_gradient(folder: pathlib.Path, data_dir: str, module: str) -> dict[str, float]:
    """Measures the gradient that reaches one module of a run's network before training.

    `module` is its name, such as 'inception_3a'. Returns 'log_gradient_start', log10 of the root mean square over its
    convolutions of `kernel_gradients`.
    """
    run = load_run_batch(folder, data_dir)
    gradients = kernel_gradients(run, run.start)
    inside = [value for path, value in gradients.items() if path.startswith(f"{module}/")]
    return {"log_gradient_start": float(np.log10(np.sqrt(np.mean(np.square(inside)))))}


def kernel_gradients(run: RunBatch, variables: Tree) -> dict[str, float]:
    """Returns the root mean square of the loss's gradient for the kernel of each convolution, by its path.

    The loss is that of the training, with auxiliary classifiers by `config.aux_weight`, but without weight decay. The
    network is in training mode. The paths, such as 'conv2_1/conv1', are in the order in which the convolutions are
    called.
    """
    loss = losses.build(run.config.loss)
    paths = called_paths(run.model, variables, run.images, nn.Conv)
    aux = "aux_logits" if run.config.aux_weight else ""

    @jax.jit
    def gradient(variables: Tree, images: jax.Array, labels: jax.Array) -> Tree:
        def mean_loss(params: Tree) -> jax.Array:
            logits, state = _apply(run.model, {**variables, "params": params}, images, aux)
            targets = jax.nn.one_hot(labels, logits.shape[-1])
            by_aux = sum(loss(other, targets).mean() for other in jax.tree.leaves(state.get("aux_logits", {})))
            return loss(logits, targets).mean() + run.config.aux_weight * by_aux

        return jax.grad(mean_loss)(variables["params"])

    gradients = gradient(variables, run.images, run.labels)
    return {"/".join(path): _root_mean_square(_at(gradients, path)["kernel"]) for path in paths}


def _apply(model: nn.Module, variables: Tree, images: jax.Array, aux: str = "") -> tuple[jax.Array, Tree]:
    """Applies a network in training mode; returns the logits and the updated collections.

    `aux` is the name of the collection of auxiliary logits, '' to leave it out.
    """
    mutable = [name for name in (*variables, aux) if name not in ("params", "")]
    return model.apply(variables, images, train=True, mutable=mutable, rngs={"dropout": jax.random.key(0)})  # type: ignore[return-value]


def called_paths(model: nn.Module, variables: Tree, images: jax.Array, kind: type[nn.Module]) -> list[tuple[str, ...]]:
    """Returns the paths of a network's modules of class `kind`, in the order of their first calls. Computes nothing."""
    paths: list[tuple[str, ...]] = []

    def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        path = context.module.path
        if isinstance(context.module, kind) and context.method_name == "__call__" and path not in paths:
            paths.append(path)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        jax.eval_shape(lambda variables, images: _apply(model, variables, images), variables, images)
    return paths


def _at(tree: Tree, path: Sequence[str]) -> Any:
    """Returns the entry of nested dictionaries at a path."""
    for name in path:
        tree = tree[name]
    return tree


def _root_mean_square(x: jax.Array) -> float:
    """Returns the root mean square of all elements."""
    return float(jnp.sqrt(jnp.mean(jnp.square(x))))


# ------------------------------------------------------------------------------------------------------------ responses


def residual_responses(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Measures how much a run's blocks change their input, before ('_start') and after ('_end') the training.

    Returns 'response', a list with the standard deviation of F(x) for each block, 'mean_response', its mean, and
    'relative_response', the mean over the blocks of the standard deviation of F(x) divided by that of x. See
    `block_responses`.
    """
    run, result = load_run_batch(folder, data_dir), {}
    for time, variables in (("start", run.start), ("end", run.end)):
        pairs = np.array(list(block_responses(run.model, variables, run.images).values()))
        result |= {
            f"response_{time}": pairs[:, 0].tolist(),
            f"mean_response_{time}": float(pairs[:, 0].mean()),
            f"relative_response_{time}": float((pairs[:, 0] / pairs[:, 1]).mean()),
        }
    return result


def block_responses(model: nn.Module, variables: Tree, images: jax.Array) -> dict[str, tuple[float, float]]:
    """Measures the residual branch F of each block: {path: (standard deviation of F(x), that of x)}.

    F(x) is the output of the block's last batch normalization, before the addition and the activation (He et al. 2016,
    fig. 7). The standard deviations are over all images, positions and channels. A block is a module of a class named
    'Block', of which its input x is the first argument. The network is in training mode, because before training there
    are no running statistics. The paths are in the order of the network.
    """
    paths: list[str] = []

    @jax.jit
    def measure(variables: Tree, images: jax.Array) -> list[tuple[jax.Array, jax.Array]]:
        inputs: dict[str, jax.Array] = {}
        branches: dict[str, jax.Array] = {}

        def record(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            module, parent = context.module, "/".join(context.module.path[:-1])
            if type(module).__name__ == "Block" and context.method_name == "__call__":
                inputs["/".join(module.path)] = args[0]
            output = call(*args, **kwargs)
            if isinstance(module, BatchNorm) and parent in inputs and not module.path[-1].startswith("shortcut"):
                branches[parent] = output  # the last one stays
            return output

        with nn.intercept_methods(record):
            _apply(model, variables, images)
        paths[:] = [path for path in inputs if path in branches]
        return [(branches[path].std(), inputs[path].std()) for path in paths]

    measured = measure(variables, images)
    return {path: (float(branch), float(x)) for path, (branch, x) in zip(paths, measured, strict=True)}
