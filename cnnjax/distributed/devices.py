"""The CPU cores and GPUs of this machine, and how several processes divide them. Standard library only."""

import os
import pathlib
import platform
import shutil
import subprocess
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")

# Vector instructions that oneDNN distinguishes, as /proc/cpuinfo names them; the last two are ARM's.
WIDEST_FIRST = ("amx_bf16", "avx512_bf16", "avx512f", "avx2", "bf16", "asimd")


def visible_gpus() -> list[str]:
    """Returns the NVIDIA GPUs that a child process may use: those in CUDA_VISIBLE_DEVICES or, if unset, '0', '1', ...

    Returns [] on a machine without GPUs, and if CUDA_VISIBLE_DEVICES is ''.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None or not shutil.which("nvidia-smi"):
        return [name for name in (visible or "").split(",") if name]
    lines = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True).stdout.splitlines()
    return [str(i) for i in range(len([line for line in lines if line.startswith("GPU ")]))]


def visible_cores() -> list[int]:
    """Returns the indices of the CPU cores that this process may run on; [] where the system does not tell."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def processor_name(cpuinfo: pathlib.Path = pathlib.Path("/proc/cpuinfo")) -> str:
    """Returns the processor's name and its widest instructions, as in 'AMD EPYC 7B13 (avx2)'.

    Virtual machines hide the model, and the instructions decide how fast convolutions are and which bits they give.

    Args:
      cpuinfo: Linux's description of the processor; where it is missing, Python's name is returned alone.
    """
    try:
        pairs = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    except OSError:
        pairs = []
    fields = {key.strip(): value.strip() for key, _, value in pairs}
    name = fields.get("model name") or platform.processor() or platform.machine()
    flags = fields.get("flags", fields.get("Features", "")).split()
    widest = next((flag for flag in WIDEST_FIRST if flag in flags), "")
    return f"{name} ({widest})" if widest else name


def divide(items: Sequence[T], i: int, workers: int) -> list[T]:
    """Returns the items for worker `i`, from 0, when `items` are divided among `workers`: a contiguous slice.

    With fewer items than workers, every worker gets one item, and several workers get the same one. Returns [] if there
    are no items.
    """
    count = len(items)
    if count >= workers:
        return list(items[i * count // workers : (i + 1) * count // workers])
    return [items[i % count]] if items else []
