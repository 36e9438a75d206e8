"""Class folders as people have them: odd names, other formats, empty classes, broken files, litter, 16-bit values."""

import os
import pathlib
import threading
import unicodedata
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from cnnjax.data import folders, image_formats, images
from cnnjax.data.build import build, load
from cnnjax.errors import InputError
from tests.data.original_files import encoded, png_of, silent

PNG = encoded((8, 8), "RGB", "PNG")


def write(root: pathlib.Path, *names: str, data: bytes = PNG) -> pathlib.Path:
    """Writes files, 'a/1.png' standing for 'train/a/1.png', and returns the root of the tree."""
    for name in names:
        path = root / ("" if name.startswith(("train/", "val/")) else "train") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return root


def test_the_classes_are_those_of_the_folders(tmp_path: pathlib.Path) -> None:
    """Spaces around a name and the form of its accents do not count, as TFDS strips names; upper case does."""
    accent = unicodedata.normalize("NFD", "caf\u00e9")
    write(
        tmp_path, "[red] car/1.png", "Ants/1.png", "ants/1.png", " b /1.png", f"{accent}/1.png", "val/caf\u00e9/1.png"
    )
    build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    data = load("mine", "train", str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    assert data.classes == ["Ants", "[red] car", "ants", "b", "caf\u00e9"]
    assert data.read(np.arange(5))[1].tolist() != [0] * 5
    held_out = load("mine", "val", str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    assert held_out.read(np.arange(1))[1].tolist() == [4]


NAMES = {
    "line break": (["a\nb/1.png"], r"'.*/train/a\\nb' cannot name a class: its name has a line break"),
    "tab": (["a\tb/1.png"], r"'.*/a\\tb' cannot name a class"),
    "escape": (["a\x1b[31m/1.png"], r"'.*/a\\x1b\[31m' cannot name a class"),
    "line separator": (["a\u2028b/1.png"], r"'.*/a\\u2028b' cannot name a class"),
    "spaces alone": (["   /1.png"], "cannot name a class: its name .* is empty"),
    "not UTF-8": ([os.fsdecode(b"caf\xe9/1.png")], r"'.*caf\\udce9' cannot name a class: .* is not UTF-8. Rename it"),
    "space": (["a/1.png", "a /1.png"], r"'.*/train/a' and '.*/train/a ' are one class, 'a'.* Merge or rename"),
    "accent": (["caf\u00e9/1.png", "cafe\u0301/1.png"], "are one class, 'caf\u00e9': .* how an accent is encoded"),
    "class of val": (["a/1.png", "bees/1.png", "val/bee/1.png"], "val/bee is not a class of .*; did you mean 'bees'"),
}


@pytest.mark.parametrize("case", NAMES)
def test_a_name_that_cannot_be_a_class_is_refused(case: str, tmp_path: pathlib.Path) -> None:
    names, message = NAMES[case]
    with pytest.raises(InputError, match=message) as error:
        folders.scan(write(tmp_path, *names))
    assert len(str(error.value).splitlines()) == 1


def empty_class(root: pathlib.Path) -> None:
    (root / "train" / "0_empty").mkdir()


def link_to_nothing(root: pathlib.Path) -> None:
    (root / "train" / "a" / "3.png").symlink_to("/nowhere/3.png")


EMPTY: dict[str, tuple[Callable[[pathlib.Path], object], str]] = {
    "empty": (empty_class, r"train/0_empty has no images \(.jpg, .*\) in it; add some, or remove the folder"),
    "others": (
        lambda root: write(root, "c/1.heic", "c/2.heic", "c/read.me", "d/x"),
        r"train/c has no images \(.*\) in it, only 2 .heic, 1 .me, nor have 1 other classes; add some",
    ),
    "hidden": (lambda root: write(root, "c/.1.png", "c/Thumbs.db"), r"train/c has no images \(.*\) in it; add"),
    "in val alone": (
        lambda root: (root / "train" / "c").mkdir() or write(root, "val/c/1.png"), "train/c has no images",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", EMPTY)
def test_a_class_without_an_image_to_train_on_is_refused(case: str, tmp_path: pathlib.Path) -> None:
    harm, message = EMPTY[case]
    harm(write(tmp_path, "a/1.png", "b/1.png", "val/a/1.png"))
    with pytest.raises(InputError, match=message):
        folders.scan(tmp_path)


def test_litter_is_no_class_and_no_image(tmp_path: pathlib.Path) -> None:
    write(
        tmp_path,
        "a/1.png",
        "b/1.png",
        "@eaDir/a/1.png",
        "__MACOSX/1.png",
        ".thumbs/1.png",
        "a/@eaDir/1.png",
        "a/._1.png",
    )
    write(tmp_path, "a/Thumbs.db", "a/DESKTOP.INI", "#recycle/1.png", "System Volume Information/1.png")
    tree = folders.scan(tmp_path)
    assert (tree.classes, tree.skipped) == (("a", "b"), [])
    assert [path.name for path, _ in tree.files["train"]] == ["1.png", "1.png"]


def test_what_is_skipped_and_a_single_class_are_said(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "only/1.png", "only/2.heic", "only/3.HEIC", "only/notes", "train/list.csv")
    os.mkfifo(tmp_path / "train" / "only" / "pipe")
    lines: list[str] = []
    build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), lines.append)
    text = "\n".join(lines)
    assert "mine: 5 other files are not images and are skipped (2 .heic, 2 without a suffix, 1 .csv), such as" in text
    assert "mine: there is a single class, 'only': any network scores 100 % on it" in text


def test_the_first_broken_images_are_named_and_all_are_counted(tmp_path: pathlib.Path) -> None:
    write(tmp_path, "a/1.png", "b/1.png")
    write(tmp_path, "a/x.jpg", "val/b/z.png", "b/new\nline.png", data=b"oops")
    write(tmp_path, "a/huge.png", data=png_of(65_536, 65_536))
    link_to_nothing(tmp_path)
    os.mkfifo(tmp_path / "train" / "b" / "pipe.png")
    with pytest.raises(InputError) as error:
        build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    message = str(error.value)
    assert message.startswith("6 of 8 images in ")
    assert "train/a/3.png (a broken link); train/a/huge.png (" in message
    assert "65536x65536, 4,294,967,296 pixels: more than the limit" in message
    assert "train/a/x.jpg (4 bytes: not a readable JPEG" in message
    assert "train/b/new\\nline.png (4 bytes" in message
    assert "train/b/pipe.png (not a regular file); and 1 more. Replace or remove them" in message
    assert not (tmp_path.parent / f"{tmp_path.name}-data" / "mine").exists()


def test_a_file_that_may_not_be_read_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a/1.png", "b/secret.png")
    read_bytes = pathlib.Path.read_bytes

    def refuse(path: pathlib.Path) -> bytes:
        if path.name == "secret.png":
            raise PermissionError(13, "Permission denied", str(path))
        return read_bytes(path)

    monkeypatch.setattr(pathlib.Path, "read_bytes", refuse)
    with pytest.raises(
        InputError, match=r"1 of 2 images .*: train/b/secret.png \(Permission denied\). Replace or remove"
    ):
        build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), silent)


