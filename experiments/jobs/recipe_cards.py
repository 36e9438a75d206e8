"""Trains each ImageNet card of configs/ for 200 steps on 2,000 photographs, and keeps what came of it in one table.

    python experiments/jobs/recipe_cards.py --data_dir=DIR    # the missing runs, cheap ones first; goes on if stopped
    python experiments/jobs/recipe_cards.py --no_runs         # the table and the cards, from the runs that are complete

This shows that a recipe works as a whole, not what it reaches: images are decoded, augmented and learned from at the
card's own resolution, by its own optimizer, loss and schedule, and scored by its own test protocol. The table is
recipe_cards.csv, beside this file; the status in the docstring of each card has its numbers.

Unlike the cards: a data set of ten classes (--dataset, by default 'imagenette_subset', which is built as
experiments/howto/data.md says), batches of 8 or 16 images with a learning rate scaled by the square root of the
batch size, a schedule and an average of the weights that are shortened in proportion, at most four micro-batches, batch
statistics of at most eight images, and bfloat16, in which it takes half the time. With so small a rate, networks
without normalization barely move in 200 steps. Recipes without a warm-up, such as ResNet-50's, start with a loss far
above chance and spend the 200 steps on coming back to it. The test accuracy says little: running statistics and
averages of weights are made for longer trainings, and may be far from their values.
The rows were made on two cores of an AMD EPYC that other work shared, so that their seconds say little, too.
"""

import argparse
import ast
import csv
import dataclasses
import math
import pathlib
import re
import shlex
import textwrap
from typing import Any

import numpy as np

from cnnjax import config as configs
from cnnjax import config_files, sealed, spec
from cnnjax.config import Config
from cnnjax.runs import executors, workdir
from cnnjax.runs.supervise import Run, has_result, read_metrics
from cnnjax.study import conduct

ROOT = pathlib.Path(__file__).resolve().parents[2]
TABLE = pathlib.Path(__file__).with_suffix(".csv")
STEPS, LOG_STEPS = 200, 20
IMAGENET_IMAGES = 1_281_167
CHANCE = math.log(10)  # cross-entropy of equal probabilities for the ten classes, with and without label smoothing
PROTOCOL_IMAGES = 20  # that the card's test protocol is run on, with up to 144 views of each
WIDTH = 120  # of a docstring
CARDS = {  # card -> batch size, about in the order of their cost
    "imagenet_mobilenet": 16,
    "imagenet_alexnet": 16,
    "imagenet_squeezenet": 16,
    "imagenet_nin": 16,
    "imagenet_alexnet_2012": 16,
    "imagenet_alexnet:zfnet": 16,
    "imagenet_googlenet": 16,
    "imagenet_resnet_torch:resnet18": 16,
    "imagenet_inception:bn_inception": 16,
    "imagenet_timm": 16,
    "imagenet_torchvision": 16,
    "imagenet_densenet": 8,
    "imagenet_resnet": 8,
    "imagenet_resnet_torch": 8,
    "imagenet_resnet50": 8,
    "imagenet_senet": 8,
    "imagenet_resnext": 8,
    "imagenet_resnet:plain34": 8,
    "imagenet_resnet_v2": 8,
    "imagenet_inception": 8,
    "imagenet_xception": 8,
    "imagenet_inception:inception_v4": 8,
    "imagenet_inception:inception_resnet_v2": 8,
    "imagenet_vgg": 8,
    "imagenet_prelunet": 8,
}
SENTENCE = re.compile(
    r"Status: not run here\.|Status: not run on ImageNet here\. [^()]*\(experiments/jobs/recipe_cards\.csv\)\."
)


