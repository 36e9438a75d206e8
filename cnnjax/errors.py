"""The one kind of error a person is meant to read: what was given, what was expected, the nearest valid name."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something outside the code is wrong: a setting, a name, a file. It is printed without a traceback."""


SHOWN = 12  # names in an error message


def nearest(name: str, valid: Iterable[str]) -> str:
    """The rest of a sentence about an unknown name: the closest valid one, if any, and the others or the closest."""
    valid = sorted(valid)
    longer = sorted((one for one in valid if one.endswith(f"_{name}")), key=len)  # 'cifar_resnet20' for 'resnet20'
    close = longer[:1] or difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    if len(valid) <= SHOWN:
        return f"{hint}valid: {', '.join(valid) or 'none'}"
    some = list(dict.fromkeys(longer + difflib.get_close_matches(name, valid, n=SHOWN, cutoff=0.0)))[:SHOWN]
    return f"{hint}valid, of {len(valid)}: {', '.join(some)}, ..."


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """The error for a `name` that is none of the `valid` ones, ready to raise."""
    return InputError(f"unknown {kind} {name!r}; {nearest(name, valid)}")
