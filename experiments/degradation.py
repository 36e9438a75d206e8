"""Degradation: a deeper plain network has a higher training error; a residual network does not.

./launch.sh study experiments/degradation.py --workers=2
./launch.sh study experiments/degradation.py --budget=full
"""

from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

CLAIM = "A plain network of 56 layers has a higher training error than one of 20, and than a residual one of 56."
FULL = " A residual network of 56 layers does not have a higher one than a residual network of 20."
SOURCE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016, fig. 1 and 6, sec. 4.2"
REMARKS = """The training loss is the mean over the last epoch's steps, on augmented images. "Not higher" means higher
by less than 0.1: a margin of -0.1."""
QUICK = """ Quick runs train on a tenth of the images for four epochs: they show how fast a network learns, not its
final error; the paper's networks reach training errors of a few percent. The two residual networks are compared with
the full budget only, because the deeper one is still behind at this point."""

DURATION = {"quick": "4 epochs", "full": "64000 steps"}


def arm(kind: str, depth: int, budget: str) -> Config:
    """Returns the config of an arm: a CIFAR network of `kind` 'plain' or 'resnet' with `depth` layers.

    'full' is the paper's recipe (sec. 4.2): 45,000 images, SGD with momentum 0.9, weight decay 1e-4, learning rate 0.1,
    divided by 10 after 32k and 48k steps. 'quick' uses a tenth of the images, batches of 64, and a one-cycle schedule
    over four epochs.
    """
    quick = budget == "quick"
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
    """Returns the study for a budget, 'quick' (minutes on two CPU cores) or 'full' (a GPU)."""
    kinds = {"plain": "plain", "residual": "resnet"}
    comparisons = [
        Comparison("plain-56", "higher", "plain-20", "train/loss"),
        Comparison("residual-56", "lower", "plain-56", "train/loss"),
    ]
    if budget == "full":
        comparisons.append(Comparison("residual-56", "lower", "residual-20", "train/loss", margin=-0.1))
    return Study(
        claim=CLAIM + FULL * (budget == "full"),
        source=SOURCE,
        arms={f"{kind}-{depth}": arm(name, depth, budget) for kind, name in kinds.items() for depth in (20, 56)},
        seeds=3 if budget == "quick" else 5,
        metrics={
            "train/loss": "training loss",
            "train/accuracy": "training accuracy",
            "test/accuracy": "test accuracy",
        },
        comparisons=tuple(comparisons),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("curve", "train/accuracy", "training accuracy"),
            Panel("curve", "val/accuracy", "validation accuracy"),
        ),
        remarks=REMARKS + QUICK * (budget == "quick"),
    )
