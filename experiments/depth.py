"""Depth against width, and what shortcuts do to gradients and responses in training.

./launch.sh study experiments/depth.py --budget=standard --workers=2
./launch.sh study experiments/depth.py --budget=full
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

HE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016"
SMALL = """Images are CIFAR-10's, reduced to 16x16 pixels; {images:,} of them are trained on for {epochs} epochs, in
batches of 50, with random crops and flips. This is short: it shows which network learns more within {steps:,} steps,
not which is best in the end. """
REMARKS = """The networks are ResNets of basic blocks for small images with three stages, 8, 16 and 32 channels wide,
or 14, 28 and 56 in the wide network. residual-56 has 215,282 parameters, wide-20 has 208,904. Both use option B for
shortcuts. All arms have the learning rate 0.1, which is not yet tuned for each. Accuracies are those of all 10,000
test images. Gradients and responses are measured on 200 training images; a gradient is the root mean square over a
convolution's kernel, a response the standard deviation of a residual branch F(x) at the end of a block, before the
addition."""
DECADE = "The margin is one decade, a factor of 10 between the first and the last gradient, as in gradient_flow."

VANISH = Claim(
    name="trained_plain_gradients_vanish",
    chapter="residuals",
    statement="A plain network of 56 layers learns worse than one of 20 because its gradients vanish on their way to "
    "the first layers, despite batch normalization. This is also so after training.",
    source="taught so in lectures; the paper that they cite argues against it (He et al., CVPR 2016, sec. 4.1)",
    comparisons=(Comparison("plain-56", "lower", "plain-20", "decades_end", margin=1),),
    remarks=DECADE,
)
HEALTHY = Claim(
    name="trained_plain_gradients_are_healthy",
    chapter="residuals",
    statement="In training, batch normalization makes the gradients of 56 plain layers as even over the layers as "
    "those of 20.",
    source=f"{HE}, sec. 4.1: 'backward propagated gradients exhibit healthy norms with BN'",
    comparisons=(Comparison("plain-56", "equal", "plain-20", "decades_end", margin=1),),
    remarks=DECADE,
)
DIFFERENCES = Claim(
    name="residual_blocks_learn_small_differences",
    chapter="residuals",
    statement="A residual block changes its input little: the branch F(x) is small beside x, while a block without a "
    "shortcut has to compute all of its output. The deeper the network, the smaller is F(x).",
    source=f"{HE}, sec. 3.1, 4.2 and fig. 7",
    comparisons=(
        Comparison("residual-56", "lower", "plain-56", "relative_response_end", margin=0.25),
        Comparison("residual-56", "lower", "residual-20", "relative_response_end"),
    ),
    remarks="Small is less than the plain block's response by a quarter of x. The paper compares the responses "
    "themselves, which batch normalization starts at 1 in all layers. In the public CIFAR-10 weights of a ResNet-20 "
    "with 91.73 %, F(x) is 0.8 to 2.3 times as large as x, 1.1 times on average.",
)
LEARNED = Claim(
    name="small_differences_are_learned",
    chapter="residuals",
    statement="That the responses of residual blocks are small is learned: a deep residual network has smaller "
    "responses than a plain one after training.",
    source=f"{HE}, fig. 7: 'ResNets have generally smaller responses than their plain counterparts'",
    comparisons=(Comparison("residual-56", "lower", "plain-56", "mean_response_end", margin=0.1),),
    remarks="Before training all responses are 1, the initial scale of batch normalization. A change by less than a "
    "tenth of this does not count.",
)
DEEPER = Claim(
    name="residual_depth_helps",
    chapter="depth",
    statement="With shortcuts a deeper network is better: 56 layers are more accurate than 20 of the same width.",
    source=f"{HE}, Table 6; 'deeper is better' in lectures",
    comparisons=(Comparison("residual-56", "higher", "residual-20", "test/accuracy"),),
)
WIDE = Claim(
    name="wide_beats_deep",
    chapter="depth",
    statement="A wide, shallow residual network is more accurate than a thin, deep one with as many parameters, which "
    "takes longer to train.",
    source="Zagoruyko, Komodakis: Wide Residual Networks. BMVC 2016, sec. 3 and Table 4",
    comparisons=(Comparison("wide-20", "higher", "residual-56", "test/accuracy", margin=0.01),),
    remarks="The wide network has 3 % fewer parameters, about as many multiplications, and a third of the layers that "
    "wait for each other. The margin is one percentage point.",
)

_BASIC = "resnet18(small_images=True, features={f}, width={f}, stage_sizes=({n}, {n}, {n}), shortcut='{shortcut}')"
MODELS = {
    "plain-20": _BASIC.format(f=8, n=3, shortcut="none"),
    "plain-56": _BASIC.format(f=8, n=9, shortcut="none"),
    "residual-20": _BASIC.format(f=8, n=3, shortcut="B"),
    "residual-56": _BASIC.format(f=8, n=9, shortcut="B"),
    "wide-20": _BASIC.format(f=14, n=3, shortcut="B"),
}
LEARNING_RATES = {"plain-20": 0.1, "plain-56": 0.1, "residual-20": 0.1, "residual-56": 0.1, "wide-20": 0.1}
IMAGES = {"quick": 1000, "standard": 4000, "full": 45000}
EPOCHS = {"quick": 2, "standard": 5, "full": 60}
SEEDS = {"quick": 2, "standard": 3, "full": 5}


def arm(name: str, budget: str) -> Config:
    """Returns the config of an arm. `name` is a key of MODELS."""
    return Config(
        model=MODELS[name],
        dataset="cifar10",
        train_split=f"train[:{IMAGES[budget]}]",
        test_split="test",
        augment="resize(16)|pad_crop(2)|flip_lr",
        preprocess="resize(16)",
        duration=f"{EPOCHS[budget]} epochs",
        batch_size=50,
        lr=LEARNING_RATES[name],
        schedule="one_cycle",
        weight_decay=1e-4,
        log_every="1 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the gradients and responses of a run before and after training; see `cnnjax.study.propagation`."""
    from cnnjax.study import propagation

    gradients = propagation.gradient_flow(folder, data_dir, ("start", "end"))
    return gradients | propagation.residual_responses(folder, data_dir)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    images, epochs = IMAGES[budget], EPOCHS[budget]
    return Study(
        arms={name: arm(name, budget) for name in MODELS},
        metrics={
            "test/accuracy": "test accuracy",
            "train/loss": "training loss",
            "decades_start": "log10 of first / last gradient before training",
            "decades_end": "log10 of first / last gradient",
            "mean_response_end": "response",
            "relative_response_end": "response / block input",
        },
        claims=(VANISH, HEALTHY, DIFFERENCES, LEARNED, DEEPER, WIDE),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("profile", "gradient_end", "gradient after training", log=True, xlabel="convolution"),
            Panel("profile", "response_end", "response after training", xlabel="block"),
        ),
        seeds=SEEDS[budget],
        max_seeds=2 * SEEDS[budget],
        measure=measure,
        remarks=SMALL.format(images=images, epochs=epochs, steps=images * epochs // 50) + REMARKS,
        vary="Change the width: features and width of _BASIC. At which width does depth begin to pay?",
    )
