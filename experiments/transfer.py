"""Transfer: when pretrained weights help, and how many of their layers to fine-tune.

./launch.sh study experiments/transfer.py --workers=2
./launch.sh study experiments/transfer.py --budget=standard --workers=2
./launch.sh study experiments/transfer.py --budget=full

experiments/howto/data.md says how to build the data sets `imagenette_subset` and `hymenoptera`.
"""

import dataclasses
import pathlib

from cnnjax.config import Config
from cnnjax.config_files import read_config
from cnnjax.study import Claim, Comparison, Panel, Study

SOURCE = """Yosinski, Clune, Bengio, Lipson: How Transferable Are Features in Deep Neural Networks? NIPS 2014, sec. 4;
the four cases: Stanford's course CS231n, "Transfer Learning" """
REMARKS = """The recipes are those of configs/transfer.py. The arms of a set have the same learning rate and differ
only in the trained layers. The first four sets start from a network trained on CIFAR-10, for which photographs are
resized to 32x32; 'imagenette_few', also ants and bees, has 64x64 images and starts from a network trained on
Imagenette. Frozen batch normalization layers keep their statistics. 'gradual' trains only the head for the first
tenth, adds the last stage for the second, then trains all layers, the first stage at a tenth of the learning rate.
Quick and standard runs use a ResNet-8 in place of a ResNet-20, with one block in each stage, half as many channels in
the ResNet-18, and 20,000 images of the source; quick ones also fewer epochs, and at most 1,000 test images. The
learning rates are those of the recipes, and were not tuned for each arm."""

CARD = pathlib.Path(__file__).resolve().parents[1] / "configs" / "transfer.py"
RESNET20 = ("source", "stage3_block3", "stage3", "conv1|norm1|stage1")
SETS = {  # set -> source arm, and the names of its last block, last stage and first stage
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
STANDARD = {"source": {"train_split": "train[:20000]", "duration": "10 epochs"}}
SMALLER = {"cifar_resnet20": "cifar_resnet20(depth=8)", "resnet18": "resnet18(features=32, width=32)"}


def arm(name: str, budget: str, **trained: str) -> Config:
    """Returns the config `name` of configs/transfer.py, such as 'similar_few', with other layers trained.

    `trained` sets the fields `freeze`, `unfreeze` and `lr_factors`; '' where it does not. 'quick' uses a smaller
    network and less data, 'standard' the smaller network and less data for the source.
    """
    config = read_config(f"{CARD}:{name}")
    changes = {"freeze": "", "unfreeze": "", "lr_factors": "", **trained}
    if budget != "full":
        changes |= {"model": SMALLER[config.model], **(QUICK[name] if budget == "quick" else STANDARD.get(name, {}))}
    return dataclasses.replace(config, **changes)


def methods(block: str, stage: str, first: str, budget: str) -> dict[str, dict[str, str]]:
    """Returns the config fields that select the trained layers of each method, such as 'head' or 'gradual'.

    `block` and `stage` are the names of the last ones, `first` is a pattern of the first stage's layers.
    """
    block = block if budget == "full" else block.replace("block3", "block1")
    gradual = {"freeze": "^(?!head)", "unfreeze": f"^{stage}:10% .*:20%", "lr_factors": f"^({first}):0.1"}
    return {
        "scratch": {},
        "head": {"freeze": "^(?!head)"},
        "last block": {"freeze": f"^(?!head|{block})"},
        "all": {},
        "gradual": gradual,
    }


def get_study(budget: str) -> Study:
    """Returns the study for a budget: 'quick' or 'standard' (two CPU cores), or 'full' (a GPU)."""
    arms, starts = {}, {}
    for name, (source, block, stage, first) in SETS.items():
        arms.setdefault(source, arm(source, budget))
        for method, trained in methods(block, stage, first, budget).items():
            arms[f"{name}, {method}"] = arm(name, budget, **trained)
            if method != "scratch":
                starts[f"{name}, {method}"] = source

    def all_better_than(method: str, name: str) -> Comparison:
        return Comparison(f"{name}, all", "higher", f"{name}, {method}", "test/accuracy")

    return Study(
        arms=arms,
        seeds=5,
        max_seeds=8 if budget == "standard" else 0,
        metrics={"test/accuracy": "test accuracy", "train/loss": "training loss"},
        claims=(
            Claim(
                name="pretrained_beats_scratch",
                chapter="transfer",
                statement="""Fine-tuning all layers of a network trained on another task gives a higher accuracy than
                training from scratch, with few images and with many, and also for images unlike those of the other
                task.""",
                source=SOURCE,
                comparisons=tuple(all_better_than("scratch", name) for name in SETS),
            ),
            Claim(
                name="fine_tuning_beats_frozen_features",
                chapter="transfer",
                statement="""Frozen features of a network trained on another task give a lower accuracy than
                fine-tuning if there are many images, or if they are unlike those of the other task.""",
                source=SOURCE,
                comparisons=tuple(
                    all_better_than("head", name) for name in ("similar_many", "different_few", "different_many")
                ),
            ),
        ),
        panels=tuple(
            Panel(
                "points", "test/accuracy", name.replace("_", ", "), tuple(a for a in arms if a.startswith(f"{name},"))
            )
            for name in SETS
        ),
        starts=starts,
        remarks=REMARKS,
        vary="""Change the number of images: in configs/transfer.py, `train[:200]` of 'different_few' to `train[:2000]`.
        From how many on does training from scratch catch up?""",
    )
