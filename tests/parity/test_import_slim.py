"""Our networks have TF-Slim's variables under TF-Slim's names: those of its own graphs are in slim_variables.json.

TF-Slim 1.1.0 and tensorflow/models (research/slim/nets) made these under TensorFlow 2.15.1: how many variables there
are, and the start of the SHA-256 of their names and shapes, a line each and sorted. Checkpoints that its Saver wrote of
these networks with random weights, read by `cnnjax.weights.formats.slim`, gave its logits within 2e-6, of 1000 classes
and of 1001: MobileNet at 0.25, both ResNets-50, Inception-v1 to v4 and AlexNet.
"""

import hashlib
import json
import pathlib
from typing import Any

import numpy as np
import pytest

from cnnjax import spec
from cnnjax.models import MODELS, create_model
from cnnjax.weights import convert, library

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
    ours = {name: size for layer in library.layers(model, shape) for name, size in layer.arrays.items()}
    zeros = {name: np.broadcast_to(np.float32(0), size) for name, size in ours.items()}
    theirs = {name: list(array.shape) for name, array in convert.to_theirs(model, shape, zeros, "slim").items()}
    text = "".join(f"{name} {size}\n" for name, size in sorted(theirs.items()))
    assert (len(theirs), hashlib.sha256(text.encode()).hexdigest()[:16]) == (row["variables"], row["sha256"])
