"""Facts about the training data that a trained network needs: classes, image shape and statistics."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

FULL_DEPTH = 16  # bits of a channel that is stored with more than 8


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Describes the training data of a run, or of published weights. A run's folder keeps it in data.json.

    Attributes:
        classes: class names, in the order of the logits.
        shape: height, width and channels of an image after the operations on the host, such as resizing.
        statistics: statistics of the training split by name: 'mean' and 'std', and others that the run needs.
        has_class_names: False if `classes` are mere numbers, as for a weight file without names.
        source: identifies the data: `Split.identity`, and the call string 'augment' of the config. {} if unknown.
        bit_depth: bits of the original images with more than 8 bits per channel: see `images.decode`.
    """

    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    has_class_names: bool = True
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    bit_depth: int = FULL_DEPTH

    def to_dict(self) -> dict[str, Any]:
        """Converts to the keys and values of data.json, whose names differ from the fields: the inverse of `from_dict`.

        Statistics are returned as they are: arrays are not converted to lists.
        """
        others = {} if self.has_class_names else {"numbered": True}
        others |= {} if self.bit_depth == FULL_DEPTH else {"bit_depth": self.bit_depth}
        content = {"of": dict(self.source), "classes": list(self.classes), "shape": list(self.shape)}
        return content | others | dict(self.statistics)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DataInfo":
        """Builds a DataInfo from what `to_dict` returned. Raises KeyError or TypeError for anything else."""
        others = ("of", "classes", "shape", "numbered", "bit_depth")
        statistics = {name: value for name, value in content.items() if name not in others}
        classes, (height, width, channels) = tuple(content["classes"]), content["shape"]
        shape = (height, width, channels)
        source, bit_depth = dict(content.get("of", {})), content.get("bit_depth", FULL_DEPTH)
        return cls(classes, shape, statistics, not content.get("numbered", False), source, bit_depth)

    def statistic_arrays(self) -> dict[str, np.ndarray]:
        """Returns the statistics by name, as float32 arrays of their own shapes."""
        return {name: np.asarray(value, np.float32) for name, value in self.statistics.items()}


def class_difference(before: Sequence[str], now: Sequence[str]) -> tuple[int, str, str] | None:
    """Returns (index, name in `before`, name in `now`) of the first class whose name differs.

    Returns None if the lists are equal, or if one is the other with classes appended.
    """
    pairs = enumerate(zip(before, now, strict=False))
    return next(((number, a, b) for number, (a, b) in pairs if a != b), None)


def changed_since(data: DataInfo, split: Any) -> str:
    """Describes how a data set has changed since a training used it.

    Compares the version, the class names, the size in bytes of each split and, where both are recorded, the digests of
    the examples. Returns '' if these are the same, or if the training used a data set of another name. `data` is what
    the training wrote to data.json; `split` is any `data.store.Split` of the data set as it is now.
    """
    before, now = data.source, split.identity
    name, _, version = str(before.get("dataset", "")).partition("/")
    if not name or name != now["dataset"].partition("/")[0]:
        return ""
    if before["dataset"] != now["dataset"]:
        now_version = now["dataset"].partition("/")[2]
        return f"the data set {name!r} had version {version} in the training, and has {now_version} now"
    if data.classes != tuple(split.classes):
        difference = f"it had {len(data.classes)} classes and now has {len(split.classes)}"
        if first := class_difference(data.classes, split.classes):
            difference = f"class {first[0]} was {first[1]!r} and is now {first[2]!r}"
        return f"the data set {name!r} was rebuilt since the training: {difference}"
    if before.get("bytes") != now["bytes"]:
        return f"the data set {name!r} was rebuilt since the training: its file sizes differ"
    digests, digests_now = before.get("digests", {}), now.get("digests", {})
    if changed := [split for split in digests if digests_now.get(split, digests[split]) != digests[split]]:
        return f"the data set {name!r} was rebuilt since the training: the images of {changed[0]!r} differ"
    return ""
