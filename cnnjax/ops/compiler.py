"""Compiles the package's C++ files, once per machine, into the cache."""

import hashlib
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from cnnjax import cache

FLAGS = ("-O2", "-std=c++17", "-shared", "-fPIC", "-w")


def is_enabled() -> bool:
    """Returns whether C++ code may be used: False if the environment variable CNNJAX_NATIVE is '0'."""
    return os.environ.get("CNNJAX_NATIVE", "1") != "0"


def compile_library(name: str, flags: Sequence[str] = (), dependencies: Sequence[str] = ()) -> pathlib.Path:
    """Compiles `name`.cc of this folder to a shared library in the cache, unless it is there; returns its path.

    `flags` are arguments of the compiler ($CXX, or g++). A change of the source, of the headers beside it, of the flags
    or of `dependencies`, such as versions of libraries, compiles it again. Raises FileNotFoundError without a compiler,
    subprocess.CalledProcessError if compilation fails, subprocess.TimeoutExpired after 5 minutes, and OSError, also for
    a cache in which other users can write. A library whose digest is wrong or missing is compiled again: loading it
    could end the process.
    """
    source = pathlib.Path(__file__).with_name(f"{name}.cc")
    texts = [file.read_text() for file in (source, *sorted(source.parent.glob("*.h")))]
    key = hashlib.sha256("\n".join([*texts, *flags, *dependencies]).encode()).hexdigest()[:16]
    path = cache.private_folder("native") / f"{name}-{key}.so"
    if _is_intact(path):
        return path
    compiler, *own_flags = shlex.split(os.environ.get("CXX", "")) or ["g++"]  # such as "ccache g++"
    if shutil.which(compiler) is None:
        raise FileNotFoundError("no C++ compiler (g++) found")
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # then an atomic move, as others may compile it too
        library = pathlib.Path(folder) / path.name
        subprocess.run(
            [compiler, *own_flags, *FLAGS, str(source), "-o", str(library), *flags],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        digest = _digest_path(library)
        digest.write_text(_digest(library))
        library.replace(path)
        digest.replace(_digest_path(path))
    return path


def _digest_path(library: pathlib.Path) -> pathlib.Path:
    """Returns the path of the file with a library's digest, beside it."""
    return library.with_name(f"{library.name}.sha256")


def _digest(library: pathlib.Path) -> str:
    """Returns the SHA-256 of a file, hexadecimal."""
    return hashlib.sha256(library.read_bytes()).hexdigest()


def _is_intact(library: pathlib.Path) -> bool:
    """Returns whether a library exists with the right digest. Raises PermissionError if others can write to it."""
    try:
        cache.check_private(library)
        return _digest_path(library).read_text() == _digest(library)
    except (FileNotFoundError, ValueError):
        return False
