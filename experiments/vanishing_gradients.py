"""Vanishing gradients in twenty layers: nine activations, some of them with batch normalization.

./launch.sh study experiments/vanishing_gradients.py --workers=2
./launch.sh study experiments/vanishing_gradients.py --budget=standard --workers=2
./launch.sh study experiments/vanishing_gradients.py --budget=full
"""

import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

GLOROT = "Glorot, Bengio: Understanding the difficulty of training deep feedforward neural networks. AISTATS 2010"
RECTIFIER = "Glorot, Bordes, Bengio: Deep Sparse Rectifier Neural Networks. AISTATS 2011"
BATCH_NORM = "Ioffe, Szegedy: Batch Normalization. ICML 2015, sec. 4.2"
REMARKS = """{images:,} digits of MNIST, {epochs} epochs of batches of 100; twenty layers of 64 units, SGD with momentum
0.9. Each arm has its own learning rate, the best of three or more, a factor of two apart. No rate from 0.005 to 0.04
lets the network learn with sigmoids alone in four epochs. A gradient is the root mean square over a layer's kernel, for
the loss of 500 training images. A unit is dead if its values over these images differ by less than 0.0001. All arms
start from weights of variance 1 / inputs. With these, ReLU halves the power of the signal in each layer, so the
gradients of all layers are equally small; the derivative of a sigmoid, at most 1/4, makes them smaller from layer to
layer. Standard runs have the seeds 10, 11 and so on, because runs with those from 0 on had been seen before the claims
on tanh, dead units, ELU, swish and mish were written."""

LAYERS = 20
# Arm -> learning rate: the best of 0.005 to 0.02 or 0.01 to 0.04, a factor of two apart, and of one more if the best
# was the smallest or the largest; after 4 epochs, by the accuracy on 5,000 other images of the training split:
# ./launch.sh sweep experiments/vanishing_gradients.py:relu --space.lr='[0.005, 0.01, 0.02, 0.04]' --sampler=grid
#     --config.duration='4 epochs' --config.seed=1000
RATES = {
    "sigmoid": 0.02,
    "tanh": 0.005,
    "relu": 0.02,
    "leaky_relu": 0.02,
    "prelu": 0.02,
    "elu": 0.01,
    "selu": 0.0025,
    "sigmoid + BN": 0.01,
    "relu + BN": 0.01,
    "elu + BN": 0.02,
    "swish + BN": 0.01,
    "mish + BN": 0.02,
}
BUDGETS = {  # images, epochs, first seed, seeds, largest number of seeds
    "quick": (10000, 12, 0, 3, 3),
    "standard": (10000, 12, 10, 3, 8),
    "full": (55000, 60, 0, 5, 10),
}


