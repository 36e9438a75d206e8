"""Predictions for files: the scores of an evaluation, in any batch, and errors of single files."""

import io
import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from cnnjax import cli, pretrained
from cnnjax.data import image_formats, images
from cnnjax.data.build import build, load
from cnnjax.data.info import DataInfo
from cnnjax.evaluation import evaluate, predict, protocols
from cnnjax.evaluation.image_paths import find_image_files
from tests.evaluation.networks import mesh_of, random_network

SIZES = ((36, 40), (40, 36), (36, 40), (72, 80), (36, 40))
CLASSES = ["ant", "bee", "cat", "dog", "elk", "fox"]
DATA = DataInfo(tuple(CLASSES), (28, 28, 3), {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3]})
ANY_SIZE = 'lenet5(head="gap")'
# A call of each protocol, and the preprocess that it needs of such images.
PROTOCOLS = {
    "single": ("single", "center_crop(28)"),
    "flip": ("flip", "resize((28, 30))"),
    "six_view": ("six_view", "center_crop(28)"),
    "center": ("center(28)", ""),
    "five_crop": ("five_crop(28)", "resize(33)"),
    "ten_crop": ("ten_crop(28)", ""),
    "crop144": ("crop144(28)", ""),
    "resize": ("resize(30)", ""),
    "dense": ("dense", ""),
    "multiscale": ("multiscale(28, 30, 36)", ""),
}


def network(model: str = ANY_SIZE, **changes: Any) -> pretrained.LoadedNetwork:
    return random_network(model, DATA, kernel_scale=1.3, **changes)


def predicted(trained: pretrained.LoadedNetwork, paths: list[pathlib.Path], **options: Any) -> list[predict.Prediction]:
    return list(predict.predict(trained, paths, **{"top": 6, "mesh": mesh_of(1), **options}))


def table(found: list[predict.Prediction], classes: int = 6) -> np.ndarray:
    """The probabilities [N, classes]; NaN where there is none."""
    rows = np.full((len(found), classes), np.nan)
    for row, one in zip(rows, found, strict=True):
        for kind, probability in one.top:
            row[kind] = probability
    return rows


@pytest.fixture(scope="module")
def ragged(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[pathlib.Path]]:
    """A split of five images of three sizes, and the same images as files, in its order."""
    root, rng = tmp_path_factory.mktemp("ragged"), np.random.default_rng(0)
    for number, size in enumerate(SIZES):
        path = root / "source" / "test" / CLASSES[number % 6] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(rng.integers(0, 256, (*size, 3), np.uint8)))
    build("ragged", str(root / "source"), str(root), log=lambda line: None)
    split = load("ragged", "test", str(root))
    paths = [root / f"{i:02}.png" for i in range(len(split))]
    for path, data in zip(paths, split.read_encoded(np.arange(len(split)))[0], strict=True):
        path.write_bytes(data)
    return split, paths


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_an_image_has_the_scores_of_an_evaluation(name: str, ragged: tuple[Any, list[pathlib.Path]]) -> None:
    split, paths = ragged
    protocol, preprocess = PROTOCOLS[name]
    devices = 2 if name == "ten_crop" else 1
    trained = network(protocol=protocol, preprocess=preprocess)
    scores = evaluate.score(trained, split, mesh_of(devices), "last", print)[1].scores
    found = predicted(trained, paths, mesh=mesh_of(devices))
    assert [one.path for one in found] == paths
    np.testing.assert_allclose(table(found), jax.nn.softmax(scores), atol=2e-6)
    assert np.ptp(table(found), axis=0).max() > 0.01  # images do differ


def test_an_image_alone_is_what_it_is_among_others(ragged: tuple[Any, list[pathlib.Path]]) -> None:
    _, paths = ragged
    trained = network(preprocess="center_crop(28)", eval_batch_size=4)
    together = table(predicted(trained, paths))
    alone = np.concatenate([table(predicted(trained, [path])) for path in paths])
    np.testing.assert_allclose(together, alone, atol=1e-6)


