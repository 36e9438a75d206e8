"""Robustness of a trained network: its errors on corrupted images, and its consistency when images are shifted.

Corruptions are those of Hendrycks & Dietterich (2019), in `data.corruptions`. An image is corrupted after the host
operations of config.preprocess, so at the size that the network sees, as in CIFAR-10-C and ImageNet-C. Each image has
the same random numbers in every evaluation, at every severity and for every network.
"""

import csv
import dataclasses
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jax.sharding import Mesh

from cnnjax import metrics, pretrained, spec
from cnnjax.data import corruptions, imagenet
from cnnjax.data.build import Split
from cnnjax.data.corruptions import SEVERITIES
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.evaluation.scoring import BatchScorer, collect, make_scores

SEED = 0  # of the random numbers of corruptions
CLEAN = "none"  # the corruption of unchanged images, of severity 0
MAX_SHIFT = 64
Log = Callable[[str], None]

# Errors of AlexNet on ImageNet-C, means over the severities, by which the paper divides (its table 1 and its program).
ALEXNET = {
    CLEAN: 0.435, "gaussian_noise": 0.886428, "shot_noise": 0.894468, "impulse_noise": 0.92264,
    "defocus_blur": 0.819880, "glass_blur": 0.826268, "motion_blur": 0.785948, "zoom_blur": 0.798360,
    "snow": 0.866816, "frost": 0.826572, "fog": 0.819324, "brightness": 0.564592, "contrast": 0.853204,
    "elastic_transform": 0.646056, "pixelate": 0.717840, "jpeg_compression": 0.606500,
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CorruptionErrors:
    """The errors of a network on corrupted images.

    Attributes:
      names: the corruptions.
      severities: the severities, ascending.
      errors: fraction of wrong predictions, float64 [corruptions, severities].
      clean: fraction of wrong predictions on the unchanged images.
      count: number of images.
    """

    names: tuple[str, ...]
    severities: tuple[int, ...]
    errors: np.ndarray
    clean: float
    count: int

    @property
    def mean(self) -> float:
        """Returns the mean corruption error, not normalized: the mean over severities, then over corruptions.

        The corruptions of the group 'extra' do not count, unless there are no others.
        """
        return float(self.errors[self.counted].mean())

    @property
    def counted(self) -> np.ndarray:
        """Returns which corruptions count in means, bool [corruptions]."""
        counted = np.array([corruptions.CORRUPTIONS[name].group != "extra" for name in self.names])
        return counted if counted.any() else ~counted


@dataclasses.dataclass(frozen=True)
class RelativeErrors:
    """Corruption errors relative to those of a reference network (Hendrycks & Dietterich 2019, sec. 3).

    Attributes:
      reference: name of the reference.
      ratios: for each corruption, the error summed over severities, divided by that of the reference; float64 [N].
      mce: mean of the ratios: the paper's mCE.
      relative_mce: the same for the errors minus the clean error: how much accuracy corruptions cost; may be NaN.
    """

    reference: str
    ratios: np.ndarray
    mce: float
    relative_mce: float


@dataclasses.dataclass(frozen=True)
class ShiftConsistency:
    """Predictions under shifts of 0 to n pixels, each up, down, left and right.

    Attributes:
      accuracy: accuracy by the length of the shift, float64 [n + 1], a mean over the four directions.
      agreement: fraction of predictions that equal those of the unshifted image, float64 [n + 1].
      consistency: fraction of equal predictions over all pairs of different shifts (Zhang 2019, sec. 4).
      count: number of images.
    """

    accuracy: np.ndarray
    agreement: np.ndarray
    consistency: float
    count: int


class VariantScorer:
    """Predicts the classes of a split under different operations on its images; reuses compiled programs."""

    def __init__(
        self, network: pretrained.LoadedNetwork, examples: Split, *, step: str | int = "last", mesh: Mesh | None = None,
        log: Log = print,
    ) -> None:  # fmt: skip
        """Loads a checkpoint of `network`: 'last', 'best' or a step number. `mesh` None is all devices."""
        recipe = parse_eval_recipe(network.config)
        self._recipe = dataclasses.replace(recipe, cache="host", seed=SEED)
        self._network, self._examples, self._mesh = network, examples, mesh or sharding.make_mesh()
        self._compiled: list[dict[tuple[int, ...], BatchScorer]] = [{} for _ in recipe.protocol.passes]
        restored = network.load_variables(self._mesh, step, log)
        self._variables, self.step = restored.variables, restored.step
        self.labels = np.empty(0, np.int32)

    @property
    def host_ops(self) -> tuple[spec.Call, ...]:
        """Returns the host operations of config.preprocess."""
        return self._recipe.operations.host

    def predict(self, host_ops: Sequence[spec.Call]) -> np.ndarray:
        """Returns the predicted class of each example, int64 [N], with these host operations in place of the config's.

        Where all scores are NaN it is -1. Sets `labels` to the labels of the split.
        """
        recipe, network = self._recipe, self._network
        recipe = dataclasses.replace(recipe, operations=dataclasses.replace(recipe.operations, host=tuple(host_ops)))
        results = []
        for views, compiled in zip(recipe.protocol.passes, self._compiled, strict=True):
            scores = make_scores(recipe, network.data, self._examples, network.model, self._mesh, views, compiled)
            results.append(collect(scores, self._variables, self._examples, self._mesh))
        self.labels = results[0].labels
        scores = np.stack([result.scores for result in results], axis=1)
        return metrics.predictions(np.asarray(protocols.average(scores, recipe.average)))


def corruption_errors(
    scorer: VariantScorer,
    indices: np.ndarray,
    names: Sequence[str] = corruptions.select("all"),
    severities: Sequence[int] = SEVERITIES,
    log: Log = print,
) -> CorruptionErrors:
    """Evaluates a network on corrupted images.

    `indices` is the network's class for each class of the split: see `evaluate.matching_classes`. `log` gets a line on
    each corruption when it is done.
    """

    def error(host_ops: Sequence[spec.Call]) -> float:
        predictions = scorer.predict(host_ops)
        return float(np.mean(predictions != indices[scorer.labels]))

    clean, errors = error(scorer.host_ops), np.zeros((len(names), len(severities)))
    for row, name in enumerate(names):
        for column, severity in enumerate(severities):
            errors[row, column] = error((*scorer.host_ops, spec.Call("corrupt", (name, severity), {})))
        values = " ".join(f"{value:7.2%}" for value in errors[row])
        log(f"{row + 1:2} of {len(names)}: {name:17} error {values}")
    return CorruptionErrors(tuple(names), tuple(severities), errors, clean, len(scorer.labels))


def shift_consistency(scorer: VariantScorer, indices: np.ndarray, max_shift: int, log: Log = print) -> ShiftConsistency:
    """Evaluates a network on images that are shifted by 0 to `max_shift` pixels, each up, down, left and right.

    Where config.preprocess ends in a center crop, the crop moves, so that real pixels come in; elsewhere the image is
    mirrored at its border. `indices` is as in `corruption_errors`. Raises InputError for an invalid `max_shift`.
    """
    if not 1 <= max_shift <= MAX_SHIFT:
        raise InputError(f"shift = {max_shift}: expected 1 to {MAX_SHIFT} pixels")
    ops = scorer.host_ops
    crop = ops[-1:] if ops and ops[-1].name == "center_crop" else ()
    before = ops[: len(ops) - len(crop)]
    predictions, lengths = [scorer.predict(ops)], [0]
    for length in range(1, max_shift + 1):
        for down, right in ((length, 0), (-length, 0), (0, length), (0, -length)):
            predictions.append(scorer.predict((*before, spec.Call("move", (down, right), {}), *crop)))
            lengths.append(length)
        log(f"{length} of {max_shift} pixels: agreement {np.mean(predictions[-4:] == predictions[0]):.2%}")
    table, by_length = np.stack(predictions), np.array(lengths)
    is_correct, is_same = table == indices[scorer.labels], table == table[0]
    rows = [by_length == length for length in range(max_shift + 1)]
    pairs = math.comb(len(table), 2)
    equal = sum(float(np.mean(table[i] == table[j])) for i in range(len(table)) for j in range(i))
    return ShiftConsistency(
        accuracy=np.array([is_correct[row].mean() for row in rows]),
        agreement=np.array([is_same[row].mean() for row in rows]),
        consistency=equal / pairs,
        count=table.shape[1],
    )


# ---------------------------------------------------------------------------------------------- relative to a reference


def check_reference(reference: str, dataset: str, classes: Sequence[str]) -> None:
    """Raises InputError for the reference 'alexnet' on a data set whose classes are not the 1,000 of ImageNet."""
    if reference == "alexnet" and set(imagenet.readable(classes)) != set(imagenet.names().values()):
        raise InputError(
            f"reference = 'alexnet': expected a data set with ImageNet's 1,000 classes, got the {len(classes):,} of "
            f"{dataset!r}, such as {classes[0]!r}; give another network's corruptions.csv"
        )


def relative_to(errors: CorruptionErrors, reference: str) -> RelativeErrors:
    """Divides errors by those of a reference: 'alexnet', or the corruptions.csv of another evaluation.

    'alexnet' stands for the published errors on ImageNet-C: only for networks on ImageNet, and for all severities. Only
    corruptions that count in means are averaged. Raises InputError for a reference that lacks a corruption or severity.
    """
    if reference == "alexnet":
        if errors.severities != SEVERITIES:
            raise InputError("reference = 'alexnet': the published errors are means over severities 1 to 5: give all")
        theirs = {(name, severity): error for name, error in ALEXNET.items() for severity in SEVERITIES}
        their_clean = ALEXNET[CLEAN]
    else:
        theirs = _read_errors(pathlib.Path(reference))
        their_clean = theirs.get((CLEAN, 0), math.nan)
    pairs = [(name, severity) for name in errors.names for severity in errors.severities]
    if missing := [pair for pair in pairs if pair not in theirs]:
        raise InputError(f"reference {reference} has no error of {missing[0][0]!r}, severity {missing[0][1]}")
    table = np.array([theirs[pair] for pair in pairs]).reshape(errors.errors.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = errors.errors.sum(axis=1) / table.sum(axis=1)
        lost = (errors.errors - errors.clean).sum(axis=1) / (table - their_clean).sum(axis=1)
    counted = errors.counted
    return RelativeErrors(reference, ratios, float(ratios[counted].mean()), float(lost[counted].mean()))


def _read_errors(path: pathlib.Path) -> Mapping[tuple[str, int], float]:
    """Reads corruptions.csv, or the one in a folder: {(corruption, severity): error}. Raises InputError for others."""
    path = path / "corruptions.csv" if path.is_dir() else path
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            return {
                (row["corruption"], int(row["severity"])): float(row["error"]) for row in csv.DictReader(file)
            }  # fmt: skip
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}; expected 'alexnet' or a corruptions.csv") from error
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is not a corruptions.csv of `cnnjax evaluate --corrupt`") from error
