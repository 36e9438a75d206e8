"""Weights that are trained here: their cards, the files that come with the package, and the numbers that they give."""

import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import cli, models
from cnnjax.data import build
from cnnjax.data.catalog import DATASETS
from cnnjax.errors import InputError
from cnnjax.evaluation.card import count_correct
from cnnjax.pretrained import cards, catalog, description, load
from tests.pretrained import reading

PACKAGED = cards.packaged()
MAX_BYTES = 3_000_000  # of all weights that come with the package


@pytest.fixture(scope="module")
def data_dir(digits_dir: str) -> Any:
    """Returns a function from the name of a data set to a folder with it; skips the test where it is not at hand."""

    def find(name: str) -> str:
        folder = digits_dir if name == "digits" else os.environ.get("CNNJAX_DATA", "")
        if not folder:
            pytest.skip(f"needs {name}: set CNNJAX_DATA to a folder in which `cnnjax data build {name}` built it")
        return folder

    return find


def silent(line: str) -> None:
    pass


# ------------------------------------------------------------------------------------------------------ the package's


def test_the_package_brings_weights_of_a_few_megabytes() -> None:
    assert {"lenet5.digits", "lenet5.mnist", "lenet5.fashion_mnist"} <= PACKAGED.keys()
    files = [path for path in cards.FOLDER.iterdir() if path.name != "README.md"]
    assert {path.suffix for path in files} <= {".json", ".safetensors"}
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
    names = {path.stem for path in files if path.suffix == ".safetensors"}
    assert names == {name for name, card in PACKAGED.items() if not card.url}


@pytest.mark.parametrize("name", PACKAGED)
def test_a_card_and_its_file_say_the_same(name: str) -> None:
    row, card = catalog.find(f"cnnjax:{name}"), PACKAGED[name]
    network = load(row.name)
    assert (row.card, row.params) == (card, models.count_params(network.model, network.data.shape))
    assert card.config.seed in card.correct(card.config.protocol)
    assert all(len(card.correct(protocol)) >= cards.MIN_SEEDS for protocol in card.protocols)
    assert card.images == DATASETS[card.config.dataset].splits[card.config.test_split]
    assert card.license
    assert card.about
    assert set(cards.STACK) <= card.stack.keys()
    assert "/" not in "".join(card.stack.values())  # no path of the machine
    if not card.url:
        described = description.read(catalog.fetch(row, silent))
        assert described
        assert {f: getattr(described.config, f) for f in description.FIELDS} == {
            f: getattr(network.config, f) for f in description.FIELDS
        }
        names = ("classes", "shape", "source")
        assert [getattr(described.data, f) for f in names] == [getattr(network.data, f) for f in names]


@pytest.mark.parametrize(
    "name", [name if "digits" in name else pytest.param(name, marks=pytest.mark.slow) for name in PACKAGED]
)
def test_weights_give_the_numbers_of_their_card_to_the_image(name: str, data_dir: Any) -> None:
    card = PACKAGED[name]
    if card.url and not catalog.find(f"cnnjax:{name}").path.is_file():
        pytest.skip(f"needs the file of {name}, which is not downloaded")
    examples = build.load(card.config.dataset, card.config.test_split, data_dir(card.config.dataset))
    for protocol in card.protocols:
        correct = count_correct(load(f"cnnjax:{name}"), examples, protocol)
        assert correct == card.correct(protocol)[card.config.seed], protocol


def test_predict_takes_an_image_of_any_size(tmp_path: pathlib.Path, digits_dir: str, capsys: Any) -> None:
    images, labels = cnnjax.load_dataset("digits", "test", digits_dir)
    for i, side in enumerate((8, 28, 300)):
        image = Image.fromarray(images[i, :, :, 0]).resize((side, side), Image.Resampling.BILINEAR)
        image.save(tmp_path / f"{i}.png")
    assert cli.main(["predict", "--init=cnnjax:lenet5.digits", "--json", "--top=1", str(tmp_path)]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["top"][0]["class"] for row in rows] == [str(label) for label in labels[:3]]


def test_weights_are_loaded_from_python(digits_dir: str) -> None:
    net = cnnjax.load("cnnjax:lenet5.digits", log=silent)
    images, labels = cnnjax.load_dataset("digits", "test", digits_dir)
    assert np.mean(net.predict(images[:32]).argmax(axis=1) == labels[:32]) > 0.9


# -------------------------------------------------------------------------------------------------------- the catalog


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> Any:
    """A copy of the package's folder of cards, in place of it."""
    with reading.packaged_weights(shutil.copytree(cards.FOLDER, tmp_path / "weights")) as copy:
        yield copy


def test_a_card_with_a_url_is_downloaded_and_checked(
    folder: pathlib.Path, server: Any, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server.content = (folder / "lenet5.digits.safetensors").read_bytes()
    released = dataclasses.replace(PACKAGED["lenet5.digits"], url=f"{server.url}/released.safetensors")
    cards.write(folder / "released.digits.json", released)
    reading.forget_weights()
    row = catalog.find("cnnjax:released.digits")
    assert not row.path.exists()
    assert catalog.fetch(row, silent).read_bytes() == server.content
    server.content = server.content[:-1] + b"x"
    row.path.unlink()
    with pytest.raises(InputError, match=r"sha256:\w+, expected sha256:"):
        catalog.fetch(row, silent)


def test_a_damaged_file_of_the_package_is_found(folder: pathlib.Path) -> None:
    path = folder / "lenet5.digits.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"lenet5\.digits\.safetensors is missing or damaged"):
        cnnjax.load("cnnjax:lenet5.digits")


@pytest.mark.parametrize("text", ["", "[]", '{"config": {}}', '{"config": {"modle": "lenet5"}}'])
def test_a_damaged_card_is_an_input_error(folder: pathlib.Path, text: str) -> None:
    (folder / "x.json").write_text(text)
    with pytest.raises(InputError, match=r"x\.json is not a card of weights"):
        cards.read(folder / "x.json")


def test_a_card_comes_back_as_it_was_written(folder: pathlib.Path) -> None:
    for name, card in PACKAGED.items():
        cards.write(folder / "copy.json", card)
        assert cards.read(folder / "copy.json") == card
        assert (folder / "copy.json").read_bytes() == (folder / f"{name}.json").read_bytes()


def test_the_weights_command_shows_a_card(capsys: Any) -> None:
    assert cli.main(["weights", "cnnjax"]) == 0
    out = capsys.readouterr().out
    assert "with cnnjax" in out
    assert cli.main(["weights", "cnnjax:lenet5.digits"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "of 359 images" in out
    assert "cnnjax reproduce cnnjax:lenet5.digits" in out


def one_more_run(*counts: int) -> tuple[int, int]:
    scores = tuple(cards.Score(seed, "single", count) for seed, count in enumerate(counts))
    return dataclasses.replace(PACKAGED["lenet5.digits"], images=10_000, scores=scores).interval()


def test_one_more_run_is_expected_where_students_distribution_has_it() -> None:
    assert one_more_run(9955, 9947, 9950) == (9930, 9971)  # 9950.7 +- 4.303 * 4.04 * sqrt(4 / 3)
    assert one_more_run(9950, 9950, 9950) == (9949, 9951)
    assert one_more_run(10_000, 10_000, 9999)[1] == 10_000
