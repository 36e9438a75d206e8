"""Keeps the freed memory of this process, because XLA allocates all activations again in each step."""

import ctypes
import os

# Of glibc's malloc.h. Blocks of any size are then cut from one heap that never shrinks, in place of the kernel's pages.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_OPTIONS = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: -1}


def keep_freed() -> bool:
    """Tells the C library to keep freed memory for this process, which then holds its peak until it ends.

    Otherwise the kernel takes back the memory of each step of training, and clears and maps it again page by page in
    the next: a quarter of the time of a ResNet-20 on a CPU. The peak may grow by half, as free blocks lie scattered.
    Threads that run already are not affected, so this must precede the first use of a device.

    Returns whether it was done: only with glibc, and not if the environment sets malloc's options (`MALLOC_...` or
    `GLIBC_TUNABLES`).
    """
    if any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS and Windows have none
        return False
    accepted = [mallopt(option, value) for option, value in _OPTIONS.items()]
    return all(accepted)
