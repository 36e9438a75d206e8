"""configs/: every command that a recipe card gives is right, and takes a step on small images."""

import ast
import dataclasses
import importlib.util
import pathlib
import re
import shlex
import sys
import types
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnjax import cli, config_files, spec
from cnnjax.config import Config, pick_recipe
from cnnjax.data import build
from cnnjax.data.catalog import DATASETS
from cnnjax.errors import InputError
from cnnjax.training.recipe import parse_recipe
from tests import tiny

ROOT = pathlib.Path(__file__).resolve().parents[1]
CARDS = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").glob("*.py"))


def docstring(path: str) -> str:
    return ast.get_docstring(ast.parse((ROOT / path).read_text())) or ""


def commands(path: str, name: str) -> list[list[str]]:
    """The arguments of each './launch.sh <name> ...' in a card's docstring."""
    lines = [shlex.split(line) for line in docstring(path).splitlines() if f"./launch.sh {name} " in line]
    return [words[2:] for words in lines]


TRAIN = [tuple(words) for path in CARDS for words in commands(path, "train")]
NAMES = [" ".join(words) for words in TRAIN]


@pytest.fixture(autouse=True)
def _in_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def config_of(words: tuple[str, ...]) -> Config:
    return config_files.read_config(words[0], words[1:])


@pytest.mark.parametrize("path", CARDS)
def test_a_card_says_what_it_is_how_to_run_it_and_what_came_of_it(path: str) -> None:
    first, _, rest = docstring(path).partition("\n")
    assert first.endswith("."), "what `cnnjax configs` shows is this line"
    assert len(first) <= 105
    assert [pathlib.Path(path).stem] in commands(path, "train")
    status = rest.strip().partition("\n\n")[0]
    assert re.fullmatch(r"(Status: not run|Result here: ).*\.", status, re.DOTALL), "ours, or that there is none"
    if status.startswith("Result here"):
        assert re.search(r"\(seeds? \d", status)
        assert re.search(r"jax \d", rest)


def test_every_data_set_of_a_card_or_study_can_be_built() -> None:
    how_tos = "".join(path.read_text() for path in (ROOT / "experiments" / "howto").glob("*.md"))
    buildable = {*DATASETS, *re.findall(r"data build (\w+) --source=", how_tos)}
    studies = [str(path) for path in (ROOT / "experiments").glob("*.py") if "def get_study(" in path.read_text()]
    configs = [config_of(words) for words in TRAIN]
    configs += [arm for path in studies for arm in config_files.read_study(path, "full").arms.values()]
    assert {config.dataset for config in configs} <= buildable


@pytest.mark.parametrize("words", TRAIN, ids=NAMES)
def test_a_command_of_a_card_names_what_exists(words: tuple[str, ...]) -> None:
    path = f"configs/{words[0].partition(':')[0]}.py"
    assert path in CARDS
    config = config_of(words)
    parse_recipe(config)
    for _, *flags in commands(path, "evaluate"):  # after the run
        settings = dict(flag.removeprefix("--").split("=", 1) for flag in flags)
        parse_recipe(dataclasses.replace(config, **settings))


@pytest.mark.parametrize("path", [path for path in CARDS if "pick_recipe(" in (ROOT / path).read_text()])
def test_a_wrong_argument_is_named_with_the_right_ones(path: str) -> None:
    with pytest.raises(InputError, match=rf"^{re.escape(path)}:nix gives no config: unknown argument 'nix'; .*valid: "):
        config_files.read_config(f"{path}:nix")


