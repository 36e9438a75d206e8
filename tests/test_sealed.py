"""Small files: written whole or not at all, through no link, and not read when they are not what was written."""

import fcntl
import json
import os
import pathlib
import random
import subprocess
import sys
from collections.abc import Iterator

import pytest

from cnnjax import sealed
from cnnjax.errors import InputError
from tests import faults

CONTENT = {"name": "a \u00e9", "mean": [0.3056, 1e-7], "of": {"bytes": {"train": 1}}, "nothing": None}


def corruptions(data: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """Yields single corruptions of a file: a flipped bit, a truncation, a block of zeros, and the empty file."""
    rng = random.Random(seed)
    for number in range(count):
        changed, at = bytearray(data), rng.randrange(len(data))
        kind = number % 16
        if kind == 0:
            changed = changed[:at]
        elif kind == 1:
            changed[at : at + 64] = bytes(len(changed[at : at + 64]))
        else:
            changed[at] ^= 1 << rng.randrange(8)
        yield bytes(changed)
    yield b""


def test_what_was_written_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data.json"
    sealed.write_json(path, CONTENT)
    assert sealed.read_json(path) == CONTENT
    assert list(json.loads(path.read_text())) == [*CONTENT, "seal"]
    with pytest.raises(FileNotFoundError):
        sealed.read_json(tmp_path / "other.json")


def test_a_plain_file_is_json_whatever_the_numbers(tmp_path: pathlib.Path) -> None:
    content = {"mce": float("inf"), "errors": [{"fog": (0.5, float("nan"))}], "count": 3}
    sealed.write_plain_json(tmp_path / "plain.json", content)
    read = json.loads((tmp_path / "plain.json").read_text(), parse_constant=pytest.fail)
    assert read == {"mce": None, "errors": [{"fog": [0.5, None]}], "count": 3}


def test_no_corruption_is_read_as_something_else(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data.json"
    sealed.write_json(tmp_path / "versions.json", {"python": "3"})
    sealed.write_json(path, CONTENT)
    data = path.read_bytes()
    every_bit = (data[:i] + bytes([data[i] ^ 1 << bit]) + data[i + 1 :] for i in range(len(data)) for bit in range(8))
    read = 0
    for changed in [*every_bit, *corruptions(data, 320)]:
        path.write_bytes(changed)
        try:
            assert sealed.read_json(path) == CONTENT
            read += 1  # white space
        except InputError as error:
            assert "\n" not in str(error)  # noqa: PT017
    assert read < 1000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": [0.9]}, r"data.json is damaged or was edited: it does not match its seal \(do this; if it is right"),
        ({"mean": [0.9], "seal": None}, r'data.json is damaged or was edited: it has no "seal" \(do this'),
        ({"mean": [0.9], "seal": "edited"}, ""),
    ],
)
def test_an_edited_file_is_read_when_its_seal_says_so(change: dict, message: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data.json"
    sealed.write_json(tmp_path / "versions.json", {"python": "3"})
    sealed.write_json(path, CONTENT)
    edited = {
        name: value for name, value in (json.loads(path.read_text()) | change).items() if value or name == "nothing"
    }
    path.write_text(json.dumps(edited))
    if message:
        with pytest.raises(InputError, match=message):
            sealed.read_json(path, "do this")
    else:
        assert sealed.read_json(path) == CONTENT | {"mean": [0.9]}


@pytest.mark.parametrize("versions", [None, {"python": "3"}])
def test_a_file_of_a_version_without_seals_is_read(versions: dict | None, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "data.json"
    path.write_text(json.dumps(CONTENT))
    if versions:
        (tmp_path / "versions.json").write_text(json.dumps(versions))
    assert sealed.read_json(path) == CONTENT


def a_pipe(path: pathlib.Path) -> None:
    os.mkfifo(path)


def a_link(path: pathlib.Path) -> None:
    path.symlink_to("/dev/zero")


def a_deep_one(path: pathlib.Path) -> None:
    path.write_text("[" * 100_000)


def a_large_one(path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(sealed.MAX_BYTES + 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (a_pipe, "x.json is not a regular file"),
        (pathlib.Path.mkdir, "x.json cannot be read: Is a directory"),
        (a_link, "x.json cannot be read: it is a link"),
        (a_deep_one, "x.json is damaged: maximum recursion depth exceeded"),
        (a_large_one, "x.json has 134,217,729 bytes; expected at most 134,217,728"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_no_file_is_one_line(make, message: str, tmp_path: pathlib.Path) -> None:
    make(tmp_path / "x.json")
    with pytest.raises(InputError, match=message):
        sealed.read_json(tmp_path / "x.json")


# ------------------------------------------------------------------------------------------------------------ writing


@pytest.mark.parametrize("name", ["a", "a.part"])
def test_no_link_is_written_through(name: str, tmp_path: pathlib.Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / name).symlink_to(victim)
    sealed.write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"
    assert victim.read_text() == "precious"
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(InputError, match="link cannot be written: it is a link"):
        sealed.append(tmp_path / "link")


def test_a_file_that_another_process_writes_is_left_to_it(tmp_path: pathlib.Path) -> None:
    with sealed.replacing(tmp_path / "a") as file:
        file.write(b"first")
        with pytest.raises(InputError, match="a cannot be written: another process is writing it"):
            sealed.write_atomically(tmp_path / "a", b"second")
    assert (tmp_path / "a").read_bytes() == b"first"


def test_a_block_that_fails_leaves_the_file_and_the_folder_as_they_were(tmp_path: pathlib.Path) -> None:
    sealed.write_atomically(tmp_path / "a", b"old")
    with sealed.replacing_folder(tmp_path / "b") as folder:
        (folder / "x").write_text("old")
    with pytest.raises(KeyError), sealed.replacing(tmp_path / "a"), sealed.replacing_folder(tmp_path / "b"):
        raise KeyError
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}
    assert [(tmp_path / "a").read_text(), (tmp_path / "b" / "x").read_text()] == ["old", "old"]


def test_two_folders_beside_each_other_are_written_in_turn(tmp_path: pathlib.Path) -> None:
    with sealed.replacing_folder(tmp_path / "a"):
        around = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(around, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(around)


WRITES = {
    "file": "sealed.write_atomically(folder / 'a', b'new')",
    "folder": "with sealed.replacing_folder(folder / 'a') as new: (new / 'x').write_text('new'); (new / 'y').touch()",
}


@pytest.mark.parametrize("kind", WRITES)
def test_a_process_killed_anywhere_leaves_the_old_or_the_new_and_the_next_one_tidies(
    kind: str, tmp_path: pathlib.Path
) -> None:
    folder, copies, log = tmp_path / "folder", tmp_path / "copies", tmp_path / "log"
    program = f"import pathlib, sys\nfrom cnnjax import sealed\nfolder = pathlib.Path(sys.argv[1])\n{WRITES[kind]}"
    folder.mkdir()
    exec(program.replace("new'", "old'").replace("sys.argv[1]", repr(str(folder))), {})
    command = [sys.executable, "-c", program, folder]
    subprocess.run(command, env=os.environ | faults.watch(folder, log, copies=copies), check=True)
    expected = {"a"}
    for copy in faults.distinct(copies):
        path = copy / "a" / "x" if kind == "folder" else copy / "a"
        assert not path.exists() or path.read_text() in ("old", "new")
        assert path.exists() or (copy / "a.old" / "x").read_text() == "old"
        exec(program.replace("sys.argv[1]", repr(str(copy))), {})
        assert path.read_text() == "new"
        assert {path.name for path in copy.iterdir()} == expected
    print(faults.summary(faults.points(log)))
