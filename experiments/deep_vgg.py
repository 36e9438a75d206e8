"""Deep VGG: initializations and batch normalization that let the 16-layer network learn.

./launch.sh study experiments/deep_vgg.py --workers=2
./launch.sh study experiments/deep_vgg.py --budget=full
"""

import dataclasses

from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

CLAIM = """Without batch normalization VGG's configuration D (16 layers) does not learn from Gaussian weights of
standard deviation 0.01. It learns with Glorot's or He's initialization, with batch normalization, and if the layers
that it has in common with configuration A (11 layers) start from a trained A and the others from a standard deviation
of 0.1."""
SOURCE = """Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, sec.
3.1; He et al.: Delving Deep into Rectifiers. ICCV 2015, sec. 2.2 and Fig. 3; Ioffe, Szegedy: Batch Normalization.
ICML 2015"""
REMARKS = """A network that has not learned anything has a loss of log 10 = 2.303 on ten classes. The optimizer is the
paper's: SGD with momentum 0.9, weight decay 0.0005, dropout of 0.5 at the fully connected layers. Unlike the paper:
32x32 images, with global average pooling and one fully connected layer (the paper's three need 7x7 feature maps) and,
in the quick budget, half as many channels in each layer. A starts from He's initialization, because it does not learn
from Gaussian weights of 0.01 here either. The paper's random weights have a variance of 0.01, that is, a standard
deviation of 0.1, which the new layers of D from A have, too. With 0.01 it does not learn (one seed: 10.0 %), and with
0.1 in all of D the loss is NaN after three steps (all three seeds)."""

HALF = "features=(32, 64, 128, 256, 256)"


def arm(network: str, initialization: str, budget: str) -> Config:
    """Returns the config of an arm, with the paper's optimizer and learning rate (sec. 3.1).

    `network` is a name such as 'vgg_d'; `initialization` are further arguments of its call string.
    """
    width = f"{HALF}, " if budget == "quick" else ""
    return Config(
        model=f"{network}(head='gap', {width}{initialization})",
        dataset="cifar10",
        train_split="train[:15000]" if budget == "quick" else "train[:45000]",
        val_split="train[45000:]",
        augment="flip_lr",
        duration="2 epochs" if budget == "quick" else "20 epochs",
        batch_size=50,
        lr=0.01,
        optimizer="sgd(momentum=0.9)",
        weight_decay=5e-4,
        decay_mask=".*",
        log_every="100 steps",
        eval_every="1 epochs",
    )


def get_study(budget: str) -> Study:
    """Returns the study for a budget, 'quick' (minutes on two CPU cores) or 'full' (a GPU)."""
    from_a = arm("vgg_d", "initializer='gaussian', initializer_std=0.1", budget)
    arms = {
        "A, He": arm("vgg_a", "initializer='he'", budget),
        "D, Gaussian": arm("vgg_d", "initializer='gaussian'", budget),
        "D, Glorot": arm("vgg_d", "initializer='xavier'", budget),
        "D, He": arm("vgg_d", "initializer='he'", budget),
        "D, Gaussian + BN": arm("vgg_d_bn", "initializer='gaussian'", budget),
        "D from A": dataclasses.replace(from_a, init_partial=True),
    }
    remedies = [name for name in arms if name not in ("A, He", "D, Gaussian")]
    return Study(
        claim=CLAIM,
        source=SOURCE,
        arms=arms,
        seeds=3,
        metrics={"train/loss": "training loss", "test/accuracy": "test accuracy"},
        comparisons=tuple(Comparison(name, "higher", "D, Gaussian", "test/accuracy", margin=0.1) for name in remedies),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("bars", "test/accuracy", "test accuracy"),
        ),
        starts={"D from A": "A, He"},
        remarks=REMARKS,
    )