def test_a_long_setting_is_shown_whole(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert cli.main(["configs", "configs/imagenet_timm.py"]) == 0
    values = [line.split("│")[2].strip() for line in capsys.readouterr().out.splitlines() if line.count("│") == 5]
    augment = repr(config_files.read_config("configs/imagenet_timm.py").augment)
    assert augment.replace(" ", "") in "".join(values).replace(" ", "")  # it is folded, also at spaces


# -------------------------------------------------------------------------------------------- 200 steps on photographs


@pytest.fixture(scope="module")
def in_small() -> types.ModuleType:
    """The script that trains the ImageNet cards in small."""
    found = importlib.util.spec_from_file_location("recipe_cards", ROOT / "experiments" / "jobs" / "recipe_cards.py")
    assert found
    assert found.loader
    module = importlib.util.module_from_spec(found)
    sys.modules["recipe_cards"] = module  # for its dataclass
    found.loader.exec_module(module)
    return module


def test_each_imagenet_card_is_trained_in_small_by_its_own_recipe(in_small: types.ModuleType) -> None:
    assert {card.partition(":")[0] for card in in_small.CARDS} == {
        pathlib.Path(path).stem for path in CARDS if "imagenet_" in path
    }
    kept = ("augment", "preprocess", "normalize", "optimizer", "loss", "weight_decay", "lr_factors", "decay_mask")
    for card in in_small.CARDS:
        own, small = config_files.read_config(f"configs/{card.replace(':', '.py:')}"), in_small.small_config(card)
        parse_recipe(small)
        assert [getattr(small, name) for name in kept] == [getattr(own, name) for name in kept]
        assert spec.parse(small.model).name == spec.parse(own.model).name
        assert (small.duration, small.batch_size) == ("200 steps", in_small.CARDS[card])
        assert not re.search(r"epoch|step", small.schedule), "durations are parts of the training"
    recipe = in_small.small_config("imagenet_resnet50")
    assert recipe.schedule == "piecewise(('33.33%', '66.67%', '88.89%'), warmup='5.556%')"
    assert recipe.lr == 0.0177  # 0.1 * sqrt(8 / 256)


def test_a_card_says_what_its_row_in_the_table_says(in_small: types.ModuleType) -> None:
    rows = {row.card: row for row in in_small.read_table()}
    assert rows.keys() <= in_small.CARDS.keys()
    for path in CARDS:
        text, row = " ".join(docstring(path).split()), rows.get(pathlib.Path(path).stem)
        said = in_small.SENTENCE.findall(text) if "imagenet_" in path else []
        assert said == [row.sentence() if row else "Status: not run here."] * len(said)
        assert bool(said) == ("imagenet_" in path)


def test_a_row_is_written_into_its_card_and_again(
    in_small: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = tmp_path / "configs" / "imagenet_senet.py"
    card.parent.mkdir()
    card.write_text((ROOT / "configs" / card.name).read_text())
    monkeypatch.setattr(in_small, "ROOT", tmp_path)
    numbers = dict.fromkeys(("batch_size", "lr", "test_accuracy", "protocol_accuracy", "seconds", "seed"), 0)
    texts = dict.fromkeys(("model", "augment", "optimizer", "schedule", "protocol", "cnnjax", "jax", "devices"), "")
    for first, last, says in (
        (2.3, 1.9, "the loss falls from 2.30 to 1.90, and chance is 2.30"),
        (2.0, 2.5, "does not fall: 2.00 at first, 2.50 at the end, and chance is 2.30"),
    ):
        row = in_small.Row("imagenet_senet", steps=200, first_loss=first, last_loss=last, **numbers, **texts)
        in_small.update_card(row)
        flat = " ".join((ast.get_docstring(ast.parse(card.read_text())) or "").split())
        assert in_small.SENTENCE.findall(flat) == [row.sentence()]
        assert says in flat
        assert "not run here" not in flat
    before, after = ((folder / "configs" / card.name).read_text().splitlines() for folder in (ROOT, tmp_path))
    assert max(map(len, after)) <= 120
    assert after[:2] == before[:2]
    assert after[-20:] == before[-20:]


def test_the_rows_of_other_machines_stay_in_the_table(
    in_small: types.ModuleType, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = in_small.read_table()[0]
    second = dataclasses.replace(first, card="imagenet_alexnet")
    monkeypatch.setattr(in_small, "TABLE", tmp_path / "table.csv")
    in_small.write_table([first, second])
    renewed = dataclasses.replace(first, seconds=1.0)
    monkeypatch.setattr(in_small, "has_result", lambda run, log: run.folder.name == first.card)
    monkeypatch.setattr(in_small, "read_row", lambda card, run: renewed)
    monkeypatch.setattr(in_small, "update_card", lambda row: None)
    monkeypatch.setattr(sys, "argv", ["recipe_cards.py", "--no_runs", f"--workdir={tmp_path}"])
    in_small.main()
    assert in_small.read_table() == [renewed, second]


def test_an_argument_stands_for_its_row() -> None:
    assert pick_recipe("b", {"a": 1, "b": 2}) == 2


# ------------------------------------------------------------------------------------------------------------ a step


# Fewer layers, by the network's name: the first pattern that matches it.
SHALLOW: dict[str, dict[str, Any]] = {
    r"wide_resnet50": {"stage_sizes": (1, 1, 1, 1)},
    r"cifar_preresnet|inception_resnet|prelunet_[a-c]": {"stage_sizes": (1, 1, 1)},
    r"cifar_resnet": {"depth": 8},
    r"wide_resnet": {"depth": 10, "width": 1},
    r"resnext29": {"depth": 11, "width": 8},
    r"densenet(40|_bc)": {"stage_sizes": (2, 2, 2)},
    r"(se_)?res|plain|densenet": {"stage_sizes": (1, 1, 1, 1)},
    r"googlenet": {"adaptive": True},  # else the auxiliary classifiers want images of 224x224
    r"vgg": {"stage_sizes": (1, 1, 1, 1, 1)},
    r"prelunet": {"stage_sizes": (1, 1)},
}
LONG = r"imagenet_|cifar10_googlenet|.*:"  # cards of networks that take long to compile, and all but a card's first


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of data sets with 'photographs', coloured JPEGs of different sizes; splits as ImageNet's, and 'val'."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for split, count in (("train", 8), ("validation", 3), ("val", 3)):
        for label in ("dark", "light"):
            for i in range(count):
                path = folder / "source" / split / label / f"{i}.jpg"
                path.parent.mkdir(parents=True, exist_ok=True)
                pixels = rng.integers(0, 128, (100 + i, 130 - i, 3)) + 127 * (label == "light")
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    build.build("photographs", str(folder / "source"), str(folder), log=lambda line: None)
    return str(folder)


def shrunk(config: Config, side: int) -> Config:
    """Of fewer and smaller images and, where its name says how, with fewer layers; all else as the card has it."""
    model = spec.parse(config.model)
    fields = next((fields for name, fields in SHALLOW.items() if re.match(name, model.name)), {})
    fields = fields | ({"ghost_batch_size": 2} if "ghost_batch_size" in model.kwargs else {})
    config.model = spec.render(model._replace(kwargs=model.kwargs | fields))
    for field in ("augment", "preprocess"):
        if side:  # from the digits' 8x8 to what the network takes
            text = "|".join(filter(None, [f"resize(({side}, {side}))", getattr(config, field)]))
        else:
            text = re.sub(r"\b\d{3}\b", lambda match: str(round(0.36 * int(match[0]))), getattr(config, field))
        setattr(config, field, text)
    config.init = ""  # no run is there to start from
    config.duration, config.eval_batch_size, config.grad_accum_steps = "2 steps", 8, min(config.grad_accum_steps, 2)
    config.batch_size = 2 * config.grad_accum_steps * config.repeated_augment
    return config


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=name, marks=[pytest.mark.slow, pytest.mark.zoo] if re.match(LONG, name) else [])
        for words, name in zip(TRAIN, NAMES, strict=True)
    ],
)
def test_every_command_of_a_card_takes_a_step(
    words: tuple[str, ...], photographs: str, digits_dir: str, tmp_path: pathlib.Path
) -> None:
    """Small images in: digits where the card has digits or CIFAR's, coloured JPEGs where it has photographs."""
    config = config_of(words)
    sides = {"cifar10": 32, "cifar100": 32, "mnist": 28, "fashion_mnist": 28, "digits": 8, "digits_clutter": 64}
    side = sides.get(config.dataset, 0)
    config = shrunk(config, side)
    config.dataset = "digits" if side else "photographs"
    if side:
        config.train_split, config.test_split = "train[:48]", "test[:8]"
        config.val_split = config.val_split and "test[8:16]"
    config.mesh = ""
    result = tiny.train(config, tmp_path, digits_dir if side else photographs)
    assert result["step"] == 2
    assert np.isfinite(result["loss"])
