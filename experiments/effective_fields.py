"""Effective receptive fields: does a stack of 3x3 convolutions see the same as one large kernel?

./launch.sh study experiments/effective_fields.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

VGG = "Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015, sec. 2.3"
LUO = "Luo, Li, Urtasun, Zemel: Understanding the Effective Receptive Field. NIPS 2016"
REMARKS = """The theoretical fields are equal by arithmetic: 5x5 and 7x7 pixels. The effective field is measured: take
the gradient of the values in the middle of the stack's feature maps with respect to the image, and square it; the
field is the fewest pixels that hold 95.45 % of the sum. It is the mean of 100 test images of CIFAR-10. All
convolutions have 16 channels and are followed by ReLU; the same small classifier follows in all arms. Training: 5,000
images, four epochs of batches of 50, SGD with momentum 0.9. All arms have the learning rate 0.05, not tuned for each,
because no claim compares their accuracies."""
MARGIN = "The margin is a tenth of the theoretical field: 2.5 of 25 pixels, 4.9 of 49."

SAME = Claim(
    name="stacks_see_the_same_field",
    chapter="convolution",
    statement="Two 3x3 convolutions see the same field as one 5x5, and three see the same as one 7x7.",
    source=f"{VGG}; it says 'effective receptive field' of what is here the theoretical one",
    comparisons=(
        Comparison("two 3x3", "equal", "one 5x5", "share_end", margin=0.1),
        Comparison("three 3x3", "equal", "one 7x7", "share_end", margin=0.1),
    ),
    remarks=MARGIN,
)
SAME_UNTRAINED = Claim(
    name="untrained_stacks_see_the_same_field",
    chapter="convolution",
    statement="Before training, too, two 3x3 convolutions see the field of one 5x5, and three that of one 7x7.",
    source="taught so in lectures",
    comparisons=(
        Comparison("two 3x3", "equal", "one 5x5", "share_start", margin=0.1),
        Comparison("three 3x3", "equal", "one 7x7", "share_start", margin=0.1),
    ),
    remarks=MARGIN,
)
SHRINKS = Claim(
    name="effective_field_shrinks_with_depth",
    chapter="convolution",
    statement="The more 3x3 convolutions follow each other, the smaller is the part of their theoretical field that "
    "has an effect.",
    source=f"{LUO}, sec. 2.2 and fig. 1",
    comparisons=(
        Comparison("two 3x3", "higher", "three 3x3", "share_start", margin=0.05),
        Comparison("three 3x3", "higher", "five 3x3", "share_start", margin=0.05),
    ),
    remarks="The fraction gets smaller; the effective field itself, in pixels, gets larger.",
)

KERNELS = {
    "one 5x5": (5,),
    "two 3x3": (3, 3),
    "one 7x7": (7,),
    "three 3x3": (3, 3, 3),
    "five 3x3": (3, 3, 3, 3, 3),
}
LARGEST_FIELD = 11  # pixels, of five 3x3
SEEDS = {"quick": 2, "standard": 4, "full": 10}


def arm(kernels: tuple[int, ...], budget: str) -> Config:
    """Returns the config of an arm: convolutions of these sizes, then a small classifier on 8x8 positions."""
    stack = "|".join(f'conv(16, {kernel}, padding="same")|relu' for kernel in kernels)
    return Config(
        model=f"sequential('{stack}|max_pool(8)|conv(32, 3)|relu|gap|dense', initializer='he')",
        dataset="cifar10",
        train_split="train[:5000]" if budget != "full" else "train",
        test_split="test",
        duration="1 epochs" if budget == "quick" else "4 epochs",
        batch_size=50,
        lr=0.05,
        schedule="one_cycle",
        log_every="1 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the effective field of a run's stack; see `cnnjax.study.inside.effective_fields`."""
    from cnnjax.study import inside

    return inside.effective_fields(folder, data_dir, LARGEST_FIELD)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (all images)."""
    return Study(
        arms={name: arm(kernels, budget) for name, kernels in KERNELS.items()},
        metrics={
            "share_start": "effective fraction of the field before training",
            "share_end": "effective fraction of the field after training",
            "pixels_end": "effective field in pixels after training",
            "test/accuracy": "test accuracy",
        },
        claims=(SAME, SAME_UNTRAINED, SHRINKS),
        panels=(
            Panel("points", "share_start", "effective fraction, untrained"),
            Panel("points", "share_end", "effective fraction, trained"),
        ),
        seeds=SEEDS[budget],
        max_seeds=2 * SEEDS[budget],
        measure=measure,
        remarks=REMARKS,
        vary="Without the ReLU between the convolutions of a stack (delete '|relu' in `arm`), the stack is one linear "
        "kernel: does it see more?",
    )
