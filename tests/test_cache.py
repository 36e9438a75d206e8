"""The per-user cache: what is counted and deleted, and what never is."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

from cnnjax import cache, cli

HOLD_LOCK = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))


def put(name: str, size: int) -> pathlib.Path:
    path = cache.folder("") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes(size))
    return path


@pytest.mark.parametrize("name", cache.CACHES)
def test_an_absent_cache_is_empty(name: str) -> None:
    assert cache.usage(name) == cache.clear(name) == cache.Usage(0, 0)


def test_files_are_counted_and_deleted_with_their_folders() -> None:
    put("weights/torchvision/resnet18/a.pth", 1000)
    put("weights/b.pth", 24)
    other = put("pixels/c.npz", 5)
    assert cache.usage("weights") == cache.Usage(files=2, bytes=1024)
    assert cache.clear("weights") == cache.Usage(files=2, bytes=1024)
    assert list(cache.folder("weights").rglob("*")) == []
    assert other.exists()


def test_the_files_of_a_locked_folder_stay() -> None:
    busy, idle = put("weights/busy/a.part", 7), put("weights/idle/b.pth", 8)
    locks = put("weights/busy/lock", 0), put("weights/idle/lock", 0)
    command = [sys.executable, "-c", HOLD_LOCK, str(locks[0])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "locked\n"
        assert cache.clear("weights") == cache.Usage(1, 8)
        assert (busy.exists(), idle.exists()) == (True, False)
        process.communicate("")
    assert cache.clear("weights") == cache.Usage(1, 7)
    assert all(lock.exists() for lock in locks), "a process may be about to take it"


def test_a_recent_temporary_folder_stays() -> None:
    recent, old = put("native/tmpabc/a.so", 1), put("native/tmpdef/b.so", 2)
    hours_ago = time.time() - 2 * cache.SECONDS_IN_USE
    os.utime(old.parent, (hours_ago, hours_ago))
    assert cache.clear("native") == cache.Usage(1, 2)
    assert recent.exists()
    assert not old.exists()


def test_links_are_not_followed(tmp_path: pathlib.Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "thesis.tex").write_text("years of work")
    kept = put("xla/a", 3)
    (kept.parent / "file").symlink_to(outside / "thesis.tex")
    (kept.parent / "folder").symlink_to(outside)
    cache.folder("pixels").symlink_to(outside)
    assert cache.usage("pixels") == cache.clear("pixels") == cache.Usage(0, 0)
    assert cache.clear("xla").files >= 2
    assert (outside / "thesis.tex").read_text() == "years of work"


def test_a_cache_behind_a_link_is_left_alone(tmp_path: pathlib.Path) -> None:
    file = put("xla/a", 3)
    root = cache.folder("xla").parent
    root.rename(tmp_path / "moved")
    root.symlink_to(tmp_path / "moved")
    assert cache.clear("xla") == cache.Usage(0, 0)
    assert file.exists()


def test_the_command_lists_and_clears(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")
    put("pixels/a.npz", 1_500_000)
    put("weights/b.pth", 999)
    assert cli.main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown and text in shown for name, text in cache.CACHES.items())
    assert "1.5 MB" in shown
    assert "JAX_COMPILATION_CACHE_DIR=elsewhere, which is not listed or cleared" in shown
    assert cli.main(["cache", "clear", "weights"]) == 0
    assert capsys.readouterr().out == "weights: freed 999 bytes in 1 files\n"
    assert cli.main(["cache", "clear"]) == 0
    assert "pixels: freed 1.5 MB in 1 files\n" in capsys.readouterr().out
    assert sum(cache.usage(name).files for name in cache.CACHES) == 0


@pytest.mark.parametrize(
    ("where", "mode", "private"),
    [("native", 0o700, True), ("native", 0o755, True), ("native", 0o777, False), ("native", 0o1777, False),
     ("", 0o703, False), ("native", 0o775, False)],
)  # fmt: skip
def test_a_folder_that_others_can_write_is_not_used(
    where: str, mode: int, private: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache, "_is_own_group", lambda number: False)
    path = cache.private_folder("native")
    assert path.is_dir()
    cache.folder(where).chmod(mode)
    if private:
        assert cache.private_folder("native") == path
    else:
        with pytest.raises(PermissionError, match="not used, as other users can write there; chmod go-w it"):
            cache.private_folder("native")


def test_a_folder_of_another_user_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    path = cache.private_folder("native")
    monkeypatch.setattr("os.geteuid", lambda: path.stat().st_uid + 1)
    if path.stat().st_uid:  # root may write everywhere anyway
        with pytest.raises(PermissionError):
            cache.check_private(path)
    else:
        cache.check_private(path)


def test_new_folders_are_private_whatever_the_umask_and_a_private_group_may_write() -> None:
    before = os.umask(0)
    try:
        path = cache.private_folder("xla")
    finally:
        os.umask(before)
    assert [folder.stat().st_mode & 0o777 for folder in (path, path.parent)] == [0o700, 0o700]


def test_a_user_without_a_home_has_a_cache_in_the_temporary_folder(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)  # as it does where there is no home
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert cache.folder("xla") == tmp_path / f"cnnjax-{os.geteuid()}" / "cnnjax" / "xla"
