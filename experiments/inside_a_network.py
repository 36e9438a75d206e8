"""Inside a trained network: Gabor-like first filters, and what its layers tell about the class.

./launch.sh study experiments/inside_a_network.py --budget=standard --workers=2
"""

import dataclasses
import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

REMARKS = """The network has four convolutions: 24 filters of 9x9 with stride 2, then 3x3 with 32, 48 and 64 channels,
each with batch normalization and ReLU. Both arms have the same random initial weights. The trained arm sees 5,000
images of CIFAR-10 with random crops and flips for {epochs} epochs in batches of 50. The other takes one step with a
learning rate of 0. What a layer tells about the class is the test accuracy of a linear classifier on its channels,
averaged over positions: fitted to 2,000 training images, scored on 2,000 test images. It therefore asks which features
occur, not where. The class selectivity of a channel is (a - b) / (a + b), where a is its mean activation for the class
with the largest one, and b that for the others. First is the first convolution, last the fourth."""
CONTROL = """The control is the same network before training, so that what size and depth give by themselves does not
count as learned."""

GABOR = Claim(
    name="first_filters_become_gabors",
    chapter="inside",
    statement="Training turns the filters of the first convolution into edge detectors that look like Gabor functions.",
    source="Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep CNNs. NIPS 2012, sec. 6.1 and fig. 3; "
    "Yosinski et al.: How Transferable Are Features in Deep Neural Networks? NIPS 2014, sec. 1",
    comparisons=(Comparison("trained", "higher", "untrained", "gabor_r2", margin=0.2),),
    remarks="Random filters of 9x9 give a Gabor function with its 8 parameters some fit, too. The margin of 0.2 "
    "means: a Gabor function explains 20 points more of the variance of a trained filter than of a random one.",
)
DEEPER = Claim(
    name="deeper_layers_tell_more_about_the_class",
    chapter="inside",
    statement="Early layers see edges and later ones parts of objects, so that the class can be read better from later "
    "layers; training makes it so.",
    source="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014, sec. 5.3 and Table 7",
    comparisons=(
        Comparison("trained", "higher", "untrained", "probe_last", margin=0.05),
        Comparison("trained", "higher", "untrained", "probe_rise", margin=0.05),
    ),
    remarks=f"{CONTROL} The margin is 5 percentage points.",
)
GENERIC = Claim(
    name="first_layer_need_not_be_learned",
    chapter="inside",
    statement="What the first layer learns is so generic that random filters tell as much about the class.",
    source="Saxe et al.: On Random Weights and Unsupervised Feature Learning. ICML 2011, sec. 3, of pooled "
    "random filters",
    comparisons=(Comparison("trained", "equal", "untrained", "probe_first", margin=0.05),),
    remarks="The margin is 5 percentage points.",
)
SELECTIVE = Claim(
    name="later_channels_are_class_selective",
    chapter="inside",
    statement="With training the channels of later layers become selective for a class, more than those of the first.",
    source="Morcos, Barrett, Rabinowitz, Botvinick: On the Importance of Single Directions for Generalization. ICLR "
    "2018, fig. 4 and A5",
    comparisons=(Comparison("trained", "higher", "untrained", "selectivity_rise", margin=0.1),),
    remarks=f"{CONTROL} The index is between 0 and 1: 0.5 means that the class excites a channel three times as much "
    "as the others.",
)

_LAYER = "|batch_norm|relu|"
MODEL = _LAYER.join(
    [
        "sequential('conv(24, 9, 2, padding=4, bias=False)",
        "conv(32, 3, padding=1, bias=False)",
        "max_pool(2)|conv(48, 3, padding=1, bias=False)",
        "conv(64, 3, padding=1, bias=False)",
        "gap|dense', initializer='he')",
    ]
)
EPOCHS = {"quick": 1, "standard": 10, "full": 60}
SEEDS = {"quick": 2, "standard": 4, "full": 10}


def trained_arm(budget: str) -> Config:
    """Returns the config of the trained arm."""
    return Config(
        model=MODEL,
        dataset="cifar10",
        train_split="train" if budget == "full" else "train[:5000]",
        test_split="test",
        augment="pad_crop(4)|flip_lr",
        duration=f"{EPOCHS[budget]} epochs",
        batch_size=50,
        lr=0.05,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the Gabor fit of a run's first filters, and what each layer tells; see `cnnjax.study.inside`."""
    from cnnjax.study import inside

    return inside.gabor_likeness(folder) | inside.by_depth(folder, data_dir)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (all images)."""
    trained = trained_arm(budget)
    untrained = dataclasses.replace(trained, duration="1 steps", lr=0.0, schedule="constant")
    return Study(
        arms={"trained": trained, "untrained": untrained},
        metrics={
            "gabor_r2": "fit of Gabor functions (R²)",
            "probe_first": "probe accuracy, first layer",
            "probe_last": "probe accuracy, last layer",
            "probe_rise": "rise of probe accuracy from the first to the last layer",
            "selectivity_rise": "rise of class selectivity from the first to the last layer",
            "test/accuracy": "test accuracy",
        },
        fractions=("probe", "probe_first", "probe_last", "probe_rise"),
        claims=(GABOR, DEEPER, GENERIC, SELECTIVE),
        panels=(
            Panel("profile", "probe", "probe accuracy by layer", xlabel="layer (3 is the max pool)"),
            Panel("profile", "selectivity", "class selectivity by layer", xlabel="layer (3 is the max pool)"),
            Panel("points", "gabor_r2", "first filters: fit of Gabor functions (R²)"),
            Panel("points", "test/accuracy", "test accuracy of the network"),
        ),
        seeds=SEEDS[budget],
        max_seeds=2 * SEEDS[budget],
        measure=measure,
        remarks=REMARKS.format(epochs=EPOCHS[budget]),
        vary="Train longer (EPOCHS), or with 11x11 filters: do more of the first filters become Gabor functions?",
    )
