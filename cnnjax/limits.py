"""Limits on the sizes in a file, checked before anything is read or unpacked."""

import os

from cnnjax.errors import InputError

VARIABLE = "CNNJAX_MAX_UNPACKED_GIB"
DEFAULT_GIB = 1.0  # the weights of VGG-19, the largest network here, take 0.53


def max_unpacked() -> int:
    """Returns the number of bytes that a compressed file may unpack to: `DEFAULT_GIB`, or that of the environment.

    Raises InputError if the latter is not a positive number.
    """
    text = os.environ.get(VARIABLE, "")
    try:
        gib = float(text or DEFAULT_GIB)
        if not 0 < gib < 2**20:
            raise ValueError
    except ValueError:
        raise InputError(f"{VARIABLE}={text[:40]!r} in the environment; expected a number of GiB, as in 4") from None
    return int(gib * 2**30)


def check_size(what: str, num_bytes: int, limit: int) -> None:
    """Raises InputError if `num_bytes`, the size that a file claims for `what`, is above `limit` or negative.

    If `limit` is `max_unpacked()`, the message says how to raise it.
    """
    if not 0 <= num_bytes <= limit:
        more = f"; the environment variable {VARIABLE} raises it" if limit == max_unpacked() else ""
        size = f"{num_bytes:,} bytes" if num_bytes.bit_length() < 64 else "more than 2^63 bytes"
        raise InputError(f"{what} claims {size}, more than the limit of {limit:,}{more}")