def test_a_file_larger_than_any_image_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(10**12)
    with pytest.raises(InputError, match=r"1,000,000,000,000 bytes: more than the 715,827,880 that the largest image"):
        image_formats.read_file(path)


def test_every_format_is_read_and_stored_as_jpeg_or_png(tmp_path: pathlib.Path) -> None:
    """A WebP under the name of a JPEG as well, and a file whose name is not UTF-8."""
    kinds = {"1.webp": "WEBP", "2.gif": "GIF", "3.BMP": "BMP", "4.tif": "TIFF", "5.jpe": "JPEG", "6.jpg": "WEBP"}
    pixels = {}
    for name, kind in (kinds | {os.fsdecode(b"7\xe9.png"): "PNG"}).items():
        data = encoded((8, 8), "RGB", kind, seed=len(pixels))
        pixels[name] = images.decode(data)
        write(tmp_path, f"a/{name}", data=data)
    build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    data = load("mine", "train", str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    encodings, _ = data.read_encoded(np.arange(7))
    assert all(map(images.is_stored_unchanged, encodings))
    found = {image.tobytes() for image in data.read(np.arange(7))[0]}
    assert found == {image.tobytes() for image in pixels.values()}


def test_deep_images_are_scaled_by_the_bit_depth_of_the_data_set(tmp_path: pathlib.Path) -> None:
    """12-bit values in 16-bit PNGs keep their contrast, and equal values of different files stay equal."""
    for name, value in (("low", 200), ("high", 1240), ("highest", 4000)):
        file = tmp_path / "train" / name / "1.png"
        file.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), value, np.uint16)).save(file)
    lines: list[str] = []
    build("mine", str(tmp_path), str(tmp_path.parent / f"{tmp_path.name}-data"), lines.append)
    assert "mine: images with more than 8 bits per channel use up to 12; the upper 8 are kept" in lines
    data = load("mine", "train", str(tmp_path.parent / f"{tmp_path.name}-data"), silent)
    decoded, labels = data.read(np.arange(3))
    assert {data.classes[label]: int(image[0, 0, 0]) for image, label in zip(decoded, labels, strict=True)} == {
        "high": 1240 // 16, "highest": 250, "low": 200 // 16,
    }  # fmt: skip
    assert (data.bit_depth, data.shape) == (12, (8, 8, 1))


def test_a_source_may_have_any_name(tmp_path: pathlib.Path) -> None:
    source = write(tmp_path / os.fsdecode(b"caf\xe9 [1]\n"), "a/1.png", "b/1.png")
    lines: list[str] = []
    build("mine", str(source), str(tmp_path / "data"), lines.append)
    assert len(load("mine", "train", str(tmp_path / "data"), silent)) == 2


def test_large_images_are_decoded_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_formats, "LARGE_PIXELS", 10)
    data, opened, order = encoded((8, 8), "RGB", "BMP"), threading.Event(), []

    def other() -> None:
        opened.wait()
        order.append(images.verify(data)[0])

    thread = threading.Thread(target=other)
    thread.start()
    with image_formats.open_image(data):
        opened.set()
        thread.join(0.2)
        assert order == []
    thread.join()
    assert order == [8]
