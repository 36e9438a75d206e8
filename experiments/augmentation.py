"""Augmentation has to fit the images: flips of photographs, and of digits.

./launch.sh study experiments/augmentation.py --workers=2
./launch.sh study experiments/augmentation.py --budget=standard --workers=2
"""

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

NETWORKS = {
    "mnist": "conv(8, 5)|batch_norm|relu|max_pool|conv(16, 5)|batch_norm|relu|max_pool|dense(64)|relu|dense",
    "cifar10": "conv(12, 5, stride=2, padding='same')|batch_norm|relu|conv(24, 3, padding='same')|batch_norm|relu|"
    "max_pool|conv(48, 3, padding='same')|batch_norm|relu|gap|dense",
}
# Arm -> (data set, augmentation, peak learning rate). The rate of photographs is the best of 0.1 to 0.4 for each arm, a
# factor of two apart, and of one more if the best was the smallest or the largest; after 15 epochs, by the accuracy on
# 2,000 other images of the training split. That of digits is the best of 0.1 to 1.6 after 5 epochs, on 5,000 others:
# ./launch.sh sweep 'experiments/augmentation.py:photographs' --space.lr='[0.1, 0.2, 0.4]' --sampler=grid
#     --config.duration='15 epochs' --config.val_split='train[45000:47000]' --config.seed=1000
ARMS = {
    "photographs": ("cifar10", "", 0.4),
    "photographs, left-right": ("cifar10", "flip_lr", 0.4),
    "photographs, upside down": ("cifar10", "flip_ud", 0.8),
    "digits": ("mnist", "", 0.2),
    "digits, left-right": ("mnist", "flip_lr", 0.1),
}
BUDGETS = {  # photographs, digits, epochs, seeds, largest number of seeds
    "quick": (2000, 1000, 10, 5, 8),
    "standard": (2000, 1000, 30, 4, 8),
    "full": (45000, 10000, 30, 10, 20),
}


def arm(dataset: str, augment: str, lr: float, budget: str) -> Config:
    """Returns the config of an arm. `augment` is applied to each training image with a probability of one half."""
    photographs, digits, epochs, *_ = BUDGETS[budget]
    return Config(
        model=f'sequential("{NETWORKS[dataset]}")',
        dataset=dataset,
        train_split=f"train[:{photographs if dataset == 'cifar10' else digits}]",
        augment=augment,
        duration=f"{epochs} epochs",
        batch_size=64,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=lr,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


CLAIMS = (
    Claim(
        name="flips_help_photographs",
        chapter="augmentation",
        statement="Photographs that are flipped left to right in training make a network more accurate.",
        source="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep CNNs. NIPS 2012, sec. 4.1",
        comparisons=(Comparison("photographs, left-right", "higher", "photographs", "test/accuracy"),),
        remarks="""The claim is about networks that are trained to the end. The quick budget cannot judge it: after that
        they classify about 60 % of the training images correctly.""",
    ),
    Claim(
        name="flips_harm_digits",
        chapter="augmentation",
        statement="""Augmentation has to fit the images: digits that are flipped left to right in training make a
        network less accurate, because a mirrored digit is not a digit.""",
        source="taught so in lectures",
        comparisons=(Comparison("digits, left-right", "lower", "digits", "test/accuracy"),),
    ),
    Claim(
        name="upside_down_harms_photographs",
        chapter="augmentation",
        statement="""Augmentation has to fit the images: photographs that are turned upside down in training make a
        network less accurate, because nothing is upside down in the test images.""",
        source="taught so in lectures",
        comparisons=(Comparison("photographs, upside down", "lower", "photographs", "test/accuracy"),),
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    photographs, digits, *_, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={"test/accuracy": "test accuracy", "train/accuracy": "training accuracy"},
        claims=CLAIMS,
        panels=tuple(
            Panel("points", "test/accuracy", f"{data}: test accuracy", tuple(a for a in ARMS if a.startswith(data)))
            for data in ("photographs", "digits")
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        remarks=f"""Photographs are {photographs:,} of CIFAR-10, digits {digits:,} of MNIST; in each epoch every
        image is flipped with a probability of one half. 'Upside down' is a flip from top to bottom. Tests are
        on the 10,000 test images as they are. The two networks have three and two convolutions with batch
        normalization. Flips also slow the training down: with them the training accuracy is still lower at the
        end, so a part of what they cost may be time. Each arm's learning rate is tuned on other training
        images.""",
        vary="""ARMS holds the augmentation of each arm: replace flip_ud by rotate(15) or pad_crop(4).""",
    )
