"""The head of a network: fully connected layers, or a global mean; and the 1x1 convolutions of Network in Network.

./launch.sh study experiments/head.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

# Arm -> (layers after each 3x3 convolution, head, peak learning rate). Half and twice the rate of each arm give a lower
# accuracy on 2,000 other images of the training split, after 5 epochs on 1,000 images, with one seed:
# ./launch.sh sweep 'experiments/head.py:fully connected' --space.lr='[0.025, 0.05, 0.1]' --sampler=grid
#     --config.train_split='train[:1000]' --config.duration='5 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
MLPCONV, LINEAR = "relu|conv({width}, 1)|batch_norm|relu", "conv({width}, 1)|batch_norm|relu"
ARMS = {
    "fully connected": ("relu", "flatten|dense(128)|relu|dense", 0.05),
    "global mean": ("relu", "gap|dense", 0.8),
    "1x1 convolutions": (MLPCONV, "gap|dense", 0.8),
    "1x1 without ReLU": (LINEAR, "gap|dense", 0.4),
}
BUDGETS = {  # images, epochs, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (1000, 5, 3, 3),
    "standard": (1500, 12, 5, 8),
    "full": (50000, 20, 10, 20),
}


def arm(after: str, head: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm: three 3x3 convolutions on Fashion-MNIST, each followed by `after`, and a head."""
    images, epochs, *_ = BUDGETS[budget]
    trunk = "|max_pool|".join(
        f"conv({width}, 3, padding=1)|batch_norm|{after.format(width=width)}" for width in (8, 16, 32)
    )
    return Config(
        model=f'sequential("{trunk}|{head}")',
        dataset="fashion_mnist",
        train_split=f"train[:{images}]",
        duration=f"{epochs} epochs",
        batch_size=50,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=lr,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns how much more accurate a run is on its training images than on the test images, and its 'parameters'."""
    from cnnjax.runs.supervise import read_metrics
    from cnnjax.study import measure

    gap = measure.train_accuracy(folder, data_dir) - read_metrics(folder)[-1]["test/accuracy"]
    return {"gap/accuracy": gap, "parameters": measure.parameters(folder)}


CLAIMS = (
    Claim(
        name="fully_connected_heads_overfit",
        chapter="regularization",
        statement="""Fully connected layers overfit, and global average pooling does not: the gap between training
        and test accuracy is smaller with pooling.""",
        source="Lin, Chen, Yan: Network In Network. ICLR 2014, sec. 3.2",
        comparisons=(Comparison("global mean", "lower", "fully connected", "gap/accuracy"),),
    ),
    Claim(
        name="global_mean_is_as_accurate",
        chapter="convolution",
        statement="A network whose head is a global mean is as accurate as one with fully connected layers.",
        source="Lin, Chen, Yan: Network In Network. ICLR 2014, sec. 4.6; Szegedy et al.: CVPR 2015, sec. 5",
        comparisons=(Comparison("global mean", "at_least", "fully connected", "test/accuracy", margin=0.01),),
        remarks="""The margin of one percentage point is about a seventeenth of all errors. Both have the same
        convolutions, so the fully connected layers add parameters: 33 times as many in all. They fit the 1,500 training
        images without an error, and still err less on test images.""",
    ),
    Claim(
        name="mlpconv_is_more_accurate",
        chapter="convolution",
        statement="A 1x1 convolution with a ReLU after each convolution makes a network more accurate.",
        source="Lin, Chen, Yan: Network In Network. ICLR 2014, sec. 3.1",
        comparisons=(Comparison("1x1 convolutions", "higher", "global mean", "test/accuracy"),),
    ),
    Claim(
        name="relu_of_mlpconv_discriminates",
        chapter="convolution",
        statement="The additional ReLU is what makes 1x1 convolutions useful: without it they add less accuracy.",
        source="Lin, Chen, Yan: Network In Network. ICLR 2014, sec. 1",
        comparisons=(Comparison("1x1 convolutions", "higher", "1x1 without ReLU", "test/accuracy"),),
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, epochs, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={
            "test/accuracy": "test accuracy",
            "gap/accuracy": "gap between training and test accuracy",
            "parameters": "number of parameters",
        },
        claims=CLAIMS,
        panels=(
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("points", "gap/accuracy", "training - test accuracy"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""{images:,} images of Fashion-MNIST, {round(images * epochs / 50):,} steps. Three 3x3 convolutions
        with 8, 16 and 32 channels and batch normalization, with max pools between them. The fully connected head has a
        hidden layer of 128 units on the 7x7 feature maps; a 1x1 convolution has as many channels as the layer before
        it, and batch normalization. Each arm's peak learning rate is tuned: half and twice the rate are worse on 2,000
        other training images, with another seed.""",
        vary="""The head is the second entry of a row of ARMS: try 'flatten|dropout(0.5)|dense'.""",
    )
