"""Our networks have TF-Slim's variables under TF-Slim's names: those of its own graphs are in slim_variables.json.

TF-Slim 1.1.0 and tensorflow/models (research/slim/nets) made these under TensorFlow 2.15.1: how many variables there
are, and the start of the SHA-256 of their names and shapes, a line each and sorted.

In numbers, every set of TF-Slim's in the catalogue was compared, and AlexNet: with the classes, the image size and the
kind of archive that were published, of version 2 for MobileNet and of 1 for the others. There its Saver wrote weights
drawn at random, gammas and variances from 0.5 to 1.5, means and biases not 0. Read here with TensorFlow
2.21.0 under JAX 0.10.2, they gave TF-Slim's logits of two images, in float32, to within this part of the largest:

    inception_v1 7e-7, v2 9e-7, v3 8e-7, v4 7e-7, inception_resnet_v2 6e-7
    resnet_v1_50 1.0e-6, 101 1.2e-6, 152 1.0e-6; resnet_v2_50 8e-7, 101 9e-7, 152 1.1e-6, 200 1.4e-6
    vgg_16 2.9e-6, vgg_19 2.5e-6, alexnet_v2 2.0e-6; mobilenet_v1 1.0 1.5e-6, 0.50 7e-7, 0.25 6e-7

In five of them 16 arrays each, turned round one at a time, changed the logits by 1.8e-3 of it or more. Of VGG-A,
ResNet-v1-200 and MobileNet 0.75, which the catalogue does not have, only names and shapes were compared.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax import spec
from cnnjax.models import MODELS, create_model
from cnnjax.pretrained import convert, library

ROWS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "slim_variables.json").read_text())


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row, id=row["slim"], marks=[] if row["slim"].endswith("0.25") else [pytest.mark.slow, pytest.mark.zoo]
        )
        for row in ROWS
    ],
)
def test_variables_have_the_names_and_shapes_of_tf_slim(row: dict[str, Any]) -> None:
    model = create_model(row["ours"], row["classes"], "float32")
    shape = MODELS[spec.parse(row["ours"]).name].input_shape
    ours = {name: size for layer in library.list_layers(model, shape) for name, size in layer.arrays.items()}
    zeros = {name: np.broadcast_to(np.float32(0), size) for name, size in ours.items()}
    theirs = {name: list(array.shape) for name, array in convert.export_variables(model, shape, zeros, "slim").items()}
    text = "".join(f"{name} {size}\n" for name, size in sorted(theirs.items()))
    assert (len(theirs), hashlib.sha256(text.encode()).hexdigest()[:16]) == (row["variables"], row["sha256"])
