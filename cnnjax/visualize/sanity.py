"""Sanity checks of attribution: does a map change when the weights of the network are random?

A map that does not depend on what the network has learned shows edges of the image, and explains nothing (Adebayo et
al.: Sanity Checks for Saliency Maps. NeurIPS 2018, sec. 3: cascading randomization).

As in that paper, maps are compared twice by Spearman's rank correlation: with their signs, and by absolute value. The
two disagree for methods that multiply by the input, such as integrated gradients: random weights make the signs
random, so the first is near 0, while the map stays strong where the image is, so the second stays high.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import rankdata

from cnnjax.evaluation.trained import TrainedNetwork
from cnnjax.pretrained.library import list_layers
from cnnjax.state import Tree
from cnnjax.visualize.attribution import Explanation, Scorer, attribute

STAGES = (0.0, 0.25, 0.5, 0.75, 1.0)  # fraction of the layers that are random, at least the last one
UNCHANGED = 0.5  # mean rank correlation from which a map counts as unchanged; our choice


@dataclasses.dataclass(frozen=True)
class SanityCheck:
    """Maps of a network whose layers are random, from the last one down.

    Attributes:
      layers: how many layers are random at each stage.
      explanations: the maps at each stage, of the same classes.
      correlations: float [stages, N] in [-1, 1]: rank correlation of each map, with its signs, with the original.
      absolute_correlations: the same of the absolute values; equal for maps without signs, as `gradient` has.
    """

    layers: tuple[int, ...]
    explanations: tuple[Explanation, ...]
    correlations: np.ndarray
    absolute_correlations: np.ndarray

    @property
    def similarity(self) -> np.ndarray:
        """Returns the mean of `correlations` over the stages, [N]: 1 for a map that does not depend on the weights.

        A value near 0 may mean that stages of opposite signs cancel: see `absolute_similarity`.
        """
        return self.correlations.mean(0)

    @property
    def absolute_similarity(self) -> np.ndarray:
        """Returns the mean of `absolute_correlations` over the stages, [N]: 1 if the weights change signs at most."""
        return self.absolute_correlations.mean(0)

    @property
    def unchanged(self) -> np.ndarray:
        """Returns which maps hardly change, bool [N]: those with a similarity of UNCHANGED or more."""
        return self.similarity >= UNCHANGED

    @property
    def only_signs_change(self) -> np.ndarray:
        """Returns which other maps have an absolute similarity of UNCHANGED or more, bool [N]."""
        return ~self.unchanged & (self.absolute_similarity >= UNCHANGED)


def check(
    net: TrainedNetwork,
    images: Any,
    method: str,
    original: Explanation,
    scorer: Scorer,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    **arguments: Any,
) -> SanityCheck:
    """Computes the maps of `original` again with random weights; `arguments` are those of `attribute`."""
    paths = [layer.path for layer in list_layers(net.model, tuple(net.data.shape))]
    counts = tuple(sorted({max(1, round(fraction * len(paths))) for fraction in STAGES}))
    explanations, correlations, absolute = [], [], []
    for stage, count in enumerate(counts, start=1):
        variables = shuffled(net.variables, paths[len(paths) - count :], seed)
        found = attribute(
            net, images, method, original.classes, variables=variables, scorer=scorer, **arguments
        )  # fmt: skip
        explanations.append(found)
        pairs = list(zip(original.maps, found.maps, strict=True))
        correlations.append([rank_correlation(a, b) for a, b in pairs])
        absolute.append([rank_correlation(np.abs(a), np.abs(b)) for a, b in pairs])
        progress(stage, len(counts))
    return SanityCheck(counts, tuple(explanations), np.array(correlations), np.array(absolute))


def shuffled(variables: Tree, paths: Sequence[str], seed: int = 0) -> Tree:
    """Returns the variables with the parameters of some layers, by path, in random order, each array on its own.

    Their mean and deviation stay, so activations keep about their size. Running statistics are not changed.
    """
    rng, params = np.random.default_rng(seed), variables["params"]

    def shuffle(tree: Any, path: tuple[str, ...]) -> Any:
        if not isinstance(tree, dict):
            array = np.asarray(tree)
            return rng.permutation(array.ravel()).reshape(array.shape) if "/".join(path[:-1]) in paths else tree
        return {name: shuffle(value, (*path, name)) for name, value in tree.items()}

    return {**variables, "params": shuffle(params, ())}


def rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two arrays; 0 if one of them is constant."""
    ranks = [rankdata(array) for array in (a, b)]
    if any(rank.std() == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
