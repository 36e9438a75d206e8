"""Gradient flow before training: do gradients vanish or explode on their way to the first layer?

./launch.sh study experiments/gradient_flow.py --budget=standard --workers=2
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

HE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016"
LECTURES = "taught so in lectures; the paper that they cite argues against it (He et al., CVPR 2016, sec. 4.1)"
REMARKS = """Nothing is trained: the runs end after one step with a learning rate of 0, and only their random initial
weights differ (He initialization). The gradient of a convolution is the root mean square over its kernel, for the
cross-entropy of 200 training images of CIFAR-10, with batch normalization in training mode. First / last is the first
convolution's gradient divided by the last one's: below 1, a negative log10, if gradients vanish on their way back, and
above 1 if they explode. All networks have batch normalization before each activation, a first convolution of 3x3 with 8
channels, and three stages of 32x32, 16x16 and 8x8 positions. The depth is 56 or, for DenseNet, 55 layers. The last
convolution of ResNeXt and DenseNet has other numbers of weights than that of the plain networks and ResNets."""
DECADE = """The margin is one decade, a factor of 10. For comparison: with 20 layers of sigmoids
the ratio is 12 decades smaller than with ReLU (vanishing_gradients)."""

VANISH = Claim(
    name="plain_gradients_vanish",
    chapter="residuals",
    statement="In a plain network of 56 layers the gradients vanish on their way to the first layers, in spite of "
    "batch normalization, and more so than in one of 20 layers.",
    source=LECTURES,
    comparisons=(Comparison("plain-56", "lower", "plain-20", "decades_start", margin=1),),
    remarks=DECADE,
)
HEALTHY = Claim(
    name="plain_gradients_are_healthy",
    chapter="residuals",
    statement="Batch normalization keeps the gradients of a deep plain network healthy: they are as even over the "
    "layers in 56 layers as in 20.",
    source=f"{HE}, sec. 4.1: 'backward propagated gradients exhibit healthy norms with BN'",
    comparisons=(Comparison("plain-56", "equal", "plain-20", "decades_start", margin=1),),
    remarks=f"{DECADE} The paper does not say when in training its networks were measured; here they are untrained.",
)
RESIDUAL = Claim(
    name="shortcuts_keep_gradients_even",
    chapter="residuals",
    statement="With shortcuts the gradients are as even over 56 layers as over 20.",
    source="taught so in lectures; He et al.: Identity Mappings in Deep Residual Networks. ECCV 2016, eq. 5",
    comparisons=(Comparison("residual-56", "equal", "residual-20", "decades_start", margin=1),),
    remarks=DECADE,
)
FAMILIES = Claim(
    name="residual_families_improve_gradient_flow",
    chapter="residuals",
    statement="ResNet, ResNeXt and DenseNet all improve the gradient flow of a plain network as deep.",
    source="taught so in lectures; Huang et al.: Densely Connected Convolutional Networks. CVPR 2017, sec. 3",
    comparisons=tuple(
        Comparison(family, "lower", "plain-56", "unevenness_start", margin=1)
        for family in ("residual-56", "ResNeXt-56", "DenseNet-55")
    ),
    remarks=f"Improved: nearer to gradients of the same size in the first and the last convolution. {DECADE}",
)
LATER = Claim(
    name="later_families_improve_on_resnet_gradients",
    chapter="residuals",
    statement="After ResNet, the families ResNeXt and DenseNet improved the gradient flow further.",
    source="taught so in lectures",
    comparisons=tuple(
        Comparison(family, "lower", "residual-56", "unevenness_start", margin=0.3)
        for family in ("ResNeXt-56", "DenseNet-55")
    ),
    remarks="The margin of 0.3 decades is a factor of 2 between the first and the last gradient.",
)

_BASIC = "resnet18(small_images=True, features=8, width=8, stage_sizes=({n}, {n}, {n}), shortcut='{shortcut}')"
MODELS = {
    "plain-20": _BASIC.format(n=3, shortcut="none"),
    "plain-56": _BASIC.format(n=9, shortcut="none"),
    "residual-20": _BASIC.format(n=3, shortcut="B"),
    "residual-56": _BASIC.format(n=9, shortcut="B"),
    "ResNeXt-56": "resnet50(small_images=True, features=8, width=2, groups=8, stage_sizes=(6, 6, 6))",
    "DenseNet-55": "densenet121(small_images=True, features=8, growth_rate=4, bottleneck=False, compression=1.0, "
    "stage_sizes=(17, 17, 17))",
}
BASIC = ("plain-20", "plain-56", "residual-20", "residual-56")
SEEDS = {"quick": 2, "standard": 4, "full": 10}


def arm(model: str) -> Config:
    """Returns the config of an arm: one step that changes nothing. `model` is a call string of MODELS."""
    return Config(
        model=model, dataset="cifar10", train_split="train[:200]", test_split="", duration="1 steps", batch_size=50,
        lr=0.0, log_every="1 steps",
    )  # fmt: skip


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the gradients of a run's convolutions; see `cnnjax.study.propagation.gradient_flow`."""
    from cnnjax.study import propagation

    return propagation.gradient_flow(folder, data_dir)


def get_study(budget: str) -> Study:
    """Returns the study for a budget, which sets the number of seeds."""
    return Study(
        arms={name: arm(model) for name, model in MODELS.items()},
        metrics={
            "decades_start": "log10 of first / last gradient",
            "unevenness_start": "absolute log10 of first / last gradient",
        },
        claims=(VANISH, HEALTHY, RESIDUAL, FAMILIES, LATER),
        panels=(
            Panel("profile", "gradient_start", "gradient of each convolution", BASIC, log=True, xlabel="convolution"),
            Panel("points", "decades_start", "log10 of first / last gradient"),
        ),
        seeds=SEEDS[budget],
        max_seeds=2 * SEEDS[budget],
        measure=measure,
        remarks=REMARKS,
        vary="To see what batch normalization does, add norm='none' to the models, or another initializer, such as "
        "initializer='lecun'.",
    )