def test_the_likeliest_classes_come_first(ragged: tuple[Any, list[pathlib.Path]]) -> None:
    _, paths = ragged
    trained = network(preprocess="center_crop(28)")
    whole = table(predicted(trained, paths))
    for row, one in zip(whole, predicted(trained, paths, top=2), strict=True):
        assert [kind for kind, _ in one.top] == list(np.argsort(-row, kind="stable")[:2])
        assert one.top[0][1] > one.top[1][1]
    assert [len(one.top) for one in predicted(trained, paths[:1], top=50)] == [6]


def encoded(kind: str, mode: str, size: tuple[int, int] = (28, 28)) -> bytes:
    pixels = np.random.default_rng(1).integers(0, 256, (*size, 4), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, format=kind)
    return buffer.getvalue()


def test_a_file_may_be_any_image_that_a_data_set_may_hold(tmp_path: pathlib.Path) -> None:
    paths = []
    for kind, mode in [("PNG", "RGB"), ("PNG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("JPEG", "RGB"), ("JPEG", "L")]:
        paths.append(tmp_path / f"{kind}-{mode}")
        paths[-1].write_bytes(encoded(kind, mode))
    found = predicted(network(), paths)
    assert not [one.error for one in found if one.error]
    color, gray, alpha, *_ = table(found)
    np.testing.assert_allclose(color, alpha)
    assert abs(color - gray).max() > 1e-3


# What is in a file, and what is said of it.
BROKEN = {
    "text": (b"no image", image_formats.UNREADABLE),
    "nothing": (b"", image_formats.UNREADABLE),
    "cut off": (encoded("JPEG", "RGB")[:-200], image_formats.UNREADABLE),
    "of another size": (
        encoded("PNG", "RGB", (30, 32)),
        "the image is 30x32, the network was trained on 28x28: pass --preprocess='resize(28)|center_crop(28)'",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_image_is_named_and_the_others_are_scored(case: str, tmp_path: pathlib.Path) -> None:
    data, said = BROKEN[case]
    paths = [tmp_path / f"{i}.png" for i in range(4)]
    for path in paths:
        path.write_bytes(encoded("PNG", "RGB"))
    paths[2].write_bytes(data)
    found = predicted(network(), [*paths, tmp_path / "5.png"])
    assert [one.error for one in found] == ["", "", said, "", "No such file or directory"]
    assert [len(one.top) for one in found] == [6, 6, 0, 6, 0]


@pytest.mark.parametrize(
    ("config", "flag"),
    [
        ({"protocol": "six_view"}, "'resize(28)|center_crop(28)'"),
        ({"preprocess": "rgb"}, "'resize(28)|center_crop(28)|rgb'"),
        ({"preprocess": "corrupt('fog', 3)"}, "\"resize(28)|center_crop(28)|corrupt('fog', 3)\""),
    ],
    ids=str,
)
def test_a_file_of_another_size_is_an_error_where_no_operation_sets_the_size(
    config: dict[str, str], flag: str, tmp_path: pathlib.Path
) -> None:
    paths = [tmp_path / "large.png", tmp_path / "right.png"]
    for path, size in zip(paths, ((50, 40), (28, 28)), strict=True):
        path.write_bytes(encoded("PNG", "RGB", size))
    large, right = predicted(network(**config), paths)
    assert large.error == f"the image is 50x40, the network was trained on 28x28: pass --preprocess={flag}"
    assert right.top


def test_images_that_do_not_fit_have_an_error_each(tmp_path: pathlib.Path) -> None:
    paths = [tmp_path / f"{size}.png" for size in (20, 40)]
    for path in paths:
        path.write_bytes(encoded("PNG", "RGB", (int(path.stem), int(path.stem))))
    small, large = predicted(network(preprocess="center_crop(28)"), paths)
    assert "center_crop(28): the image is 20x20" in small.error
    assert large.top
    small, large = predicted(network(protocol="dense"), paths)
    assert "does not take images of (20, 20, 3)" in small.error
    assert large.top


def test_a_folder_stands_for_its_images(tmp_path: pathlib.Path) -> None:
    for name in (
        "b/2.png", "b/10.JPG", "a/deep/1.jpeg", ".git/3.png", "b/.4.png", "notes.txt", "c.png", "d.WebP", "e.heic",
        "@eaDir/thumb.png", "f.tif",
    ):  # fmt: skip
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "empty").mkdir()
    (tmp_path / "b" / "up").symlink_to(tmp_path)
    lines = []
    names = [f"{tmp_path}/notes.txt", f"{tmp_path}", f"{tmp_path}/empty", f"{tmp_path}/no"]
    found, missing = find_image_files(names, lines.append)
    assert lines == [
        f"{tmp_path}: 2 other files are not images and are skipped (1 .heic, 1 .txt), such as {tmp_path}/e.heic"
    ]
    names = [str(path.relative_to(tmp_path)) for path in found]
    assert names == ["notes.txt", "a/deep/1.jpeg", "b/10.JPG", "b/2.png", "c.png", "d.WebP", "f.tif"]
    assert [one.path.name for one in missing] == ["empty", "no"]
    assert [one.error.partition(" (")[0] for one in missing] == [
        "there are no images",
        "there is no such file or folder",
    ]


def test_few_images_are_in_memory_at_a_time(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "one.png"
    path.write_bytes(encoded("PNG", "RGB"))
    decoded, decode = [], images.decode
    monkeypatch.setattr(images, "decode", lambda *args: decoded.append(1) or decode(*args))
    found = predict.predict(network(eval_batch_size=8), [path] * 1000, mesh=mesh_of(1))
    assert next(found).top
    assert len(decoded) < 100
    assert len(list(found)) == 999


# -------------------------------------------------------------------------------------------------- the command


@pytest.fixture(scope="module")
def finished(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The folder of a short run, and next to it files of its test images: `digits/<label>/<number>.png`."""
    folder = tmp_path_factory.mktemp("run") / "finished"
    short = ["--config.val_split=", "--config.model=mlp(features=(8,))", "--config.duration=30 steps"]
    assert cli.main(["train", "--config=configs/digits_lenet5.py", *short, f"--workdir={folder}"]) == 0
    split = load("digits", "test", digits_dir)
    for i, (data, label) in enumerate(zip(*split.read_encoded(np.arange(60)), strict=True)):
        path = folder.parent / "digits" / f"{label}" / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def stdin(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode())))


def test_the_command_is_as_right_as_an_evaluation(finished: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", f"--workdir={finished}", "--split=test[:60]"]) == 0
    (metrics,) = finished.glob("evaluations/*60*/metrics.json")
    expected = json.loads(metrics.read_text())
    capsys.readouterr()
    assert cli.main(["predict", f"--workdir={finished}", "--json", str(finished.parent / "digits")]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == expected["count"] == 60
    right = [pathlib.Path(line["path"]).parent.name == line["top"][0]["class"] for line in lines]
    assert np.mean(right) == pytest.approx(expected["accuracy"])
    nll = [
        -np.log(one["probability"]) for line in lines for one in line["top"] if one["class"] in line["path"].split("/")
    ]
    assert all(set(one) == {"class", "index", "probability"} for line in lines for one in line["top"])
    assert len(nll) >= expected["top5"] * 60


def test_a_list_of_paths_comes_on_stdin_and_a_broken_one_is_said(
    finished: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    good = sorted((finished.parent / "digits").rglob("*.png"))[:2]
    stdin(monkeypatch, f"\ufeff{good[0]}\nREADME.md\n\n{good[1]}\n")
    assert cli.main(["predict", f"--workdir={finished}", "--top=3", "-", "nowhere.png"]) == 1
    shown = capsys.readouterr()
    assert shown.err.splitlines() == [
        "error: nowhere.png: there is no such file or folder",
        f"error: README.md: {image_formats.UNREADABLE}",
    ]
    blocks = shown.out.splitlines()
    assert [blocks[0], blocks[4]] == list(map(str, good))
    assert all("%" in line for i, line in enumerate(blocks) if i not in (0, 4))
    assert len(blocks) == 8
