"""Weights that Keras saved: read, and brought into our networks, they give the same logits for the same images.

In each of Keras's three forms: .weights.h5, .keras, and the HDF5 of before, in which its published weights are.
"""

import importlib
import importlib.util
import pathlib
from typing import Any

import jax
import numpy as np
import pytest
from flax.traverse_util import unflatten_dict

from cnnjax import pretrained, spec
from cnnjax.distributed import sharding
from cnnjax.models import create_model
from cnnjax.pretrained import catalog, convert
from cnnjax.pretrained.formats import keras as reader
from tests.parity import keras_harness
from tests.parity.keras_applications import ROWS
from tests.parity.keras_harness import KerasReference

TRAINING = ("dropout", "norm_momentum")  # fields of it alone


def randomize(net: Any, seed: int = 0) -> None:
    """Weights without a 0 or a 1 to hide behind."""
    rng = np.random.default_rng(seed)
    for variable in net.weights:
        shape = tuple(variable.shape)
        if variable.name in ("gamma", "moving_variance"):
            value = rng.uniform(0.5, 1.5, shape)
        elif len(shape) > 1:
            value = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
        else:
            value = rng.normal(0, 0.1, shape)
        variable.assign(value)


@pytest.mark.slow
@pytest.mark.zoo
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's own code
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.source)
def test_what_keras_saved_gives_the_logits_of_keras(row: KerasReference, tmp_path: pathlib.Path) -> None:
    for library in ("keras", "h5py"):
        if importlib.util.find_spec(library) is None:
            pytest.skip(f"{library} is not installed")
    size = row.sizes[0]
    model = create_model(row.ours, row.num_classes, "float32")
    images = np.random.default_rng(1).normal(size=(2, *size, 3)).astype(np.float32)
    blue_first = row.name.startswith("VGG") or row.name in ("ResNet50", "ResNet101", "ResNet152")
    with keras_harness.keras_in("float32") as keras:
        options = {"weights": None, "classifier_activation": None, "classes": row.num_classes} | (row.options or {})
        net = getattr(keras.applications, row.name)(input_shape=(*size, 3), **options)
        randomize(net)
        expected = np.asarray(net(images[..., ::-1] if blue_first else images, training=False))
        files = [tmp_path / name for name in ("net.weights.h5", "net.keras", "legacy.h5")]
        legacy = importlib.import_module("keras.src.legacy.saving.legacy_h5_format")
        h5py = importlib.import_module("h5py")
        net.save_weights(files[0])
        net.save(files[1])
        with h5py.File(files[2], "w") as file:
            legacy.save_weights_to_hdf5_group(file, net)
    for path in files:
        variables = convert.import_variables(model, (*size, 3), reader.read(path), "keras").check(path.name)
        ours = jax.jit(lambda v: model.apply(v, images, train=False))(unflatten_dict(variables, sep="/"))
        error = float(np.abs(ours - expected).max() / np.abs(expected).max())
        print(f"{path.name}: {error:.1e}")
        assert error <= 1e-4, path.name


CNN = (
    "conv(32, 3, padding=1)|relu|conv(32, 3)|relu|max_pool(2)|conv(64, 3, bias=False)|batch_norm(epsilon=0.001)|relu"
    "|max_pool(2)|flatten|dense(64)|relu|dense(10)"
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras's own code
def test_a_cnn_of_automatic_names_gives_the_logits_of_keras(tmp_path: pathlib.Path) -> None:
    """In every form in which Keras saves it, as the second network of a program, matched by order."""
    for library in ("keras", "h5py"):
        pytest.importorskip(library)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    with keras_harness.keras_in("float32") as keras:
        make = keras.layers
        make.Conv2D(3, 3)
        net = keras.Sequential([
            keras.Input((32, 32, 3)), make.Conv2D(32, 3, padding="same", activation="relu"),
            make.Conv2D(32, 3, activation="relu"), make.MaxPooling2D(), make.Dropout(0.25), make.Conv2D(64, 3),
            make.BatchNormalization(), make.Activation("relu"), make.MaxPooling2D(), make.Flatten(),
            make.Dense(64, activation="relu"), make.Dropout(0.5), make.Dense(10),
        ])  # fmt: skip
        randomize(net)
        expected = np.asarray(net(images / np.float32(255), training=False))
        files = [tmp_path / name for name in ("net.weights.h5", "net.keras", "net.h5")]
        net.save_weights(files[0])
        net.save(files[1])
        net.save(files[2])
    for path in files:
        options = pretrained.FileOptions(model=f"sequential({CNN!r})", normalize="none", match="order")
        network = pretrained.load(path, options)
        variables = network.load_variables(sharding.make_mesh(jax.devices()[:1]), "last", print).variables
        ours = np.asarray(network.model.apply(variables, images / np.float32(255), train=False))
        assert np.abs(ours - expected).max() <= 1e-4 * np.abs(expected).max(), path.name


def test_every_row_of_keras_in_the_catalogue_is_compared() -> None:
    """But for fields that change nothing in evaluation."""

    def evaluated(text: str) -> tuple[str, dict[str, Any]]:
        call = spec.parse(text)
        return call.name, {name: value for name, value in call.kwargs.items() if name not in TRAINING}

    compared = [evaluated(row.ours) for row in ROWS]
    assert [
        name
        for name, row in catalog.rows().items()
        if name.startswith("keras:") and evaluated(row.model) not in compared
    ] == []
