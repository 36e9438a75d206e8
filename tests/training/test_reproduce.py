"""`cnnjax reproduce`: same bits, other bits within the spread, or not reproduced; and how cards are made."""

import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from cnnjax import cli, sealed
from cnnjax.errors import InputError
from cnnjax.evaluation.card import make_card
from cnnjax.pretrained import cards, catalog
from tests import tiny
from tests.pretrained import reading

SETTINGS: dict[str, Any] = {"val_split": "", "test_split": "test", "augment": "flip_lr", "duration": "30 steps"}
CARD = ("--about=A tiny network.", "--license=CC0-1.0")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, digits_dir: str) -> list[pathlib.Path]:
    """Folders of three runs that differ in their seed."""
    root = tmp_path_factory.mktemp("runs")
    folders = [root / f"seed{seed}" for seed in range(3)]
    for seed, folder in enumerate(folders):
        tiny.run(folder, digits_dir, seed=seed, **SETTINGS)  # on one device, as the command does here
    return folders


@pytest.fixture(scope="module")
def exported(runs: list[pathlib.Path], digits_dir: str) -> pathlib.Path:
    """A folder with tiny.safetensors and its card, as `cnnjax export --card` writes them."""
    folder = runs[0].with_name("weights")
    folder.mkdir()
    flags = [f"--workdir={runs[0]}", f"--card={runs[1]},{runs[2]}", f"--to={folder}/tiny.safetensors", *CARD]
    assert cli.main(["export", *flags, f"--data_dir={digits_dir}"]) == 0
    return folder


@pytest.fixture
def weights(exported: pathlib.Path, tmp_path: pathlib.Path) -> Any:
    """A copy of that folder in place of the package's: the weights 'cnnjax:tiny' are in the catalog."""
    with reading.packaged_weights(shutil.copytree(exported, tmp_path / "weights")) as folder:
        yield folder


def change(weights: pathlib.Path, **changes: Any) -> None:
    """Changes the card, and sets the digest of the file as it is now."""
    digest = catalog.download.digest_of(weights / "tiny.safetensors", "sha256:")
    card = dataclasses.replace(cards.read(weights / "tiny.json"), digest=digest, **changes)
    cards.write(weights / "tiny.json", card)
    reading.forget_weights()


def flip_a_bit(weights: pathlib.Path) -> None:
    path = weights / "tiny.safetensors"
    arrays = {name: np.array(array) for name, array in safetensors.numpy.load_file(path).items()}
    arrays["params/output/bias"].view(np.uint32)[0] ^= 1
    safetensors.numpy.save_file(arrays, path)


def reproduce(capsys: Any, tmp_path: pathlib.Path, digits_dir: str) -> tuple[int, str]:
    """Returns the exit status and the last line of the command."""
    capsys.readouterr()
    status = cli.main(["reproduce", "cnnjax:tiny", f"--workdir={tmp_path}/again", f"--data_dir={digits_dir}"])
    return status, capsys.readouterr().out.strip().splitlines()[-1]


def test_the_same_training_has_the_same_bits(weights: Any, capsys: Any, tmp_path: Any, digits_dir: str) -> None:
    card = cards.read(weights / "tiny.json")
    status, line = reproduce(capsys, tmp_path, digits_dir)
    assert status == 0
    assert line.startswith("cnnjax:tiny: same bits in all 4 arrays; ")
    assert line.endswith(
        f"{card.correct('single')[0]} of 359 test images are right ({card.accuracy():.2%}), as in the card"
    )
    assert reproduce(capsys, tmp_path, digits_dir) == (status, line)  # the run is complete, and compared again


def test_other_bits_may_be_within_the_spread(weights: Any, capsys: Any, tmp_path: Any, digits_dir: str) -> None:
    flip_a_bit(weights)
    change(weights)
    status, line = reproduce(capsys, tmp_path, digits_dir)
    assert status == 0
    assert "cnnjax:tiny: other bits, within the spread: " in line
    assert line.endswith("(versions and processor are those of the card, so the bits should be, too)")
    stack = dict(cards.read(weights / "tiny.json").stack) | {"jax": "0.9.0"}
    change(weights, stack=stack)
    status, line = reproduce(capsys, tmp_path, digits_dir)
    assert "(jax 0.9.0 there, " in line


