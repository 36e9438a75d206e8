"""How good a network's features are for another data set: nearest neighbours and a linear classifier on them.

Features are what its own classifier is given of an image, or the means of a named map. They are computed once, without
augmentation, and kept in the cache.
"""

import hashlib
import inspect
import math
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, models, pretrained, spec
from cnnjax.augment import normalize
from cnnjax.data import split_cache
from cnnjax.data.build import Split, load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation import protocols, report, scoring
from cnnjax.models import layers, network
from cnnjax.state import Tree, path_name

CS = tuple(10.0**power for power in range(-5, 4))  # inverse strengths of the linear classifier's weight decay
HELD = 5  # of each class one image in so many chooses among them
ITERATIONS = 1000


class Features(NamedTuple):
    """Stands in for a network where that is scored: gives float32 [B, ..., D] features in place of logits."""

    model: nn.Module
    layer: str = ""  # one of the maps that a model with features_only gives; '': what the last layer with weights gets

    def init(self, *args: Any, **options: Any) -> Tree:
        return self.model.init(*args, **options)

    def apply(self, variables: Tree, images: jax.Array, **options: Any) -> jax.Array:
        given: list[jax.Array] = []

        def note(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, nn.Dense | nn.Conv | layers.FullConnection):
                given.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(note):
            out: Any = self.model.apply(variables, images, **options)
        return (out[self.layer] if self.layer else given[-1]).astype(jnp.float32)


def features_of(settings: Any, known: dict[str, Any], model: nn.Module, layer: str) -> Features:
    """Raises InputError when the network has no map of that name."""
    if not layer:
        return Features(model)
    text = spec.with_argument(settings.model, ["features_only"], True)
    ends = models.create_model(text, len(known["classes"]), settings.dtype)
    image = jax.ShapeDtypeStruct((1, *known["shape"]), jnp.float32)
    maps = jax.eval_shape(lambda x: ends.init_with_output(jax.random.key(0), x, train=False)[0], image)
    if layer not in maps:
        raise unknown(f"layer of {settings.model!r}:", layer, maps)
    return Features(ends, layer)


