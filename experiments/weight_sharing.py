"""Weight sharing: LeNet-5 against fully connected networks, with equal parameters and on shifted images.

./launch.sh study experiments/weight_sharing.py --workers=2
./launch.sh study experiments/weight_sharing.py --budget=standard --workers=2
./launch.sh study experiments/weight_sharing.py --budget=full
"""

import pathlib
from collections.abc import Iterable
from typing import Any

from cnnjax.config import Config
from cnnjax.study import Claim, Comparison, Panel, Study

SOURCE = """LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition. Proc. IEEE 1998,
sec. I.B, II.A and III.C, fig. 9"""
REMARKS = """No network was trained on shifted images. MLP 77 and deep MLP 68 have as many parameters as LeNet-5. The
two larger networks show how many parameters a fully connected one needs to come near its accuracy."""

# LeNet-5 has 61,706 parameters, the first two MLPs about as many, the last two 12 and 40 times as many.
MODELS = {
    "LeNet-5": "lenet5",
    "MLP 77": "mlp(features=(77,), activation='relu')",
    "deep MLP 68": "mlp(features=(68, 68, 40), activation='relu')",
    "MLP 944": "mlp(features=(944,), activation='relu')",
    "deep MLP 1000": "mlp(features=(1000, 1000, 500), activation='relu')",
}
EQUAL, LARGER = ("MLP 77", "deep MLP 68"), ("MLP 944", "deep MLP 1000")
DATASETS = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST"}
SHIFT = 2  # pixels
DURATION = {"quick": "4 epochs", "standard": "12 epochs", "full": "30 epochs"}


def arm(model: str, dataset: str, budget: str) -> Config:
    """Returns the config of an arm: `model` is a call string of MODELS, `dataset` a key of DATASETS."""
    return Config(
        model=model,
        dataset=dataset,
        train_split="train[:20000]" if budget == "quick" else "train[:55000]",
        val_split="train[55000:]",
        duration=DURATION[budget],
        optimizer="sgd(momentum=0.9, nesterov=True)",
        lr=0.05,
        schedule="one_cycle",
        weight_decay=5e-4,
        log_every="1 epochs",
        checkpoint_every="4 epochs",
    )


def measure(folder: pathlib.Path, data_dir: str) -> dict[str, Any]:
    """Returns the number of parameters of a run's network, and its test errors in [0, 1].

    'error' is that on the original images, 'shifted' the mean over shifts by `SHIFT` pixels in four directions.
    """
    from cnnjax.study import measure

    shifts = [f"shift({rows}, {columns})" for rows, columns in ((SHIFT, 0), (-SHIFT, 0), (0, SHIFT), (0, -SHIFT))]
    shifted = [1 - measure.accuracy(folder, data_dir, shift) for shift in shifts]
    error = 1 - measure.accuracy(folder, data_dir, "")
    return {"parameters": measure.parameters(folder), "error": error, "shifted": sum(shifted) / len(shifted)}


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    arms = {
        f"{name} on {title}": arm(model, dataset, budget)
        for dataset, title in DATASETS.items()
        for name, model in MODELS.items()
    }

    def lenet_lower_than(names: Iterable[str], metric: str, margin: float = 0.0) -> tuple[Comparison, ...]:
        return tuple(
            Comparison(f"LeNet-5 on {title}", "lower", f"{name} on {title}", metric, margin)
            for title in DATASETS.values()
            for name in names
        )

    return Study(
        arms=arms,
        seeds=5 if budget == "full" else 3,
        max_seeds=8 if budget == "standard" else 0,
        metrics={
            "parameters": "parameters",
            "error": "test error",
            "shifted": "test error on shifted images",
        },
        fractions=("error", "shifted"),
        claims=(
            Claim(
                name="shared_weights_need_fewer_parameters",
                chapter="convolution",
                statement="""With shared weights and local connections a network makes fewer errors than a fully
                connected one with as many parameters.""",
                source=SOURCE,
                comparisons=lenet_lower_than(EQUAL, "error"),
            ),
            Claim(
                name="shared_weights_beat_larger_networks",
                chapter="convolution",
                statement="""With shared weights and local connections a network makes fewer errors than a fully
                connected one with 12 or 40 times as many parameters.""",
                source=SOURCE,
                comparisons=lenet_lower_than(LARGER, "error"),
            ),
            Claim(
                name="shared_weights_resist_shifts",
                chapter="convolution",
                statement="""On images shifted by two pixels, which none was trained on, a network with shared weights
                makes far fewer errors than a fully connected one with as many parameters.""",
                source=SOURCE,
                comparisons=lenet_lower_than(EQUAL, "shifted", margin=0.05),
                remarks="Far fewer: by more than 5 % of all images.",
            ),
        ),
        panels=tuple(
            Panel("points", metric, f"{title}: {text}", tuple(arm for arm in arms if arm.endswith(f" on {title}")))
            for metric, text in (("error", "test error"), ("shifted", f"error, shifted by {SHIFT} pixels"))
            for title in DATASETS.values()
        ),
        measure=measure,
        remarks=REMARKS,
        vary="""Train on shifted images: add `augment="pad_crop(2)"` to the Config of `arm`. Does the fully connected
        network catch up on shifted images?""",
    )
