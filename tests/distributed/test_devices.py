"""The division of cores and GPUs among workers."""

import os
import pathlib

import pytest

from cnnjax.distributed import devices, launcher
from cnnjax.runs import executors


@pytest.mark.parametrize(
    ("count", "workers", "expected"),
    [
        (4, 2, [[0, 1], [2, 3]]),
        (5, 2, [[0, 1], [2, 3, 4]]),
        (2, 3, [[0], [1], [0]]),
        (0, 2, [[], []]),
    ],
)
def test_items_are_divided_into_slices_or_shared(count: int, workers: int, expected: list[list[int]]) -> None:
    assert [devices.divide(range(count), i, workers) for i in range(workers)] == expected


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2 avx512f avx512_bf16\n", "AMD EPYC (avx512_bf16)"),
        ("model name\t: Old\nflags\t\t: fpu sse2\n", "Old"),
        ("processor\t: 0\nFeatures\t: fp asimd bf16\n", "aarch64 (bf16)"),
        (None, "aarch64"),
    ],
)
def test_a_processor_is_named_with_its_widest_instructions(
    cpuinfo: str | None, expected: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices.platform, "processor", lambda: "")
    monkeypatch.setattr(devices.platform, "machine", lambda: "aarch64")
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert devices.processor_name(tmp_path / "cpuinfo") == expected


@pytest.mark.parametrize(
    ("visible", "gpus"), [(None, ["0", "1", "2", "3"]), ("4,5", ["4", "5"]), ("", []), ("7", ["7"])]
)
def test_visible_gpus_are_those_of_the_variable_or_of_the_driver(
    visible: str | None, gpus: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\nfor i in 0 1 2 3; do echo GPU $i:; echo '  MIG'; done\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert devices.visible_gpus() == gpus


def test_workers_divide_cores_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3, 5}, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,4,7")
    two, five, seven = (executors.divide_machine(workers) for workers in (2, 5, 7))
    assert [worker.cores for worker in two] == [[0, 1], [2, 3, 5]]
    assert [worker.environment for worker in two] == [{"CUDA_VISIBLE_DEVICES": gpus} for gpus in ("0,1", "4,7")]
    assert [worker.cores for worker in seven] == [[0], [1], [2], [3], [5], [0], [1]]
    assert [worker.environment["CUDA_VISIBLE_DEVICES"] for worker in five] == ["0", "1", "4", "7", "0"]
    assert all(worker.environment["XLA_PYTHON_CLIENT_PREALLOCATE"] == "false" for worker in five)


@pytest.mark.parametrize(
    ("visible", "count", "expected"),
    [
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("0,1,2,3,4", 2, ["0,1", "2,3"]),  # equally many for each
        ("4,5", 2, ["0", "1"]),  # indices into the visible ones
        ("", 2, [None, None]),
        ("7", 2, [None, None]),
    ],
)
def test_processes_of_a_run_divide_the_gpus_equally(
    visible: str, count: int, expected: list[str | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("JAX_LOCAL_DEVICE_IDS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [one.get("JAX_LOCAL_DEVICE_IDS") for one in launcher.environments(count, "cuda")] == expected
    assert [one.get("JAX_LOCAL_DEVICE_IDS") for one in launcher.environments(count, "cpu")] == [None] * count
    monkeypatch.setenv("JAX_LOCAL_DEVICE_IDS", "3")
    assert [one["JAX_LOCAL_DEVICE_IDS"] for one in launcher.environments(count, "cuda")] == ["3"] * count
