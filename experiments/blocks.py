"""Building blocks compared: three kinds of shortcut, concatenation, squeeze-and-excitation, bottlenecks.

./launch.sh study experiments/blocks.py --budget=standard --workers=2
./launch.sh study experiments/blocks.py --budget=full
"""

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

HE = "He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016"
SMALL = """Images are CIFAR-10's, reduced to 16x16 pixels; {images:,} of them are trained on for {epochs} epochs, in
batches of 50, with random crops and flips. This is short: it shows which network learns more within {steps:,} steps,
not which is best in the end. """
REMARKS = """The networks have three stages; the ResNets have 20 layers and 8, 16 and 32 channels. Parameters, and
multiplications for an image: shortcuts A 68,050 and 2.56M, B 68,786 and 2.58M, C 71,778 and 2.69M; with
squeeze-and-excitation 71,012 and 2.58M; with bottlenecks 56,754 and 1.94M; DenseNet 69,674 and 4.59M, with compression
38,804 and 3.31M. All arms have the learning rate 0.1, which is not yet tuned for each. Accuracies are those of all
10,000 test images."""
POINTS = "The margin of 0.02 is 2 percentage points, about the range of one arm over its seeds."

SHORTCUTS = Claim(
    name="kind_of_shortcut_does_not_matter",
    chapter="residuals",
    statement="Identity shortcuts with zero padding (A), projections where the shape changes (B) and projections "
    "everywhere (C) are equally accurate.",
    source=f"{HE}, sec. 4.1 and Table 3: 'the small differences among A/B/C indicate that projection shortcuts are not "
    "essential'",
    comparisons=tuple(
        Comparison(f"shortcut {kind}", "equal", "shortcut B", "test/accuracy", margin=0.02) for kind in "AC"
    ),
    remarks=POINTS,
)
CONCATENATION = Claim(
    name="concatenation_beats_addition",
    chapter="residuals",
    statement="With as many parameters, a network that concatenates its layers' outputs (DenseNet) is more accurate "
    "than one that adds them (ResNet).",
    source="Huang et al.: Densely Connected Convolutional Networks. CVPR 2017, sec. 4.3 and 4.4, fig. 4",
    comparisons=(Comparison("DenseNet", "higher", "shortcut B", "test/accuracy"),),
    remarks="Equal parameters (1 % more), not equal work: DenseNet takes 1.8 times as many multiplications here.",
)
COMPRESSION = Claim(
    name="compression_costs_no_accuracy",
    chapter="residuals",
    statement="Transitions that keep half of the channels make a DenseNet smaller at no loss of accuracy.",
    source="Huang et al.: Densely Connected Convolutional Networks. CVPR 2017, sec. 3 and fig. 4",
    comparisons=(Comparison("DenseNet, compressed", "at_least", "DenseNet", "test/accuracy", margin=0.02),),
    remarks=POINTS,
)
SE = Claim(
    name="squeeze_and_excitation_helps",
    chapter="residuals",
    statement="Squeeze-and-excitation makes a ResNet more accurate at little cost.",
    source="Hu, Shen, Sun: Squeeze-and-Excitation Networks. CVPR 2018, Tables 2 and 4",
    comparisons=(Comparison("SE", "higher", "shortcut B", "test/accuracy"),),
    remarks="The cost: 3 % more parameters, with a reduction ratio of 4, and 0.1 % more multiplications.",
)
BOTTLENECK = Claim(
    name="bottlenecks_cost_no_accuracy",
    chapter="inception",
    statement="1x1 convolutions that reduce the channels before a 3x3 one save work at the same accuracy.",
    source="taught so in lectures; Szegedy et al.: Going Deeper with Convolutions. CVPR 2015, sec. 4; He et al.: CVPR "
    "2016, sec. 4.1",
    comparisons=(Comparison("bottlenecks", "at_least", "shortcut B", "test/accuracy", margin=0.02),),
    remarks=f"Both have 20 layers; the bottlenecks have 32 to 128 channels between blocks and 8 to 32 within. {POINTS}",
)

_BASIC = "resnet18(small_images=True, features=8, width=8, stage_sizes=(3, 3, 3), shortcut='{shortcut}', se={se})"
_DENSE = (
    "densenet121(small_images=True, features=8, growth_rate=6, bottleneck=False, compression={compression}, "
    "stage_sizes=(6, 6, 6))"
)
MODELS = {
    "shortcut A": _BASIC.format(shortcut="A", se=0),
    "shortcut B": _BASIC.format(shortcut="B", se=0),
    "shortcut C": _BASIC.format(shortcut="C", se=0),
    "SE": _BASIC.format(shortcut="B", se=4),
    "bottlenecks": "resnet50(small_images=True, features=8, width=8, stage_sizes=(2, 2, 2))",
    "DenseNet": _DENSE.format(compression=1.0),
    "DenseNet, compressed": _DENSE.format(compression=0.5),
}
LEARNING_RATES = dict.fromkeys(MODELS, 0.1)
IMAGES = {"quick": 1000, "standard": 4000, "full": 45000}
EPOCHS = {"quick": 2, "standard": 5, "full": 60}
SEEDS = {"quick": 2, "standard": 4, "full": 5}


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


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    images, epochs = IMAGES[budget], EPOCHS[budget]
    return Study(
        arms={name: arm(name, budget) for name in MODELS},
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        claims=(SHORTCUTS, CONCATENATION, COMPRESSION, SE, BOTTLENECK),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("points", "test/accuracy", "test accuracy"),
        ),
        seeds=SEEDS[budget],
        max_seeds=3 * SEEDS[budget],
        remarks=SMALL.format(images=images, epochs=epochs, steps=images * epochs // 50) + REMARKS,
        vary="Add a row to MODELS, such as the ResNet with shortcut='none', and a rate for it.",
    )
