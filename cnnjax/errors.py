"""The error that a user is meant to read: the value, what was expected, the nearest valid name."""

import difflib
from collections.abc import Iterable

MAX_NAMES_SHOWN = 12  # in one message
REGISTRABLE = frozenset(("model", "operation", "optimizer", "schedule", "loss", "metric", "data set"))


class InputError(ValueError):
    """Raised for an invalid setting, name or file. The command line prints its message without a traceback."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Returns the end of a message about an unknown name, such as "did you mean 'vgg16'? valid: vgg11, vgg16".

    Suggests a valid name that ends in '_' and `name` ('mnist_lenet5' for 'lenet5'), else the most similar valid name if
    it is similar enough. Lists all valid names, or the most similar `MAX_NAMES_SHOWN`.
    """
    valid = sorted(valid)
    with_prefix = sorted((word for word in valid if word.endswith(f"_{name}")), key=len)  # cifar_resnet20 for resnet20
    suggestion = with_prefix[:1] or difflib.get_close_matches(name, valid, n=1, cutoff=0.6)
    hint = f"did you mean {suggestion[0]!r}? " if suggestion else ""
    if len(valid) <= MAX_NAMES_SHOWN:
        return f"{hint}valid: {', '.join(valid) or 'none'}"
    similar = difflib.get_close_matches(name, valid, n=MAX_NAMES_SHOWN, cutoff=0.0)
    shown = list(dict.fromkeys(with_prefix + similar))[:MAX_NAMES_SHOWN]
    return f"{hint}valid, of {len(valid)}: {', '.join(shown)}, ..."


def unknown(kind: str, name: str, valid: Iterable[str]) -> InputError:
    """Returns, without raising it, the error for a `name` that is not among the `valid` ones.

    `kind` is the noun for the message, as in 'model': "unknown model 'vgg17'; did you mean 'vgg16'? valid: ...". If no
    valid name is similar and users can register their own, the message states how.
    """
    names = nearest(name, valid)
    own = kind in REGISTRABLE and not names.startswith("did you mean")
    return InputError(f"unknown {kind} {name!r}; {names}{'; --import=FILE adds your own' if own else ''}")
