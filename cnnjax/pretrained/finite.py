"""Checks that weights are finite: NaN and infinity make a network fail late, or without an error."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from cnnjax.errors import InputError


def check_finite(arrays: Mapping[str, Any], source: str) -> None:
    """Raises InputError, starting with `source`, if any array has a value that is NaN or infinite.

    The message names the first such array and counts its values. Arrays that other processes hold parts of are left
    out, as are those that are not of floating-point numbers.
    """
    counts = {name: _count(array) for name, array in arrays.items()}
    if wrong := {name: count for name, count in counts.items() if count}:
        name, count = next(iter(wrong.items()))
        more = f", and {len(wrong) - 1} more arrays have some" if len(wrong) > 1 else ""
        values = f"{count:,} of {arrays[name].size:,} values"
        raise InputError(f"{source}: the weights {name} have {values} that are NaN or infinite{more}")


def to_float32(array: np.ndarray) -> np.ndarray:
    """Converts an array to float32, without a warning: what is above its range becomes infinite, for `check_finite`."""
    with np.errstate(over="ignore"):
        return np.asarray(array, np.float32)


def _count(array: Any) -> int:
    """Returns the number of values of an array that are not finite."""
    if not getattr(array, "is_fully_addressable", True) or np.dtype(array.dtype).kind in "biu":
        return 0
    return int(array.size - np.count_nonzero(np.isfinite(np.asarray(array))))
