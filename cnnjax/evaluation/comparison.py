"""Comparison of runs: settings that differ, results on the test images, and paired tests between the networks."""

import dataclasses
import itertools
import pathlib
import statistics
import string
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cnnjax import config as configs
from cnnjax import pretrained, sealed, summarize
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.evaluation import image_scores, report
from cnnjax.evaluation.evaluate import choose_split, evaluate
from cnnjax.evaluation.image_scores import ImageScores
from cnnjax.evaluation.significance import PairedTest, accuracy_interval, corrected, paired_test
from cnnjax.pretrained import LoadedNetwork
from cnnjax.runs import checkpoint, history, workdir
from cnnjax.runs.duration import training_seconds

MAX_RUNS = len(string.ascii_uppercase)  # each has a letter
VERSIONS = ("cnnjax", "python", *workdir.PACKAGES, "devices", "processes")  # of versions.json


@dataclasses.dataclass(frozen=True)
class TestResult:
    """The result of an evaluation of a run, or of the test at the end of its training.

    Attributes:
      dataset: the data set.
      split: the split.
      step: the step of the checkpoint.
      accuracy: fraction of the images that are classified right.
      loss: mean of the run's own loss.
      nll: mean negative log-likelihood in nats; None if not known.
      count: number of images; 0 if not known.
      right: number of images that are classified right; 0 if `count` is.
    """

    dataset: str
    split: str
    step: int
    accuracy: float
    loss: float | None
    nll: float | None = None
    count: int = 0
    right: int = 0

    @property
    def interval(self) -> tuple[float, float] | None:
        """Returns the bootstrap interval (low, high) of the accuracy; None if the number of images is not known."""
        return accuracy_interval(self.right, self.count) if self.count else None


@dataclasses.dataclass(frozen=True, eq=False)
class ComparedRun:
    """One of the runs compared.

    Attributes:
      letter: 'A' for the first run, 'B' for the second, ...
      label: the end of the folder's path, without the prefix that all runs share.
      folder: the run's folder.
      config: its settings, with today's names.
      data_dir: folder of its data sets; '' for the default one.
      versions: the content of its versions.json; {} without that file.
      lines: its metrics, as in metrics.jsonl: {"step": 20, "epoch": 1.5, "train/loss": 0.5}.
      params: number of trainable parameters.
      macs: number of multiply-accumulates per image.
      test: the result of its evaluation or of the test at its end; None without either.
      scores: the scores of single images; None without an evaluation.
      evaluation: folder of the evaluation; None without one.
    """

    letter: str
    label: str
    folder: pathlib.Path
    config: Config
    data_dir: str
    versions: Mapping[str, Any]
    lines: Sequence[dict[str, Any]]
    params: int
    macs: int
    test: TestResult | None
    scores: ImageScores | None
    evaluation: pathlib.Path | None

    @property
    def images_per_second(self) -> float | None:
        """Returns the median speed of training; None without a line of metrics."""
        speeds = [line["train/images_per_second"] for line in self.lines if line.get("train/images_per_second")]
        return statistics.median(speeds) if speeds else None

    @property
    def training_seconds(self) -> float | None:
        """Returns the duration of the training, as `runs.duration` defines it; None without metrics."""
        return training_seconds(self.lines, self.config.batch_size) or None


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two runs of a comparison, by index, and the test between them."""

    first: int
    second: int
    test: PairedTest


@dataclasses.dataclass(frozen=True, eq=False)
class RunComparison:
    """A comparison of several runs.

    Attributes:
      runs: the runs, in the order given.
      settings: config field -> its value in each run, for those that differ.
      versions: package, or 'devices' -> its version in each run, for those that differ; '' where unknown.
      pairs: tests between all runs that are evaluated on the same images, corrected for their number.
      untested: a sentence for each reason why two runs are not tested against each other.
    """

    runs: tuple[ComparedRun, ...]
    settings: Mapping[str, tuple[Any, ...]]
    versions: Mapping[str, tuple[Any, ...]]
    pairs: tuple[Pair, ...]
    untested: tuple[str, ...]


def compare(
    folders: Sequence[pathlib.Path | str],
    *,
    step: str | int = "last",
    split: str = "",
    data_dir: str = "",
    with_evaluation: bool = True,
    log: Callable[[str], None] = lambda line: None,
) -> RunComparison:
    """Compares runs in their settings and, on the same test images, in their results.

    Args:
      folders: folders of 2 to MAX_RUNS runs.
      step: checkpoint of every run: 'last', 'best' or a step number.
      split: '' for each run's test split, or its validation split if there is none.
      data_dir: folder of the data sets; '' for the one that each training was given, or else the default one.
      with_evaluation: whether runs without an evaluation of this checkpoint and split are evaluated first, as
        `cnnjax evaluate` does; the result is kept. If not, they are compared by what their folders have.
      log: called with lines of text.

    Raises InputError for a folder that is not a run's or occurs twice, a run without a checkpoint, and what `evaluate`
    raises.
    """
    paths = [pathlib.Path(folder) for folder in folders]
    _check_folders(paths)
    networks = [pretrained.load(path) for path in paths]  # all fail before the first is evaluated
    labels = short_names(paths)
    runs = tuple(
        _read_run(letter, label, path, network, step, split, data_dir, with_evaluation, log)
        for letter, label, path, network in zip(string.ascii_uppercase, labels, paths, networks, strict=False)
    )
    tests, untested = _tests(runs)
    settings = differing([workdir.comparable(run.config) for run in runs])
    versions = differing([{name: run.versions.get(name, "") for name in VERSIONS} for run in runs])
    return RunComparison(runs, settings, versions, tuple(tests), tuple(untested))


def _check_folders(paths: Sequence[pathlib.Path]) -> None:
    """Raises InputError unless these are the folders of 2 to MAX_RUNS different runs."""
    if not 2 <= len(paths) <= MAX_RUNS:
        raise InputError(f"{len(paths)} run{'s' * (len(paths) != 1)}: expected 2 to {MAX_RUNS} folders of runs")
    places: dict[pathlib.Path, pathlib.Path] = {}
    for path in paths:
        if (real := path.resolve()) in places:
            same = "" if str(places[real]) == str(path) else f", also as {places[real]}"
            raise InputError(f"{path} is given twice{same}: expected different runs")
        places[real] = path
        configs.load(path / "config.json")


def short_names(paths: Sequence[pathlib.Path]) -> list[str]:
    """Returns the end of each path, without the folders that all have in common at their beginning."""
    parts = [path.resolve().parts for path in paths]
    common = sum(1 for _ in itertools.takewhile(lambda names: len(set(names)) == 1, zip(*parts, strict=False)))
    common = min(common, min(map(len, parts)) - 1)  # one of them may contain the others
    return ["/".join(names[common:]) for names in parts]


def differing(several: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Returns name -> the value in each of several mappings with the same names, for those that differ."""
    columns = {name: tuple(values[name] for values in several) for name in several[0]}
    return {name: values for name, values in columns.items() if any(value != values[0] for value in values)}


