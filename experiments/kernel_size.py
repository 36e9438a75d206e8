"""Kernel size: one large kernel, or a stack of 3x3 kernels that sees as much of the image.

./launch.sh study experiments/kernel_size.py --budget=standard --workers=2
"""

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

CHANNELS = 12
# Arm -> (sides of the kernels, whether there is a ReLU after each, peak learning rate). Half and twice the rate of
# each arm give a lower accuracy on 2,000 other images of the training split, after 5 epochs on 1,000 images, with one
# seed:
# ./launch.sh sweep 'experiments/kernel_size.py:5x5' --space.lr='[0.2, 0.4, 0.8]' --sampler=grid
#     --config.train_split='train[:1000]' --config.duration='5 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
ARMS: dict[str, tuple[tuple[int, ...], bool, float]] = {
    "3x3": ((3,), True, 0.8),
    "5x5": ((5,), True, 0.8),
    "3x3 twice": ((3, 3), True, 0.2),
    "3x3 twice, linear": ((3, 3), False, 0.4),
    "7x7": ((7,), True, 0.4),
    "3x3 three times": ((3, 3, 3), True, 0.8),
}
BUDGETS = {  # images, epochs, first seed, seeds, largest number of seeds; 'standard' is short: minutes on one core
    "quick": (1000, 5, 0, 3, 3),
    "standard": (1500, 8, 100, 8, 24),
    "full": (50000, 20, 0, 10, 20),
}


def arm(kernels: tuple[int, ...], between: bool, lr: float, budget: str) -> Config:
    """Returns the config of an arm: a small network on Fashion-MNIST in which two groups of layers have these kernels.

    Batch normalization follows each convolution; a ReLU the last of a group and, if `between`, the others, too.
    """
    images, epochs, seed, *_ = BUDGETS[budget]
    group = ("|relu|" if between else "|").join(
        f"conv({CHANNELS}, {kernel}, padding='same')|batch_norm" for kernel in kernels
    )
    return Config(
        model=f'sequential("conv({CHANNELS}, 3, padding=1)|batch_norm|relu|max_pool|{group}|relu|max_pool|{group}|relu|'
        'gap|dense")',
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


CLAIMS = (
    Claim(
        name="stacked_3x3_equals_large_kernel",
        chapter="convolution",
        statement="A stack of 3x3 convolutions is as accurate as one large kernel that sees as much of the image.",
        source="taught so in lectures, after Simonyan, Zisserman: ICLR 2015, sec. 2.3",
        comparisons=(
            Comparison("3x3 twice", "equal", "5x5", "test/accuracy", margin=0.01),
            Comparison("3x3 three times", "equal", "7x7", "test/accuracy", margin=0.01),
        ),
        remarks="The margin of one percentage point is about a twentieth of all errors.",
    ),
    Claim(
        name="stacked_3x3_beats_large_kernel",
        chapter="convolution",
        statement="A stack of two 3x3 convolutions is more accurate than one 5x5 convolution, with fewer parameters.",
        source="Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015, sec. 4.1 (7 % on ImageNet)",
        comparisons=(Comparison("3x3 twice", "higher", "5x5", "test/accuracy"),),
    ),
    Claim(
        name="relu_between_3x3_discriminates",
        chapter="convolution",
        statement="The additional activations of a stack make it more accurate: without a ReLU between it is worse.",
        source="Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015, sec. 2.3",
        comparisons=(Comparison("3x3 twice", "higher", "3x3 twice, linear", "test/accuracy"),),
    ),
    Claim(
        name="larger_kernels_see_more",
        chapter="convolution",
        statement="A kernel of 5x5 is more accurate than one of 3x3, because it sees more of the image.",
        source="taught so in lectures",
        comparisons=(Comparison("5x5", "higher", "3x3", "test/accuracy"),),
        remarks="The larger kernel also has 2.8 times as many parameters.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, epochs, _, seeds, max_seeds = BUDGETS[budget]
    return Study(
        arms={name: arm(*fields, budget) for name, fields in ARMS.items()},
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        claims=CLAIMS,
        panels=(Panel("points", "test/accuracy", "test accuracy"), Panel("curve", "train/loss", "training loss")),
        seeds=seeds,
        max_seeds=max_seeds,
        remarks=f"""{images:,} images of Fashion-MNIST, {round(images * epochs / 64):,} steps. A 3x3 convolution, a max
        pool, a group of convolutions with the kernels of the arm, a max pool, and such a group again; all with
        {CHANNELS} channels and batch normalization. The arms differ in their number of parameters, as in the claims: 25
        C^2 against 18 C^2, and 49 C^2 against 27 C^2. Each
        arm's peak learning rate is tuned: half and twice the rate are worse on 2,000 other training images. The
        standard budget has the seeds from 100 on. With those from 0 on, of an earlier plan, three verdicts were
        the same, and that on two 3x3 convolutions in place of one of 5x5 was undecided.""",
        vary="""CHANNELS makes all layers wider; a row of ARMS may have other kernels, such as (1, 5).""",
    )
