"""oneDNN on a CPU, for convolutions, pools and batch normalizations: compiles a C++ library and registers it with XLA.

It is optional, and needs Linux on x86-64, g++ and the wheels of the extra `native`. Without it XLA computes them,
convolutions several times slower. `load` never raises: its status says why oneDNN is not used.
"""

import ctypes
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from cnnjax.ops import compiler

# Names of the custom calls.
CONVOLVE, POOL, NORMALIZE, NORMALIZE_BACKWARD = TARGETS = tuple(
    f"cnnjax_{name}" for name in ("convolve", "pool", "normalize", "normalize_backward")
)
MOMENTS, APPLY_MOMENTS, GRADIENT_SUMS, APPLY_GRADIENT_SUMS = TARGETS_OF_SHARDS = tuple(
    f"cnnjax_{name}" for name in ("moments", "apply_moments", "gradient_sums", "apply_gradient_sums")
)
NONE, BY_CONVERSION, BY_INSTRUCTIONS = range(3)  # how a processor computes in bfloat16, as numbered in onednn.cc
RUNTIME, HEADERS = "onednn-cpu-gomp", "onednn-devel-cpu-gomp"
ROLES = ("output", "images", "kernel")  # which product of a convolution is computed; numbered as in C++


class Status(NamedTuple):
    """State of the oneDNN library.

    Attributes:
      ok: whether oneDNN computes convolutions, pools and batch normalizations on a CPU.
      text: 'oneDNN 3.2.0', or 'XLA (reason)' if not.
      bfloat16: BY_INSTRUCTIONS if this processor computes in bfloat16, BY_CONVERSION if oneDNN converts each value to
          float32 and back, NONE if it takes float32 only.
    """

    ok: bool
    text: str
    bfloat16: int = 0


@functools.cache
def load() -> Status:
    """Compiles the library, unless the cache has it, registers it with XLA, and returns the status.

    Runs once per process. Raises nothing: the status holds the reason of a failure.
    """
    if not compiler.is_enabled():
        return Status(False, "XLA (CNNJAX_NATIVE=0)")
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        return Status(False, f"XLA (oneDNN needs Linux on x86-64, not {sys.platform} on {platform.machine()})")
    try:
        # Must be set before libgomp is loaded: its idle threads must not spin while XLA's threads work.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        library = ctypes.CDLL(str(_compile()))
        for target in TARGETS + TARGETS_OF_SHARDS:
            jax.ffi.register_ffi_target(target, jax.ffi.pycapsule(library[target]), platform="cpu")
        library.cnnjax_onednn.restype = ctypes.c_char_p
        return Status(True, f"oneDNN {library.cnnjax_onednn().decode()}", library.cnnjax_bfloat16())
    except importlib.metadata.PackageNotFoundError as error:
        return Status(False, f"XLA ({error.name} is not installed; for speed: pip install 'cnnjax[native]')")
    except subprocess.CalledProcessError as error:
        lines = [line for line in error.stderr.splitlines() if "error" in line] or error.stderr.splitlines()[-1:]
        return Status(False, f"XLA (the C++ compiler failed: {(lines or [''])[0]})")
    except Exception as error:  # a full disk, a library that does not load, ...: XLA takes over
        return Status(False, f"XLA ({error or type(error).__name__})")


def compute_dtype(dtype: DTypeLike) -> Any:
    """Returns the dtype in which oneDNN computes on arrays of `dtype`, float32 or bfloat16.

    It is bfloat16 only for bfloat16 on a processor with instructions for it: elsewhere float32 is faster.
    """
    fast = jnp.dtype(dtype) == jnp.bfloat16 and load().bfloat16 == BY_INSTRUCTIONS
    return jnp.bfloat16 if fast else jnp.float32


def _compile() -> pathlib.Path:
    """Compiles onednn.cc against the installed oneDNN wheels, and returns the library's path."""
    lib = _package_file(RUNTIME, "libdnnl.so.3")
    include = [f"-I{jax.ffi.include_dir()}", f"-I{_package_file(HEADERS, 'dnnl.hpp').parent}"]
    versions = [importlib.metadata.version(name) for name in ("jaxlib", RUNTIME, HEADERS)]
    return compiler.compile_library("onednn", [*include, str(lib), f"-Wl,-rpath,{lib.parent}"], versions)


def _package_file(package: str, name: str) -> pathlib.Path:
    """Returns the path of the file `name` in an installed package. Raises FileNotFoundError if it has none."""
    for file in importlib.metadata.files(package) or []:
        if file.name == name:
            return pathlib.Path(str(file.locate())).resolve()
    raise FileNotFoundError(f"{package} is installed without {name}")
