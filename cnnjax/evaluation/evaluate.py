"""Evaluation of trained networks: scores a checkpoint, or an ensemble, on a split and writes the report."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh

from cnnjax import losses, metrics, pretrained
from cnnjax.config import Config
from cnnjax.data import folds
from cnnjax.data.build import Split, load
from cnnjax.data.info import DataInfo, changed_since, class_difference
from cnnjax.data.store import overlap
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, nearest
from cnnjax.evaluation import image_scores, protocols, report
from cnnjax.evaluation.groups import find_groups, groups_section
from cnnjax.evaluation.mistakes import mistakes_section
from cnnjax.evaluation.recipe import parse_eval_recipe, with_views
from cnnjax.evaluation.scoring import Scores, collect, make_scores
from cnnjax.evaluation.temperature import fit_temperature, temperature_section

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
    step: str | int = "last",
    dataset: str = "",
    split: str = "",
    protocol: str = "",
    average: str = "",
    batch_size: int = 0,
    preprocess: str | None = None,
    match_classes: str = "",
    calibrate: str = "",
    groups: pathlib.Path | str = "",
    mistakes: bool = False,
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
      calibrate: a split to fit a temperature on (see `fit_temperature`); the calibration error is reported before and
        after scaling; 'val_split' for the run's validation split. '' for none.
      groups: a CSV file with the group of each image, or another label of the data set, such as 'coarse_label' of
        CIFAR-100, to report the accuracy of each group: see `find_groups`. '' for none.
      mistakes: whether the report shows the most confident mistakes, the least confident hits and the pairs of classes
        that are confused most.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for all.
      log: called with lines of text.

    Returns:
      The contents of metrics.json except the confusion matrix: 'accuracy', 'top5', 'loss', 'ece', ... The scores of
      single images are in the report, too: see `image_scores.read`.

    Raises:
      InputError: a folder, step, data set, split, protocol or file that does not exist or does not fit.
    """
    workdir = pathlib.Path(workdir)
    views = {"preprocess": preprocess, "protocol": protocol or None, "average": average or None}
    options = pretrained.FileOptions(like, model, normalize, preprocess if init else None, classes, match)
    networks = {init or workdir: pretrained.load(init or workdir, options, log)}
    networks |= {folder: pretrained.load(folder) for folder in _distinct([init or workdir, *ensemble])[1:]}
    source = next(iter(networks))
    settings = changed_settings([network.config for network in networks.values()], views, init, options, match_classes)
    networks = {
        name: network.replace(config=with_views(network.config, batch_size=batch_size, **views))
        for name, network in networks.items()
    }
    config = networks[source].config
    _check_same_classes({name: network.data for name, network in networks.items()})
    dataset, split = choose_split(config, str(source), dataset, split, data_dir)
    subject = _subject(networks, load(dataset, split, data_dir), match_classes, log)
    held_out = _held_out(subject, calibrate, config, data_dir) if calibrate else None
    grouped = find_groups(groups, subject.examples) if groups else None

    mesh = mesh or sharding.make_mesh()
    scored = _score_all(subject, mesh, step, log)
    description: dict[str, Any] = {"dataset": dataset, "split": split, "step": scored.steps[source], **settings}
    if len(networks) > 1:
        description["ensemble"] = ", ".join(f"{name} step {number}" for name, number in scored.steps.items())
    by_image = image_scores.from_scores(scored.scores, scored.labels, subject.classes, description, subject.examples)
    sections = [report.Section({}, functools.partial(image_scores.write, by_image))]
    if grouped:
        sections.append(groups_section(grouped, by_image.is_correct))
    if held_out:
        fitted = _score_all(held_out, mesh, step, log)
        temperature = fit_temperature(fitted.scores, fitted.labels)
        sections.append(temperature_section(temperature, held_out.examples.split, scored.scores, scored.labels))
    if mistakes:
        sections.append(mistakes_section(by_image, subject.examples))
    means = metrics.evaluate(scored.scores, scored.labels, losses.build(config.loss))
    return report.write(scored.scores, scored.labels, means, workdir, description, subject.classes, sections)


def _distinct(names: Sequence[pathlib.Path | str]) -> list[pathlib.Path | str]:
    """Returns the names without repetitions of the same folder, whatever their types and spellings."""
    by_place: dict[pathlib.Path, pathlib.Path | str] = {}
    for name in names:
        by_place.setdefault(pathlib.Path(name).resolve(), name)
    return list(by_place.values())


