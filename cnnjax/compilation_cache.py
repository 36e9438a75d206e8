"""JAX's cache of compiled programs on disk, with each program bound to its key.

JAX names a file by a hash of everything that a program was compiled from, and runs whatever the file holds: with two
files swapped it would train another run's step. So an entry begins with a digest of its key and its content.
"""

import functools
import hashlib
import os
import pathlib
from typing import Any

import jax

from cnnjax import cache

SUFFIX = "-sealed"  # of the key: entries that JAX alone wrote, without a digest, are neither read nor deleted


class SealedCache:
    """A cache for JAX whose entries carry a digest; one that is damaged or moved to another key is deleted.

    `entries` is the cache that stores them, in files of its folder.
    """

    def __init__(self, entries: Any) -> None:
        self._entries, self._path = entries, pathlib.Path(entries._path)

    def get(self, key: str) -> bytes | None:
        """Returns the compiled program of `key`, or None if there is none whose digest is right."""
        if (data := self._entries.get(key + SUFFIX)) is None:
            return None
        program = data[hashlib.sha256().digest_size :]
        if data == _seal(key, program) + program:
            return program
        (self._path / f"{key}{SUFFIX}-cache").unlink(missing_ok=True)  # put() keeps a file that exists
        return None

    def put(self, key: str, value: bytes) -> None:
        """Stores the compiled program `value` under `key`, unless the key is taken."""
        self._entries.put(key + SUFFIX, _seal(key, value) + value)


def _seal(key: str, program: bytes) -> bytes:
    """Returns the digest that begins an entry: SHA-256 of its key and its program."""
    return hashlib.sha256(key.encode() + b"\0" + program).digest()


@functools.cache
def _seal_entries() -> None:
    """Makes JAX use `SealedCache`, from its first compilation on. JAX has no public way to set a cache."""
    from jax._src import compilation_cache as jax_cache

    open_files = jax_cache.get_file_cache

    def open_sealed(path: str) -> Any:
        """Stands in for JAX's function that opens the cache in the folder `path`."""
        opened = open_files(path)
        return opened and (SealedCache(opened[0]), opened[1])

    jax_cache.get_file_cache = open_sealed


def enable() -> str:
    """Makes JAX keep compiled programs in $JAX_COMPILATION_CACHE_DIR, or else in the user's cache.

    Returns '' or, if that folder cannot be used, the reason. Then nothing is cached.
    """
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        folder = os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(cache.private_folder("xla"))
        if "://" not in folder:
            pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        _seal_entries()
    except (OSError, ImportError, AttributeError) as error:  # the last two: a JAX whose internals have changed
        return str(error)
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # many small programs add up at every start
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_remove_custom_partitioning_ptr_from_cache_key", True)  # an address: see ops/partitioning.py
    return ""