@dataclasses.dataclass(frozen=True)
class Row:
    """Holds the result of a card: a row of the table.

    Attributes:
      card: name of the file in configs/, and its argument.
      first_loss: mean training loss of the first `LOG_STEPS` steps, by the card's own loss.
      last_loss: that of the last ones.
      test_accuracy: fraction of the test photographs that are classified correctly, of ten classes.
      protocol: the test protocol of the card's docstring.
      protocol_accuracy: accuracy of the first `PROTOCOL_IMAGES` test photographs with it.
      seconds: of the training, with compilation and tests.
    """

    card: str
    model: str
    augment: str
    batch_size: int
    optimizer: str
    lr: float
    schedule: str
    steps: int
    first_loss: float
    last_loss: float
    test_accuracy: float
    protocol: str
    protocol_accuracy: float
    seconds: float
    seed: int
    cnnjax: str
    jax: str
    devices: str

    def sentence(self) -> str:
        """Returns the status in a card's docstring."""
        first, last = f"{self.first_loss:.2f}", f"{self.last_loss:.2f}"
        falls = float(last) < float(first)
        change = f"falls from {first} to {last}" if falls else f"does not fall: {first} at first, {last} at the end"
        is_cross_entropy = spec.parse(_own_config(self.card).loss).name == "cross_entropy"
        chance = f", and chance is {CHANCE:.2f}" if is_cross_entropy else ""
        return (
            f"Status: not run on ImageNet here. In {self.steps} steps on 2,000 photographs the loss {change}{chance} "
            "(experiments/jobs/recipe_cards.csv)."
        )


def small_config(card: str, dataset: str = "imagenette_subset") -> Config:
    """Returns the config of a card, shortened to `STEPS` steps on a small data set as the head of this file says."""
    config = _own_config(card)
    epoch = IMAGENET_IMAGES / config.batch_size
    total = configs.to_steps(config.duration, epoch=epoch)
    model = spec.parse(config.model)
    if "ghost_batch_size" in model.kwargs:
        config.model = spec.render(model._replace(kwargs=model.kwargs | {"ghost_batch_size": 8}))
    batch_size = CARDS[card]
    config.lr = float(f"{config.lr * np.sqrt(batch_size / config.batch_size):.3g}")
    config.schedule = _shortened(config.schedule, epoch, total)
    if config.ema:
        config.ema = 1 - min((1 - config.ema) * total / STEPS, 0.05)
    config.batch_size, config.grad_accum_steps = batch_size, min(config.grad_accum_steps, 4)
    config.dataset, config.train_split, config.test_split = dataset, "train", "val"
    config.val_split = "val[:200]" if config.val_split else ""
    config.duration, config.log_every = f"{STEPS} steps", f"{LOG_STEPS} steps"
    config.eval_every = "50 steps" if config.val_split else f"{STEPS} steps"  # by which a schedule may go
    config.checkpoint_every, config.eval_batch_size, config.dtype = f"{STEPS} steps", 20, "bfloat16"
    return configs.check(config)


def _shortened(schedule: str, epoch: float, total: int) -> str:
    """Returns a schedule with its durations as percentages of the training. `epoch` and `total` are in steps."""

    def percent(match: re.Match[str]) -> str:
        return f"'{100 * configs.parse_duration(match[1], epoch=epoch, total=total) / total:.4g}%'"

    return re.sub(r"'([\d.]+ (?:steps?|epochs?))'", percent, schedule)


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A card's test protocol: config.protocol and config.preprocess of an evaluation."""

    protocol: str
    preprocess: str


def protocol_of(card: str, config: Config) -> Protocol:
    """Returns the protocol of the first `cnnjax evaluate` in a card's docstring; that of `config` if there is none.

    It is for the card's first network: another one may have another size, and is tested as its config has it.
    """
    text = "" if ":" in card else _docstring(card)
    lines = [shlex.split(line) for line in text.splitlines() if "./launch.sh evaluate " in line]
    flags = dict(word.removeprefix("--").split("=", 1) for word in lines[0][3:]) if lines else {}
    return Protocol(flags.get("protocol", config.protocol), flags.get("preprocess", config.preprocess))


def _own_config(card: str) -> Config:
    """Returns the config of a card as it is, for ImageNet."""
    return config_files.read_config(f"{_path(card)}:{card.partition(':')[2]}".rstrip(":"))


def _path(card: str) -> pathlib.Path:
    """Returns the path of a card's file."""
    return ROOT / "configs" / f"{card.partition(':')[0]}.py"


