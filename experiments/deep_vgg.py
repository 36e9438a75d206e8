"""Deep VGG: what lets the 16-layer network learn that does not from small Gaussian weights.

./launch.sh study experiments/deep_vgg.py --workers=2
./launch.sh study experiments/deep_vgg.py --budget=full
"""

import dataclasses

from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

CLAIM = """Without batch normalisation VGG's configuration D (16 layers) does not begin to learn from Gaussian weights
of standard deviation 0.01. It does from Glorot's weights, from He's, with batch normalisation, and when the layers
that it shares with configuration A (11 layers) start from a trained A, and the new ones from a deviation of 0.1."""
SOURCE = """Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015, sec.
3.1; He et al.: Delving Deep into Rectifiers. ICCV 2015, sec. 2.2 and Fig. 3; Ioffe, Szegedy: Batch Normalization.
ICML 2015"""
REMARKS = """A network that has not begun to learn has a loss of log 10 = 2.303 on ten classes. The optimiser is the
paper's: SGD with momentum 0.9, weight decay 0.0005, dropout of 0.5 where the full connections are. Not as in the
paper: 32x32 images with one full connection behind a mean over the last maps (the paper's three need maps of 7x7)
and, in the quick budget, half as many maps in each layer. A starts from He's weights, for from Gaussian ones of 0.01
it does not learn here either. The paper has a variance of 0.01 where weights are random, a deviation of 0.1: so have
the new layers of D from A. With 0.01 these do not let it begin (one seed: 10.0 %), and all of D from 0.1 has a loss of
NaN after three steps (all three seeds)."""

HALF = "features=(32, 64, 128, 256, 256)"


def arm(network: str, start: str, budget: str) -> Config:
    """The paper's optimiser (sec. 3.1), at its rate."""
    width = f"{HALF}, " if budget == "quick" else ""
    return Config(
        model=f"{network}(head='gap', {width}{start})",
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
    staged = arm("vgg_d", "initializer='gaussian', initializer_std=0.1", budget)
    arms = {
        "A, He": arm("vgg_a", "initializer='he'", budget),
        "D, Gaussian": arm("vgg_d", "initializer='gaussian'", budget),
        "D, Glorot": arm("vgg_d", "initializer='xavier'", budget),
        "D, He": arm("vgg_d", "initializer='he'", budget),
        "D, Gaussian + BN": arm("vgg_d_bn", "initializer='gaussian'", budget),
        "D from A": dataclasses.replace(staged, init_partial=True),
    }
    cures = [name for name in arms if name not in ("A, He", "D, Gaussian")]
    return Study(
        claim=CLAIM,
        source=SOURCE,
        arms=arms,
        seeds=3,
        metrics={"train/loss": "training loss", "test/accuracy": "test accuracy"},
        comparisons=tuple(Comparison(name, "higher", "D, Gaussian", "test/accuracy", margin=0.1) for name in cures),
        panels=(
            Panel("curve", "train/loss", "training loss"),
            Panel("bars", "test/accuracy", "test accuracy"),
        ),
        starts={"D from A": "A, He"},
        remarks=REMARKS,
    )
