"""The last resort of a failing command: one line, a file with the traceback, and the right exit status."""

import errno
import os
import pathlib
import re
import signal
import subprocess
import sys
from typing import NoReturn

import pytest

from cnnjax import cache, cli
from cnnjax.cli import configs
from cnnjax.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def fail_with(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> int:
    def run(*_: object) -> NoReturn:
        raise error

    monkeypatch.setattr(configs, "run", run)
    return cli.main(["configs", "--config.lr=[x]"])


UNEXPECTED = [
    RuntimeError("a\nb"),
    RecursionError("deep"),
    OverflowError(),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "y"),
]


@pytest.mark.parametrize("error", UNEXPECTED, ids=lambda error: type(error).__name__)
def test_an_unexpected_exception_is_a_line_and_a_file(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == 1
    line = capsys.readouterr().err
    name = type(error).__name__
    assert re.fullmatch(rf"error: unexpected {name}.*: please report it with \S+\.txt\n", line)
    path = pathlib.Path(line.split()[-1])
    assert path.parent == cache.folder("tracebacks")
    content = path.read_text()
    assert "command: ['configs', '--config.lr=[x]']\n" in content
    assert "Traceback (most recent call last):\n" in content
    assert content.rstrip().splitlines()[-1].startswith(name) or name == "RuntimeError"
    assert cache.clear("tracebacks").files == 1


def test_where_nothing_can_be_cached_the_file_is_a_temporary_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/dev/null")
    assert fail_with(KeyError("x"), monkeypatch) == 1
    path = pathlib.Path(capsys.readouterr().err.split()[-1])
    assert path.parent == tmp_path
    monkeypatch.setattr("tempfile.tempdir", "/dev/null")
    assert fail_with(KeyError("x"), monkeypatch) == 1
    assert capsys.readouterr().err.endswith("report it with the traceback that CNNJAX_TRACEBACK=1 shows\n")


def test_a_variable_shows_the_traceback_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CNNJAX_TRACEBACK", "1")
    assert fail_with(KeyError("x"), monkeypatch) == 1
    assert "Traceback (most recent call last):" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("wrong"), 1, "error: wrong\n"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, "error: x: No space left on device\n"),
        (OSError("of a library"), 1, "error: of a library\n"),
        (KeyboardInterrupt(), 128 + signal.SIGINT, "error: interrupted\n"),
        (MemoryError(), 1, "error: out of memory (MemoryError); lower batch_size or eval_batch_size, raise grad_"),
        (RuntimeError("RESOURCE_EXHAUSTED: 9 bytes.\nmore"), 1, "error: out of memory (RuntimeError: RESOURCE_EXHAUST"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_known_has_a_line_of_its_own(
    error: BaseException, status: int, line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail_with(error, monkeypatch) == status
    printed = capsys.readouterr().err
    assert printed.startswith(line)
    assert printed.count("\n") == 1
    assert not cache.folder("tracebacks").exists()


@pytest.mark.parametrize(("first", "safe"), [("/usr/bin", "1"), ("", None), (os.getcwd(), None)])
def test_the_pythons_of_a_command_import_from_the_current_folder_only_if_it_does(
    first: str, safe: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", "")  # so that it is as before at the end
    monkeypatch.delenv("PYTHONSAFEPATH")
    monkeypatch.setattr("sys.path", [first, *sys.path])
    sys.modules["cnnjax.cli.main"]._prepare_process()
    assert os.environ.get("PYTHONSAFEPATH") == safe


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize(
    ("shell", "env", "status", "error"),
    [
        ("$C configs | true; exit ${PIPESTATUS[0]}", {}, 128 + signal.SIGPIPE, ""),
        # newer releases of Python 3.11 ignore that nobody reads the help
        ("$C sweep --help | true; exit $((PIPESTATUS[0] % 141))", {}, 0, ""),
        ("$C configs >&-", {}, 0, ""),
        ("$C configs >/dev/full", {}, 1, "error: No space left on device\n"),
        ("$C configs digits_lenet5 --config.augment='猫' >/dev/null", ASCII, 0, ""),
        ("$C configs digits_lenet5 --config.augment='猫' >/dev/null", {"PYTHONIOENCODING": "ascii"}, 0, ""),
        ("$C configs '猫'", ASCII, 1, "error: there is no config '猫';"),
        ("$C configs '猫'", {"PYTHONIOENCODING": "ascii"}, 1, r"error: there is no config '\u732b';"),
        (r"$C configs $'\xff'", {}, 1, r"error: there is no config '\udcff';"),
        ("$C models nix", {"HOME": "/dev/null", "XDG_CACHE_HOME": ""}, 1, "error: unknown model 'nix'"),
    ],
)
def test_a_process_copes_with_its_surroundings(
    shell: str, env: dict[str, str], status: int, error: str, tmp_path: pathlib.Path
) -> None:
    command = shell.replace("$C", f"'{sys.executable}' -m cnnjax")
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, env=os.environ | env, capture_output=True, check=False)
    printed = done.stderr.decode()
    assert printed.startswith(error) if error else printed == ""
    assert printed.count("\n") == bool(error)
    assert done.returncode == status
