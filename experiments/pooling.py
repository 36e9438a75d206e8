"""Pooling: maxima, means, overlapping windows, or strides in their place; accuracy, and small shifts of the image.

./launch.sh study experiments/pooling.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

# Arm -> (stride of the two convolutions before a pool, the pool, peak learning rate). Half and twice the rate of
# each arm give a lower accuracy on 2,000 other images of the training split, after 5 epochs on 1,000 images, with one
# seed:
# ./launch.sh sweep 'experiments/pooling.py:max' --space.lr='[0.2, 0.4, 0.8]' --sampler=grid
#     --config.train_split='train[:1000]' --config.duration='5 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
ARMS = {
    "max": (1, "max_pool(2)|", 0.4),
    "overlapping max": (1, "max_pool(3, stride=2, padding=1)|", 1.6),
    "mean": (1, "avg_pool(2)|", 0.2),
    "strides, no pool": (2, "", 0.4),
    "strided convolution": (1, "conv({width}, 3, stride=2, padding=1)|batch_norm|relu|", 0.8),
}
BUDGETS = {  # images, epochs, first seed, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (1000, 5, 0, 3, 3),
    "standard": (1500, 8, 100, 8, 24),
    "full": (50000, 20, 0, 10, 20),
}


def arm(stride: int, pool: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm: three 3x3 convolutions on Fashion-MNIST, each of the first two followed by `pool`.

    `stride` is that of these two; in `pool`, {width} is their number of channels.
    """
    images, epochs, seed, *_ = BUDGETS[budget]
    blocks = "".join(
        f"conv({width}, 3, stride={stride}, padding=1)|batch_norm|relu|{pool.format(width=width)}" for width in (8, 16)
    )
    return Config(
        model=f'sequential("{blocks}conv(32, 3, padding=1)|batch_norm|relu|gap|dense")',
        dataset="fashion_mnist",
        train_split=f"train[:{images}]",
        duration=f"{epochs} epochs",
        batch_size=64,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=lr,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
        seed=seed,
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the share in [0, 1] of the test images whose predicted class stays when they move right by one pixel."""
    from cnnjax.study import measure

    return {"consistency": measure.consistency(folder, data_dir, "shift(0, 1)")}


FASHION = "Accuracies are of Fashion-MNIST, where one percentage point is about a twentieth of all errors."
CLAIMS = (
    Claim(
        name="overlapping_pools_are_better",
        chapter="pooling",
        statement="Pools whose windows overlap (3x3, stride 2) make a network more accurate than those of 2x2.",
        source="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep CNNs. NIPS 2012, sec. 3.4",
        comparisons=(Comparison("overlapping max", "higher", "max", "test/accuracy"),),
        remarks="The paper has 0.4 (top-1) and 0.3 (top-5) percentage points on ImageNet.",
    ),
    Claim(
        name="strides_lose_information",
        chapter="convolution",
        statement="The stride of a convolution should be 1: with 2, in place of a pool, the network is less accurate.",
        source="taught so in lectures",
        comparisons=(Comparison("strides, no pool", "lower", "max", "test/accuracy"),),
        remarks=f"Strides also save three quarters of the work of these convolutions. {FASHION}",
    ),
    Claim(
        name="strided_convolution_replaces_pool",
        chapter="pooling",
        statement="A convolution with stride 2 can replace each max pool without a loss of accuracy.",
        source="""Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity: The All Convolutional Net. ICLR
        2015, sec. 3""",
        comparisons=(Comparison("strided convolution", "at_least", "max", "test/accuracy", margin=0.01),),
        remarks=f"The arm has more layers and parameters than the one with pools, as in the paper. {FASHION}",
    ),
    Claim(
        name="pooling_improves_accuracy",
        chapter="pooling",
        statement="""Summary statistics of small windows, maxima or means, make a network more accurate than taking
        every second value.""",
        source="taught so in lectures; Boureau, Ponce, LeCun: A Theoretical Analysis of Feature Pooling. ICML 2010",
        comparisons=(
            Comparison("max", "higher", "strides, no pool", "test/accuracy"),
            Comparison("mean", "higher", "strides, no pool", "test/accuracy"),
        ),
    ),
    Claim(
        name="max_pooling_ignores_small_shifts",
        chapter="pooling",
        statement="""Max pooling makes a network insensitive to small shifts: if the image moves by one pixel, more
        predictions stay the same than with strides in place of the pools.""",
        source="taught so in lectures; Zhang: Making Convolutional Networks Shift-Invariant Again. ICML 2019",
        comparisons=(Comparison("max", "higher", "strides, no pool", "consistency"),),
        remarks="No network was trained on shifted images.",
    ),
    Claim(
        name="max_pools_shift_better_than_means",
        chapter="pooling",
        statement="Max pooling makes a network less sensitive to small shifts than mean pooling.",
        source="taught so in lectures; the opposite is in Zhang, ICML 2019, sec. 3",
        comparisons=(Comparison("max", "higher", "mean", "consistency"),),
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, epochs, _, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={"test/accuracy": "test accuracy", "consistency": "fraction of predictions unchanged by a shift of 1"},
        claims=CLAIMS,
        panels=(
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("points", "consistency", "predictions that a shift keeps"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""{images:,} images of Fashion-MNIST, {round(images * epochs / 64):,} steps. Three 3x3 convolutions
        with 8, 16 and 32 channels, batch normalization and ReLU, a global mean and one fully connected layer. The
        feature maps are halved twice, after the first and the second convolution, in each arm by other means. Each
        arm's peak learning rate is tuned: half and twice the rate are worse on 2,000 other training images. The
        standard budget has the seeds from 100 on. With those from 0 on, of an earlier plan, four verdicts were
        the same, and those on strided convolutions and on means of windows were undecided.""",
        vary="""A row of ARMS is a way to halve the feature maps: add one, such as max_pool(4, stride=2, padding=1).""",
    )
