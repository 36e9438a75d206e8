"""Facts about the training data that a trained network needs: classes, image shape and statistics."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np


@dataclasses.dataclass(frozen=True)
class DataInfo:
    """Describes the training split of a run, or of published weights. A run's folder keeps it in data.json."""

    classes: tuple[str, ...]  # in the order of the logits
    shape: tuple[int, int, int]  # of an image after the host's operations: height, width, channels
    statistics: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # 'mean', 'std' and those on demand
    has_class_names: bool = True  # False: the classes are numbers, as in a weight file
    source: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # identity of the split, and `augment`

    def to_dict(self) -> dict[str, Any]:
        """Returns the keys and values of data.json; long statistics are arrays."""
        named = {} if self.has_class_names else {"numbered": True}
        content = {"of": dict(self.source), "classes": list(self.classes), "shape": list(self.shape)}
        return content | named | dict(self.statistics)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> "DataInfo":
        """Builds it from what `to_dict` returned. Raises KeyError or TypeError for anything else."""
        others = ("of", "classes", "shape", "numbered")
        statistics = {name: value for name, value in content.items() if name not in others}
        classes, (height, width, channels) = tuple(content["classes"]), content["shape"]
        shape = (height, width, channels)
        return cls(classes, shape, statistics, not content.get("numbered", False), dict(content.get("of", {})))

    def statistic_arrays(self) -> dict[str, np.ndarray]:
        """Returns the statistics as float32 arrays."""
        return {name: np.asarray(value, np.float32) for name, value in self.statistics.items()}
