"""Our networks in TF-Slim's forms against TF-Slim itself: the same weights and images give the numbers in slim.json.

TF-Slim 1.1.0 made them under TensorFlow 2.15.1, in float64, with the weights and images that `_draw` draws: ResNet, VGG
and AlexNet by its own constructors, the Inceptions and MobileNet by those of tensorflow/models (research/slim/nets, for
TF-Slim 1.1), with the mean of whole maps at the end. Its variables were filled by name. Unit u of its block b is our
conv{b+1}_{u}; a convolution's BatchNorm is the norm beside it, but in version 2, where `preact` is norm1, those of
conv1 and conv2 are norm2 and norm3. Modules of Inceptions are paired as PUBLISHED of inception.py has them; there
Branch_0 is branch1, and within a branch its layers, in the order in which they are made, are ours. Depthwise kernels
are reshaped from [h, w, 1, maps * m] to [h, w, maps, m], and full connections are convolutions there.

It ran without dropout, with the decay of its moving averages set to ours (a step of its own 0.9997 moves next to
nothing), and with fused=False: the fused kernel has no float64, and keeps n / (n - 1) times the variance. A row has the
logits in evaluation, those in training (behind them the auxiliary classifier's, where there is one), and the size of
the moving means and variances after one step of training, as `_sizes` has it. Gradients are compared with PyTorch's
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

NUM_CLASSES = 10

FAST = "mobilenet_v1_025"  # the others take more than ten seconds


def _draw(row: dict[str, Any], dtype: str) -> tuple[Any, np.ndarray, Any]:
    """The network, the images and the variables."""
    model = create_model(row["ours"], NUM_CLASSES, dtype)
    x = np.random.default_rng(row["seed"]).normal(size=(row["batch"], *row["size"], 3)).astype(dtype)
    return model, x, harness.random_variables(model, x, row["seed"])


def _sizes(statistics: Any) -> list[float]:
    """The mean over layers of the mean |moving mean|, and of the mean moving variance."""
    leaves = jax.tree_util.tree_leaves_with_path(statistics)
    return [
        float(np.mean([np.abs(leaf).mean() for path, leaf in leaves if path[-1].key == kind]))
        for kind in ("mean", "var")
        if leaves
    ]


def _differ(ours: Any, theirs: Any) -> float:
    """The largest difference, relative to their largest number."""
    theirs = np.asarray(theirs, np.float64)
    ours = np.asarray(ours, np.float64).reshape(theirs.shape)
    assert np.isfinite(ours).all()
    return float((np.abs(ours - theirs).max() / np.abs(theirs).max()) if theirs.size else 0.0)


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
    double = bool(row["statistics"])  # batch statistics of few numbers multiply what float32 rounds
    with jax.enable_x64(double):
        model, x, variables = _draw(row, "float64" if double else "float32")
        evaluated = jax.jit(lambda v: model.apply(v, x, train=False))(variables)
        mutable = ["batch_stats", "aux_logits"]
        trained, new = jax.jit(lambda v: model.apply(v, x, train=True, mutable=mutable))(variables)
        new = dict(new)
        outputs = [trained, *jax.tree.leaves(new.pop("aux_logits", {}))]
        worst = {"evaluation": _differ(evaluated, row["eval"])}
        for i, (ours, theirs) in enumerate(zip(outputs, row["train"], strict=True)):
            worst[f"training {i}"] = _differ(ours, theirs)
        for kind, ours, theirs in zip(("mean", "var"), _sizes(new), row["statistics"], strict=False):
            worst[f"moving {kind}"] = abs(ours - theirs) / theirs
    print({what: f"{error:.1e}" for what, error in worst.items()})
    assert {what: error for what, error in worst.items() if not error <= harness.LIMIT} == {}


def test_every_form_is_compared_at_two_sizes_and_one_is_odd() -> None:
    sizes: dict[str, list[list[int]]] = {}
    for row in ROWS:
        sizes.setdefault(row["slim"], []).append(row["size"])
    for name, both in sizes.items():
        assert len({tuple(size) for size in both}) >= 2, name
        assert any(side % 2 for size in both for side in size), name
