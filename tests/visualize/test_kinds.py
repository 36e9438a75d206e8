"""The table of kinds, and `cnnjax visualize`, which draws them: each row is tested by itself."""

import io
import json
import pathlib
import re
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

import cnnjax
from cnnjax import InputError, cli, visualize
from cnnjax.data.build import load
from cnnjax.visualize import files, inputs, kinds, localization
from cnnjax.visualize.kinds import KINDS, Request
from tests import tiny
from tests.pages import structure

# Kinds that take long, with arguments that make them fast; the others are drawn as they are.
FAST: dict[str, str] = {
    "attribution": "attribution(methods='gradient+cam')",
    "localization": "localization(methods='gradient+cam', images=8)",
    "optimized": "optimized(steps=2, count=2)",
}
ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def request_of_digits(conv_run: pathlib.Path, digits_dir: str) -> Request:
    """Returns a request for pictures of a small network, with the first test digits."""
    net = cnnjax.load(conv_run)
    split: Any = load("digits", "test[:40]", digits_dir)
    split.read_boxes = lambda indices: np.tile([0.1, 0.2, 0.9, 0.8], (len(indices), 1))
    images = inputs.choose_examples(split, 1)
    return Request(net, images.images, images.names, images.labels, lambda: split)


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_draws_figures_with_a_note_and_arrays(name: str, request_of_digits: Request) -> None:
    (draw,) = kinds.bind(FAST.get(name, name)).values()
    pictures = list(draw(request=request_of_digits))
    assert pictures
    assert len({stem for stem, _ in pictures}) == len(pictures)
    for _, result in pictures:
        assert isinstance(result.figure(), Figure)
        assert "\n" not in result.note
        arrays = files.arrays(result)
        assert arrays
        np.savez(io.BytesIO(), allow_pickle=False, **arrays)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", KINDS)
def test_a_kind_is_explained(name: str) -> None:
    row = KINDS[name]
    assert name.isidentifier()
    assert row.needs in ("network", "images", "data set")
    assert re.fullmatch(r"[^A-Z].*[^.]", row.help)


def test_every_public_name_exists_and_is_hidden_by_no_module() -> None:
    modules = {path.stem for path in (ROOT / "cnnjax" / "visualize").glob("*.py")}
    assert set(visualize.__all__) == set(visualize._HOME)
    assert not modules & set(visualize.__all__)
    assert all(callable(getattr(visualize, name)) and getattr(visualize, name).__doc__ for name in visualize.__all__)
    with pytest.raises(AttributeError, match="no attribute 'mapps'; it has "):
        visualize.mapps  # noqa: B018


def test_kinds_are_bound_in_order_with_their_arguments() -> None:
    assert list(kinds.bind("")) == kinds.default_kinds()
    bound: Any = kinds.bind('maps(order="index"),')["maps"]
    assert bound.keywords == {"order": "index", "request": None}


