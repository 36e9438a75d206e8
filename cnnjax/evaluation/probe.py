"""Feature quality on a data set: a k-nearest-neighbor and a linear classifier on a frozen network's features.

Features are the input of the network's own classifier, or the spatial means of a named layer's feature maps. They are
computed once, without augmentation, and cached on disk.
"""

import dataclasses
import hashlib
import inspect
import math
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cnnjax import augment, losses, metrics, models, pretrained, spec
from cnnjax.augment import normalize
from cnnjax.data import split_cache
from cnnjax.data.build import Split, load
from cnnjax.distributed import sharding
from cnnjax.errors import InputError, unknown
from cnnjax.evaluation import report, scoring
from cnnjax.evaluation.recipe import parse_eval_recipe
from cnnjax.models import blocks, layers, normalization
from cnnjax.models import network as network_module
from cnnjax.state import Tree, path_name

INVERSE_REGULARIZATION = tuple(10.0**power for power in range(-5, 4))  # values of C tried for the linear classifier
HOLD_OUT_EVERY = 5  # of each class, every 5th training image is held out to choose C
MAX_ITERATIONS = 1000


@dataclasses.dataclass(frozen=True)
class FeatureModel:
    """Wraps a network so that `apply` returns features instead of logits; it replaces the network in scoring.

    Attributes:
      model: the network; with `layer`, built with features_only=True.
      layer: layer whose activations are returned. '' stands for the input of the last fully connected or convolutional
        layer, that is, of the classifier.
    """

    model: nn.Module
    layer: str = ""

    def init(self, *args: Any, **options: Any) -> Tree:
        """Initializes the network's variables; takes the arguments of flax's `Module.init`."""
        return self.model.init(*args, **options)

    def apply(self, variables: Tree, images: jax.Array, **options: Any) -> jax.Array:
        """Returns features float32 [B, D] or [B, height, width, D] of normalized images [B, H, W, C]."""
        inputs: list[jax.Array] = []

        def record_input(call: Callable, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
            if isinstance(context.module, nn.Dense | nn.Conv | layers.FullyConnected):
                inputs.append(args[0])
            return call(*args, **kwargs)

        with nn.intercept_methods(record_input):
            out: Any = self.model.apply(variables, images, **options)
        return (out[self.layer] if self.layer else inputs[-1]).astype(jnp.float32)


def features_only_model(network: pretrained.LoadedNetwork, layer: str = "") -> nn.Module:
    """Returns the network rebuilt with features_only=True: it returns {layer name: activations} instead of logits.

    It takes the same variables. Raises InputError if the network has no layer of the name `layer`; '' checks nothing.
    """
    config, data = network.config, network.data
    text = spec.with_argument(config.model, ["features_only"], True)
    model = models.create_model(text, len(data.classes), config.dtype)
    if layer and layer not in (shapes := layer_shapes(model, tuple(data.shape))):
        raise unknown(f"layer of {config.model!r}:", layer, shapes)
    return model


def layer_shapes(model: nn.Module, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Returns {layer: shape of its activations} of a network with features_only=True, in the order of execution.

    Shapes are without the batch: [height, width, channels] or [features], for an image of `shape` [H, W, C].
    """
    names: list[str] = []

    def features(x: jax.Array) -> dict[str, jax.Array]:
        out: Any = model.init_with_output(jax.random.key(0, impl="rbg"), x, train=False)[0]
        names.extend(out)  # here, for JAX sorts the keys of what a traced function returns
        return out

    outputs = jax.eval_shape(features, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
    return {name: tuple(outputs[name].shape[1:]) for name in names}


def feature_model(network: pretrained.LoadedNetwork, layer: str) -> FeatureModel:
    """Returns the FeatureModel of a layer; '' for the input of the classifier.

    Raises InputError for an unknown layer.
    """
    return FeatureModel(features_only_model(network, layer) if layer else network.model, layer)


def extract_features(
    network: pretrained.LoadedNetwork, variables: Tree, examples: Split, layer: str, mesh: Mesh
) -> tuple[np.ndarray, np.ndarray]:
    """Returns features float32 [N, D], averaged over positions, and labels int32 [N], in the order of the split.

    `layer` is as in `FeatureModel`. The features are cached on disk, by the variables, data, config and code that they
    depend on, and read from there if possible.
    """
    config, data = network.config, network.data
    model: Any = feature_model(network, layer)
    recipe = parse_eval_recipe(dataclasses.replace(config, protocol="single"))
    calls = (*recipe.operations.host, *recipe.operations.step)

    def compute() -> split_cache.Arrays:
        scores = scoring.make_scores(recipe, data, examples, model, mesh, ())
        collected = scoring.collect(scores, variables, examples, mesh)
        return {"features": collected.scores, "labels": collected.labels}

    modules = [sys.modules[type(network.model).__module__], network_module, blocks, layers, normalization]
    modules += [normalize, augment]
    code = [inspect.getsource(module) for module in modules]
    options = [config.model, layer, config.preprocess, config.normalize, config.dtype, config.seed, list(data.shape)]
    digest = _digest(variables, normalize.statistics(data.statistics))
    arrays = split_cache.cached_arrays(examples, calls, compute, "features", options, digest, code)
    return arrays["features"], arrays["labels"]


def _digest(*trees: Any) -> str:
    """Returns the SHA-256 of the arrays in `trees` and of their paths, as hexadecimal text."""
    digest = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(trees):
        digest.update(path_name(path).encode() + np.asarray(leaf).tobytes())
    return digest.hexdigest()


# ----------------------------------------------------------------------------------------------------- the classifiers


def nearest_neighbors(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int, k: int, temperature: float
) -> np.ndarray:
    """Classifies by the `k` nearest neighbors in cosine distance; returns probabilities float32 [N, num_classes].

    A neighbor's vote has the weight exp(cosine / temperature). Wu et al. 2018 (Unsupervised Feature Learning via
    Non-Parametric Instance Discrimination, sec. 3.4) use temperature 0.07; Caron et al. 2021 (DINO) use k = 20. `train`
    [M, D] and `test` [N, D] are features, `labels` [M] are those of `train`. Raises InputError unless 1 <= k <= M and
    temperature > 0.
    """
    from sklearn.neighbors import KNeighborsClassifier  # costs a second

    if not 1 <= k <= len(train):
        raise InputError(f"k = {k}: expected at least 1, and no more than the {len(train)} training images")
    if not 0 < temperature < math.inf:
        raise InputError(f"temperature = {temperature}: expected more than 0")

    def weights(cosine_distance: np.ndarray) -> np.ndarray:
        nearest = cosine_distance.min(axis=1, keepdims=True)  # votes are normalized; so they do not all become 0
        return np.exp((nearest - cosine_distance) / temperature)

    options: dict[str, Any] = {"metric": "cosine", "algorithm": "brute", "weights": weights}
    classifier: Any = KNeighborsClassifier(k, **options).fit(train, labels)
    return _scatter_classes(classifier.predict_proba(test), classifier.classes_, num_classes)


def linear_classifier(
    train: np.ndarray, labels: np.ndarray, test: np.ndarray, num_classes: int
) -> tuple[np.ndarray, float]:
    """Fits multinomial logistic regression on standardized features; returns test probabilities and the chosen C.

    The probabilities are float32 [N, num_classes]. C is the inverse strength of the L2 penalty. Every 5th training
    image of each class is held out, and the value of INVERSE_REGULARIZATION with the best accuracy on these is chosen;
    then the classifier is fitted to all. `train` [M, D] and `test` [N, D] are features, `labels` [M] are those of
    `train`. Raises InputError for fewer than two classes, or if no class has 5 training images.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    held_out = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        held_out[np.flatnonzero(labels == label)[HOLD_OUT_EVERY - 1 :: HOLD_OUT_EVERY]] = True
    if len(np.unique(labels[~held_out])) < 2 or not held_out.any():
        raise InputError(
            f"a linear classifier needs at least two classes, and {HOLD_OUT_EVERY} training images of one of them"
        )
    scaler: Any = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    classifier = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True)  # each C starts from the last solution
    accuracy = {}
    for c in INVERSE_REGULARIZATION:
        classifier.set_params(C=c).fit(train[~held_out], labels[~held_out])
        accuracy[c] = classifier.score(train[held_out], labels[held_out])
    best = max(INVERSE_REGULARIZATION, key=lambda c: accuracy[c])  # ties: the strongest penalty
    classifier.set_params(C=best, warm_start=False).fit(train, labels)
    return _scatter_classes(classifier.predict_proba(test), classifier.classes_, num_classes), best


