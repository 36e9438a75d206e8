"""The CPU cores and GPUs of this machine, and how several processes divide them. Standard library only."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that a child process may use: the entries of CUDA_VISIBLE_DEVICES, or '0', '1', ..."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None or not shutil.which("nvidia-smi"):
        return [name for name in (visible or "").split(",") if name]
    lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(len([line for line in lines if line.startswith("GPU ")]))]


def visible_cores() -> list[int]:
    """Returns the CPU cores that this process may run on; [] where the system cannot tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def divide(items: Sequence[T], i: int, workers: int) -> list[T]:
    """Returns the items of worker `i` out of `workers`: a contiguous slice or, with fewer items than workers, one.

    In the second case several workers get the same item. No items give [].
    """
    count = len(items)
    if count >= workers:
        return list(items[i * count // workers : (i + 1) * count // workers])
    return [items[i % count]] if items else []
