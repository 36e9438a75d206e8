"""Near-duplicates: planted copies are found whatever was done to them, and nothing else is."""

import csv
import pathlib

import numpy as np
import pytest
import scipy.ndimage

from cnnjax import cli
from cnnjax.data import build, duplicates, images
from cnnjax.data.store import Split
from cnnjax.errors import InputError

NEVER_THE_SAME = 40  # images of each split that are like no other
CHANGES = {
    "as it is": lambda x: x,
    "brighter": lambda x: np.clip(1.2 * x + 20.0, 0, 255),
    "mirrored": lambda x: x[:, ::-1],
    "gray": lambda x: x.mean(axis=2, keepdims=True).repeat(3, axis=2),
    "larger": lambda x: x.repeat(2, axis=0).repeat(2, axis=1),
    "noisy": lambda x: np.clip(x + np.random.default_rng(1).normal(0, 10, x.shape), 0, 255),
}


def scene(rng: np.random.Generator) -> np.ndarray:
    """Returns an image with the frequencies of a photograph: [40, 40, 3], 0 to 255."""
    layers = [
        scale * scipy.ndimage.gaussian_filter(rng.normal(size=(40, 40, 3)), (scale, scale, 0)) for scale in (1, 2, 4, 8)
    ]
    noise = np.sum(layers, axis=0)
    return np.clip(128 + 60 * (noise - noise.mean()) / noise.std(), 0, 255)


@pytest.fixture(scope="module")
def splits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Split, Split]:
    """Returns a test and a training split: of each change, one image is in both."""
    folder, rng = tmp_path_factory.mktemp("scenes"), np.random.default_rng(0)
    pairs = [(original, change(original)) for change in CHANGES.values() for original in [scene(rng)]]
    others = {name: [scene(rng) for _ in range(NEVER_THE_SAME)] for name in ("train", "test")}
    blank = [np.full((8, 8, 3), 7.0)]  # without a match
    content = {
        "train": [a for a, _ in pairs] + others["train"] + blank,
        "test": [b for _, b in pairs] + others["test"] + blank,
    }
    for split, pictures in content.items():
        for number, picture in enumerate(pictures):
            path = folder / "raw" / split / ("first" if number < 3 and split == "test" else "rest") / f"{number:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(images.encode_png(picture.astype(np.uint8)))
    for split in content:
        (folder / "raw" / split / "first").mkdir(exist_ok=True)
    (folder / "raw" / "train" / "first" / "x.png").write_bytes(images.encode_png(scene(rng).astype(np.uint8)))
    build.build("scenes", str(folder / "raw"), str(folder / "data"), log=lambda line: None)
    return build.load("scenes", "test", str(folder / "data")), build.load("scenes", "train", str(folder / "data"))


def test_changed_copies_are_found_and_nothing_else(splits: tuple[Split, Split]) -> None:
    found = duplicates.find_duplicates(*splits)
    assert len(found.indices) == len(CHANGES)
    assert found.mirrored.sum() == 1
    assert found.similarities.tolist() == sorted(found.similarities, reverse=True)
    for a, b, similarity in zip(*zip(*found.images, strict=True), found.similarities, strict=True):
        gray = [np.asarray(images.to_channels(x, 1), float)[:, :, 0] for x in (a, b)]
        small = [x[:: len(x) // 40, :: len(x) // 40] for x in gray]
        plain, mirror = (np.corrcoef(small[0].ravel(), x.ravel())[0, 1] for x in (small[1], small[1][:, ::-1]))
        assert max(plain, mirror) > 0.85
        assert similarity > 0.9
    assert "6 of 47 images of test (12.77%) have a near-duplicate in train, 1 of them mirrored" in found.note
    assert len(found.figure().axes) == 1


def test_a_split_is_searched_in_itself_and_pairs_are_listed_once(splits: tuple[Split, Split]) -> None:
    both = build.load("scenes", "test+train", str(splits[0]._path.parents[1]))
    found = duplicates.find_duplicates(both, both)
    assert len(found.indices) == len(CHANGES)
    assert (found.indices < found.matches).all()
    assert "scenes: 6 pairs of near-duplicates among the 95 images of test+train, 1 of them mirrored" in found.note
    alias = build.load("scenes", "test[:100%]+train", str(splits[0]._path.parents[1]))
    assert duplicates.find_duplicates(both, alias).note == found.note


def test_what_cannot_be_searched_is_an_error(splits: tuple[Split, Split]) -> None:
    data = str(splits[0]._path.parents[1])
    with pytest.raises(InputError, match=r"'test\[:5\]' and 'test' have images in common"):
        duplicates.find_duplicates(build.load("scenes", "test[:5]", data), splits[0])
    with pytest.raises(InputError, match=r"similarity = 1.5: expected more than 0"):
        duplicates.find_duplicates(*splits, similarity=1.5)


def test_the_command_writes_a_table_and_a_sheet(
    splits: tuple[Split, Split], tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(splits[0]._path.parents[1])
    assert cli.main(["data", "duplicates", "scenes", f"--data_dir={data}", f"--out={tmp_path / 'out'}"]) == 0
    assert "6 of 47 images of test" in capsys.readouterr().out
    with (tmp_path / "out" / "duplicates.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mirrored"] for row in rows].count("yes") == 1
    assert {row["label"] for row in rows} == {"first", "rest"}
    assert (tmp_path / "out" / "duplicates.png").read_bytes().startswith(b"\x89PNG")
    assert cli.main(["data", "duplicates", "scenes", f"--data_dir={data}", f"--out={tmp_path / 'none'}",
                     "--similarity=1", "--split=test[40:]"]) == 0  # fmt: skip
    assert "0 of 7 images" in capsys.readouterr().out