def _scatter_classes(probabilities: np.ndarray, classes: np.ndarray, num_classes: int) -> np.ndarray:
    """Expands probabilities [N, len(classes)] to float32 [N, num_classes], with 0 for classes without training images.

    `classes` has the class index of each column.
    """
    scattered = np.zeros((len(probabilities), num_classes), np.float32)
    scattered[:, classes] = probabilities
    return scattered


# ----------------------------------------------------------------------------------------------------------- the probe


def probe(
    network: pretrained.LoadedNetwork,
    folder: pathlib.Path,
    *,
    dataset: str = "",
    train_split: str = "",
    split: str = "",
    layer: str = "",
    k: int = 20,
    temperature: float = 0.07,
    step: str | int = "last",
    data_dir: str = "",
    mesh: Mesh | None = None,
    description: Mapping[str, Any] | None = None,
    log: Callable[[str], None] = print,
) -> list[dict[str, Any]]:
    """Evaluates a k-nearest-neighbor and a linear classifier on a frozen network's features.

    Both are fitted to the features of a training split, and scored on those of a test split.

    Args:
      network: a network with trained weights.
      folder: where `report.write` puts its files, one folder per classifier.
      dataset: '' for the data set that the network was trained on.
      train_split: '' for the network's own, or "train" of another data set.
      split: the test split; '' for the network's own, or "test" of another data set.
      layer: layer whose activations are averaged over positions; '' for the input of the network's classifier.
      k: number of neighbors that vote.
      temperature: temperature of the votes, see `nearest_neighbors`.
      step: the checkpoint: "last", "best" or a number.
      data_dir: folder of the data sets; '' for the default one.
      mesh: devices to use; None for all.
      description: further options to record in the report, such as {"init": ...}.
      log: called with lines of text.

    Returns:
      The results of `report.write` for the nearest neighbors and for the linear classifier, in this order.

    Raises:
      InputError: a data set, split or layer that does not exist or does not fit.
    """
    config = network.config
    is_own = dataset in ("", config.dataset)
    if not (dataset := dataset or config.dataset):
        raise InputError("the weights name no data set; pass --dataset")
    train_split = train_split or (config.train_split if is_own else "train")
    split = split or (is_own and config.test_split) or "test"
    mesh = mesh or sharding.make_mesh()
    train_examples, test_examples = (load(dataset, name, data_dir) for name in (train_split, split))
    feature_model(network, layer)  # a wrong layer fails before the weights are read
    restored = network.load_variables(mesh, step, log)
    train, train_labels = extract_features(network, restored.variables, train_examples, layer, mesh)
    test, labels = extract_features(network, restored.variables, test_examples, layer, mesh)
    log(f"{train.shape[1]:,} features of {len(train):,} and {len(test):,} images")
    classes = test_examples.classes
    knn = nearest_neighbors(train, train_labels, test, len(classes), k, temperature)
    linear, c = linear_classifier(train, train_labels, test, len(classes))

    shared = {"dataset": dataset, "split": split, "step": restored.step, "train_split": train_split}
    shared |= dict(description or {})
    shared |= {"layer": layer} if layer else {}
    results = []
    fitted: list[tuple[np.ndarray, dict[str, Any]]] = [
        (knn, {"probe": "knn", "k": k, "temperature": temperature}),
        (linear, {"probe": "linear", "C": c}),
    ]
    for probabilities, options in fitted:
        with np.errstate(divide="ignore"):
            scores = np.log(probabilities)
        loss = -float(scores[np.arange(len(labels)), labels].mean())
        means = metrics.evaluate(scores, labels, losses.cross_entropy) | {"loss": loss}  # of probabilities as they are
        results.append(report.write(scores, labels, means, folder, shared | options, classes))
    return results
