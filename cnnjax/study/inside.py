"""Measurements of what a trained network has learned: effective receptive fields, Gabor fits, selectivity, probes."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnnjax import visualize
from cnnjax.data.build import load_dataset
from cnnjax.evaluation import probe
from cnnjax.evaluation.trained import TrainedNetwork, load
from cnnjax.study.propagation import load_run_batch
from cnnjax.summarize import trace
from cnnjax.visualize.activations import features_model

IMAGES = 100  # over which an effective receptive field is averaged
PROBED = 2000  # training images to which a linear classifier is fitted, and as many test images that score it
TINY = 1e-12  # added to a denominator that may be 0


def effective_fields(folder: pathlib.Path, data_dir: str, largest: int) -> dict[str, Any]:
    """Measures the effective receptive field of one layer of a run's network, before and after training.

    The layer is the last whose theoretical field is at most `largest` pixels wide. Returns 'pixels_start' and
    'pixels_end', the number of pixels that hold 95.45% of the gradient's energy, and 'share_start' and 'share_end', the
    same as a fraction of the theoretical field. See `cnnjax.visualize.receptive_fields`.
    """
    run, trained = load_run_batch(folder, data_dir), load(folder, log=_silent)
    images = load_dataset(trained.config.dataset, trained.config.test_split, data_dir=data_dir)[0][:IMAGES]
    fields = trace.receptive_fields(features_model(trained), trained.data.shape)
    layer = [name for name, field in fields.items() if field.size[0] <= largest][-1]
    result: dict[str, Any] = {}
    for time, net in (("start", dataclasses.replace(trained, variables=run.start)), ("end", trained)):
        seen = visualize.receptive_fields(net, images, layer=layer)
        result |= {f"pixels_{time}": int(seen.effective(layer).sum()), f"share_{time}": seen.share(layer)}
    return result


def gabor_likeness(folder: pathlib.Path) -> dict[str, float]:
    """Returns 'gabor_r2', the median R^2 of Gabor functions fitted to the filters of a run's first convolution.

    See `cnnjax.visualize.gabor`.
    """
    return {"gabor_r2": float(np.median(visualize.gabor(load(folder, log=_silent)).r2))}


def by_depth(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Measures how much each layer of a run's network tells about the class, from its channels averaged over positions.

    Returns two lists over the layers that have feature maps, 'probe', the test accuracy of a linear classifier on them,
    and 'selectivity', see `class_selectivity`; and the first and the last value of each, with '_first' and '_last', and
    their difference, with '_rise'.
    """
    net = load(folder, log=_silent)
    train, test = (
        load_dataset(net.config.dataset, f"{split}[:{PROBED}]", data_dir=data_dir)[:2] for split in ("train", "test")
    )
    features = {split: _pooled_features(net, images) for split, (images, _) in (("train", train), ("test", test))}
    result: dict[str, Any] = {"probe": [], "selectivity": []}
    for layer, values in features["test"].items():
        scores, _ = probe.linear_classifier(features["train"][layer], train[1], values, len(net.classes))
        result["probe"].append(float((scores.argmax(axis=1) == test[1]).mean()))
        result["selectivity"].append(float(class_selectivity(values, test[1]).mean()))
    for metric in ("probe", "selectivity"):
        first, last = result[metric][0], result[metric][-1]
        result |= {f"{metric}_first": first, f"{metric}_last": last, f"{metric}_rise": last - first}
    return result


def class_selectivity(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns the class selectivity of each channel, float [D] in [0, 1], from activations [N, D] of 0 or more.

    It is (a - b) / (a + b), where a is the channel's mean over the images of the class for which that is largest, and b
    the mean over the other classes (Morcos, Barrett, Rabinowitz, Botvinick: On the Importance of Single Directions for
    Generalization. ICLR 2018, sec. 2.3). 0 for a channel that is never active.
    """
    means = np.sort(np.stack([features[labels == label].mean(axis=0) for label in np.unique(labels)]), axis=0)
    largest, others = means[-1], means[:-1].mean(axis=0)
    return (largest - others) / (largest + others + TINY)


def _pooled_features(net: TrainedNetwork, images: np.ndarray) -> dict[str, np.ndarray]:
    """Returns {layer: its channels averaged over positions, float32 [N, D]} for the layers with feature maps, in order.

    The order is that in which the network computes them.
    """
    maps, model = net.features(images), features_model(net)
    assert isinstance(maps, dict)
    order: list[str] = []  # recorded while the network is traced: what jit returns is in alphabetical order
    image = jax.ShapeDtypeStruct((1, *net.data.shape), np.float32)
    apply: Callable[..., Any] = model.apply
    jax.eval_shape(lambda x: order.extend(apply(net.variables, x, train=False)), image)
    return {name: maps[name].mean(axis=(1, 2)) for name in order if maps[name].ndim == 4}


def _silent(line: str) -> None:
    """Discards a line of progress."""
