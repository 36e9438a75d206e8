"""A trained network in Python: predictions and feature maps of arrays of images."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence

import flax.linen as nn
import numpy as np

from cnnjax import pretrained
from cnnjax.config import Config
from cnnjax.data.info import DataInfo
from cnnjax.distributed import sharding
from cnnjax.evaluation.predict import Predictor
from cnnjax.evaluation.recipe import with_views
from cnnjax.state import Tree


@dataclasses.dataclass(frozen=True, repr=False)
class TrainedNetwork:
    """A network with its weights, and with the preprocessing that they were trained for.

    Attributes:
      config: settings of the training, or those that published weights need.
      data: classes, image shape and statistics of the training data.
      model: the Flax module: model.apply(variables, inputs, train=False).
      variables: {"params": ..., "batch_stats": ...}.
      step: training step of the checkpoint; 0 for published weights and files.
    """

    config: Config
    data: DataInfo
    model: nn.Module
    variables: Tree
    step: int

    @property
    def classes(self) -> tuple[str, ...]:
        """Returns the names of the classes, in the order of the columns of `predict`."""
        return self.data.classes

    def predict(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Returns class probabilities, float32 [N, classes].

        `images` are uint8 [N, H, W, C], or a list of [H, W, C] of any sizes. They are preprocessed as in evaluation.
        """
        return self._predictor.probabilities(images)

    def features(
        self, images: np.ndarray | Sequence[np.ndarray], layer: str = ""
    ) -> np.ndarray | dict[str, np.ndarray]:
        """Returns the activations of a layer, float32 [N, height, width, channels] or [N, features].

        `images` are as in `predict`, but in one view each. With layer='', returns a dictionary of the activations of
        all layers by name, in the order of execution. Raises InputError, which lists the layers, if there is no layer
        of this name.
        """
        return self._predictor.feature_maps(images, layer)

    def single_views(self, images: np.ndarray | Sequence[np.ndarray]) -> np.ndarray:
        """Returns the images as the network sees them, before normalization: uint8 [N, H, W, C].

        They are resized and cropped as in `features`. Raises InputError if they are then not all of one size.
        """
        return self._predictor.single_views(images)

    def with_views(
        self, preprocess: str | None = None, protocol: str | None = None, average: str | None = None
    ) -> "TrainedNetwork":
        """Returns a copy that preprocesses and scores images differently.

        The arguments replace the config fields of these names; None keeps a field. preprocess='' applies no operations.
        """
        config = with_views(self.config, preprocess=preprocess, protocol=protocol, average=average)
        return dataclasses.replace(self, config=config)

    @functools.cached_property
    def _predictor(self) -> Predictor:
        """Returns the Predictor of this network, built once: it keeps what has been compiled."""
        restored = pretrained.Restored(self.step, self.variables)
        network = pretrained.LoadedNetwork(self.config, self.data, self.model, lambda mesh, step, log: restored)
        return Predictor(network)

    def __repr__(self) -> str:
        names = ", ".join(self.classes[:3]) + (", ..." if len(self.classes) > 3 else "")
        return f"TrainedNetwork({self.config.model!r}, {len(self.classes)} classes: {names})"


def load(
    source: str | pathlib.Path,
    *,
    step: str | int = "last",
    like: str = "",
    model: str = "",
    normalize: str = "",
    preprocess: str | None = None,
    classes: str | Sequence[str] = (),
    match: str = "",
    log: Callable[[str], None] = print,
) -> TrainedNetwork:
    """Loads a trained network: a run's folder, published weights ('torchvision:resnet50.v1'), or a weight file.

    A .safetensors, .pth or .pt file that `cnnjax export` wrote describes itself. Other files name no network:
    pass `model`, and the `normalize` and `preprocess` that it was trained with, or `like`.

    Args:
      source: the folder, the name or the file. 'FILE#KEY' selects one of several sets of weights, such as 'FILE#ema'.
      step: a run's checkpoint: 'last', 'best' or a step number.
      like: for a file: published weights with the same network, classes and preprocessing.
      model: for a file: call string of the network, as in 'cifar_resnet20(shortcut="B")'.
      normalize: for a file: input normalization, as in 'imagenet' or 'constants((0.5,), (0.25,))'.
      preprocess: for a file: operations on each image, as in 'resize(256)|center_crop(224)'.
      classes: for a file: names of the classes, or a text as in `pretrained.FileOptions`.
      match: for a file: 'order' matches arrays by order and shape instead of by name.
      log: called with lines of text.

    Published weights are downloaded once. Raises InputError if the source or the step does not exist, or a file does
    not fit.
    """
    options = pretrained.FileOptions(like, model, normalize, preprocess, classes, match)
    return restore(pretrained.load(source, options, log), step, log)


def restore(network: pretrained.LoadedNetwork, step: str | int, log: Callable[[str], None]) -> TrainedNetwork:
    """Reads the variables of a checkpoint, 'last', 'best' or a number, and returns the network with them.

    Raises InputError if the checkpoint does not exist or does not fit.
    """
    restored = network.load_variables(sharding.make_mesh(), step, log)
    return TrainedNetwork(network.config, network.data, network.model, restored.variables, restored.step)
