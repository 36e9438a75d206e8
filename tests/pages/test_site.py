"""The site: no dead link, everything in the references, and how-tos whose commands and Python are right."""

import dataclasses
import json
import pathlib
import re
import shlex

import cv2
import numpy as np
import pytest
from PIL import Image

import cnnjax
from cnnjax import cli, config_files
from cnnjax.cli import shared
from cnnjax.cli.main import SETTING, add_command_flags, command_module
from cnnjax.config import FIELDS
from cnnjax.data import build
from cnnjax.data.catalog import DATASETS
from cnnjax.data.readers import READERS
from cnnjax.errors import InputError
from cnnjax.models import MODELS
from cnnjax.pages import reference, site
from cnnjax.training.recipe import parse_recipe

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOWTOS = sorted((ROOT / "experiments" / "howto").glob("*.md"))
LAUNCH_FLAGS = ("--cuda", "--tpu", "--cpu", "--dry-run", "--processes=2")


def blocks(path: pathlib.Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.DOTALL | re.MULTILINE)


def lines(block: str) -> list[str]:
    return block.replace("\\\n", "").splitlines()


def commands(path: pathlib.Path) -> list[list[str]]:
    """The words of each command of a how-to, from the name of the command on."""
    result = []
    for line in lines("".join(blocks(path, "sh"))):
        words = [word for word in shlex.split(line) if word not in LAUNCH_FLAGS]
        words = words[1:] if words[0] == "srun" else words
        assert words[0] == "./launch.sh", line
        result.append(words[1:])
    return [words for words in result if words]  # './launch.sh --cuda' has no command


COMMANDS = [(path.stem, words) for path in HOWTOS for words in commands(path)]


@pytest.fixture(scope="module")
def docs(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("site")
    site.write(ROOT, folder)
    return folder / "docs"


def test_no_link_is_dead_and_every_page_is_in_the_navigation(docs: pathlib.Path) -> None:
    pages = sorted(docs.rglob("*.md"))
    assert len(pages) > 100
    for page in pages:
        text = re.sub(site.CODE, "", page.read_text())
        links = [match[2].partition("#")[0] for match in site.LINK.finditer(text)]
        missing = [link for link in links if link and ":" not in link and not (page.parent / link).exists()]
        assert missing == [], page
    listed = re.findall(r'"([^"]+\.md)"', json.dumps(json.loads((docs.parent / "mkdocs.yml").read_text())["nav"]))
    assert [name for name in listed if not (docs / name).is_file()] == []
    assert {f"experiments/howto/{path.name}" for path in HOWTOS} <= set(listed)


def test_the_course_is_in_the_site_with_links_both_ways(docs: pathlib.Path) -> None:
    nav = json.loads((docs.parent / "mkdocs.yml").read_text())["nav"]
    assert {"Course": "course/index.html"} in next(part["Learn"] for part in nav if "Learn" in part)
    pages = sorted((docs / "course").rglob("*.html"))
    assert len(pages) > 300
    for page in pages:
        links = set(re.findall(r'href="([^"#:]+)"', page.read_text()))
        targets = {(page.parent / link).resolve() for link in links}
        assert docs / site.HOME in targets
        assert [target for target in targets - {docs / site.HOME} if not target.is_file()] == []


def test_a_notebook_is_a_page_with_folded_answers_and_the_file_itself(docs: pathlib.Path) -> None:
    text = (docs / "experiments/notebooks/1_convolution.md").read_text()
    assert text.startswith("# 1. Convolutions")
    assert '<details markdown="1">\n<summary>Answer</summary>\n\n`vertical.T`' in text
    assert "```python\ndef convolve(" in text
    (name,) = re.findall('href="([^"]+)" download', text)
    original = (ROOT / "experiments/notebooks" / name).read_bytes()
    assert (docs / "experiments/notebooks" / name).read_bytes() == original


def test_the_references_have_every_name(docs: pathlib.Path) -> None:
    assert {path.stem for path in (docs / "commands").glob("*.md")} == {"index", *cli.COMMANDS}
    settings, python = (docs / "settings.md").read_text(), (docs / "python.md").read_text()
    assert re.findall(r"^### (\w+)$", settings, re.MULTILINE) == list(FIELDS)
    assert re.findall(r"^## cnnjax\.(\w+)$", python, re.MULTILINE) == cnnjax.__all__
    assert "cnnjax.visualize.maps" in python
    assert {path.stem for path in (docs / "configs").glob("*.md")} == {
        "index",
        *(path.stem for path in (ROOT / "configs").glob("*.py")),
    }


def test_nothing_is_requested_from_the_network(docs: pathlib.Path) -> None:
    settings = json.loads((docs.parent / "mkdocs.yml").read_text())
    assert settings["theme"]["font"] is False
    assert "offline" in settings["plugins"]
    assert (docs / settings["extra"]["polyfills"][0]).is_file()  # else the plugin names a file on the network
    assert all((docs / name).is_file() for name in settings["extra_css"] + settings["extra_javascript"])


def test_a_dead_link_is_an_error_that_names_it(tmp_path: pathlib.Path) -> None:
    (tmp_path / "README.md").write_text("[a](b.md) `[c](d.md)` [e](https://example.com)")
    with pytest.raises(InputError, match=r"README.md: the link 'b.md' leads to no file"):
        site.collect(tmp_path, ["README.md"], {})
    (tmp_path / "b.md").write_text("# b\n\n[the code](sub/x.py#part)")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "x.py").write_text("print('```')\n")
    pages, files = site.collect(tmp_path, ["README.md"], {})
    assert (set(pages), files) == ({"README.md", "b.md", "sub/x.md"}, set())
    assert pages["b.md"].endswith("[the code](sub/x.md#part)")
    assert pages["sub/x.md"] == "# sub/x.py\n\n````python\nprint('```')\n````\n"


