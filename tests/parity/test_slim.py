"""Our networks in TF-Slim's forms against TF-Slim itself: the same weights and images give the numbers in slim.json.

TF-Slim 1.1.0 made them under TensorFlow 2.15.1, in float64, with the weights and images that `case` draws: ResNet, VGG
and AlexNet by its own constructors, the Inceptions and MobileNet by those of tensorflow/models (research/slim/nets, for
TF-Slim 1.1), with the mean of whole maps at the end. Its variables were filled by name. Unit u of its block b is our
conv{b+1}_{u}; a convolution's BatchNorm is the norm beside it, but in version 2, where `preact` is norm1, those of
conv1 and conv2 are norm2 and norm3. Modules of Inceptions are paired as PUBLISHED of inception.py has them; there
Branch_0 is branch1, and within a branch its layers, in the order in which they are made, are ours. Depthwise kernels
are reshaped from [h, w, 1, maps * m] to [h, w, maps, m], and full connections are convolutions there.

It ran without dropout, with the decay of its moving averages set to ours (a step of its own 0.9997 moves next to
nothing), and with fused=False: the fused kernel has no float64, and keeps n / (n - 1) times the variance. A row has the
logits in evaluation, those in training (behind them the auxiliary classifier's, where there is one), and the size of
the moving means and variances after one step of training, as `sizes` has it. Gradients are compared with PyTorch's
alone, in test_parity.py.
"""

import json
import pathlib
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax.models import create_model
from tests.parity import harness

ROWS: list[dict[str, Any]] = json.loads((pathlib.Path(__file__).parent / "slim.json").read_text())

FAST = "mobilenet_v1_025"  # the others take more than ten seconds


def case(row: dict[str, Any], dtype: str) -> harness.Case:
    model = create_model(row["ours"], 10, dtype)
    images = np.random.default_rng(row["seed"]).normal(size=(row["batch"], *row["size"], 3)).astype(dtype)
    labels = np.zeros(row["batch"], np.int32)
    return harness.Case(model, images, labels, harness.random_variables(model, images, row["seed"]))


def sizes(statistics: Any) -> list[float]:
    """The means over layers of the mean |moving mean|, and of the mean moving variance."""
    leaves = jax.tree_util.tree_leaves_with_path(statistics)
    each = [[np.abs(leaf).mean() for path, leaf in leaves if path[-1].key == kind] for kind in ("mean", "var")]
    return [float(np.mean(layers)) for layers in each if layers]


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(
            row,
            id=f"{row['ours']}-{'x'.join(map(str, row['size']))}",
            marks=[] if row["ours"].startswith(FAST) else [pytest.mark.slow, pytest.mark.zoo],
        )
        for row in ROWS
    ],
)
def test_the_same_weights_give_the_numbers_of_tf_slim(row: dict[str, Any]) -> None:
    # What float32 rounds is multiplied by a division by statistics of few numbers: to 1e-3 in Inception-v4.
    dtype = "float64" if row["statistics"] else "float32"
    with jax.enable_x64(dtype == "float64"):
        ours = harness.our_results(case(row, dtype), gradients=False)
    worst = harness.Differences(harness.LIMITS[dtype])
    worst.add("evaluation", ours.evaluated, row["eval"])
    for logits, theirs in zip(ours.trained, row["train"], strict=True):
        worst.add("training", logits, theirs)
    for value, theirs in zip(sizes(ours.statistics), row["statistics"], strict=True):
        worst.add("statistics", value, theirs)
    print({what: f"{error:.1e}" for what, error in worst.items()})
    assert {what: error for what, error in worst.items() if not error <= worst.limit} == {}


def test_every_form_is_compared_at_an_odd_size() -> None:
    for name in {row["slim"] for row in ROWS}:
        assert any(side % 2 for row in ROWS if row["slim"] == name for side in row["size"]), name
