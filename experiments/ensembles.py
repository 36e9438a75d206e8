"""Ensembles: the mean of the predictions of one to seven networks, which differ in their random numbers alone.

./launch.sh study experiments/ensembles.py --budget=standard --workers=2
"""

import functools
import math
import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

NETWORKS = 7
# Half and twice the rate give a lower accuracy of a single network on 2,000 other images of the training split, after 8
# epochs on 1,500 images:
# ./launch.sh sweep 'experiments/ensembles.py:ensemble of 1' --space.lr='[0.02, 0.04, 0.08]' --sampler=grid
#     --config.train_split='train[:1500]' --config.duration='8 epochs' --config.val_split='train[58000:]'
#     --config.seed=1000
RATE = 0.04
SEEDS = 100  # network k has the seeds 100 k, 100 k + 1, ..., one for each ensemble
BUDGETS = {  # images, epochs, seeds; 'standard' is short: minutes on one core
    "quick": (1000, 4, 3),
    "standard": (1500, 8, 5),
    "full": (50000, 20, 10),
}


def network(number: int, budget: str) -> Config:
    """Returns the config of network `number`, counted from 1: LeNet-5 on Fashion-MNIST, with its own seeds."""
    images, epochs, _ = BUDGETS[budget]
    return Config(
        model="lenet5",
        dataset="fashion_mnist",
        train_split=f"train[:{images}]",
        duration=f"{epochs} epochs",
        batch_size=50,
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=RATE,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every=f"{epochs} epochs",
        seed=number * SEEDS,
    )


@functools.cache
def score(folder: pathlib.Path, data_dir: str) -> Any:
    """Returns the `Scores` of a run on its test split."""
    from cnnjax.study import measure

    return measure.score(folder, data_dir)


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the test accuracies in [0, 1] of the run of network k, and of the ensemble of the networks 1 to k.

    'own/accuracy' is that of network k alone, 'ensemble/accuracy' that of the mean of all probabilities, and
    'logits/accuracy' that of the mean of all logits. 'own_error' and 'ensemble_error' are 1 minus the first two, and
    'log_error' is the natural logarithm of 'ensemble_error'.
    """
    import jax
    import numpy as np

    from cnnjax import pretrained

    number, index = divmod(pretrained.load(folder).config.seed, SEEDS)
    digest = folder.parent.name.rpartition("-")[2]  # of the config without its seed: the same for all networks
    members = [folder.parents[1] / f"{ARMS[k]}-{digest}" / f"seed{k * SEEDS + index}" for k in range(1, number + 1)]
    scores = [score(member, data_dir) for member in members]
    labels, logits = scores[0].labels, np.stack([score.scores for score in scores])

    def accuracy(values: np.ndarray) -> float:
        return float(np.mean(values.argmax(axis=1) == labels))

    own, ensemble = accuracy(logits[-1]), accuracy(np.asarray(jax.nn.softmax(logits)).mean(axis=0))
    return {
        "own/accuracy": own,
        "own_error": 1 - own,
        "ensemble/accuracy": ensemble,
        "ensemble_error": 1 - ensemble,
        "log_error": float(np.log(1 - ensemble)),
        "logits/accuracy": accuracy(logits.mean(axis=0)),
    }


ARMS = {number: f"ensemble of {number}" for number in range(1, NETWORKS + 1)}
CLAIMS = (
    Claim(
        name="seven_networks_err_less",
        chapter="evaluation",
        statement="The mean prediction of seven networks has fewer errors than that of one network.",
        source="""Krizhevsky, Sutskever, Hinton: NIPS 2012, table 2: 18.2 to 15.4 % on ImageNet; Szegedy et al.: CVPR
        2015, table 3, with seven networks""",
        comparisons=(Comparison(ARMS[NETWORKS], "higher", ARMS[1], "ensemble/accuracy"),),
    ),
    Claim(
        name="ensembles_save_a_seventh_of_errors",
        chapter="evaluation",
        statement="Seven networks make at least a seventh fewer errors than one, as AlexNet's did on ImageNet.",
        source="Krizhevsky, Sutskever, Hinton: NIPS 2012, table 2: five networks, 18.2 to 16.4 %, seven, 15.4 %",
        comparisons=(Comparison(ARMS[NETWORKS], "lower", ARMS[1], "log_error", margin=math.log(7 / 6)),),
        remarks="""A difference of logarithms is a ratio: the margin, log(7/6), is a seventh of the errors, whatever
        their number. Two of AlexNet's seven networks were pretrained on more images; here all seven are trained the
        same way. Without those two, AlexNet's gain was a tenth.""",
    ),
    Claim(
        name="three_networks_suffice",
        chapter="evaluation",
        statement="Most of the gain comes with the first networks: three are as accurate as seven.",
        source="taught so in lectures",
        comparisons=(Comparison(ARMS[3], "equal", ARMS[NETWORKS], "ensemble/accuracy", margin=0.01),),
        remarks="The margin is one percentage point.",
    ),
)


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' (minutes on two CPU cores), 'standard', or 'full' (a GPU)."""
    images, _, seeds = BUDGETS[budget]
    return Study(
        arms={name: network(number, budget) for number, name in ARMS.items()},
        metrics={
            "ensemble/accuracy": "test accuracy",
            "logits/accuracy": "test accuracy with the mean of the logits",
            "own/accuracy": "test accuracy of network k alone",
            "log_error": "logarithm of the test error",
        },
        claims=CLAIMS,
        panels=(
            Panel("points", "ensemble_error", "error of the mean prediction"),
            Panel("points", "own_error", "error of the last network alone"),
        ),
        seeds=seeds,
        measure=measure,
        remarks=f"""The arms are not alternatives: all networks have the same config, LeNet-5 on {images:,} images of
        Fashion-MNIST, and seeds of their own, for other initial weights and another order of the images. The ensemble
        of k has the networks 1 to k, and predicts the mean of their probabilities. Each of the {seeds} seeds
        has seven networks of its own. The learning rate is tuned on other training images.""",
        vary="""NETWORKS is the size of the largest ensemble. Its networks may also differ in their model.""",
    )
