"""Evaluation of trained networks: scores a checkpoint, or an ensemble, on a split and writes the report."""

import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cnnjax import losses, metrics, pretrained
from cnnjax.data import folds
from cnnjax.data.build import Split, load
from cnnjax.data.info import DataInfo, changed_since, class_difference
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, nearest
from cnnjax.evaluation import protocols, report
from cnnjax.evaluation.recipe import parse_eval_recipe, with_views
from cnnjax.evaluation.scoring import Scores, collect, make_scores

EXAMPLES_PER_CHUNK = 1000  # examples per computation over all scores, to save memory


def evaluate(
    workdir: pathlib.Path | str,
    *,
    init: str = "",
    like: str = "",
    model: str = "",
    normalize: str = "",
    classes: str | Sequence[str] = (),
    match: str = "",
    ensemble: Sequence[pathlib.Path | str] = (),
    step: str = "last",
    dataset: str = "",
    split: str = "",
    protocol: str = "",
    average: str = "",
    batch_size: int = 0,
    preprocess: str | None = None,
    match_classes: str = "",
    data_dir: str = "",
    mesh: Mesh | None = None,
    log: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Scores a checkpoint, an ensemble or published weights on a split, and writes a report.

    Args:
      workdir: the run's folder; the report is written below it.
      init: published weights or a weight file to score instead of the run; `workdir` then only takes the report.
      like, model, normalize, classes, match: for a weight file, what it does not say: see `pretrained.FileOptions`.
      ensemble: further runs, whose scores are averaged with those of the first. Each network keeps its own config.
      step: checkpoint of every run: 'last', 'best' or a step number.
      dataset: '' for the run's own.
      split: '' for config.test_split, or for the validation split if there is none.
      protocol: test protocol, such as 'ten_crop(224)', for all networks; '' for each config's own.
      average: what is averaged over views and networks, 'probabilities' or 'logits'; '' for the config's own.
      batch_size: views per device call; 0 for the config's own.
      preprocess: operations on the images, for all networks; None for each config's own, '' for none.
      match_classes: how to match classes if they are not the network's: see `matching_classes`.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for all.
      log: called with lines of text.

    Returns:
      The contents of metrics.json except the confusion matrix: 'accuracy', 'top5', 'loss', 'ece', ...

    Raises:
      InputError: a folder, step, data set, split or protocol that does not exist or does not fit.
    """
    workdir = pathlib.Path(workdir)
    views = {"preprocess": preprocess, "protocol": protocol or None, "average": average or None}
    options = pretrained.FileOptions(like, model, normalize, preprocess if init else None, classes, match)
    networks = {init or workdir: pretrained.load(init or workdir, options, log)}
    networks |= {folder: pretrained.load(folder) for folder in dict.fromkeys(ensemble) if folder not in networks}
    source, first = next(iter(networks.items()))
    changed = {name: text for name, text in views.items() if text not in (None, getattr(first.config, name))}
    networks = {
        name: network.replace(config=with_views(network.config, batch_size=batch_size, **views))
        for name, network in networks.items()
    }
    config = networks[source].config
    _check_same_classes({name: network.data for name, network in networks.items()})
    if not (dataset := dataset or config.dataset):
        raise InputError(f"{source} names no data set; give --dataset, and --split")
    split = split or config.test_split or folds.resolve_splits(config, data_dir)[1]
    if not split:
        raise InputError(f"{source} has no test_split in its config; give --split")
    examples = load(dataset, split, data_dir)
    for name, network in networks.items():
        if remark := changed_since(network.data, examples):
            log(f"{name}: {remark}")
    indices = matching_classes(examples, str(source), networks[source].data, match_classes)

    mesh = mesh or sharding.make_mesh()
    steps, results = {}, []
    for name, network in networks.items():
        steps[name], scores = score(network, examples, mesh, step, log)
        results.append(scores)
    scores, labels = _averaged([result.scores for result in results], config.average), indices[results[0].labels]
    subject: dict[str, Any] = {"dataset": dataset, "split": split, "step": steps[source], **changed}
    if init:
        subject |= {"init": init} | {name: getattr(options, name) for name in options.given() if name != "classes"}
    if len(networks) > 1:
        subject["ensemble"] = ", ".join(f"{name} step {number}" for name, number in steps.items())
    means = metrics.evaluate(scores, labels, losses.build(config.loss))
    classes = list(networks[source].data.classes) if match_classes == "name" else examples.classes
    return report.write(scores, labels, means, workdir, subject, classes)


def matching_classes(examples: Split, source: str, data: DataInfo, match: str = "") -> np.ndarray:
    """Returns the index of the network's class for each class of a split, int64 [classes of the split].

    `source` names the network in errors; `data` describes its training data. `match` says how to match: '' requires the
    same names in the same order; 'name' matches equal names in any order, and the split may lack classes; 'position'
    matches by index, ignores the names, and requires the same number of classes. A network without class names is
    matched by position. Raises InputError for another `match`, or for classes that do not match.
    """
    theirs, ours = list(examples.classes), list(data.classes)
    if match not in ("", "name", "position"):
        raise InputError(f"match_classes = {match!r}; {nearest(match, ('name', 'position'))}")
    if match == "name" and data.has_class_names:
        if missing := [name for name in theirs if name not in ours]:
            names = ", ".join(map(repr, missing[:3])) + ", ..." * (len(missing) > 3)
            raise InputError(f"{examples.name} has classes that {source} was not trained on: {names}")
        return np.array([ours.index(name) for name in theirs])
    if len(theirs) != len(ours):
        raise InputError(f"{examples.name} has {len(theirs)} classes; the network of {source} {len(ours)}")
    if not match and data.has_class_names and (first := class_difference(theirs, ours)):
        by_name = "--match_classes=name to match equal names, or " if set(theirs) <= set(ours) else ""
        raise InputError(
            f"class {first[0]} is {first[1]!r} in the data set {examples.name!r}, but {first[2]!r} in the data that "
            f"{source} was trained on; give {by_name}--match_classes=position to ignore the names"
        )
    return np.arange(len(ours))


def score(
    network: pretrained.LoadedNetwork, examples: Split, mesh: Mesh, step: str, log: Callable[[str], None]
) -> tuple[int, Scores]:
    """Scores `examples` with a checkpoint of a network, averaged over all passes of the network's protocol.

    `step` is 'last', 'best' or a step number. Returns the checkpoint's step number (0 for weights that do not come from
    a run) and the scores.
    """
    recipe = parse_eval_recipe(network.config)
    make = functools.partial(make_scores, recipe, network.data, examples, network.model, mesh)
    passes = [make(views) for views in recipe.protocol.passes]
    restored = network.load_variables(mesh, step, log)
    results = [collect(scores, restored.variables, examples, mesh) for scores in passes]
    averaged = _averaged([result.scores for result in results], recipe.average)
    return restored.step, Scores(averaged, results[0].labels)


def _averaged(scores: Sequence[np.ndarray], how: str) -> np.ndarray:
    """Averages several score arrays [N, K] into one [N, K], as `protocols.average` does with mode `how`."""
    starts = range(0, len(scores[0]), EXAMPLES_PER_CHUNK)
    chunks = (np.stack([array[i : i + EXAMPLES_PER_CHUNK] for array in scores], axis=1) for i in starts)
    return np.concatenate([np.asarray(protocols.average(chunk, how)) for chunk in chunks])


def _check_same_classes(data: Mapping[pathlib.Path | str, DataInfo]) -> None:
    """Raises InputError if the networks of an ensemble differ in their class names or in the order of these.

    `data` maps the name of each network to its DataInfo.
    """
    (first, expected), *others = ((name, info.classes) for name, info in data.items())
    for name, classes in others:
        if classes != expected:
            counts = f"{len(expected)} and {len(classes)}"
            first_pair = class_difference(expected, classes)
            difference = f"{first_pair[1]!r} and {first_pair[2]!r}" if first_pair else counts
            raise InputError(f"{first} and {name} are no ensemble: their classes differ ({difference})")