def extract(
    trained: pretrained.LoadedNetwork, variables: Tree, examples: Split, layer: str, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """The features float32 [N, D] and labels int32 [N] of all examples: of maps, their means.

    From the cache, where the same was computed before.
    """
    settings, known, model, _ = trained
    features: Any = features_of(settings, known, model, layer)
    protocol = protocols.build("single")

    def make() -> split_cache.Arrays:
        scores = scoring.make_scores(settings, known, examples, features, mesh, protocol, ())
        found, labels = scoring.collect(scores, variables, examples, mesh)
        return {"features": found, "labels": labels}

    modules = [sys.modules[type(model).__module__], network, layers, normalize, augment]
    of = [settings.model, layer, settings.preprocess, settings.normalize, settings.dtype, known["shape"]]
    digest = _digest(variables, normalize.statistics(known))
    found = split_cache.cached_arrays(
        examples, (), make, "features", of, digest, [inspect.getsource(one) for one in modules]
    )
    return found["features"], found["labels"]


def _digest(*trees: Any) -> str:
    """Of every array in them and its path."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        digest.update(path_name(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------- the classifiers


def nearest_neighbours(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int, k: int, temperature: float
) -> np.ndarray:
    """Probabilities [N, classes] by the votes of the k nearest, exp(cosine / temperature) each.

    Wu et al. 2018 (Unsupervised Feature Learning via Non-Parametric Instance Discrimination, sec. 3.4), with
    temperature 0.07; Caron et al. 2021 (DINO) have k = 20.
    """
    from sklearn.neighbors import KNeighborsClassifier  # costs a second

    if not 1 <= k <= len(train):
        raise InputError(f"k = {k}: expected at least 1, and no more than the {len(train)} training images")
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature = {temperature}: expected more than 0")

    def votes(distance: np.ndarray) -> np.ndarray:
        return np.exp(-distance / temperature)

    options: dict[str, Any] = {"metric": "cosine", "algorithm": "brute", "weights": votes}
    neighbours: Any = KNeighborsClassifier(k, **options).fit(train, labels)
    return _spread(neighbours.predict_proba(test), neighbours.classes_, classes)


def linear(train: np.ndarray, labels: np.ndarray, test: np.ndarray, classes: int) -> tuple[np.ndarray, float]:
    """Probabilities [N, classes] by multinomial logistic regression on standardised features, and the C it has.

    That is the one of `CS` that is best for a fifth of each class's training images, after learning from the others.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    held = np.zeros(len(labels), bool)
    for kind in np.unique(labels):
        held[np.flatnonzero(labels == kind)[HELD - 1 :: HELD]] = True
    if len(np.unique(labels[~held])) < 2 or not held.any():
        raise InputError(f"a linear classifier needs two classes or more, and {HELD} training images of one of them")
    scaler: Any = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    classifier = LogisticRegression(max_iter=ITERATIONS, warm_start=True)  # each C begins where the last one ended
    right = {}
    for c in CS:
        classifier.set_params(C=c).fit(train[~held], labels[~held])
        right[c] = classifier.score(train[held], labels[held])
    best = max(CS, key=lambda c: right[c])  # of equals the strongest decay
    classifier.set_params(C=best, warm_start=False).fit(train, labels)
    return _spread(classifier.predict_proba(test), classifier.classes_, classes), best


def _spread(probabilities: np.ndarray, columns: np.ndarray, classes: int) -> np.ndarray:
    """Those of some classes among all: the others have no training image."""
    found = np.zeros((len(probabilities), classes), np.float32)
    found[:, columns] = probabilities
    return found


# ------------------------------------------------------------------------------------------------------------ together


def probe(
    trained: pretrained.LoadedNetwork,
    folder: pathlib.Path,
    *,
    dataset: str = "",
    train_split: str = "",
    split: str = "",
    layer: str = "",
    k: int = 20,
    temperature: float = 0.07,
    step: str = "last",
    data_dir: str = "",
    mesh: Mesh | None = None,
    of: dict[str, Any] | None = None,
    say: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """What both classifiers, on the features of the training split, make of the test split.

    The data set is the network's own where none is given, and the splits are then its own, too; else train and test.
    Each one's numbers, tables and pictures are below `folder`, as an evaluation's are; `of` is more to say there of
    where they come from. Returns what is in both metrics.json. Raises InputError for a data set, split or layer that
    does not exist or does not fit.
    """
    settings, known, *_ = trained
    own = dataset in ("", settings.dataset)
    name = dataset or settings.dataset
    train_split = train_split or (settings.train_split if own else "train")
    split = split or (own and settings.test_split) or "test"
    mesh = mesh or sharding.make_mesh()
    examples = [load(name, one, data_dir) for one in (train_split, split)]
    features_of(settings, known, trained.model, layer)  # fails at once
    number, variables = trained.restore(mesh, step, say)
    (train, labels), (test, truth) = (extract(trained, variables, one, layer, mesh) for one in examples)
    say(f"{train.shape[1]:,} features of {len(train):,} and {len(test):,} images")
    classes = examples[1].classes
    by_votes = nearest_neighbours(train, labels, test, len(classes), k, temperature)
    by_line, c = linear(train, labels, test, len(classes))

    about = {"dataset": name, "split": split, "step": number, "train_split": train_split, **(of or {})}
    about |= {"layer": layer} if layer else {}
    found = []
    settled: list[tuple[np.ndarray, dict[str, Any]]] = [
        (by_votes, {"probe": "knn", "k": k, "temperature": temperature}),
        (by_line, {"probe": "linear", "C": c}),
    ]
    for probabilities, how in settled:
        with np.errstate(divide="ignore"):
            scores = np.log(probabilities)
        loss = -float(scores[np.arange(len(truth)), truth].mean())
        found.append(report.write(scores, truth, loss, folder, about | how, classes))
    return found
