"""Vanishing gradients in twenty layers: nine activations, with and without batch normalization.

./launch.sh study experiments/vanishing_gradients.py --workers=2
./launch.sh study experiments/vanishing_gradients.py --budget=standard --workers=2
./launch.sh study experiments/vanishing_gradients.py --budget=full
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

GLOROT = "Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks. AISTATS 2010"
RECTIFIER = "Glorot, Bordes, Bengio: Deep Sparse Rectifier Neural Networks. AISTATS 2011"
BATCH_NORM = "Ioffe, Szegedy: Batch Normalization. ICML 2015, sec. 4.2"
REMARKS = """A gradient is the root mean square over a layer's kernel, for the loss of 500 training images. A unit is
dead if its values over these images differ by less than 0.0001. All arms start from weights of variance 1 / inputs.
With these, ReLU halves the power of the signal in each layer, so the gradients of all layers are equally small; the
derivative of a sigmoid, at most 1/4, makes them smaller from layer to layer."""

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "selu", "swish", "mish")
NORMS = {"none": "", "batch": " + BN"}
LAYERS = 20
DURATION = {"quick": "12 epochs", "standard": "12 epochs", "full": "60 epochs"}


def arm(activation: str, norm: str, budget: str) -> Config:
    """Returns the config of an arm: an MLP of `LAYERS` layers of 64 units, LeCun initialization (1998), learning rate
    0.01. `norm` is 'none' or 'batch'.
    """
    features = ", ".join(["64"] * LAYERS)
    return Config(
        model=f"mlp(features=({features}), activation='{activation}', norm='{norm}', initializer='lecun')",
        dataset="mnist",
        train_split="train[:10000]" if budget == "quick" else "train[:55000]",
        val_split="train[55000:]",
        duration=DURATION[budget],
        batch_size=100,
        lr=0.01,
        log_every="1 epochs",
        checkpoint_every="12 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the gradients and dead units of a run before and after training; see `cnnjax.study.measure.flow`."""
    from cnnjax.study import measure

    return measure.flow(folder, data_dir)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    plain, normalized = ACTIVATIONS, tuple(f"{name} + BN" for name in ACTIVATIONS)
    panels = []
    for arms, suffix in ((plain, ""), (normalized, ", with BN")):
        panels += [
            Panel("profile", "gradient_start", f"gradient before training{suffix}", arms, log=True, xlabel="layer"),
            Panel("bars", "test/accuracy", f"test accuracy{suffix}", arms),
        ]
    return Study(
        arms={f"{name}{mark}": arm(name, norm, budget) for norm, mark in NORMS.items() for name in ACTIVATIONS},
        seeds=5 if budget == "full" else 3,
        max_seeds=5 if budget == "standard" else 0,
        metrics={
            "log_ratio_start": "gradient ratio of first to last layer (log10)",
            "log_ratio_end": "gradient ratio of first to last layer after training (log10)",
            "dead_start": "fraction of dead units before training",
            "dead_end": "fraction of dead units after training",
            "test/accuracy": "test accuracy",
        },
        claims=(
            Claim(
                name="sigmoid_gradients_vanish",
                chapter="activations",
                statement="""In a network of twenty layers with sigmoids the gradient of the first layer is powers of
                ten smaller, relative to that of the last, than with ReLU.""",
                source=f"{GLOROT}; {RECTIFIER}",
                comparisons=(Comparison("sigmoid", "lower", "relu", "log_ratio_start", margin=3),),
                remarks="Powers of ten: more than three.",
            ),
            Claim(
                name="relu_learns_where_sigmoid_does_not",
                chapter="activations",
                statement="A network of twenty layers learns with ReLU, and does not with sigmoids.",
                source=RECTIFIER,
                comparisons=(Comparison("relu", "higher", "sigmoid", "test/accuracy", margin=0.5),),
                remarks="Sigmoids end near the accuracy of guessing, 0.1; ReLU has to be better by more than 0.5.",
            ),
            Claim(
                name="batch_norm_rescues_sigmoids",
                chapter="normalization",
                statement="""With batch normalization the gradient of sigmoids does not vanish in twenty layers, and the
                network learns.""",
                source=BATCH_NORM,
                comparisons=(
                    Comparison("sigmoid + BN", "higher", "sigmoid", "log_ratio_start", margin=3),
                    Comparison("sigmoid + BN", "higher", "sigmoid", "test/accuracy", margin=0.1),
                ),
            ),
        ),
        panels=tuple(panels),
        measure=measure,
        remarks=REMARKS,
        vary="""Change `LAYERS` to 5. Is the gradient of sigmoids still powers of ten smaller, and does the network
        learn?""",
    )
