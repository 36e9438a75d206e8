"""Compiles the package's C++ files, once per machine, into the cache."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from cnnjax import cache


def is_enabled() -> bool:
    """Returns whether C++ code may be used: False if the environment variable CNNJAX_NATIVE is '0'."""
    return os.environ.get("CNNJAX_NATIVE", "1") != "0"


def compile_library(name: str, flags: Sequence[str] = (), dependencies: Sequence[str] = ()) -> pathlib.Path:
    """Compiles `name`.cc of this folder to a shared library in the cache, unless it is there; returns its path.

    `flags` are arguments of the compiler ($CXX, or g++). A change of the source, the flags or `dependencies`, such as
    versions of libraries, compiles it again. Raises FileNotFoundError without a compiler, subprocess.CalledProcessError
    if compilation fails, subprocess.TimeoutExpired after 5 minutes, and OSError.
    """
    source = pathlib.Path(__file__).with_name(f"{name}.cc")
    key = hashlib.sha256("\n".join([source.read_text(), *flags, *dependencies]).encode()).hexdigest()[:16]
    path = cache.folder("native") / f"{name}-{key}.so"
    if path.exists():
        return path
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise FileNotFoundError("no C++ compiler (g++) found")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # then an atomic move, as others may compile it too
        library = pathlib.Path(folder) / path.name
        subprocess.run(
            [compiler, "-O2", "-std=c++17", "-shared", "-fPIC", "-w", str(source), "-o", str(library), *flags],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        library.replace(path)
    return path
