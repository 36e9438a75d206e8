"""ImageNet's thousand classes (ILSVRC 2012), in the order of published weights: that of WordNet's ids.

The names are the first that WordNet has for each; of two with the same one, the second says which it is.
"""

import functools
import pathlib
from collections.abc import Iterable


@functools.cache
def names() -> dict[str, str]:
    """A short name for each of WordNet's ids, in their order: {'n01440764': 'tench', ...}."""
    lines = pathlib.Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def readable(classes: Iterable[str]) -> list[str]:
    """The classes of a data set with a name for each that is one of WordNet's ids."""
    return [names().get(name, name) for name in classes]
