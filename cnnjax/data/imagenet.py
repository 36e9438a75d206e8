"""Names of ImageNet's 1,000 classes (ILSVRC 2012), in the order of published weights: sorted by WordNet id.

A name is the first of its WordNet synset. Where two classes share it, the second has a name that tells them apart.
"""

import functools
import pathlib
from collections.abc import Iterable


@functools.cache
def names() -> dict[str, str]:
    """Returns a short name for each of the 1,000 WordNet ids, in the order of labels: {'n01440764': 'tench', ...}."""
    lines = pathlib.Path(__file__).with_name("imagenet_classes.txt").read_text().splitlines()
    return dict(line.split(" ", 1) for line in lines)


def readable(classes: Iterable[str]) -> list[str]:
    """Replaces the WordNet ids among `classes` by short names; keeps all other classes, and the order."""
    return [names().get(name, name) for name in classes]
