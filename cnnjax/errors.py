"""The error that a user is meant to read: the value, what was expected, the nearest valid name."""

import contextlib
import difflib
import fnmatch
import os
import pathlib
import re
from collections.abc import Iterable

MAX_NAMES_SHOWN = 12  # in one message
MAX_SIMILAR = 4  # of more names, where a command lists them
LISTED_BY = {  # kind of name -> the command that lists all of them
    "model": "cnnjax models",
    "weights": "cnnjax weights",
    "config": "cnnjax configs",
    "study": "cnnjax study --list",
    "claim": "cnnjax study --list",
}
MAX_QUOTED, MAX_MESSAGE = 200, 1000  # characters of a quoted value, and of a message
REGISTRABLE = frozenset(("model", "operation", "optimizer", "schedule", "loss", "metric", "data set"))


# Control characters except tab and line feed, marks that reorder text, and bytes of a file name that are not UTF-8.
_INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_QUOTED = re.compile(rf"""'[^'\n]{{{MAX_QUOTED},}}'|"[^"\n]{{{MAX_QUOTED},}}\"""")


class InputError(ValueError):
    """Raised for an invalid setting, name or file. The command line prints its message without a traceback.

    The message is shortened if it holds a very long value.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(shorten(str(message)))


def visible(text: str) -> str:
    """Escapes the characters that a terminal would obey instead of showing, as in '\\x1b'.

    Tabs and line feeds stay.
    """
    return _INVISIBLE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def shorten(message: str) -> str:
    """Cuts the middle out of long quoted values, and of a message that is still longer than MAX_MESSAGE."""
    if len(message) <= MAX_MESSAGE:
        return message
    message = _QUOTED.sub(lambda match: _cut(match[0], MAX_QUOTED), message)
    return _cut(message, MAX_MESSAGE)


def _cut(text: str, length: int) -> str:
    """Returns `text` without its middle, about `length` characters of it, two thirds of them from its beginning."""
    if len(text) <= length:
        return text
    return f"{text[: 2 * length // 3]} ... ({len(text) - length:,} more characters) ... {text[-length // 3 :]}"


def matching(pattern: str, names: Iterable[str]) -> list[str]:
    """Returns the names that match `pattern`, if it has *, ? or [...], else those that contain it; all for ''."""
    return fnmatch.filter(names, pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*")


def similar(name: str, valid: Iterable[str]) -> list[str]:
    """Returns the valid names that may be meant by `name`, the likeliest first; [] if none is similar enough.

    First come names that differ in case only, then those that end in '_' and `name` ('cifar_resnet20' for 'resnet20'),
    then those with two characters swapped ('vgg16' for 'vgg61').
    """
    valid, name = sorted(valid), name[:MAX_QUOTED]  # a comparison takes time proportional to the length
    same = [word for word in valid if word.casefold() == name.casefold()]
    with_prefix = sorted((word for word in valid if word.endswith(f"_{name}")), key=len)
    swapped = [
        word for word in valid
        if sorted(word) == sorted(name) and sum(a != b for a, b in zip(word, name, strict=True)) == 2
    ]  # fmt: skip
    close = difflib.get_close_matches(name, valid, n=MAX_NAMES_SHOWN, cutoff=0.6)
    return list(dict.fromkeys((*same, *with_prefix, *swapped, *close)))


def nearest(name: str, valid: Iterable[str], prefix: str = "", kind: str = "") -> str:
    """Returns the end of a message about an unknown name, such as "did you mean 'vgg16'? valid: vgg11, vgg16".

    Suggests the first of the `similar` names. Lists all valid names if they are at most `MAX_NAMES_SHOWN`; of more, so
    many of the nearest or, for a `kind` in LISTED_BY, `MAX_SIMILAR` similar ones and the command that lists all.
    `prefix` is printed before each valid name: '--' for flags.
    """
    valid = sorted(valid)
    likely = similar(name, valid)
    hint = f"did you mean {prefix + likely[0]!r}? " if likely else ""
    if len(valid) <= MAX_NAMES_SHOWN:
        return f"{hint}valid: {', '.join(prefix + word for word in valid) or 'none'}"
    if kind in LISTED_BY:
        others = f"similar: {', '.join(likely[1:MAX_SIMILAR])}; " if likely[1:] else ""
        return f"{hint}{others}`{LISTED_BY[kind]}` lists all"
    others = difflib.get_close_matches(name[:MAX_QUOTED], valid, n=MAX_NAMES_SHOWN, cutoff=0.0)
    shown = list(dict.fromkeys(likely + others))[:MAX_NAMES_SHOWN]
    return f"{hint}valid, of {len(valid)}: {', '.join(prefix + word for word in shown)}, ..."


def missing(path: pathlib.Path | str) -> str:
    """Returns the message that nothing has this path, with the most similar name beside it.

    As in "runs/digit does not exist; did you mean 'runs/digits'?".
    """
    path, beside = pathlib.Path(path), []
    with contextlib.suppress(OSError):
        beside = os.listdir(path.parent)
    near = similar(path.name, beside)
    return f"{path} does not exist" + (f"; did you mean {str(path.with_name(near[0]))!r}?" if near else "")


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Returns, without raising it, the error for a `name` that is not among the `valid` ones.

    `kind` is the noun for the message, as in 'model': "unknown model 'vgg17'; did you mean 'vgg16'? valid: ...". If no
    valid name is similar and users can register their own, the message states how.
    """
    names = nearest(name, valid, kind=kind)
    own = kind in REGISTRABLE and not names.startswith("did you mean")
    return InputError(f"unknown {kind} {name!r}; {names}{'; --import=FILE adds your own' if own else ''}")
