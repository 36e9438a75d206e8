"""The console: foreign text is printed as it is, and nothing in it is obeyed."""

import io
import pathlib
import subprocess

import pytest
from rich.progress import Progress, TextColumn
from rich.table import Table

from cnnjax import style
from cnnjax.cli import shared
from cnnjax.console import Console
from cnnjax.errors import MAX_MESSAGE, InputError, visible

# Names of classes and folders -> what is shown of them.
FOREIGN = {
    "[blue]": "[blue]",
    "[/b]": "[/b]",
    "[link=http://a.b]x": "[link=http://a.b]x",
    "a [x]": "a [x]",
    ":smile:": ":smile:",
    "'1.5' True http://a.b": "'1.5' True http://a.b",
    "\\[x]": "\\[x]",
    "\x1b[31mred": r"\x1b[31mred",
    "\x1b]0;title\x07": r"\x1b]0;title\x07",
    "\x9b31m": r"\x9b31m",
    "over\rwritten": r"over\rwritten",
    "back\b\x7f": r"back\x08\x7f",
    "\u202egnp": r"\u202egnp",
    "\udcff": r"\udcff",
    "été 猫 🐈": "été 猫 🐈",
}


WORDS = ["a b", "it's", '"it\'s"', "$HOME", "`x`", "!!", "a\nb", "a\tb", "*", "~", ""]


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_is_shown_as_it_is_wherever_it_is_printed(text: str) -> None:
    file = io.StringIO()
    console = Console(file=file, width=100, force_terminal=True, color_system="truecolor")
    table = Table(text, title=text)
    table.add_row(text)
    console.print(table)
    console.print(f"log: {text}", soft_wrap=True)
    with Progress(TextColumn("{task.description}", markup=False), console=console) as progress:
        progress.console.print(f"bar: {text}")
    lines = file.getvalue().splitlines()
    assert sum(FOREIGN[text] in line for line in lines) == 5
    assert any(line == f"log: {FOREIGN[text]}" for line in lines)


@pytest.mark.parametrize(("text", "shown"), FOREIGN.items())
def test_an_error_shows_the_same(text: str, shown: str) -> None:
    assert visible(f"{text}\ta\n") == f"{shown}\ta\n"


@pytest.mark.parametrize(
    "text", [*FOREIGN, "a b", "it's", '"it\'s"', "$HOME", "`x`", "!!", "a\nb", "a\tb", "*", "~", ""]
)
def test_a_command_for_copying_means_the_same_to_a_shell(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNJAX_COMMAND", "printf")
    command = shared.command_line("%s|", "-x", f"--workdir={text}")
    assert visible(command) == command
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True)
    assert done.stdout == f"-x|--workdir={text}|".encode("utf-8", "surrogateescape")


def test_a_long_message_keeps_its_ends() -> None:
    value = "x" * 100_000
    for message in (f"unknown model {value!r}; did you mean 'lenet5'?", f"{value} is not; expected a name", value):
        text = str(InputError(message))
        assert len(text) < MAX_MESSAGE + 100
        assert text[:20] == message[:20]
        assert text[-20:] == message[-20:]
    assert str(InputError(f"{value!r}: expected b")).endswith("xx': expected b")
    assert str(InputError("a short one")) == "a short one"


@pytest.mark.parametrize(
    ("name", "shown"), [("$x", r"\$x"), ("a$b$c", r"a\$b\$c"), ("_x", " _x"), ("\x1b", r"\x1b"), ("cat", "cat")]
)
def test_a_figure_takes_no_class_name_for_a_formula(name: str, shown: str, tmp_path: pathlib.Path) -> None:
    assert style.plain_label(name) == shown
    figure = style.new_figure(1, 1)
    figure.add_subplot(title=style.plain_label(f"{name}$^{{"))
    figure.savefig(tmp_path / "figure.png")


def test_a_line_is_not_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    path = "runs/a folder with a name of many words/report.html"
    shared.make_console().print_line(path)
    assert capsys.readouterr().out == f"{path}\n"
