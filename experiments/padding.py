"""Padding: zeros, copies of the border or a mirror image around the feature maps, or nothing at all.

./launch.sh study experiments/padding.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

SHIFT = 4  # pixels by which a digit is shifted to touch the border of the image
# Arm -> (padding of the convolutions, padding_mode, peak learning rate). Half and twice the rate of each arm give
# a lower accuracy on 2,000 other images of the training split, after 5 epochs on 1,000 images, with one seed:
# ./launch.sh sweep experiments/padding.py:zeros --space.lr='[0.2, 0.4, 0.8]' --sampler=grid
#     --config.train_split='train[:1000]' --config.duration='5 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
ARMS = {
    "zeros": ("same", "zeros", 0.4),
    "copied border": ("same", "edge", 0.2),
    "mirrored": ("same", "reflect", 0.8),
    "no padding": ("valid", "zeros", 0.2),
}
BUDGETS = {  # images, epochs, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (1000, 5, 3, 3),
    "standard": (1500, 8, 5, 12),
    "full": (50000, 20, 10, 20),
}


def arm(padding: str, mode: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm: five 3x3 convolutions on MNIST digits at random places, up to the border."""
    images, epochs, *_ = BUDGETS[budget]
    blocks = "|max_pool|".join(
        "|".join([f"conv({width}, 3, padding='{padding}')|batch_norm|relu"] * count)
        for width, count in ((8, 2), (16, 2), (32, 1))
    )
    return Config(
        model=f'sequential("{blocks}|gap|dense", padding_mode="{mode}")',
        dataset="mnist",
        train_split=f"train[:{images}]",
        augment=f"translate({SHIFT / 28:.3f})",
        duration=f"{epochs} epochs",
        batch_size=64,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=lr,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the test errors in [0, 1] of a run: digits in the center, and at the border, where they touch two sides.

    'border' is the mean over two opposite corners, 'penalty' its difference from 'center', 'error' the mean of both.
    """
    from cnnjax.runs.supervise import read_metrics
    from cnnjax.study import measure

    corners = [f"shift({distance}, {distance})" for distance in (-SHIFT, SHIFT)]  # top left, bottom right
    center = 1 - read_metrics(folder)[-1]["test/accuracy"]
    border = 1 - sum(measure.accuracy(folder, data_dir, corner) for corner in corners) / len(corners)
    return {"center": center, "border": border, "penalty": border - center, "error": (center + border) / 2}


CLAIMS = (
    Claim(
        name="zero_padding_does_no_harm",
        chapter="padding",
        statement="""Zeros around the feature maps do no harm: a network that pads with zeros makes as many errors as
        one that copies the border pixels, or mirrors the image there.""",
        source="taught so in lectures; Islam, Jia, Bruce: How Much Position Information Do CNNs Encode? ICLR 2020",
        comparisons=(
            Comparison("zeros", "equal", "copied border", "error", margin=0.005),
            Comparison("zeros", "equal", "mirrored", "error", margin=0.005),
        ),
        remarks="The margin of half a percentage point is about a ninth of all errors.",
    ),
    Claim(
        name="padding_strengthens_the_border",
        chapter="padding",
        statement="""Zero padding strengthens the border: without it, objects at the border of the image cost more
        additional errors, because fewer windows see them.""",
        source="taught so in lectures; Alsallakh et al.: Mind the Pad. ICLR 2021",
        comparisons=(Comparison("zeros", "lower", "no padding", "penalty"),),
        remarks="All networks saw shifted digits in training, so no place is new to them.",
    ),
    Claim(
        name="depth_needs_padding",
        chapter="padding",
        statement="Without padding, feature maps shrink too fast: even a network of five layers makes more errors.",
        source="taught so in lectures, with the formula (N - F + 2P) / S + 1",
        comparisons=(Comparison("zeros", "lower", "no padding", "error"),),
        remarks="""Without padding the last feature maps have 2x2 pixels here, with it 7x7. The error is the mean over
        digits in the center and in corners; in the center alone the network without padding makes fewer errors.""",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, epochs, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={
            "error": "test error",
            "center": "error in the center",
            "border": "error at the border",
            "penalty": "rise of the error from the center to the border",
        },
        fractions=("error", "center", "border", "penalty"),
        claims=CLAIMS,
        panels=(
            Panel("points", "center", "error, digit in the center"),
            Panel("points", "border", "error, digit in a corner"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""{images:,} digits of MNIST, {round(images * epochs / 64):,} steps. All arms have the same layers:
        3x3 convolutions with 8, 8, 16, 16 and 32 channels, each with batch normalization and ReLU, max pools after the
        second and the fourth, a global mean and one fully connected layer. Digits are shifted by up to {SHIFT} pixels
        in training, and by 0 or {SHIFT} in the test; pixels that a shift uncovers get the
        mean gray of all digits. Each arm's peak
        learning rate is tuned: half and twice the rate are worse on 2,000 other training images, with another seed.""",
        vary="""SHIFT is how far digits are from the center: with 8, parts of them are outside of the image.""",
    )
