"""Retrains published weights from scratch by their card, and compares the result: `cnnjax reproduce`."""

import dataclasses
import functools
import pathlib

import jax
import numpy as np

from cnnjax import pretrained
from cnnjax.console import Console
from cnnjax.data.build import load
from cnnjax.data.info import changed_since
from cnnjax.distributed import sharding
from cnnjax.evaluation.card import count_correct
from cnnjax.pretrained import catalog
from cnnjax.pretrained.cards import STACK, Card
from cnnjax.runs import workdir
from cnnjax.runs.duration import format_duration
from cnnjax.state import path_name
from cnnjax.training.loop import train


@dataclasses.dataclass(frozen=True)
class Reproduction:
    """The result of training published weights again.

    Attributes:
      name: name of the weights.
      card: their card.
      arrays: number of arrays of the network.
      different_arrays: number of those whose bits differ from the published ones.
      correct: number of test images that the new weights classify correctly.
      stack: where the versions and the machine differ from the card's, such as 'jax 0.10.2 there, 0.11.0 here'.
    """

    name: str
    card: Card
    arrays: int
    different_arrays: int
    correct: int
    stack: tuple[str, ...]

    @property
    def has_same_bits(self) -> bool:
        """Returns whether all arrays are equal, bit for bit."""
        return not self.different_arrays

    @property
    def is_within_spread(self) -> bool:
        """Returns whether the number of correct images is one that a run of another seed may have."""
        low, high = self.card.interval()
        return low <= self.correct <= high

    def describe(self) -> str:
        """Returns the verdict in a line."""
        published, images = self.card.correct(self.card.config.protocol)[self.card.config.seed], self.card.images
        counts = f"{self.correct:,} of {images:,} test images are right ({self.correct / images:.2%})"
        if self.has_same_bits:
            as_there = "as in the card" if self.correct == published else f"but {published:,} in the card"
            return f"{self.name}: same bits in all {self.arrays} arrays; {counts}, {as_there}"
        low, high = self.card.interval()
        seeds = len(self.card.correct(self.card.config.protocol))
        spread = f"by the card's {seeds} seeds, {low:,} to {high:,} are expected"
        reason = "; ".join(self.stack) or "versions and processor are those of the card, so the bits should be, too"
        verdict = "other bits, within the spread" if self.is_within_spread else "NOT reproduced"
        return f"{self.name}: {verdict}: {counts}; {spread} ({reason})"


def reproduce(name: str, folder: pathlib.Path, *, data_dir: str = "", console: Console | None = None) -> Reproduction:
    """Trains published weights from scratch by their card, and compares the result with them.

    Args:
      name: name of weights that are trained here, as in 'cnnjax:lenet5.digits'.
      folder: the run's folder; a stopped run is resumed, and a complete one is only compared.
      data_dir: folder of the data sets; '' for the default one.
      console: shows the progress; None for the terminal.

    Raises InputError for an unknown name, a damaged weight file and the errors of `train`.
    """
    console = console or Console()
    log = functools.partial(console.print, soft_wrap=True)
    card, published = catalog.find_card(name), pretrained.load(name)
    mesh = sharding.make_mesh(jax.local_devices()[:1])
    expected = _arrays(published, mesh)  # first: a damaged file must not be found after hours
    examples = load(card.config.dataset, card.config.test_split, data_dir, log)
    if remark := changed_since(card.data, examples):
        log(f"{name}: {remark}")
    took = format_duration(60 * card.minutes)
    log(f"{name}: training from scratch by its card, where it took {took} on {card.stack['processor']}")
    train(dataclasses.replace(card.config), folder, data_dir=data_dir, console=console)
    network = pretrained.load(folder)
    actual = _arrays(network, mesh)
    versions = workdir.read_json(folder / "versions.json")
    stack = {entry: (str(card.stack[entry]), str(versions.get(entry))) for entry in STACK if entry in card.stack}
    return Reproduction(
        name=name,
        card=card,
        arrays=len(expected),
        different_arrays=sum(not _is_same(array, actual.get(path)) for path, array in expected.items()),
        correct=count_correct(network, examples, card.config.protocol),
        stack=tuple(f"{entry} {there} there, {here} here" for entry, (there, here) in stack.items() if there != here),
    )


def _arrays(network: pretrained.LoadedNetwork, mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
    """Returns the arrays of a network by path."""
    variables = network.load_variables(mesh, "last", lambda line: None).variables
    return {path_name(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(variables)}


def _is_same(expected: np.ndarray, actual: np.ndarray | None) -> bool:
    """Returns whether two arrays have the same type, shape and bits."""
    return (
        actual is not None
        and (expected.dtype, expected.shape) == (actual.dtype, actual.shape)
        and expected.tobytes() == actual.tobytes()
    )
