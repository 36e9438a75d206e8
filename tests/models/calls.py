"""Helpers for the tests of layers: random arrays, a function as a module, short calls."""

from typing import Any

import jax
import numpy as np
from flax import linen as nn


def key(seed: int = 0) -> jax.Array:
    return jax.random.key(seed, impl="rbg")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def run(module: Any, x: np.ndarray, **rngs: jax.Array) -> tuple[np.ndarray, Any]:
    out, variables = module.init_with_output({"params": key(), **rngs}, x)
    return np.asarray(out), variables.get("params", {})


def apply(module: Any, *args: Any, **options: Any) -> Any:
    """Flax's apply, whose declared type is of any result with or without variables."""
    return module.apply(*args, **options)


class Inside(nn.Module):
    """A function that makes layers, as a module."""

    function: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> Any:
        return self.function(x)
