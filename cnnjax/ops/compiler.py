"""C++ of ours, compiled once on the machine it runs on, and kept in the cache."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Sequence

from cnnjax import cache


def wanted() -> bool:
    """False where CNNJAX_NATIVE=0 says that nothing is to be compiled."""
    return os.environ.get("CNNJAX_NATIVE", "1") != "0"


def compiled(name: str, flags: Sequence[str] = (), of: Sequence[str] = ()) -> pathlib.Path:
    """The library of `name`.cc beside this file, made now unless the cache has it.

    `of` is what else it depends on: with another, it is made anew. Raises FileNotFoundError without a compiler,
    subprocess.CalledProcessError when that fails, and OSError.
    """
    source = pathlib.Path(__file__).with_name(f"{name}.cc")
    key = hashlib.sha256("\n".join([source.read_text(), *flags, *of]).encode()).hexdigest()[:16]
    path = cache.folder("native") / f"{name}-{key}.so"
    if path.exists():
        return path
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        raise FileNotFoundError("there is no C++ compiler g++")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:  # whole or not at all, also for two at once
        made = pathlib.Path(folder) / path.name
        subprocess.run(
            [compiler, "-O2", "-std=c++17", "-shared", "-fPIC", "-w", str(source), "-o", str(made), *flags],
            check=True, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        made.replace(path)
    return path
