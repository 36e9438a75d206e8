"""Transfer: where weights that learnt other images help, and how many of them to train on.

./launch.sh study experiments/transfer.py --workers=2
./launch.sh study experiments/transfer.py --budget=full
"""

import dataclasses
import pathlib

from cnnjax.config import Config
from cnnjax.config_files import read_config
from cnnjax.study import Comparison, Panel, Study

CLAIM = """Training all layers from another task's weights gives more accurate networks than from random ones, with
few images and with many, and for images far from those of the other task, too. Its features alone, frozen, are worse
than that where there are many images, or where these are far."""
SOURCE = """Yosinski, Clune, Bengio, Lipson: How Transferable Are Features in Deep Neural Networks? NIPS 2014, sec. 4;
the four cases: Stanford's course CS231n, "Transfer Learning" """
REMARKS = """The recipes are those of configs/transfer.py, each with the same rate for all arms: of what is trained,
nothing else differs. The first four sets begin with a network that learnt CIFAR-10, and photographs are shown to it at
32x32; 'imagenette_few' are ants and bees, too, at 64x64, and begins with one that learnt Imagenette. Batch
normalisations keep their statistics while they are frozen. 'gradual' trains the head alone for the first tenth, then
the last stage with it, after a second tenth all, the first stage at a tenth of the rate. Quick runs have a ResNet-8 in
place of a ResNet-20, with one block in each stage, and half as many maps in the ResNet-18; less of the source's images,
and tests on 1,000 images at most."""

CARD = pathlib.Path(__file__).resolve().parents[1] / "configs" / "transfer.py"
RESNET20 = ("source", "stage3_block3", "stage3", "conv1|norm1|stage1")
SETS = {  # what each starts from, and the last block, the last stage and the first of that network
    "similar_few": RESNET20,
    "similar_many": RESNET20,
    "different_few": RESNET20,
    "different_many": RESNET20,
    "imagenette_few": ("imagenette", "conv5_2", "conv5", "conv1|norm1|conv2"),
}
QUICK = {
    "source": {"train_split": "train[:20000]", "test_split": "test[:1000]", "duration": "6 epochs"},
    "similar_few": {},
    "similar_many": {"duration": "5 epochs"},
    "different_few": {"test_split": "test[:1000]"},
    "different_many": {"train_split": "train[:4000]", "test_split": "test[:1000]", "duration": "3 epochs"},
    "imagenette": {"duration": "20 epochs"},
    "imagenette_few": {},
}
SMALLER = {"cifar_resnet20": "cifar_resnet20(depth=8)", "resnet18": "resnet18(features=32, width=32)"}


def arm(name: str, budget: str, **trained: str) -> Config:
    config = read_config(f"{CARD}:{name}")
    changes = {"freeze": "", "unfreeze": "", "lr_factors": "", **trained}
    if budget == "quick":
        changes |= {"model": SMALLER[config.model], **QUICK[name]}
    return dataclasses.replace(config, **changes)


def ways(block: str, stage: str, first: str, budget: str) -> dict[str, dict[str, str]]:
    """What is trained, as fields of a config."""
    block = block.replace("block3", "block1") if budget == "quick" else block
    gradual = {"freeze": "^(?!head)", "unfreeze": f"^{stage}:10% .*:20%", "lr_factors": f"^({first}):0.1"}
    return {
        "scratch": {},
        "head": {"freeze": "^(?!head)"},
        "last block": {"freeze": f"^(?!head|{block})"},
        "all": {},
        "gradual": gradual,
    }


def get_study(budget: str) -> Study:
    arms, starts = {}, {}
    for name, (source, *layers) in SETS.items():
        arms.setdefault(source, arm(source, budget))
        for what, trained in ways(*layers, budget).items():
            arms[f"{name}, {what}"] = arm(name, budget, **trained)
            if what != "scratch":
                starts[f"{name}, {what}"] = source

    def more(name: str, what: str) -> Comparison:
        return Comparison(f"{name}, all", "higher", f"{name}, {what}", "test/accuracy")

    return Study(
        claim=CLAIM,
        source=SOURCE,
        arms=arms,
        seeds=5,
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        comparisons=(
            *(more(name, "scratch") for name in SETS),
            *(more(name, "head") for name in ("similar_many", "different_few", "different_many")),
        ),
        panels=tuple(
            Panel("bars", "test/accuracy", name.replace("_", ", "), tuple(a for a in arms if a.startswith(f"{name},")))
            for name in SETS
        ),
        starts=starts,
        remarks=REMARKS,
    )
