"""Batch normalization: faster training, higher learning rates, and whether dropout is still of use.

./launch.sh study experiments/batch_norm.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

EARLY = 3  # epochs after which a network is called fast or slow
# Arm -> (batch normalization, dropout rate before the last layer, learning rate). Half and twice the rate of each
# of the first four arms give a lower accuracy on 2,000 other images of the training split, after 5 epochs on 1,000
# images, with one seed; the last two have ten times the rates of 'neither' and 'batch norm':
# ./launch.sh sweep 'experiments/batch_norm.py:neither' --space.lr='[0.02, 0.04, 0.08]' --sampler=grid
#     --config.train_split='train[:1000]' --config.duration='5 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
ARMS = {
    "neither": (False, 0.0, 0.04),
    "dropout": (False, 0.5, 0.04),
    "batch norm": (True, 0.0, 0.16),
    "both": (True, 0.5, 0.04),
    "neither, rate x10": (False, 0.0, 0.4),
    "batch norm, rate x10": (True, 0.0, 1.6),
}
TUNED = ("neither", "dropout", "batch norm", "both")
BUDGETS = {  # images, epochs, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (1000, 6, 3, 3),
    "standard": (1500, 12, 5, 8),
    "full": (50000, 30, 10, 20),
}


def arm(norm: bool, dropout: float, lr: float, budget: str) -> Config:
    """Returns the config of an arm: two 5x5 convolutions and a fully connected layer of 128 units on Fashion-MNIST."""
    images, epochs, *_ = BUDGETS[budget]
    after = "batch_norm|relu" if norm else "relu"
    drop = f"dropout({dropout})|" if dropout else ""
    layers = f"conv(8, 5)|{after}|max_pool|conv(16, 5)|{after}|max_pool|dense(128)|{after}|{drop}dense"
    return Config(
        model=f'sequential("{layers}", initializer="he")',
        dataset="fashion_mnist",
        train_split=f"train[:{images}]",
        duration=f"{epochs} epochs",
        batch_size=50,
        optimizer="sgd(momentum=0.9)",
        lr=lr,
        schedule="cosine",
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns how much more accurate a run is on its training images than on the test images, and its 'early' loss."""
    from cnnjax.runs.supervise import read_metrics
    from cnnjax.study import measure

    lines = read_metrics(folder)
    losses = [line["train/loss"] for line in lines if "train/loss" in line]
    gap = measure.train_accuracy(folder, data_dir) - lines[-1]["test/accuracy"]
    return {"gap/accuracy": gap, "early": losses[EARLY - 1]}


CLAIMS = (
    Claim(
        name="batch_norm_learns_faster",
        chapter="normalization",
        statement="With batch normalization a network learns faster.",
        source="Ioffe, Szegedy: Batch Normalization. ICML 2015, sec. 4.2 and fig. 2",
        comparisons=(Comparison("batch norm", "lower", "neither", "early"),),
        remarks=f"Speed is the training loss in epoch {EARLY}; each arm has its own best learning rate.",
    ),
    Claim(
        name="batch_norm_allows_high_rates",
        chapter="normalization",
        statement="""With batch normalization, ten times the best learning rate costs no accuracy; without it, such a
        high rate ruins the training.""",
        source="Ioffe, Szegedy: Batch Normalization. ICML 2015, sec. 3.3",
        comparisons=(
            Comparison("batch norm, rate x10", "at_least", "batch norm", "test/accuracy", margin=0.03),
            Comparison("neither, rate x10", "lower", "neither", "test/accuracy", margin=0.03),
        ),
        remarks="""Ten times the best rate of each: 1.6 with batch normalization, 0.4 without. A loss of three
        percentage points or more counts as a cost. Batch normalization does allow higher rates: without dropout its
        best one, 0.16, is four times that of the network without, and with 1.6 the network still learns something,
        while the other with 0.4 is at chance.""",
    ),
    Claim(
        name="dropout_reduces_overfitting",
        chapter="regularization",
        statement="Dropout in fully connected layers reduces the gap between training and test accuracy (overfitting).",
        source="""Krizhevsky, Sutskever, Hinton: NIPS 2012, sec. 4.2; Srivastava et al.: Dropout. JMLR 2014""",
        comparisons=(Comparison("dropout", "lower", "neither", "gap/accuracy"),),
        remarks="Without batch normalization. Training accuracy is measured after training, without dropout.",
    ),
    Claim(
        name="batch_norm_makes_dropout_needless",
        chapter="normalization",
        statement="With batch normalization dropout is not needed: a network without it is as accurate.",
        source="Ioffe, Szegedy: Batch Normalization. ICML 2015, sec. 3.4 and 4.2.1; He et al.: CVPR 2016, sec. 3.4",
        comparisons=(Comparison("batch norm", "at_least", "both", "test/accuracy", margin=0.01),),
        remarks="The margin of one percentage point is about a seventeenth of all errors.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, *_, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={
            "test/accuracy": "test accuracy",
            "gap/accuracy": "gap between training and test accuracy",
            "early": f"training loss in epoch {EARLY}",
        },
        claims=CLAIMS,
        panels=(
            Panel("curve", "train/loss", "training loss", TUNED),
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("points", "gap/accuracy", "training - test accuracy", TUNED),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""{images:,} images of Fashion-MNIST. Two 5x5 convolutions with max pools, and a fully connected layer
        of 128 units, whose dropout of 0.5 is that of AlexNet. SGD with momentum 0.9, and a rate that falls along a
        cosine to 0. The rates of the four arms without 'x10' are tuned: half and twice the rate are worse on 2,000
        other training images, with another seed.""",
        vary="""ARMS holds the dropout rate of each arm; BUDGETS the number of images.""",
    )
