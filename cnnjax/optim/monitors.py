"""Monitors of a validation metric: one lowers the learning rate on a plateau, one stops the training early.

The state of a monitor is a few scalars in `TrainState.monitors`. So a checkpoint holds it, and a step that depends on
it is compiled once. Values are rounded to float32 before they are compared, so that a resumed run compares the same
numbers.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import numpy as np

from cnnjax import spec
from cnnjax.errors import unknown
from cnnjax.metrics import METRICS
from cnnjax.spec import Count, Fraction, Range

Evaluations = Annotated[int, Range(0, 1_000_000)]
MonitorState = dict[str, Any]  # NumPy scalars, under the names that checkpoints have


@dataclasses.dataclass(frozen=True)
class Monitor:
    """A monitor of validation metrics: an initial state, and a pure function that updates it after an evaluation.

    Attributes:
      init: the state before the first evaluation.
      update: (state, metrics) -> new state. `metrics` are the mean metrics of the validation split, as `metrics.means`
        returns them.
    """

    init: MonitorState
    update: Callable[[MonitorState, Mapping[str, float]], MonitorState]


def _best_monitor(metric: str, threshold: float) -> Monitor:
    """Builds a monitor whose state has "best", the best value of `metric`, and "since", the evaluations after that.

    A value counts as better only if it improves on the best by more than `threshold` times the best.
    """
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    sign = METRICS[metric].sign

    def update(state: MonitorState, metrics: Mapping[str, float]) -> MonitorState:
        value, best = np.float32(metrics[metric]), float(state["best"])
        least = best * (1 + sign * threshold) if np.isfinite(best) else best  # inf * 0, at a threshold of 1, is NaN
        if sign * float(value) > sign * least:
            return {"best": value, "since": np.int32(0)}
        return {"best": state["best"], "since": np.int32(state["since"] + 1)}

    return Monitor({"best": np.float32(-sign * np.inf), "since": np.int32(0)}, update)


def plateau(
    factor: Fraction = 0.1,
    patience: Evaluations = 10,
    threshold: Fraction = 1e-4,
    cooldown: Evaluations = 0,
    lowest: Fraction = 0.0,
    metric: str = "accuracy",
) -> Monitor:
    """Builds the monitor that multiplies the learning rate by `factor` when a validation metric stops improving.

    Same as PyTorch's ReduceLROnPlateau, to the evaluation.

    Args:
      factor: from 0 to 1.
      patience: evaluations in a row without improvement that are tolerated; the next one reduces the rate.
      threshold: relative change from the best value that counts as an improvement.
      cooldown: evaluations after a reduction that are not counted.
      lowest: smallest product of the factors, relative to the peak rate.
      metric: a name in `METRICS`, which also says whether higher is better.

    Returns:
      A monitor whose state has "factor", the current product of the factors, besides "best", "since" and "cooldown".
    """
    best_monitor = _best_monitor(metric, threshold)

    def update(state: MonitorState, metrics: Mapping[str, float]) -> MonitorState:
        improved = best_monitor.update(state, metrics)
        since, cooling, lr_scale = improved["since"], int(state["cooldown"]), float(state["factor"])
        if cooling:
            since, cooling = 0, cooling - 1
        if since > patience:
            since, cooling, lr_scale = 0, cooldown, max(lr_scale * factor, lowest)
        return {
            "best": improved["best"],
            "since": np.int32(since),
            "cooldown": np.int32(cooling),
            "factor": np.float32(lr_scale),
        }

    return Monitor({**best_monitor.init, "cooldown": np.int32(0), "factor": np.float32(1)}, update)


def early_stop(patience: Count = 10, metric: str = "loss", threshold: Fraction = 0.0) -> Monitor:
    """Builds the monitor that stops the training after `patience` evaluations without improvement (Prechelt 1998).

    `metric` is a name in `METRICS`. An improvement is larger than `threshold` times the best value. The monitor's state
    has the boolean "stop", besides "best" and "since".
    """
    best_monitor = _best_monitor(metric, threshold)

    def update(state: MonitorState, metrics: Mapping[str, float]) -> MonitorState:
        state = best_monitor.update(state, metrics)
        return {**state, "stop": np.bool_(state["since"] >= patience)}

    return Monitor({**best_monitor.init, "stop": np.bool_(False)}, update)


def parse_early_stop(text: str) -> Monitor:
    """Builds the monitor of a call string such as 'early_stop(patience=5)'. Raises InputError for any other string."""
    return spec.build("early_stop", text, {"early_stop": early_stop})
