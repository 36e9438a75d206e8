"""Deep VGG: initializations and batch normalization that let the 16-layer network learn.

./launch.sh study experiments/deep_vgg.py --workers=2
./launch.sh study experiments/deep_vgg.py --budget=standard --workers=2
./launch.sh study experiments/deep_vgg.py --budget=full
"""

import dataclasses

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

SIMONYAN = "Simonyan, Zisserman: Very Deep Convolutional Networks. ICLR 2015, sec. 3.1"
HE = "He et al.: Delving Deep into Rectifiers. ICCV 2015, sec. 2.2 and fig. 3"
BATCH_NORM = "Ioffe, Szegedy: Batch Normalization. ICML 2015"
MARGIN = "A network learns if its accuracy is above that of guessing, 0.1, by more than 0.1."
REMARKS = """A network that has not learned anything has a loss of log 10 = 2.303 on ten classes. The optimizer is the
paper's: SGD with momentum 0.9, weight decay 0.0005, dropout of 0.5 at the fully connected layers. Unlike the paper:
32x32 images, with global average pooling and one fully connected layer (the paper's three need 7x7 feature maps) and,
in the quick and standard budgets, half as many channels in each layer. A starts from He's initialization, because it
does not learn from Gaussian weights of 0.01 here either. The paper's random weights have a variance of 0.01, that is, a
standard deviation of 0.1, which the new layers of D from A have, too. With 0.01 it does not learn (one seed: 10.0 %),
and with 0.1 in all of D the loss is NaN after three steps (all three seeds). All arms have one learning rate."""

DURATION = {"quick": "2 epochs", "standard": "6 epochs", "full": "20 epochs"}
HALF = "features=(32, 64, 128, 256, 256)"


def arm(network: str, initialization: str, budget: str) -> Config:
    """Returns the config of an arm, with the paper's optimizer and learning rate (sec. 3.1).

    `network` is a name such as 'vgg_d'; `initialization` are further arguments of its call string.
    """
    width = "" if budget == "full" else f"{HALF}, "
    return Config(
        model=f"{network}(head='gap', {width}{initialization})",
        dataset="cifar10",
        train_split="train[:45000]" if budget == "full" else "train[:15000]",
        val_split="train[45000:]",
        augment="flip_lr",
        duration=DURATION[budget],
        batch_size=50,
        lr=0.01,
        optimizer="sgd(momentum=0.9)",
        weight_decay=5e-4,
        decay_mask=".*",
        log_every="100 steps",
        eval_every="1 epochs",
    )


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    from_a = arm("vgg_d", "initializer='gaussian', initializer_std=0.1", budget)
    arms = {
        "A, He": arm("vgg_a", "initializer='he'", budget),
        "D, Gaussian": arm("vgg_d", "initializer='gaussian'", budget),
        "D, Glorot": arm("vgg_d", "initializer='xavier'", budget),
        "D, He": arm("vgg_d", "initializer='he'", budget),
        "D, Gaussian + BN": arm("vgg_d_bn", "initializer='gaussian'", budget),
        "D from A": dataclasses.replace(from_a, init_partial=True),
    }

    def learns(name: str) -> Comparison:
        return Comparison(name, "higher", "D, Gaussian", "test/accuracy", margin=0.1)

    claims = (
        Claim(
            name="initialization_makes_vgg16_learn",
            chapter="depth",
            statement="""VGG's configuration D (16 layers) does not learn from Gaussian weights of standard deviation
            0.01. It learns with Glorot's or He's initialization.""",
            source=f"{SIMONYAN}; {HE}",
            comparisons=(learns("D, Glorot"), learns("D, He")),
            remarks=MARGIN,
        ),
        Claim(
            name="batch_norm_makes_vgg16_learn",
            chapter="normalization",
            statement="""VGG's configuration D (16 layers) does not learn from Gaussian weights of standard deviation
            0.01. With batch normalization it does.""",
            source=BATCH_NORM,
            comparisons=(learns("D, Gaussian + BN"),),
            remarks=MARGIN,
        ),
        Claim(
            name="shallow_network_initializes_vgg16",
            chapter="depth",
            statement="""VGG's configuration D (16 layers) learns if the layers that it has in common with configuration
            A (11 layers) start from a trained A, and the others from Gaussian weights of standard deviation 0.1.""",
            source=SIMONYAN,
            comparisons=(learns("D from A"),),
            remarks=MARGIN,
        ),
    )
    return Study(
        arms=arms,
        seeds=3,
        max_seeds=5 if budget == "standard" else 0,
        metrics={"train/loss": "training loss", "test/accuracy": "test accuracy"},
        claims=claims,
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("points", "test/accuracy", "test accuracy"),
        ),
        starts={"D from A": "A, He"},
        remarks=REMARKS,
        vary="""Replace `'he'` by `'lecun'` in the arm "D, He": weights of half the variance. Does the network still
        learn?""",
    )
