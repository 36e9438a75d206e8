"""Degradation: a deeper plain network has a higher training error; a residual network does not.

./launch.sh study experiments/degradation.py --workers=2
./launch.sh study experiments/degradation.py --budget=standard --workers=2
./launch.sh study experiments/degradation.py --budget=full
"""

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

SOURCE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, fig. 1 and 6, sec. 4.2"
REMARKS = """The training loss is the mean over the last epoch's steps, on augmented images. All arms have the same
recipe; only depth and shortcuts differ."""
FEW = """ Quick and standard runs train on a tenth of the images, for four and sixteen epochs: they show how fast a
network learns rather than its final error; the paper's networks reach training errors of a few percent. The two
residual networks are not compared with the quick budget, because the deeper one is still behind after four epochs. The
learning rate was not tuned for each arm."""

PLAIN = Claim(
    name="plain_depth_degrades",
    chapter="residuals",
    statement="A plain network of 56 layers has a higher training error than one of 20 layers.",
    source=SOURCE,
    comparisons=(Comparison("plain-56", "higher", "plain-20", "train/loss"),),
)
CURE = Claim(
    name="shortcuts_lower_training_error",
    chapter="residuals",
    statement="With shortcuts a network of 56 layers has a lower training error than without.",
    source=SOURCE,
    comparisons=(Comparison("residual-56", "lower", "plain-56", "train/loss"),),
)
DEEPER = Claim(
    name="residual_depth_does_not_degrade",
    chapter="residuals",
    statement="A residual network of 56 layers has no higher training error than one of 20 layers.",
    source=SOURCE,
    comparisons=(Comparison("residual-20", "at_least", "residual-56", "train/loss", margin=0.05),),
    remarks="A training loss that is higher by less than 0.05 does not count as higher.",
)
DURATION = {"quick": "4 epochs", "standard": "16 epochs", "full": "64000 steps"}


def arm(kind: str, depth: int, budget: str) -> Config:
    """Returns the config of an arm: a CIFAR network of `kind` 'plain' or 'resnet' with `depth` layers.

    'full' is the paper's recipe (sec. 4.2): 45,000 images, SGD with momentum 0.9, weight decay 1e-4, learning rate 0.1,
    divided by 10 after 32k and 48k steps. 'quick' and 'standard' use a tenth of the images, batches of 64, and a
    one-cycle schedule.
    """
    quick = budget != "full"
    return Config(
        model=f"cifar_{kind}{depth}",
        dataset="cifar10",
        train_split="train[:4500]" if quick else "train[:45000]",
        val_split="train[45000:47000]" if quick else "train[45000:]",
        test_split="test",
        augment="pad_crop(4)|flip_lr",
        duration=DURATION[budget],
        batch_size=64 if quick else 128,
        lr=0.05 if quick else 0.1,
        schedule="one_cycle" if quick else "piecewise(('50%', '75%'))",
        weight_decay=1e-4,
        decay_mask=".*",
        log_every="1 epochs",
        checkpoint_every="2 epochs",
    )


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    kinds = {"plain": "plain", "residual": "resnet"}
    return Study(
        arms={f"{kind}-{depth}": arm(name, depth, budget) for kind, name in kinds.items() for depth in (20, 56)},
        seeds=5 if budget == "full" else 3,
        max_seeds=5 if budget == "standard" else 0,
        metrics={
            "train/loss": "training loss",
            "train/accuracy": "training accuracy",
            "test/accuracy": "test accuracy",
        },
        claims=(PLAIN, CURE) if budget == "quick" else (PLAIN, CURE, DEEPER),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("curve", "train/accuracy", "training accuracy"),
        ),
        remarks=REMARKS + FEW * (budget != "full"),
        vary="Change the depths to 20 and 32 in `get_study`. How deep is a plain network when it begins to get worse?",
    )
