"""A table of results on MNIST and Fashion-MNIST: perceptron, networks without convolutions, and LeNet-5.

./launch.sh study experiments/table_mnist.py --budget=standard
./launch.sh study experiments/table_mnist.py --budget=standard --arms='LeNet-5*'

Each network has the recipe of its card, which says how it differs from the paper's. The standard budget takes half an
hour on two idle CPU cores for each of the three seeds.
"""

import dataclasses
import functools
import pathlib
from typing import Any

from cnnjax.config import Config
from cnnjax.config_files import load_config
from cnnjax.study import Panel, Study

DATA = {"MNIST": "mnist", "Fashion-MNIST": "fashion_mnist"}
# Network -> its card on each data set. LeNet-5 has cards of its own, since digits may not be flipped, and clothes may.
CARDS = {
    "perceptron": dict.fromkeys(DATA, "mnist_mlp:perceptron"),
    "300 hidden units": dict.fromkeys(DATA, "mnist_mlp:mlp"),
    "LeNet-5": {"MNIST": "mnist_lenet5", "Fashion-MNIST": "mnist_lenet5:fashion_mnist"},
    "LeNet-5 of 1998": dict.fromkeys(DATA, "mnist_lenet5_1998"),
}
FULL = {"deep MLP": dict.fromkeys(DATA, "mnist_mlp:deep_mlp")}  # 100 epochs of 12 million parameters
BUDGETS: dict[str, tuple[dict[str, str], int]] = {  # settings that differ from the cards, seeds
    "quick": ({"train_split": "train[:3000]", "test_split": "test[:2000]", "duration": "3 epochs"}, 1),
    "standard": ({}, 3),
    "full": ({}, 10),
}
METRICS = {
    "test_error": "test error",
    "ece": "calibration error",
    "parameters": "parameters",
    "macs": "multiplications",
    "year": "year",
    "minutes": "minutes of training",
    "images_per_second": "images/s in training",
}


def arm(card: str, data: str, changes: dict[str, str]) -> Config:
    """Returns the config of a card on a data set."""
    return dataclasses.replace(load_config(card), dataset=DATA[data], **changes)


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the metrics of a run."""
    from cnnjax.study.measure import table_row

    return table_row(folder, data_dir)


def panel(data: str, x: str, networks: dict[str, Any]) -> Panel:
    """Returns the plot of the test error of all networks on a data set over the metric `x`."""
    arms = tuple(f"{network}, {data}" for network in networks)
    return Panel("scatter", "test_error", f"{data}: test error and {METRICS[x]}", arms, log=True, x=x)


def get_study(budget: str) -> Study:
    """Returns the table for a budget: 'quick' (minutes on two CPU cores), 'standard' (hours there), 'full' (a GPU)."""
    changes, seeds = BUDGETS[budget]
    networks = CARDS | (FULL if budget == "full" else {})
    each = functools.partial(panel, networks=networks)
    return Study(
        arms={
            f"{network}, {data}": arm(card, data, changes)
            for network, by_data in networks.items()
            for data, card in by_data.items()
        },
        metrics=METRICS,
        claims=(),
        panels=(
            Panel("points", "test_error", "MNIST and Fashion-MNIST: test error"),
            *(each(data, x) for data in DATA for x in ("parameters", "macs", "year", "minutes")),
        ),
        seeds=seeds,
        measure=measure,
        remarks="""Each network by the recipe of its card in configs/, with its own input size, optimizer, schedule and
        augmentation. Fashion-MNIST has the recipes of MNIST, except that LeNet-5 sees flipped clothes in place of
        shifted digits; LeNet-5 of 1998 has output codes that are drawings of digits, which mean nothing for clothes.
        The recipes were chosen by test accuracy, without a validation split. A multiplication is one of a convolution
        or of a fully connected layer, for one image. Minutes are those of all training steps at the 90th percentile of
        the speeds.""",
    )