def _docstring(card: str) -> str:
    """Returns the docstring of a card."""
    return ast.get_docstring(ast.parse(_path(card).read_text()), clean=False) or ""


def read_row(card: str, run: Run) -> Row:
    """Gathers the row of a complete run from its folder."""
    config, result = run.config, workdir.read_json(run.folder / "result.json")
    versions, metrics = workdir.read_json(run.folder / "versions.json"), read_metrics(run.folder)
    losses = [line["train/loss"] for line in metrics if "train/loss" in line]
    scored = _score(card, run)
    return Row(
        card=card, model=config.model, augment=config.augment, batch_size=config.batch_size,
        optimizer=config.optimizer, lr=config.lr, schedule=config.schedule, steps=result["step"],
        first_loss=round(losses[0], 4), last_loss=round(losses[-1], 4), test_accuracy=result["accuracy"],
        protocol=scored["protocol"], protocol_accuracy=scored["accuracy"], seconds=result["seconds"],
        seed=config.seed, cnnjax=versions["cnnjax"], jax=versions["jax"], devices=versions["devices"],
    )  # fmt: skip


def _score(card: str, run: Run) -> dict[str, Any]:
    """Scores a run by its card's test protocol, once, and returns 'protocol' and 'accuracy'."""
    path = run.folder / "protocol.json"
    if not path.exists():
        from cnnjax.evaluation.evaluate import evaluate

        tested = protocol_of(card, run.config)
        done = evaluate(
            run.folder,
            split=f"val[:{PROTOCOL_IMAGES}]",
            protocol=tested.protocol,
            preprocess=tested.preprocess,
            data_dir=run.data_dir,
            log=lambda line: None,
        )
        sealed.write_json(path, {"protocol": tested.protocol, "accuracy": done["accuracy"]})
    return sealed.read_json(path)


def write_table(rows: list[Row]) -> None:
    """Writes the rows as a CSV file, those of `CARDS` that are missing left out."""
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows([dataclasses.asdict(row) for row in rows])


def read_table() -> list[Row]:
    """Reads the rows that `write_table` wrote; [] if there is no table yet."""
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        kinds = {field.name: field.type for field in dataclasses.fields(Row)}
        return [Row(**{name: kinds[name](value) for name, value in row.items()}) for row in csv.DictReader(file)]  # pyright: ignore


def update_card(row: Row) -> None:
    """Puts the sentence of a row into its card's docstring as the status, and wraps that paragraph anew."""
    path, old = _path(row.card), _docstring(row.card)
    paragraphs = old.split("\n\n")
    for i, paragraph in enumerate(paragraphs):
        flat = " ".join(paragraph.split())
        if SENTENCE.search(flat):
            text = textwrap.fill(
                SENTENCE.sub(row.sentence(), flat), WIDTH, break_on_hyphens=False, break_long_words=False
            )
            paragraphs[i] = text + "\n" * paragraph.endswith("\n")
    path.write_text(path.read_text().replace(old, "\n\n".join(paragraphs), 1))


def main() -> None:
    """Runs what is missing, and writes the table and the cards after each run. Rows without a run here stay."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data_dir", default="", help="folder of the data sets")
    parser.add_argument("--dataset", default="imagenette_subset", help="photographs with splits train and val")
    parser.add_argument("--workdir", default="runs/recipe_cards", type=pathlib.Path, help="folder of the runs")
    parser.add_argument("--no_runs", action="store_true", help="start no run")
    args = parser.parse_args()
    rows = {row.card: row for row in read_table()}  # also those of other machines
    for card in CARDS:
        config = small_config(card, args.dataset)
        run = Run(config, args.workdir / card.replace(":", "-"), args.data_dir)
        if not args.no_runs:
            failures = conduct.conduct({card: [run]}, executors.local(1), workers=1, stall_timeout=7200, log=print)
            print(*failures, sep="\n", end="", flush=True)
        if has_result(run, print):
            rows[card] = read_row(card, run)
            write_table([rows[name] for name in CARDS if name in rows])
            if ":" not in card:
                update_card(rows[card])
    print(f"{len(rows)} of {len(CARDS)} cards are in {TABLE}")


if __name__ == "__main__":
    main()
