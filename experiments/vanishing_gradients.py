"""Vanishing gradients: what twenty layers do to a gradient, under ten activations, with and without normalisation.

./launch.sh study experiments/vanishing_gradients.py --workers=2
./launch.sh study experiments/vanishing_gradients.py --budget=full
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

ACTIVATIONS = ("sigmoid", "tanh", "relu", "leaky_relu", "prelu", "elu", "selu", "swish", "mish")
NORMS = {"none": "", "batch": " + BN"}
LAYERS = 20


def arm(activation: str, norm: str, budget: str) -> Config:
    """Layers of 64 units with He's initialisation, and the same small rate for all."""
    features = ", ".join(["64"] * LAYERS)
    return Config(
        model=f"mlp(features=({features}), activation='{activation}', norm='{norm}', initializer='he')",
        dataset="mnist",
        train_split="train[:10000]" if budget == "quick" else "train[:55000]",
        val_split="train[55000:]",
        duration="4 epochs" if budget == "quick" else "40 epochs",
        batch_size=100,
        lr=0.01,
        log_every="1 epochs",
        checkpoint_every="4 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    from cnnjax.study import measure

    return measure.flow(folder, data_dir)


def get_study(budget: str) -> Study:
    arms = {f"{activation}{mark}": arm(activation, norm, budget)
            for norm, mark in NORMS.items() for activation in ACTIVATIONS}  # fmt: skip
    plain, normalised = tuple(ACTIVATIONS), tuple(f"{name} + BN" for name in ACTIVATIONS)
    return Study(
        claim=f"In a network of {LAYERS} layers with sigmoids the gradient of the first layer vanishes, by powers of ten "
        "against that of the last, and it does not learn; with rectifiers the gradient does not, and it learns; batch "
        "normalisation brings the sigmoids' back.",
        source="Glorot and Bengio: Understanding the difficulty of training deep feedforward neural networks, AISTATS 2010; "
        "Glorot, Bordes, Bengio: Deep Sparse Rectifier Neural Networks, AISTATS 2011; Ioffe and Szegedy: Batch "
        "Normalization, ICML 2015, 4.2",
        arms=arms,
        seeds=2 if budget == "quick" else 5,
        metrics={
            "log_ratio_start": "first / last gradient at the start, powers of ten",
            "log_ratio_end": "the same at the end",
            "dead_start": "dead units at the start",
            "dead_end": "at the end",
            "test/accuracy": "test accuracy",
        },
        comparisons=(
            Comparison("sigmoid", "lower", "relu", "log_ratio_start", margin=3),
            Comparison("relu", "higher", "sigmoid", "test/accuracy", margin=0.5),
            Comparison("sigmoid + BN", "higher", "sigmoid", "log_ratio_start", margin=3),
            Comparison("sigmoid + BN", "higher", "sigmoid", "test/accuracy", margin=0.1),
        ),
        panels=(
            Panel("profile", "gradient_start", "gradient before training", plain, log=True, xlabel="layer"),
            Panel("profile", "gradient_end", "gradient after training", plain, log=True, xlabel="layer"),
            Panel("bars", "test/accuracy", "test accuracy", plain),
            Panel("profile", "gradient_start", "before training, with BN", normalised, log=True, xlabel="layer"),
            Panel("profile", "gradient_end", "after training, with BN", normalised, log=True, xlabel="layer"),
            Panel("bars", "test/accuracy", "test accuracy, with BN", normalised),
        ),
        measure=measure,
        remarks="A gradient is the root mean square over a layer's kernel, of the loss of 500 training images. A unit is "
        "dead when its values over these images differ by less than 0.0001: it says nothing about them.",
    )  # fmt: skip