def test_examples_are_spread_over_a_split_of_hardly_more(
    request_of_digits: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    split, read = request_of_digits.open_split(), []
    wanted = np.linspace(0, 39, 25).astype(int).tolist()
    assert [int(name.split("_")[0]) for name in inputs.choose_examples(split, 25).names] == wanted

    def read_boxes(indices: np.ndarray) -> None:
        read.append(indices.tolist())
        raise InputError("enough")

    monkeypatch.setattr(split, "read_boxes", read_boxes)
    with pytest.raises(InputError, match="enough"):
        localization.localize(request_of_digits.net, split, count=25)
    assert read == [wanted]


@pytest.mark.parametrize("given", ["row=3", "column=0"])
def test_a_receptive_field_has_a_row_and_a_column_or_neither(given: str, request_of_digits: Request) -> None:
    (draw,) = kinds.bind(f"receptive_fields({given})").values()
    with pytest.raises(InputError, match=rf"receptive_fields\({given}\): expected a row and a column"):
        list(draw(request=request_of_digits))


# ----------------------------------------------------------------------------------------------------- the command


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Returns the status, the output and the errors of `cnnjax visualize`."""
    try:
        status = cli.main(["visualize", *argv])
    except SystemExit as error:  # argparse
        status = int(error.code or 0)
    shown = capsys.readouterr()
    return status, shown.out, shown.err


def test_the_command_writes_each_picture_and_an_index(
    conv_run: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = (f"--to={tmp_path}", f"--data_dir={digits_dir}", "--what=maps", "--examples=2")
    assert run(capsys, str(conv_run), *flags)[0] == 0
    status, out, err = run(capsys, str(conv_run), *flags, "--layer=conv2", "--step=2")
    assert (status, err) == (0, "")
    images, first, second, last = out.splitlines()
    assert images == "images: 0_9, 36_9 of digits test[64:101]"
    assert first.startswith(f"{tmp_path}/maps-conv2-0_9.png: conv2: 8 channels, ")
    assert second.startswith(f"{tmp_path}/maps-conv2-36_9.png: ")
    assert last == f"all are shown in {tmp_path}/index.html"
    listed = json.loads((tmp_path / "index.json").read_text())
    assert [row["name"] for row in listed] == [
        f"maps-{what}-{image}" for what in ("layers", "conv2") for image in ("0_9", "36_9")
    ]
    assert listed[-1] == {
        "name": "maps-conv2-36_9", "kind": "maps", "network": f"{conv_run}, step 2", "note": second.partition(": ")[2],
        "suffixes": list(files.SUFFIXES),
    }  # fmt: skip
    page = (tmp_path / "index.html").read_text()
    document = structure.Document(page)
    assert document.all("h1")[0].text == "Pictures of 2 networks"
    assert [each["id"] for each in document.all("section")] == ["maps", "more"]
    assert [each["src"] for each in document.all("img")] == [f"{row['name']}.png" for row in listed]
    assert [each["alt"] for each in document.all("img")] == [row["note"] for row in listed]
    assert document.all("meta", name="viewport")
    assert document.all("pre")[0].text == f"cnnjax visualize {conv_run} --what=filters --to={tmp_path}"
    for row in listed:
        names = [row["name"] + suffix for suffix in files.SUFFIXES]
        assert all((tmp_path / name).is_file() and f'"{name}"' in page for name in names)
        with Image.open(tmp_path / names[0]) as picture:
            assert picture.format == "PNG"
        assert "<svg" in (tmp_path / names[1]).read_text()
        assert np.load(tmp_path / names[2])["image"].shape == (8, 8, 1)


def test_the_command_takes_images_and_the_flags_of_other_commands(
    conv_run: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "photographs"
    (folder / "b").mkdir(parents=True)
    for name in ("cat 1.png", "b/cat_1.png"):
        Image.fromarray(np.full((8, 8), 7, np.uint8)).save(folder / name)
    words = [str(folder / "cat 1.png"), str(folder / "b")]
    assert run(capsys, f"--workdir={conv_run}", *words, "--what=maps", f"--to={tmp_path}/out")[0] == 0
    assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {"maps-layers-cat_1", "maps-layers-cat_1_2"}


def test_kinds_that_do_not_fit_the_network_are_left_out_unless_they_are_named(
    digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny.run(tmp_path / "mlp", digits_dir, duration="2 steps")
    flags = (str(tmp_path / "mlp"), f"--to={tmp_path}/out", f"--data_dir={digits_dir}", "--examples=1")
    _, out, err = run(capsys, *flags)
    assert "filters is left out: 'mlp(features=(16,))' has no convolution, and so no filters" in out
    assert err == ""
    status, _, err = run(capsys, *flags, "--what=filters")
    assert (status, err) == (1, "error: 'mlp(features=(16,))' has no convolution, and so no filters\n")


WRONG = {
    "no network": ("--what=maps", "the network is missing: expected a run's folder"),
    "two networks": ("--workdir={run} --init={run}", "and not both"),
    "no such network": ("{tmp}/no", "{tmp}/no does not exist"),
    "not a run": ("{tmp}", "is not a run's folder: it has no config.json"),
    "kind": ("{run} --what=map", "unknown kind of picture 'map'; did you mean 'maps'?"),
    "twice": ("{run} --what=maps,maps", "'maps' is given twice"),
    "no list": ("{run} --what=maps(", "'maps(' is not a list; expected calls joined by commas"),
    "argument": ("{run} --what=maps(ordr=1)", "kind of picture 'maps' has no argument 'ordr'; did you mean 'order'?"),
    "layer": ("{run} --what=maps --layer=conv3", "unknown layer of"),
    "vector": ("{run} --what=maps --layer=gap1", "layer 'gap1' has 8 features and no maps; layers with maps: conv1"),
    "order": ("{run} --what=maps(order='size')", "unknown order of the channels 'size'; valid: activation, index"),
    "channel": ("{run} --what=maps --layer=conv2 --channel=8", "channel 8 of 'conv2': expected 0 to 7"),
    "channel of no layer": ("{run} --what=maps --channel=1", "channel 1: expected the name of its layer, too; layers"),
    "unused class": (
        "{run} --what=maps,gabor --class=1",
        "--class=1: maps, gabor do not use it; kinds that do: attr",
    ),
    "unused channel": ("{run} --what=gabor --channel=0", "--channel=0: gabor do not use it; kinds that do: filters"),
    "class": ("{run} --what=attribution --class=ten", "unknown class 'ten'; valid: 0, 1"),
    "class number": ("{run} --what=attribution --class=10", "class 10: expected 0 to 9, or a name"),
    "examples": ("{run} --examples=99", "--examples=99: expected 1 to 37, the images of digits test[64:101]"),
    "no image": ("{run} {tmp}/no.png", "{tmp}/no.png: there is no such file or folder"),
    "image behind a flag": ("{run} --what=maps {tmp}/no.png", "{tmp}/no.png: there is no such file or folder"),
    "broken image": ("{run} {tmp}/broken.png", "{tmp}/broken.png"),
    "step": ("{run} --step=3", "no checkpoint of step '3'; valid: last, best, 2, 4"),
    "folder": ("{run} --what=maps --to={tmp}/broken.png", "broken.png: the folder cannot be made: File exists"),
    "index": ("{run} --what=maps --to={tmp}/other", "index.json is not an index of pictures"),
    "batch": ("{run} --batch_size=-1", "--batch_size=-1: expected at least 1"),
    "data set": ("{run} --dataset=digts", "did you mean 'digits'?"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_input_gives_one_clear_line(
    case: str, conv_run: pathlib.Path, digits_dir: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "index.json").write_text('{"of": "something else"}')
    typed, message = WRONG[case]
    words = typed.format(run=conv_run, tmp=tmp_path).split(" ")
    flags = [f"--data_dir={digits_dir}", *([] if "--to" in typed else [f"--to={tmp_path}/out"])]
    status, _, error = run(capsys, *words, *flags)
    assert status in (1, 2)
    assert error.startswith("error: ")
    assert message.format(run=conv_run, tmp=tmp_path) in error
    assert len(error.splitlines()) == 1
    assert (tmp_path / "other" / "index.json").read_text() == '{"of": "something else"}'


def test_a_layer_channel_and_class_are_checked(request_of_digits: Request) -> None:
    from cnnjax.visualize import names

    net = request_of_digits.net
    assert list(names.layer_shapes(net)) == ["conv1", "max_pool1", "conv2", "gap1"]
    assert names.check_layer(net, "logits", with_logits=True) == (10,)
    assert names.class_index(net, "7") == 7
    with pytest.raises(InputError, match="channel 8 of 'conv2': expected 0 to 7"):
        names.check_channel(net, "conv2", 8)
    with pytest.raises(InputError, match=r"unknown layer of .* 'logits'; valid: conv1"):
        names.check_layer(net, "logits")
