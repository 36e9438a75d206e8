"""Transfer: where weights that learnt other images help, and how many of them to train on.

./launch.sh study experiments/transfer.py --workers=2
./launch.sh study experiments/transfer.py --budget=full
"""

import dataclasses
import pathlib

from cnnjax.cli import read_config
from cnnjax.config import Config
from cnnjax.study import Comparison, Panel, Study

CLAIM = """Training all layers from another task's weights gives more accurate networks than from random ones, with
few images and with many, and for images far from those of the other task, too. Its features alone, frozen, are worse
than that where there are many images, or where these are far."""
SOURCE = """Yosinski, Clune, Bengio, Lipson: How Transferable Are Features in Deep Neural Networks? NIPS 2014, sec. 4;
the four cases: Stanford's course CS231n, "Transfer Learning" """
REMARKS = """The recipes are those of configs/transfer.py, each with the same rate for all arms: of what is trained,
nothing else differs. Photographs are shown at 32x32, as CIFAR-10's are. Batch normalisations keep their statistics
where they are frozen. Quick runs have a ResNet-8 in place of a ResNet-20, with one block in each stage, less of the
source's images, and tests on 1,000 images at most."""

CARD = pathlib.Path(__file__).resolve().parents[1] / "configs" / "transfer.py"
QUICK = {
    "source": {"train_split": "train[:20000]", "test_split": "test[:1000]", "duration": "6 epochs"},
    "similar_few": {},
    "similar_many": {"duration": "5 epochs"},
    "different_few": {"test_split": "test[:1000]"},
    "different_many": {"train_split": "train[:4000]", "test_split": "test[:1000]", "duration": "3 epochs"},
}


def arm(quadrant: str, budget: str, freeze: str = "") -> Config:
    config = read_config(f"{CARD}:{quadrant}")
    changes = {"freeze": freeze, "freeze_stats": True, "unfreeze": "", "lr_factors": ""}
    if budget == "quick":
        changes |= {"model": "cifar_resnet20(depth=8)", **QUICK[quadrant]}
    return dataclasses.replace(config, **changes)


def get_study(budget: str) -> Study:
    block = {"quick": "stage3_block1", "full": "stage3_block3"}[budget]
    trained = {"scratch": "", "head": "^(?!head)", "last block": f"^(?!head|{block})", "all": ""}
    quadrants = [name for name in QUICK if name != "source"]
    arms = {"source": arm("source", budget)}
    arms |= {f"{one}, {what}": arm(one, budget, freeze) for one in quadrants for what, freeze in trained.items()}

    def more(quadrant: str, what: str) -> Comparison:
        return Comparison(f"{quadrant}, all", "higher", f"{quadrant}, {what}", "test/accuracy")

    return Study(
        claim=CLAIM,
        source=SOURCE,
        arms=arms,
        seeds=5,
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        comparisons=(
            *(more(one, "scratch") for one in quadrants),
            *(more(one, "head") for one in quadrants if one != "similar_few"),
        ),
        panels=tuple(
            Panel("bars", "test/accuracy", one.replace("_", ", "), tuple(a for a in arms if a.startswith(one)))
            for one in quadrants
        ),
        starts={name: "source" for name in arms if name.endswith(tuple(trained)) and not name.endswith("scratch")},
        remarks=REMARKS,
    )
