"""Training set size: the gain from more images, and the gain from augmentation with few images and with many.

./launch.sh study experiments/training_set_size.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

FEW, SOME, MANY = 300, 3000, 30000  # training images
AUGMENT = "pad_crop(2)|rotate(10)"
# Arm -> (training images, augmentation, peak learning rate). Half and twice the rate of each arm give a
# lower accuracy on 2,000 other images of the training split, after 200 steps, with one seed:
# ./launch.sh sweep 'experiments/training_set_size.py:300 images' --space.lr='[0.02, 0.04, 0.08]' --sampler=grid
#     --config.duration='200 steps' --config.val_split='train[58000:]' --config.seed=1000
ARMS = {
    f"{FEW} images": (FEW, "", 0.04),
    f"{SOME} images": (SOME, "", 0.04),
    f"{MANY} images": (MANY, "", 0.04),
    f"{FEW} images, augmented": (FEW, AUGMENT, 0.08),
    f"{SOME} images, augmented": (SOME, AUGMENT, 0.08),
    f"{MANY} images, augmented": (MANY, AUGMENT, 0.04),
}
BUDGETS = {  # steps, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (400, 3, 3),
    "standard": (500, 5, 8),
    "full": (20000, 10, 20),
}


def arm(images: int, augment: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm: LeNet-5 on `images` digits of MNIST, for the same number of steps in all arms."""
    steps, *_ = BUDGETS[budget]
    return Config(
        model="lenet5",
        dataset="mnist",
        train_split=f"train[:{images}]",
        augment=augment,
        duration=f"{steps} steps",
        batch_size=50,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=lr,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every=f"{steps // 10} steps",
        checkpoint_every=f"{steps} steps",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns how much more accurate a run is on its training images, without augmentation, than on the test images."""
    from cnnjax.runs.supervise import read_metrics
    from cnnjax.study import measure

    return {"gap/accuracy": measure.train_accuracy(folder, data_dir) - read_metrics(folder)[-1]["test/accuracy"]}


CLAIMS = (
    Claim(
        name="more_images_more_accuracy",
        chapter="augmentation",
        statement="More training images make a network more accurate, even if there are thousands already.",
        source="taught so in lectures; Sun et al.: Revisiting Unreasonable Effectiveness of Data. ICCV 2017",
        comparisons=(
            Comparison(f"{SOME} images", "higher", f"{FEW} images", "test/accuracy"),
            Comparison(f"{MANY} images", "higher", f"{SOME} images", "test/accuracy"),
        ),
    ),
    Claim(
        name="few_images_overfit",
        chapter="augmentation",
        statement="A network overfits few images: it is far more accurate on these than on test images.",
        source="taught so in lectures",
        comparisons=(Comparison(f"{FEW} images", "higher", f"{MANY} images", "gap/accuracy", margin=0.05),),
        remarks="A gap that is larger by five percentage points counts as 'far'.",
    ),
    Claim(
        name="augmentation_helps_few_images",
        chapter="augmentation",
        statement="Shifts and rotations of the training images make a network more accurate where these are few.",
        source="Simard, Steinkraus, Platt: Best Practices for Convolutional Neural Networks. ICDAR 2003",
        comparisons=(Comparison(f"{FEW} images, augmented", "higher", f"{FEW} images", "test/accuracy"),),
    ),
    Claim(
        name="augmentation_helps_many_images",
        chapter="augmentation",
        statement="Shifts and rotations make a network more accurate even if there are many training images.",
        source="taught so in lectures; Simard, Steinkraus, Platt: ICDAR 2003, with 60,000 digits",
        comparisons=(Comparison(f"{MANY} images, augmented", "higher", f"{MANY} images", "test/accuracy"),),
    ),
    Claim(
        name="augmentation_replaces_images",
        chapter="augmentation",
        statement="Shifts and rotations are worth as much as ten times as many training images.",
        source="taught so in lectures, as 'augmentation multiplies the data'",
        comparisons=(
            Comparison(f"{FEW} images, augmented", "at_least", f"{SOME} images", "test/accuracy", margin=0.003),
            Comparison(f"{SOME} images, augmented", "at_least", f"{MANY} images", "test/accuracy", margin=0.003),
        ),
        remarks="The factor of ten is our choice, as the source has none. The margin is 0.3 percentage points.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    steps, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={"test/accuracy": "test accuracy", "gap/accuracy": "gap between training and test accuracy"},
        claims=CLAIMS,
        panels=(
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("points", "gap/accuracy", "training - test accuracy"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        measure=measure,
        remarks=f"""All arms train LeNet-5 for {steps:,} steps of 50 images, so that more images do not mean a longer
        training: one of {MANY:,} images is seen {steps * 50 / MANY:.1f} times, one of {FEW} {steps * 50 / FEW:.0f}
        times. Augmented images are shifted by up to two pixels and rotated by up to ten degrees, anew in each epoch.
        Accuracy on training images is measured after training, without augmentation. Each arm's peak learning rate is
        tuned: half and twice the rate are worse on 2,000 other training images, with another seed.""",
        vary="""FEW, SOME and MANY are the numbers of images; AUGMENT is the augmentation.""",
    )
