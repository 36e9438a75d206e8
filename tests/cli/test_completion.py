"""The completion scripts, as bash and zsh run them."""

import os
import pathlib
import shutil
import subprocess

import pytest

from cnnjax import cli
from cnnjax.cli import completion

ROOT = pathlib.Path(__file__).parents[2]
TRY = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=()
_cnnjax_words
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("completion") / "cnnjax.bash"
    path.write_text(completion.script("bash"))
    return path


def test_bash_accepts_the_script(script: pathlib.Path) -> None:
    subprocess.run(["bash", "-n", script], check=True)


# Words as bash splits them, at '=', too -> the completions of the last.
WORDS = {
    "cnnjax tr": {"train"},
    "cnnjax ": set(cli.COMMANDS),
    "cnnjax train --w": {"--workdir"},
    "cnnjax train --workdir = con": {"configs"},
    "cnnjax train --workdir con": {"configs"},
    "cnnjax train --config = configs/digits_l": {"configs/digits_lenet5.py"},
    "cnnjax predict --workdir = runs READ": {"README.md"},
    "cnnjax data pre": {"preview"},
    "cnnjax summary lenet5 --dtype = bf": {"bfloat16"},
    "cnnjax completion z": {"zsh"},
    "cnnjax sweep --sil": set(),  # an earlier name of a flag works, and is not offered
}


@pytest.mark.parametrize("words", WORDS)
def test_bash_completes(words: str, script: pathlib.Path) -> None:
    command = ["bash", "-c", TRY, "bash", script, *words.split(" ")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == WORDS[words]


def test_bash_offers_the_folders_after_an_equals_sign(script: pathlib.Path) -> None:
    command = ["bash", "-c", TRY, "bash", script, "cnnjax", "train", "--workdir", "="]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert {"cnnjax", "configs", "tests"} <= set(done.stdout.split())
    assert "README.md" not in done.stdout


def test_zsh_gets_commands_flags_files_and_folders(tmp_path: pathlib.Path) -> None:
    text = completion.script("zsh")
    assert text.startswith("#compdef cnnjax\n")
    assert all(f"_shtab_cnnjax_{name}_options" in text for name in cli.COMMANDS)
    assert '"--workdir=[folder of the run' in text
    assert "]:workdir:_files -/" in text
    assert "]:config:_files" in text
    if shutil.which("zsh"):
        path = tmp_path / "_cnnjax"
        path.write_text(text)
        subprocess.run(["zsh", "-n", path], check=True)


def test_the_command_prints_the_script_for_the_name_it_was_called_by(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cli.main(["completion", "bash"]) == 0
    assert capsys.readouterr().out.endswith("complete -o bashdefault -F _cnnjax_words cnnjax\n\n")
    monkeypatch.setitem(os.environ, "CNNJAX_COMMAND", "./launch.sh")
    assert completion.script("bash").endswith("complete -o bashdefault -F _launch_sh_words launch.sh\n")