def changed_settings(
    configs: Sequence[Config], views: Mapping[str, str | None], init: str, options: pretrained.FileOptions,
    match_classes: str = "",
) -> dict[str, Any]:  # fmt: skip
    """Returns the settings that an evaluation's report lists and that distinguish its folder from others.

    These are the `views` that are given and differ from those of any network's config, `match_classes`, if given, and,
    if weights are evaluated in place of a run, `init` and the `options` of the weight file except the classes.
    """
    is_new = {name: any(getattr(config, name) != text for config in configs) for name, text in views.items()}
    changed = {name: text for name, text in views.items() if text is not None and is_new[name]}
    changed |= {"match_classes": match_classes} if match_classes else {}
    given = {name: getattr(options, name) for name in options.given() if name != "classes"}
    return changed | ({"init": init, **given} if init else {})


def choose_split(config: Config, source: str, dataset: str, split: str, data_dir: str) -> tuple[str, str]:
    """Returns the data set and the split to evaluate on: the given ones or, where these are '', those of the config.

    The default split is config.test_split, or the validation split if there is none. `source` names the network in
    errors. Raises InputError if neither the arguments nor the config name a data set and a split.
    """
    if not (dataset := dataset or config.dataset):
        raise InputError(f"{source} names no data set; give --dataset, and --split")
    if not (split := split or config.test_split or folds.resolve_splits(config, data_dir)[1]):
        raise InputError(f"{source} has no test_split in its config; give --split")
    return dataset, split


@dataclasses.dataclass(frozen=True)
class _Subject:
    """Networks whose scores are averaged, and what they are scored on.

    Attributes:
      networks: the networks by name.
      examples: the split.
      classes: names of the classes in the report, in the order of the networks' scores; those of the split where the
        network has no names.
      indices: the network's class for each class of the split: see `matching_classes`.
      match_classes: as in `matching_classes`.
    """

    networks: Mapping[pathlib.Path | str, pretrained.LoadedNetwork]
    examples: Split
    classes: list[str]
    indices: np.ndarray
    match_classes: str


@dataclasses.dataclass(frozen=True)
class _Scored:
    """Scores float32 [N, K], labels [N] as the network's classes, and the step of each network by name."""

    scores: np.ndarray
    labels: np.ndarray
    steps: dict[pathlib.Path | str, int]


def _subject(
    networks: Mapping[pathlib.Path | str, pretrained.LoadedNetwork],
    examples: Split,
    match_classes: str,
    log: Callable[[str], None],
) -> _Subject:
    """Returns what is scored, and logs how the data has changed since the training of each network.

    Raises InputError if the classes do not match.
    """
    for name, network in networks.items():
        if remark := changed_since(network.data, examples):
            log(f"{name}: {remark}")
    source, first = next(iter(networks.items()))
    indices = matching_classes(examples, str(source), first.data, match_classes)
    by_name = match_classes == "name" and first.data.has_class_names
    classes = list(first.data.classes) if by_name else examples.classes
    return _Subject(networks, examples, classes, indices, match_classes)


def _held_out(subject: _Subject, split: str, config: Config, data_dir: str) -> _Subject:
    """Returns the same networks with the split that a temperature is fitted on; 'val_split' is the run's own.

    Raises InputError for a run without one, and for a split that has images of the evaluated one.
    """
    if split == "val_split" and not (split := folds.resolve_splits(config, data_dir)[1]):
        raise InputError("calibrate = 'val_split': the run has no validation split; give another split of its data set")
    examples = load(subject.examples.name, split, data_dir)
    if overlap(examples.ranges, subject.examples.ranges):
        raise InputError(f"calibrate = {split!r}: expected images outside the evaluated {subject.examples.split!r}")
    return _subject(subject.networks, examples, subject.match_classes, lambda line: None)


def _score_all(subject: _Subject, mesh: Mesh, step: str | int, log: Callable[[str], None]) -> _Scored:
    """Scores a split with a checkpoint of each network, and averages the scores as the first network's config says."""
    steps, results = {}, []
    for name, network in subject.networks.items():
        steps[name], scores = score(network, subject.examples, mesh, step, log)
        results.append(scores)
    average = next(iter(subject.networks.values())).config.average
    averaged = _averaged([result.scores for result in results], average)
    return _Scored(averaged, subject.indices[results[0].labels], steps)


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
        raise InputError(f"{examples.name} has {len(theirs)} classes, but the network of {source} has {len(ours)}")
    if not match and data.has_class_names and (first := class_difference(theirs, ours)):
        by_name = "--match_classes=name to match equal names, or " if set(theirs) <= set(ours) else ""
        raise InputError(
            f"class {first[0]} is {first[1]!r} in the data set {examples.name!r}, but {first[2]!r} in the data that "
            f"{source} was trained on; give {by_name}--match_classes=position to ignore the names"
        )
    return np.arange(len(ours))


def score(
    network: pretrained.LoadedNetwork, examples: Split, mesh: Mesh, step: str | int, log: Callable[[str], None]
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
            raise InputError(f"{first} and {name} cannot form an ensemble: their classes differ ({difference})")
