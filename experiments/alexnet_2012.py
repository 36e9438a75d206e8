"""AlexNet of 2012: which differences between its source code and its paper matter.

./launch.sh study experiments/alexnet_2012.py
./launch.sh study experiments/alexnet_2012.py --budget=standard --workers=2
./launch.sh study experiments/alexnet_2012.py --budget=full

experiments/howto/data.md says how to build the data set, `imagenette_subset`.
"""

from typing import Any

from cnnjax import spec
from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

SOURCE = """Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012,
sec. {}; its source code, released in 2025: experiments/alexnet_paper_and_code.md"""
SAME = 0.04  # of accuracy: with 1,000 test images and five seeds, smaller differences can hardly be told
REMARKS = """The arm 'code' is alexnet_2012, the network of the source code. Each other arm has one of its settings as
the paper describes it, and 'paper' has all five. Everything else is equal: photographs of ten classes (a subset of
Imagenette: 2,000 to train, 1,000 to test) at 64x64, momentum 0.9, weight decay 0.0005, dropout, batches of 32, a
learning rate of 0.01 that is divided by ten at 60 % and 85 % of the training. It is the paper's rate, not tuned for any
arm. Standard runs take 20 epochs, after which the best network is right on little more than a third of
the test images: they show how the networks learn, not where they end.

conv1 has a stride of 3, not 4. Then its feature maps of 19x19, rounded up, or 18x18, rounded down, lead to last feature
maps of 2x2 or 1x1, as 55x55 and 54x54 lead to 6x6 and 5x5. Quick and standard runs have a quarter of the channels.
Their initial standard deviations are twice those of code and paper, and their pixel values run over half the range, so
that each convolution starts with responses as large as in the whole network."""
VARY = """Change any other setting of the network: AlexNet's fields, such as lrn_k, bias or dropout, go into the call
string of `network`. ./launch.sh summary 'alexnet_2012(lrn_k=1.0)' shows that it is valid."""

# Arm -> the field of alexnet_2012 that it has as the paper describes it. A deep_std of 0 is that of the other layers.
TURNED: dict[str, dict[str, Any]] = {
    "ReLU first": {"relu_after_pool": False},
    "no spatial norm": {"spatial_norm": False},
    "starts of 0.01": {"deep_std": 0.0},
    "alpha of 1e-4": {"lrn_alpha": 1e-4},
    "rounded down": {"ceil": False},
}
ALL = {name: value for fields in TURNED.values() for name, value in fields.items()}
DURATION = {"quick": "4 epochs", "standard": "20 epochs", "full": "90 epochs"}


def network(turned: dict[str, Any], budget: str) -> str:
    """Returns the call string of alexnet_2012 with the fields `turned`, for images of 64x64; see `REMARKS`."""
    fields: dict[str, Any] = {"stride": 3}
    if budget != "full":
        fields |= {"features": (24, 64, 96, 96, 64), "hidden": (1024, 1024), "initializer_std": 0.02, "deep_std": 0.06}
    return spec.render(spec.Call("alexnet_2012", (), fields | turned))


def arm(turned: dict[str, Any], budget: str) -> Config:
    """Returns the config of an arm, whose network has the fields `turned`."""
    return Config(
        model=network(turned, budget),
        dataset="imagenette_subset",
        test_split="val",
        augment="resize(64)|center_crop(64)|pad_crop(4)|flip_lr",
        preprocess="resize(64)|center_crop(64)",
        normalize="caffe" if budget == "full" else "range_to(-64, 64)",
        duration=DURATION[budget],
        batch_size=32,
        lr=0.01,
        schedule="piecewise(('60%', '85%'))",
        weight_decay=5e-4,
        log_every="1 epochs",
        eval_every="5 epochs",
        checkpoint_every="5 epochs",
    )


def same(name: str, chapter: str, arm: str, statement: str, section: str, remarks: str = "") -> Claim:
    """Returns the claim that an arm has the accuracy of the code's network, up to `SAME`."""
    comparisons = (Comparison(arm, "equal", "code", "test/accuracy", margin=SAME),)
    return Claim(f"alexnet_2012_{name}", chapter, statement, SOURCE.format(section), comparisons, remarks)


CLAIMS = (
    same(
        "text_is_enough", "evaluation", "paper",
        "AlexNet as its paper describes it has the same accuracy as its source code.", "3",
        "Whoever builds AlexNet from its paper relies on this. All five settings are changed at once. With the starts "
        "alone, the arm 'starts of 0.01', the network stays at chance as well, so they may be the whole difference.",
    ),
    same(
        "order", "normalization", "ReLU first",
        "In layer 1 it does not matter whether response normalization comes before the ReLU or after it.", "3.3",
    ),
    same(
        "spatial_norm", "normalization", "no spatial norm",
        "The source code's second kind of response normalization, over positions, does not matter.", "3.3",
        "The paper has the first kind alone, over channels.",
    ),
    Claim(
        "alexnet_2012_starts", "training",
        "conv3 to conv5 learn faster from a standard deviation of 0.03 than from the paper's 0.01.",
        SOURCE.format(5),
        (Comparison("starts of 0.01", "higher", "code", "train/loss", margin=0.02),),
        "A training loss counts as higher from 0.02 on. It is the loss of the whole network after the last epoch.",
    ),
    same(
        "alpha", "normalization", "alpha of 1e-4",
        "Dividing the alpha of response normalization by the size of its window does not matter.", "3.3",
        "The source code divides it; the paper does not say so.",
    ),
    same(
        "rounding", "padding", "rounded down",
        "It does not matter whether the number of windows is rounded down, or up so that the last hangs over the edge.",
        "3.5",
        "At 64x64, rounding down leaves a quarter of the positions of the last feature maps, and of fc6's weights; at "
        "224x224, 69 %.",
    ),
)  # fmt: skip


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    turned = {"code": {}, "paper": ALL, **TURNED}
    return Study(
        arms={name: arm(fields, budget) for name, fields in turned.items()},
        seeds=2 if budget == "quick" else 3,
        max_seeds=0 if budget == "quick" else 5,
        metrics={
            "test/accuracy": "test accuracy",
            "train/loss": "training loss",
            "train/accuracy": "training accuracy",
        },
        claims=CLAIMS,
        panels=(
            Panel("points", "test/accuracy", "test accuracy"),
            Panel("curve", "train/loss", "training loss"),
        ),
        remarks=REMARKS,
        vary=VARY,
    )
