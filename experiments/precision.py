"""Precision: training in bfloat16 and in float32.

./launch.sh study experiments/precision.py
./launch.sh study experiments/precision.py --budget=standard
"""

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

BUDGETS = {  # images, epochs, seeds, largest number of seeds
    "quick": (2000, 10, 3, 5),
    "standard": (5000, 10, 8, 16),
    "full": (50000, 30, 10, 20),
}


def arm(dtype: str, budget: str) -> Config:
    """Returns the config of an arm: ResNet-20 on CIFAR-10, with its paper's optimizer and augmentation."""
    images, epochs, *_ = BUDGETS[budget]
    return Config(
        model="cifar_resnet20",
        dataset="cifar10",
        train_split=f"train[:{images}]",
        augment="pad_crop(4)|flip_lr",
        duration=f"{epochs} epochs",
        batch_size=128,
        optimizer="sgd(momentum=0.9)",
        lr=0.1,
        schedule="one_cycle",
        weight_decay=1e-4,
        dtype=dtype,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
    )


SOURCE = "Kalamkar et al.: A Study of BFLOAT16 for Deep Learning Training. arXiv:1905.12322, 2019"
CLAIMS = (
    Claim(
        name="bfloat16_is_as_accurate",
        chapter="training",
        statement="""A network that is trained in bfloat16, with weights, sums and statistics in float32, is as accurate
        as one that is trained in float32.""",
        source=SOURCE,
        comparisons=(Comparison("bfloat16", "equal", "float32", "test/accuracy", margin=0.01),),
    ),
    Claim(
        name="bfloat16_learns_as_fast",
        chapter="training",
        statement="In bfloat16 the training loss falls as fast as in float32, with the same learning rate.",
        source=SOURCE,
        comparisons=(Comparison("bfloat16", "equal", "float32", "train/loss", margin=0.02),),
        remarks="Compared is the mean training loss of the last epoch.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, *_, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={dtype: arm(dtype, budget) for dtype in ("float32", "bfloat16")},
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        claims=CLAIMS,
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("points", "test/accuracy", "test accuracy"),
        ),
        seeds=seeds,
        max_seeds=max_seeds,
        remarks=f"""ResNet-20 on {images:,} images of CIFAR-10 with shifts and flips, SGD with momentum 0.9, batches of
        128. Images, feature maps and products are bfloat16; weights, sums, batch statistics, loss and optimizer are
        float32. Both arms see the same images in the same order, from the same initial weights.""",
        vary="""Add an arm with matmul_precision="bfloat16": only the factors of products are rounded then.""",
    )
