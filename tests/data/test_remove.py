"""Removing data sets, the record beside them, and builds that a full disk ends."""

import json
import pathlib
import shutil
import subprocess
import sys

import pytest

from cnnjax import cache, cli
from cnnjax.data import build_record, remove
from cnnjax.data.available import available
from cnnjax.data.build import build, load
from cnnjax.data.info import DataInfo, changed_since
from cnnjax.data.store import Split
from cnnjax.errors import InputError
from tests.data.original_files import encoded, silent


def write_classes(root: pathlib.Path, seed: int = 0, names: str = "ab") -> str:
    """Two classes of one image each, whose files have the same sizes whatever the seed; returns the folder."""
    for number, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name / "1.bmp").write_bytes(encoded((8, 8), "RGB", "BMP", seed + number))
    return str(root)


def test_a_data_set_is_removed_whole(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(made, tmp_path / "data")
    root = str(tmp_path / "data")
    build("mine", write_classes(tmp_path / "source"), root, silent)
    size = remove.size_of(tmp_path / "data" / "digits")
    assert remove.remove("digits", root) == size
    assert [row.name for row in available(root) if row.path] == ["mine"]
    assert not (tmp_path / "data" / "digits").exists()
    for name in ("digits", "mines", "../mine", "mine:2.0.0", ""):
        with pytest.raises(InputError, match=r"no data set '.*valid: mine"):
            remove.remove(name, root)
    (tmp_path / "data" / "mine" / "1.0.0" / "dataset_info.json").write_text("{")
    assert [(row.name, row.note) for row in available(root) if row.path] == [
        ("mine", "damaged: build it again with --overwrite")
    ]
    with pytest.raises(InputError, match=r"data set 'mine' .* is damaged"):
        load("mine", "train", root)
    assert remove.remove("mine", root)
    assert not (tmp_path / "data" / "mine").exists()


def test_downloaded_files_go_with_it_and_a_build_is_not_disturbed(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(made, tmp_path / "data")
    work = tmp_path / "data" / "downloads" / "cnnjax" / "digits"
    work.mkdir(parents=True)
    (work / "original.gz").write_bytes(b"12345")
    with (
        cache.locked(work / "lock", lambda: None),
        pytest.raises(InputError, match="is being built by another process"),
    ):
        remove.remove("digits", str(tmp_path / "data"))
    assert len(load("digits", "train", str(tmp_path / "data"), silent)) == 1438
    assert [path.name for path in remove.find_removable("digits", str(tmp_path / "data"))] == ["1.0.0", "digits"]
    remove.remove("digits", str(tmp_path / "data"))
    assert [path.name for path in work.iterdir()] == ["lock"]


def test_the_command_asks_before_it_removes(
    made: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made, tmp_path / "data")
    command = ["data", "remove", "digits", f"--data_dir={tmp_path / 'data'}"]
    monkeypatch.setattr("sys.stdin.isatty", lambda: False)
    assert cli.main(command) == 1
    assert "no terminal to confirm the removal of digits: pass --yes" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    for answer, status in (("n", 1), ("y", 0)):
        monkeypatch.setattr("builtins.input", lambda _, answer=answer: answer)
        assert cli.main(command) == status
    assert "removed digits: freed 0.7 MB" in capsys.readouterr().out
    assert cli.main([*command, "--yes"]) == 1


def info(split: Split) -> DataInfo:
    return DataInfo(tuple(split.classes), (8, 8, 3), source=split.identity, bit_depth=12)


def test_a_data_set_rebuilt_with_other_pixels_of_the_same_size_is_noticed(tmp_path: pathlib.Path) -> None:
    source, root = tmp_path / "source", str(tmp_path / "data")
    for name in "ab":  # as JPEGs, which are kept: same sizes, other pixels
        (source / name).mkdir(parents=True)
        (source / name / "1.png").write_bytes(encoded((8, 8), "RGB", "PNG", compress_level=0))
    build("mine", str(source), root, silent)
    before = info(load("mine", "train", root))
    build("mine", str(source), root, silent, overwrite=True)
    assert changed_since(before, load("mine", "train", root)) == ""
    (source / "a" / "1.png").write_bytes(encoded((8, 8), "RGB", "PNG", seed=1, compress_level=0))
    build("mine", str(source), root, silent, overwrite=True)
    now = load("mine", "train", root)
    assert now.identity["bytes"] == before.source["bytes"]
    assert "'mine' was rebuilt since the training: the images of 'train' differ" in changed_since(before, now)
    older = DataInfo(before.classes, before.shape, source={**before.source, "digests": {}})
    assert changed_since(older, now) == ""  # of a version without digests


def test_the_bit_depth_is_kept_in_data_json() -> None:
    data = DataInfo(("a",), (8, 8, 1), bit_depth=12)
    assert data.to_dict()["bit_depth"] == 12
    assert DataInfo.from_dict(json.loads(json.dumps(data.to_dict()))) == data
    assert "bit_depth" not in DataInfo(("a",), (8, 8, 1)).to_dict()


def test_a_data_set_without_a_record_is_read(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    shutil.copytree(made, tmp_path / "data")
    (tmp_path / "data" / "digits" / "1.0.0" / build_record.FILE).unlink()
    data = load("digits", "train", str(tmp_path / "data"), silent)
    assert "digests" not in data.identity
    assert len(data) == 1438


FULL = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
from cnnjax import cli
sys.exit(cli.main(["data", "build", "digits", f"--data_dir={sys.argv[2]}"]))
"""


@pytest.mark.parametrize("limit", [1_000, 150_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(limit: int, tmp_path: pathlib.Path) -> None:
    """A limit on the size of files stands for the disk: of the small files, and of the examples."""
    command = [sys.executable, "-c", FULL, str(limit), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 1, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("error: digits: ")
    assert "File too large" in done.stderr
    assert [row for row in available(str(tmp_path)) if row.path] == []
    assert not list(tmp_path.rglob("*.array_record*"))


def test_a_build_killed_between_its_two_renames_loses_nothing(made: pathlib.Path, tmp_path: pathlib.Path) -> None:
    work = tmp_path / "data" / "downloads" / "cnnjax" / "digits"
    shutil.copytree(made / "digits" / "1.0.0", work / "former")
    lines: list[str] = []
    assert len(load("digits", "train", str(tmp_path / "data"), lines.append)) == 1438
    assert "already" in lines[0]
    assert [path.name for path in work.iterdir()] == ["lock"]