def test_a_result_outside_of_the_spread_is_an_error(weights: Any, capsys: Any, tmp_path: Any, digits_dir: str) -> None:
    flip_a_bit(weights)
    change(weights, scores=tuple(cards.Score(seed, "single", 355 + seed) for seed in range(3)))
    status, line = reproduce(capsys, tmp_path, digits_dir)
    assert status == 1
    assert "cnnjax:tiny: NOT reproduced: " in line
    assert "by the card's 3 seeds, 351 to 359 are expected" in line


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cnnjax:tinny", "error: unknown weights 'cnnjax:tinny'; did you mean 'cnnjax:tiny'?"),
        ("tiny", "error: unknown weights 'tiny'; valid: cnnjax:tiny"),
        ("torchvision:vgg16.v1", "error: torchvision:vgg16.v1 was not trained here, so there is no recipe; valid: cnn"),
    ],
)
def test_a_wrong_name_is_one_line(weights: Any, capsys: Any, name: str, message: str) -> None:
    capsys.readouterr()
    assert cli.main(["reproduce", name]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_a_run_that_is_stopped_goes_on(weights: Any, capsys: Any, tmp_path: Any, digits_dir: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        tiny.send_at(patch, 5)
        words = ["reproduce", "cnnjax:tiny", f"--workdir={tmp_path}/again", f"--data_dir={digits_dir}"]
        assert cli.main(words) == 128 + 15
    assert "rerun the command to resume" in capsys.readouterr().out
    status, line = reproduce(capsys, tmp_path, digits_dir)
    assert (status, "same bits in all 4 arrays" in line) == (0, True)


# ---------------------------------------------------------------------------------------------------- making a card


def test_a_card_has_what_the_runs_have(weights: Any, runs: list[pathlib.Path]) -> None:
    card = cards.read(weights / "tiny.json")
    assert (card.config.model, card.config.seed, card.images) == (tiny.CONFIG["model"], 0, 359)
    assert card.protocols == ("single", "flip")  # the training mirrors images
    assert card.correct("single").keys() == card.correct("flip").keys() == {0, 1, 2}
    results = [json.loads((folder / "result.json").read_text())["accuracy"] for folder in runs]
    assert [count / 359 for count in card.correct("single").values()] == pytest.approx(results, abs=1e-6)
    assert card.stack.keys() == {*cards.STACK, "python", "cnnjax"}


def test_runs_that_make_no_card(runs: list[pathlib.Path], digits_dir: str, tmp_path: pathlib.Path) -> None:
    other, incomplete = (shutil.copytree(runs[2], tmp_path / name) for name in ("other", "incomplete"))
    settings = json.loads((other / "config.json").read_text())
    sealed.write_json(
        other / "config.json",
        {name: 0.01 if name == "lr" else value for name, value in settings.items() if name != sealed.SEAL},
    )
    (incomplete / "result.json").unlink()
    for folders, message in (
        (runs[:1], r"at least 2 runs of different seeds, got the seeds \[0\]"),
        ([runs[0], *runs[:2]], r"different seeds, got the seeds \[0, 0, 1\]"),
        ([*runs[:2], other], r"other is not a run of the same config as .*: lr = 0.01 there, 0.05 now"),
        ([*runs[:2], incomplete], "incomplete: its training is not complete"),
    ):
        with pytest.raises(InputError, match=message):
            make_card(tmp_path / "x", folders, preprocess="", about="x", license="y", data_dir=digits_dir)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--to=x.safetensors", "--about=x"], "--about is for a card: give --card=DIR,DIR as well"),
        (["--to=x.onnx", "--card=a,b", *CARD], "--card is for a weight file of a run's last checkpoint"),
        (["--to=x.pth", "--card=a,b", "--step=best", *CARD], "--card is for a weight file of a run's last checkpoint"),
        (["--to=x.pth", "--card=a,b", "--about=x"], "--license is missing: a card needs it"),
    ],
)
def test_flags_of_a_card_that_do_not_go_together(flags: list[str], message: str, capsys: Any) -> None:
    assert cli.main(["export", "--workdir=runs/none", *flags]) == 1
    assert message in capsys.readouterr().err
