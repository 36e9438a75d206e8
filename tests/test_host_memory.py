"""Memory that is freed and needed again, as in each step of training, comes without the kernel's page faults."""

import os
import pathlib
import platform
import subprocess
import sys

import pytest

from cnnjax import host_memory

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Faults of a thread that takes, fills and frees 64 MiB for the second time: 16,384 pages of 4 KiB, or fewer if huge.
PROGRAM = """
import ctypes, resource, sys, threading
from cnnjax import host_memory

if sys.argv[1] == "keep":
    assert host_memory.keep_freed()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
faults = []

def work():
    for _ in range(2):
        start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        block = ctypes.c_void_p(libc.malloc(64 << 20))
        ctypes.memset(block, 1, 64 << 20)
        libc.free(block)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - start)

thread = threading.Thread(target=work)
thread.start()
thread.join()
print(faults[1])
"""


def second_faults(what: str) -> int:
    command = [sys.executable, "-c", PROGRAM, what]
    return int(subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, capture_output=True, check=True).stdout)


@pytest.fixture(autouse=True)
def no_options_of_malloc(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("MALLOC_", "GLIBC_TUNABLES")):
            monkeypatch.delenv(name)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs the C library glibc")
def test_freed_memory_is_kept_for_the_next_step() -> None:
    assert second_faults("keep") < 100
    assert second_faults("as it is") > 1000


def test_another_c_library_keeps_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: object())
    assert not host_memory.keep_freed()


def test_options_of_the_environment_come_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "4")
    monkeypatch.setattr(host_memory.ctypes, "CDLL", lambda name: pytest.fail("changed malloc"))
    assert not host_memory.keep_freed()
