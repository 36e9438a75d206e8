"""Convolutions and pools by oneDNN on a CPU: a small library of C++, compiled once here and kept in the cache.

It is optional. It needs Linux on x86-64, g++ and the wheels of the extra `native`; without them, XLA computes them,
convolutions several times slower. `load` never fails: it says why not.
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import NamedTuple

import jax

from cnnjax.ops import compiler

TARGET, POOL = "cnnjax_convolve", "cnnjax_pool"  # of the custom calls
RUNTIME, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"
ROLES = ("output", "images", "kernel")  # as the C++ numbers them: what is computed from the two others


class Status(NamedTuple):
    """Whether convolutions on a CPU are oneDNN's, and a line that says so or why not."""

    ok: bool
    text: str


@functools.cache
def load() -> Status:
    """Compiles the library where it is not yet in the cache, and registers it with XLA. Raises nothing."""
    if not compiler.wanted():
        return Status(False, "XLA, as CNNJAX_NATIVE=0 says")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Status(False, f"XLA: oneDNN is for Linux on x86-64 here, not {sys.platform} on {platform.machine()}")
    try:
        # Before libgomp is loaded: its threads must not spin while XLA's own work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        library = ctypes.CDLL(str(_built()))
        for target in (TARGET, POOL):
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(library[target]), platform="cpu")
        library.cnnjax_onednn.restype = ctypes.c_char_p
        return Status(True, f"oneDNN {library.cnnjax_onednn().decode()}")
    except importlib.metadata.PackageNotFoundError as error:
        return Status(False, f"XLA: {error.name} is not installed; pip install 'cnnjax[native]' makes them faster")
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()[-1:]
        return Status(False, f"XLA: the C++ compiler failed: {(lines or [''])[0]}")
    except Exception as error:  # a full disk, a library that does not load: whatever it is, XLA goes on
        return Status(False, f"XLA: {error or type(error).__name__}")


def _built() -> pathlib.Path:
    lib = _file(RUNTIME, "libdnnl.so.3")
    include = [f"-I{jax.ffi.include_dir()}", f"-I{_file(HEADERS, 'dnnl.hpp').parent}"]
    versions = [importlib.metadata.version(name) for name in ("jaxlib", RUNTIME, HEADERS)]
    return compiler.compiled("onednn", [*include, str(lib), f"-Wl,-rpath,{lib.parent}"], versions)


def _file(package: str, name: str) -> pathlib.Path:
    """A file that an installed package brought."""
    for file in importlib.metadata.files(package) or []:
        if file.name == name:
            return pathlib.Path(str(file.locate())).resolve()
    raise FileNotFoundError(f"{package} is installed without {name}")