def _read_run(
    letter: str, label: str, folder: pathlib.Path, network: LoadedNetwork, step: str | int, split: str, data_dir: str,
    with_evaluation: bool, log: Callable[[str], None],
) -> ComparedRun:  # fmt: skip
    """Reads a run's folder, and evaluates the run if need be. The arguments are those of `compare`."""
    path = folder / sealed.WITNESS
    versions = workdir.read_json(path) if path.exists() else {}
    data_dir = data_dir or workdir.recorded_data_dir(versions)
    evaluation = find_evaluation(folder, network.config, step, split, data_dir)
    if evaluation is None and with_evaluation:
        log(f"evaluating {letter}: {folder}")
        result = evaluate(folder, step=step, split=split, data_dir=data_dir, log=log)
        evaluation = pathlib.Path(result["folder"])
    test = _evaluation_result(evaluation) if evaluation else _training_result(folder, network.config)
    size = summarize.summary(network.model, network.data.shape)
    return ComparedRun(
        letter, label, folder, network.config, data_dir, versions,
        [line.values for line in history.read(folder).lines],
        size.params, size.macs, test,
        image_scores.read(evaluation) if evaluation else None, evaluation,
    )  # fmt: skip


def find_evaluation(
    folder: pathlib.Path, config: Config, step: str | int, split: str, data_dir: str
) -> pathlib.Path | None:
    """Returns the folder of a run's evaluation of a checkpoint on a split, with its own protocol; None without one."""
    if step == "last" and not checkpoint.steps(folder):
        return None
    number = checkpoint.find(folder, step, lambda line: None)
    dataset, split = choose_split(config, str(folder), "", split, data_dir)
    path = folder / "evaluations" / report.folder_name(dataset, split, number)
    return path if (path / image_scores.FILE).exists() and (path / "metrics.json").exists() else None


def _evaluation_result(folder: pathlib.Path) -> TestResult:
    """Reads the result of an evaluation from its folder."""
    values = workdir.read_json(folder / "metrics.json")
    return TestResult(
        values["dataset"], values["split"], values["step"], values["accuracy"], values["loss"], values["nll"],
        values["count"], values["top1_right"],
    )  # fmt: skip


def _training_result(folder: pathlib.Path, config: Config) -> TestResult | None:
    """Reads the test at the end of a training from result.json; None if the run has none."""
    path = folder / "result.json"
    values = workdir.read_json(path) if path.exists() else {}
    if "accuracy" not in values:
        return None
    return TestResult(config.dataset, values["split"], values["step"], values["accuracy"], values["loss"])


def _tests(runs: Sequence[ComparedRun]) -> tuple[list[Pair], list[str]]:
    """Returns the tests between all runs with the same images, and a sentence for each other pair."""
    places, tests, untested = [], [], []
    for (i, a), (j, b) in itertools.combinations(enumerate(runs), 2):
        if a.scores is None or b.scores is None:
            continue
        if reason := why_unpaired(a.scores, b.scores):
            untested.append(f"{a.letter} and {b.letter} are compared in settings and curves only: {reason}")
        else:
            places.append((i, j))
            tests.append(paired_test(a.scores.is_correct, b.scores.is_correct))
    if missing := [run.letter for run in runs if run.scores is None]:
        untested.append(f"No paired tests with {', '.join(missing)}: no scores of single images")
    return [Pair(i, j, test) for (i, j), test in zip(places, corrected(tests), strict=True)], untested


def why_unpaired(a: ImageScores, b: ImageScores) -> str:
    """Returns why two evaluations cannot be compared image by image; '' if they have the same images and classes."""
    (first, second), names = (a, b), ("dataset", "split")
    datasets, splits = ([scores.description[name] for scores in (first, second)] for name in names)
    if datasets[0] != datasets[1]:
        return f"their data sets are {datasets[0]} and {datasets[1]}"
    contents = [{name: value for name, value in scores.identity.items() if name != "split"} for scores in (a, b)]
    if contents[0] != contents[1]:
        return f"the data set {datasets[0]} was rebuilt from other files between their evaluations"
    if a.classes != b.classes:
        return f"their classes differ ({len(a.classes)} and {len(b.classes)}, or other names)"
    if a.ranges != b.ranges or not np.array_equal(a.labels, b.labels):
        return f"their test splits are {splits[0]} and {splits[1]}"
    return ""