def arm(name: str, budget: str) -> Config:
    """Returns the config of an arm: an MLP of `LAYERS` layers of 64 units, LeCun initialization (1998).

    `name` is a key of RATES: an activation, and ' + BN' with batch normalization.
    """
    images, epochs, seed, *_ = BUDGETS[budget]
    activation, _, norm = name.partition(" + ")
    features = ", ".join(["64"] * LAYERS)
    return Config(
        model=f"mlp(features=({features}), activation='{activation}', norm='{'batch' if norm else 'none'}', "
        "initializer='lecun')",
        dataset="mnist",
        train_split=f"train[:{images}]",
        val_split="train[55000:]",
        duration=f"{epochs} epochs",
        batch_size=100,
        lr=RATES[name],
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
        eval_every=f"{epochs} epochs",
        steps_per_call=100,
        seed=seed,
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the gradients and dead units of a run before and after training; see `cnnjax.study.measure.flow`."""
    from cnnjax.study import measure

    return measure.flow(folder, data_dir)


CLAIMS = (
    Claim(
        name="sigmoid_gradients_vanish",
        chapter="activations",
        statement="""In a network of twenty layers with sigmoids the gradient of the first layer is powers of ten
        smaller, relative to that of the last, than with ReLU.""",
        source=f"{GLOROT}; {RECTIFIER}",
        comparisons=(Comparison("sigmoid", "lower", "relu", "log_ratio_start", margin=3),),
        remarks="Powers of ten: more than three.",
    ),
    Claim(
        name="tanh_gradients_vanish",
        chapter="activations",
        statement="In deep networks gradients vanish with tanh, too. With ReLU they vanish less.",
        source="taught so in lectures",
        comparisons=(Comparison("tanh", "lower", "relu", "log_ratio_start", margin=1),),
        remarks="The margin is one power of ten over twenty layers.",
    ),
    Claim(
        name="relu_learns_where_sigmoid_does_not",
        chapter="activations",
        statement="A network of twenty layers learns with ReLU, and does not with sigmoids.",
        source=RECTIFIER,
        comparisons=(Comparison("relu", "higher", "sigmoid", "test/accuracy", margin=0.5),),
        remarks="Sigmoids end near the accuracy of guessing, 0.1; ReLU has to be better by more than 0.5.",
    ),
    Claim(
        name="negative_slopes_save_dead_units",
        chapter="activations",
        statement="""ReLU units die. With a slope or an exponential for negative values, as in leaky ReLU, PReLU,
        ELU and SELU, fewer units die.""",
        source="Maas, Hannun, Ng: Rectifier Nonlinearities Improve Neural Network Acoustic Models. ICML workshop 2013; "
        "taught so in lectures",
        comparisons=tuple(
            Comparison(name, "lower", "relu", "dead_end", margin=0.01)
            for name in ("leaky_relu", "prelu", "elu", "selu")
        ),
        remarks="Fewer: by more than one unit in a hundred, after training.",
    ),
    Claim(
        name="elu_beats_relu_in_deep_networks",
        chapter="activations",
        statement="In networks of more than five layers ELU is more accurate than ReLU.",
        source="Clevert, Unterthiner, Hochreiter: Fast and Accurate Deep Network Learning by Exponential Linear Units. "
        "ICLR 2016, abstract",
        comparisons=(Comparison("elu + BN", "higher", "relu + BN", "test/accuracy"),),
        remarks="Both with batch normalization: without, the initialization of all arms suits ELU better than ReLU.",
    ),
    Claim(
        name="swish_beats_relu_in_deep_networks",
        chapter="activations",
        statement="In deep networks with batch normalization swish is more accurate than ReLU.",
        source="Ramachandran, Zoph, Le: Searching for Activation Functions. arXiv:1710.05941, 2017, abstract",
        comparisons=(Comparison("swish + BN", "higher", "relu + BN", "test/accuracy"),),
    ),
    Claim(
        name="mish_equals_swish",
        chapter="activations",
        statement="Mish and swish are equally accurate in deep networks with batch normalization.",
        source="taught so in lectures; Misra: Mish. BMVC 2020, finds mish better",
        comparisons=(Comparison("mish + BN", "equal", "swish + BN", "test/accuracy", margin=0.005),),
        remarks="The margin is half a percentage point, about a tenth of all errors.",
    ),
    Claim(
        name="batch_norm_rescues_sigmoids",
        chapter="normalization",
        statement="""With batch normalization the gradient of sigmoids does not vanish in twenty layers, and the network
        learns.""",
        source=BATCH_NORM,
        comparisons=(
            Comparison("sigmoid + BN", "higher", "sigmoid", "log_ratio_start", margin=3),
            Comparison("sigmoid + BN", "higher", "sigmoid", "test/accuracy", margin=0.1),
        ),
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    images, epochs, _, seeds, max_seeds = BUDGETS[budget]
    plain, normalized = (tuple(name for name in RATES if name.endswith(" + BN") == norm) for norm in (False, True))
    panels = []
    for arms, suffix in ((plain, ""), (normalized, ", with BN")):
        panels += [
            Panel("profile", "gradient_start", f"gradient before training{suffix}", arms, log=True, xlabel="layer"),
            Panel("points", "test/accuracy", f"test accuracy{suffix}", arms),
        ]
    return Study(
        arms={name: arm(name, budget) for name in RATES},
        seeds=seeds,
        max_seeds=max_seeds,
        metrics={
            "log_ratio_start": "log10 of first / last gradient",
            "log_ratio_end": "log10 of first / last gradient after training",
            "dead_start": "fraction of dead units before training",
            "dead_end": "fraction of dead units after training",
            "test/accuracy": "test accuracy",
        },
        claims=CLAIMS,
        panels=tuple(panels),
        measure=measure,
        remarks=REMARKS.format(images=images, epochs=epochs),
        vary="""Change `LAYERS` to 5. Is the gradient of sigmoids still powers of ten smaller, and does the network
        learn?""",
    )
