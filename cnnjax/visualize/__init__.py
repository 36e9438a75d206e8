"""Pictures of what a trained network sees, and of what it answers and why.

    import cnnjax

    net = cnnjax.load("runs/digits")
    result = cnnjax.visualize.filters(net)    # arrays
    result.figure()                           # a matplotlib figure
    result.note                               # what it says in numbers

Pictures are in the house style of `cnnjax.style` and `cnnjax.colors`. Importing costs nothing: each name is loaded when
it is first used.
"""

import importlib
from typing import Any

_HOME: dict[str, str] = {  # public name -> the module that defines it
}


def __getattr__(name: str) -> Any:
    """Imports a public name from its module when the name is first used."""
    if name not in _HOME:
        raise AttributeError(f"module 'cnnjax.visualize' has no attribute {name!r}; it has {', '.join(_HOME)}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Returns the names of this module, including public names that are not imported yet."""
    return sorted(["__doc__", *_HOME])
