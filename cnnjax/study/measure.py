"""Measurements of a trained run for studies: accuracies, consistency under shifts, gradients per layer, dead units."""

import functools
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import losses, metrics, pretrained, spec, summarize
from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.distributed import sharding
from cnnjax.evaluation import evaluate
from cnnjax.evaluation.classification import classification_metrics
from cnnjax.evaluation.recipe import with_views
from cnnjax.evaluation.robustness import VariantScorer, corruption_errors
from cnnjax.evaluation.scoring import Scores, variable_shapes
from cnnjax.models import MODELS, create_model
from cnnjax.runs import workdir
from cnnjax.runs.supervise import complete_metrics
from cnnjax.state import path_name
from cnnjax.study.propagation import load_run_batch

IMAGES = 500  # training images in the batch that is measured
DEAD_RANGE = 1e-4  # a unit is dead if its values over all images differ by less


def score(
    folder: pathlib.Path, data_dir: str, *, split: str = "", preprocess: str | None = None, protocol: str | None = None
) -> Scores:
    """Scores the last checkpoint of a run on a split of its data set, and writes no report.

    `split` '' is the run's test split. `preprocess`, such as 'shift(2, 0)', and `protocol`, such as 'flip', replace
    those of the run; None leaves them as they are.
    """
    network = pretrained.load(folder)
    network = network.replace(config=with_views(network.config, preprocess=preprocess, protocol=protocol))
    examples = load(network.config.dataset, split or network.config.test_split, data_dir)
    mesh = sharding.make_mesh(jax.devices()[:1])
    return evaluate.score(network, examples, mesh, "last", _silent)[1]


def accuracy(folder: pathlib.Path, data_dir: str, preprocess: str | None = None) -> float:
    """Returns a run's accuracy on its test split, in [0, 1]; `preprocess` is as in `score`, '' for no operations."""
    scores = score(folder, data_dir, preprocess=preprocess)
    return float(np.mean(metrics.predictions(scores.scores) == scores.labels))


def train_accuracy(folder: pathlib.Path, data_dir: str) -> float:
    """Returns a run's accuracy on its training split, without augmentation, in [0, 1]."""
    scores = score(folder, data_dir, split=pretrained.load(folder).config.train_split)
    return float(np.mean(metrics.predictions(scores.scores) == scores.labels))


def consistency(folder: pathlib.Path, data_dir: str, preprocess: str) -> float:
    """Returns the fraction of the test images for which `preprocess`, such as 'shift(0, 1)', keeps the predicted class.

    This is the consistency of Zhang: Making Convolutional Networks Shift-Invariant Again. ICML 2019, sec. 4.1.
    """
    before, after = (metrics.predictions(score(folder, data_dir, preprocess=text).scores) for text in ("", preprocess))
    return float(np.mean(before == after))


def parameters(folder: pathlib.Path) -> int:
    """Returns the number of elements in the parameter arrays of a run's network."""
    network = pretrained.load(folder)
    shapes = variable_shapes(network.model, network.data.shape)
    return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes["params"]))


def table_row(
    folder: pathlib.Path,
    data_dir: str,
    *,
    corruptions: Sequence[str] = (),
    severities: Sequence[int] = (),
    corrupted_split: str = "",
) -> dict[str, float]:
    """Returns the numbers of a run for a table of results.

    These are 'test_error' and 'ece' (expected calibration error) on the test split; 'parameters', 'macs' for one image,
    and 'year' of the network (0 without a paper); 'images_per_second' in the training, the 90th percentile, so that
    other work on the machine does not count, and 'minutes' of training at that speed; and, with `corruptions`,
    'corruption_error', the mean error over these, at `severities`, on `corrupted_split` ('' for the test split).
    """
    network, scores = pretrained.load(folder), score(folder, data_dir)
    config, shape = network.config, network.data.shape
    speeds = [line["train/images_per_second"] for line in complete_metrics(folder) if "train/images_per_second" in line]
    speed, steps = float(np.percentile(speeds, 90)), workdir.read_json(folder / "result.json")["step"]
    overall = classification_metrics(scores.scores, scores.labels).overall
    row = {
        "test_error": 1 - float(overall["accuracy"]),
        "ece": float(overall["ece"]),
        "parameters": parameters(folder),
        "macs": sum(layer.macs for layer in summarize.layers(network.model, shape)),
        "year": MODELS[spec.parse(config.model).name].year,
        "images_per_second": speed,
        "minutes": steps * config.batch_size / speed / 60,
    }
    if corruptions:
        examples = load(config.dataset, corrupted_split or config.test_split, data_dir)
        scorer = VariantScorer(network, examples, mesh=sharding.make_mesh(jax.devices()[:1]), log=_silent)
        classes = np.arange(len(examples.classes))
        row["corruption_error"] = corruption_errors(scorer, classes, corruptions, severities, _silent).mean
    return row


def flow(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Measures gradients and dead units of a run's network, before ('_start') and after ('_end') its training.

    Uses the first `IMAGES` training images without augmentation, and the network in training mode. The state before
    training is initialized again. Returns these entries, each with '_start' and '_end': 'gradient', the root mean
    square of the loss's gradient for each kernel, first layer first; 'log_ratio', log10 of the first layer's value
    divided by the last layer's; 'dead', the fraction of hidden units (channels) whose values over all images and
    positions differ by less than `DEAD_RANGE`.
    """
    run, result = load_run_batch(folder, data_dir, IMAGES), {}
    with_features = spec.with_argument(run.config.model, ["features_only"], True)
    feature_model = create_model(with_features, run.num_classes, run.config.dtype)
    for when, variables in (("start", run.start), ("end", run.end)):
        norms = _gradients(run.model, variables, run.images, run.labels, run.config)
        result[f"gradient_{when}"] = norms
        result[f"log_ratio_{when}"] = float(np.log10(max(norms[0], 1e-30) / max(norms[-1], 1e-30)))
        result[f"dead_{when}"] = _dead_fraction(feature_model, variables, run.images)
    return result


def _silent(line: str) -> None:
    """Discards a line of progress."""


def _gradients(model: Any, variables: Any, images: Any, labels: Any, config: Config) -> list[float]:
    """Returns the root mean square of the mean loss's gradient for each kernel, first layer first.

    The network is in training mode. `images` are its input [N, H, W, C], `labels` int32 [N].
    """
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
    return [float(jnp.sqrt(jnp.mean(jnp.square(kernels[name])))) for name in sorted(kernels, key=_natural_key)]


def _natural_key(name: str) -> list:
    """Returns a sort key for parameter names.

    It puts 'hidden2' before 'hidden10', and names without a number, which are those of the last layer, at the end.
    """
    numbers = [int(number) for number in re.findall(r"\d+", name)]
    return [not numbers, numbers, name]


def _dead_fraction(feature_model: Any, variables: Any, images: Any) -> float:
    """Returns the fraction of channels of all feature maps whose values differ by less than `DEAD_RANGE`.

    The range is over all images and positions. `feature_model` has `features_only`. Batch normalization uses batch
    statistics, because there are no running statistics before training.
    """
    mutable = [name for name in variables if name != "params"]
    apply = functools.partial(feature_model.apply, train=True, mutable=mutable, rngs={"dropout": jax.random.key(0)})
    features, _ = jax.jit(apply)(variables, images)
    dead = []
    for values in jax.tree.leaves(features):
        flat = values.reshape(-1, values.shape[-1])
        dead.append(np.asarray(flat.max(axis=0) - flat.min(axis=0) < DEAD_RANGE))
    return float(np.concatenate(dead).mean())
