"""Reports: the means over their steps, and the rate of the last one."""

from typing import Any

import numpy as np
import pytest

from cnnjax.metrics import METRICS
from cnnjax.training.reporter import _finite_means


def test_a_report_has_the_means_of_its_steps_and_the_rate_of_the_last() -> None:
    one: dict[str, Any] = {
        **dict.fromkeys(METRICS, np.float32(1)),
        "count": np.float32(2),
        "loss": np.float32(4),
        "lr": np.float32(3),
    }
    zeros: dict[str, Any] = dict.fromkeys(METRICS, np.zeros(4, np.float32))
    three = zeros | {"count": np.full(4, 2), "loss": np.arange(4, dtype=np.float32), "lr": np.arange(4.0) / 4}
    found = _finite_means([(1, one), (3, three)], step=4)  # the fourth step of the call was not taken
    assert found == dict.fromkeys(METRICS, 1 / 8) | {"loss": (4 + 0 + 1 + 2) / 8, "lr": 0.5}
    three["loss"][1] = np.inf
    with pytest.raises(FloatingPointError, match="became inf at step 3"):
        _finite_means([(1, one), (3, three)], step=4)