def test_docstrings_become_markdown() -> None:
    text = """Adds <numbers> with a * b, as in `a * b`.

    A paragraph.

        cnnjax train NAME

        cnnjax evaluate

    Args:
      first: the first,
        on two lines.
      second: the second.

    Returns:
      The sum.
    """
    assert reference.prose(text).split("\n\n") == [
        r"Adds \<numbers\> with a \* b, as in `a * b`.",
        "A paragraph.",
        "```sh\ncnnjax train NAME",
        "cnnjax evaluate\n```",
        "**Args:**",
        "- `first`: the first, on two lines.\n- `second`: the second.",
        "**Returns:**",
        "The sum.\n",
    ]


def test_every_how_to_is_in_the_list_of_how_tos() -> None:
    listed = set(re.findall(r"\]\((\w+\.md)\)", (ROOT / "experiments/howto/README.md").read_text()))
    assert listed == {path.name for path in HOWTOS} - {"README.md"}


@pytest.mark.parametrize(
    ("page", "words"), COMMANDS, ids=[f"{page}-{' '.join(words)[:40]}" for page, words in COMMANDS]
)
def test_a_command_of_a_how_to_is_right(page: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its flags are known, its config loads, and its settings are valid. It is not run."""
    monkeypatch.chdir(ROOT)
    if "--import=my_net.py" in words:
        monkeypatch.setitem(MODELS, "two_paths", MODELS["lenet5"])
        words = [word.replace("(channels=16)", "") for word in words]
    name, *rest = words
    if name in ("train", "sweep") and rest[0] not in ("show", "best") and not rest[0].startswith("-"):
        rest[0] = f"--config={rest[0]}"
    parser = shared.Parser(prog=name)
    add_command_flags(parser, command_module(name))
    args, others = parser.parse_known_args([word for word in rest if not SETTING.match(word)])
    settings = [word for word in rest if SETTING.match(word)]
    assert [word for word in others if word.startswith("-")] == []
    assert parser.accepts_overrides or not settings + others
    assert all(word.partition("=")[0].split(".")[1] in FIELDS for word in settings)
    if name in ("train", "sweep") and args.config:
        parse_recipe(config_files.read_config(args.config, [word for word in settings if "--config" in word]))


@pytest.mark.parametrize("path", [path for path in HOWTOS if blocks(path, "python")], ids=lambda path: path.stem)
def test_the_python_of_a_how_to_runs(
    path: pathlib.Path, tmp_path: pathlib.Path, digits_dir: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tables: list[dict] = [MODELS, DATASETS, READERS]
    for table in tables:
        for name, entry in table.items():
            monkeypatch.setitem(table, name, entry)
    before = [set(table) for table in tables]
    names: dict = {"__name__": path.stem}
    if path.stem == "export":
        if int(cv2.__version__.partition(".")[0]) < 5:
            pytest.skip("OpenCV reads open batch sizes from its version 5 on")
        assert [cli.main(words) for words in commands(path) if "cnnjax:lenet5.digits" in words] == [0, 0]
    try:
        exec("\n".join(blocks(path, "python")), names)
        if path.stem == "network":
            assert cnnjax.create_model("two_paths(channels=16)").num_classes == 10
        if path.stem == "python":
            assert (names["probabilities"].shape, names["logits"].shape, len(names["predicted"])) == (
                (8, 10),
                (1, 2),
                8,
            )
        if path.stem == "data":
            check_leaves(tmp_path)
    finally:
        for table, known in zip(tables, before, strict=True):
            for name in set(table) - known:
                del table[name]


def check_leaves(folder: pathlib.Path) -> None:
    """Builds the data set of data.md from three pictures and a table, and reads it."""
    rows = ["file,class,split", "a.png,oak,train", "b.png,ash,train", "c.png,beech,test"]
    (folder / "labels.csv").write_text("\n".join(rows))
    for index, name in enumerate("abc"):
        Image.new("RGB", (20 + index, 16), (40 * index, 90, 30)).save(folder / f"{name}.png")
    DATASETS["leaves"] = dataclasses.replace(DATASETS["leaves"], splits={"train": 2, "test": 1})
    build.build("leaves", str(folder), str(folder / "data"), log=lambda line: None)
    split = build.load("leaves", "train+test", str(folder / "data"))
    images, labels = split.read(np.arange(3))
    found = {image.shape[1]: split.classes[label] for image, label in zip(images, labels, strict=True)}
    assert found == {20: "oak", 21: "ash", 22: "beech"}


@pytest.mark.slow
def test_photographs_become_a_network_as_the_how_to_says(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All of its first two blocks of commands, with a small network and few steps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    for split, count in {"train": 64, "val": 4}.items():
        for label, color in {"daisy": (200, 200, 40), "rose": (200, 20, 60)}.items():
            folder = tmp_path / "photos" / split / label
            folder.mkdir(parents=True)
            for index in range(count):
                Image.new("RGB", (24 + index % 3, 20), tuple(c + index for c in color)).save(folder / f"{index}.jpg")
    Image.new("RGB", (30, 30), (200, 20, 60)).save(tmp_path / "new.jpg")
    small = ["--config.model=mlp(features=(8,))", "--config.duration=4 steps"]
    small += ["--config.augment=random_resized_crop(16)|flip_lr", "--config.preprocess=resize(18)|center_crop(16)"]
    first, second, *_ = blocks(ROOT / "experiments/howto/photographs.md", "sh")
    for line in lines(first + second):
        words = shlex.split(line)[1:]
        assert cli.main([*words, *(small if words[0] == "train" else [])]) == 0, capsys.readouterr().err
    assert (tmp_path / "runs/flowers/report.html").is_file()
    assert "rose" in capsys.readouterr().out
