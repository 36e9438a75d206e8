"""Losses: cross-entropy, and the squared error of probabilities or of logits.

./launch.sh study experiments/loss.py --workers=2
./launch.sh study experiments/loss.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

EARLY = 3  # epochs after which a network is called fast or slow
# Arm -> (loss, learning rate). The rate is the best of four for each arm, a factor of two apart, after 10 epochs on
# 5,000 images, by the accuracy on 5,000 others of the training split:
# ./launch.sh sweep 'experiments/loss.py:cross-entropy' --space.lr='[0.01, 0.02, 0.04, 0.08]' --sampler=grid
#     --config.val_split='train[55000:]' --config.seed=1000
ARMS = {
    "cross-entropy": ("cross_entropy", 0.04),
    "squared error of probabilities": ("mse", 0.4),
    "squared error of logits": ("mse(of='logits')", 0.1),
}
BUDGETS = {  # images, epochs, seeds, largest number of seeds
    "quick": (2000, 10, 5, 8),
    "standard": (5000, 10, 5, 12),
    "full": (50000, 20, 10, 20),
}


def arm(loss: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm: LeNet-5 on Fashion-MNIST, with a rate that falls along a cosine."""
    images, epochs, *_ = BUDGETS[budget]
    return Config(
        model="lenet5",
        dataset="fashion_mnist",
        train_split=f"train[:{images}]",
        duration=f"{epochs} epochs",
        batch_size=50,
        loss=loss,
        optimizer="sgd(momentum=0.9)",
        lr=lr,
        schedule="cosine",
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the training accuracy of a run in the epoch `EARLY`, in [0, 1]."""
    from cnnjax.runs.supervise import read_metrics

    return {"early": [line["train/accuracy"] for line in read_metrics(folder) if "train/accuracy" in line][EARLY - 1]}


CLAIMS = (
    Claim(
        name="cross_entropy_learns_faster",
        chapter="training",
        statement="""With softmax and cross-entropy a network learns faster than with the squared error of its
        probabilities, whose gradient vanishes where the network is sure and wrong.""",
        source="taught so in lectures; Glorot, Bengio: AISTATS 2010, sec. 4.1",
        comparisons=(Comparison("cross-entropy", "higher", "squared error of probabilities", "early"),),
        remarks=f"Speed is the training accuracy in epoch {EARLY}.",
    ),
    Claim(
        name="cross_entropy_ends_better",
        chapter="training",
        statement="A network trained with cross-entropy is more accurate than one trained with the squared error.",
        source="taught so in lectures; Golik, Doetsch, Ney: Cross-Entropy vs. Squared Error Training. Interspeech 2013",
        comparisons=(Comparison("cross-entropy", "higher", "squared error of probabilities", "test/accuracy"),),
    ),
    Claim(
        name="squared_error_of_logits_is_as_good",
        chapter="training",
        statement="Trained with the squared error of its logits, a network is as accurate as with cross-entropy.",
        source="Hui, Belkin: Evaluation of Neural Architectures Trained with Square Loss vs Cross-Entropy. ICLR 2021",
        comparisons=(Comparison("squared error of logits", "equal", "cross-entropy", "test/accuracy", margin=0.01),),
        remarks="The margin of one percentage point is about a fourteenth of all errors.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, *_, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={"test/accuracy": "test accuracy", "early": f"training accuracy in epoch {EARLY}"},
        fractions=("early",),
        claims=CLAIMS,
        panels=(
            Panel("curve", "train/accuracy", "training accuracy"),
            Panel("points", "test/accuracy", "test accuracy"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""LeNet-5 with ReLU on {images:,} images of Fashion-MNIST, SGD with momentum 0.9, batches of 50. Each
        loss has a learning rate of its own, the best of four on 5,000 other training images, because the gradients of
        the squared errors are smaller. The squared error of logits has targets of 1 (right class) and 0 (others).""",
        vary="""Give all rows of ARMS the same learning rate, and see how unfair that is.""",
    )
