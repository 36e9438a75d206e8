"""State dicts in what training scripts save: which nested dicts hold weights, and which of them is meant.

A set of weights is named by the keys that lead to it, as in 'state_dict' or 'checkpoint/model_ema'; '' is the whole
content of a file.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from cnnjax.errors import InputError

Array = TypeVar("Array")
Choice = Callable[[Sequence[str]], str]  # returns one of the names of a file's sets

# Keys under which training scripts save the trained weights, the most usual first; '' is a plain state dict, beside
# which some save further tensors under keys of their own.
USUAL_NAMES = (
    "state_dict", "model_state_dict", "model", "net", "network", "module", "weights", "params", "model_state", "",
)  # fmt: skip

MAX_DEPTH = 4  # of dicts in dicts

_EMA = re.compile(r"(^|[^a-z])ema([^a-z]|$)|(^|[^a-z])(averaged|swa)[^/]*$", re.IGNORECASE)
_NO_WEIGHTS = re.compile(
    r"(^|/)([^/]*(optim|sched|scaler|criterion|loss|rng|callback|hyper_param)[^/]*|opt|amp|args|loops)(/|$)"
)


def find(
    content: Any,
    tensors: Callable[[Any], dict[str, Array]],
    entries: Callable[[Any], Mapping[Any, Any]],
    is_kernel: Callable[[Array], bool],
) -> dict[str, dict[str, Array]]:
    """Returns the tensors by name of every part of `content` that has any, by the name of the set.

    Other values beside tensors, such as epochs and options, are ignored, and so are the states of optimizers and
    schedulers, and sets without a kernel if others have one. Returns {} if there are no tensors.

    Args:
      content: content of a file.
      tensors: returns the tensors by name that a value has in itself; {} if it has none.
      entries: returns the items of a value that is a dict; {} for others. Looked into `MAX_DEPTH` deep.
      is_kernel: returns whether a tensor has two dimensions or more.
    """
    sets: dict[str, dict[str, Array]] = {}
    seen: dict[int, dict[str, Array]] = {}  # by id: a hostile file has the same dict at very many places
    waiting = [("", content)]
    while waiting:
        name, value = waiting.pop()
        is_new = id(value) not in seen
        if is_new:
            seen[id(value)] = tensors(value)
        if found := seen[id(value)]:
            sets[name] = found
        if is_new and name.count("/") + bool(name) < MAX_DEPTH:
            inner = [(key, item) for key, item in entries(value).items() if isinstance(key, str) and len(key) < 200]
            named = [(f"{name}/{key}" if name else key, item) for key, item in reversed(inner)]
            waiting += [(key, item) for key, item in named if not _NO_WEIGHTS.search(key)]
    kernels = {name for name, found in sets.items() if any(map(is_kernel, found.values()))}
    return {name: found for name, found in sets.items() if name in kernels or not kernels}


def is_ema(name: str) -> bool:
    """Returns whether a name, as of a set of weights, is one for averaged weights: 'ema', 'state_dict_ema', 'swa'."""
    return bool(_EMA.search(name))


def choose(names: Sequence[str], key: str = "") -> str:
    """Returns the set of weights that is meant, of those in a file.

    Args:
      names: names of the sets; at least one.
      key: name of the wanted set, its last part, or 'ema' for the averaged weights. '' chooses by `USUAL_NAMES`; then
        averaged weights are chosen only if there are no others.

    Raises InputError, which lists the sets, if there is no such set or it is not clear which is meant.
    """
    if key:
        if chosen := _named(names, key):
            return chosen[0]
        raise InputError(no_such_set(names, key))
    ranks = {name: _rank(name) for name in names}
    best = [name for name in names if ranks[name] == min(ranks.values())]
    if len(best) > 1:
        raise InputError(f"holds {len(names)} sets of weights: choose one of {_shown(names)} by FILE#NAME")
    return best[0]


def no_such_set(names: Sequence[str], key: str) -> str:
    """Returns the error for a file that has no set of the name `key`, but those of `names`."""
    return f"holds no weights under {key!r}; it has {_shown(names) or 'one set, without a name'}"


def _shown(names: Sequence[str]) -> str:
    """Returns the keys of sets of weights as users write them after a file's name and '#'."""
    return ", ".join(f"#{ascii(name)[1:-1]}" for name in names if name)


def has(names: Sequence[str], key: str) -> bool:
    """Returns whether `choose` finds a set of the name `key`."""
    return bool(_named(names, key))


def _named(names: Sequence[str], key: str) -> list[str]:
    """Returns [the one set that `key` names], [] if there is none or it is not clear which."""
    averaged = [name for name in names if key == "ema" and is_ema(name)]
    for matching in (
        [name for name in names if name == key],
        [name for name in names if name.endswith(f"/{key}")],
        averaged,
    ):
        if len(matching) == 1:
            return matching
    return []


def _rank(name: str) -> tuple[int, int]:
    """Returns a number that is lower for a set that is more usual, and its depth."""
    key = name.rpartition("/")[2]
    usual = USUAL_NAMES.index(key) if key in USUAL_NAMES else len(USUAL_NAMES)
    return (usual if not is_ema(name) else len(USUAL_NAMES) + 1), name.count("/")


def describe_choice(names: Sequence[str], chosen: str) -> str:
    """Returns a line about the sets of weights that were not chosen, '' if there are none."""
    kinds = {name: f"{ascii(name)[1:-1]}{' (averaged weights)' if is_ema(name) else ''}" for name in names}
    others = ", ".join(f"#{kind}" for name, kind in kinds.items() if name != chosen)
    if not others and not is_ema(chosen):
        return ""
    used = f"using the weights under {kinds[chosen]}" if chosen else "using the weights without a name"
    return f"{used}; others in this file: {others}" if others else used


def under(arrays: Mapping[str, Array], key: str) -> dict[str, Array]:
    """Returns the arrays whose names start with 'KEY.', without it; 'ema' stands for any such prefix."""
    heads = dict.fromkeys(name.partition(".")[0] for name in arrays)
    wanted = [head for head in heads if head == key or (key == "ema" and is_ema(head))]
    return {name.partition(".")[2]: array for name, array in arrays.items() if name.partition(".")[0] in wanted[:1]}
