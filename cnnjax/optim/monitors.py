"""Watches of a metric of the validation split: one lowers the learning rate on a plateau, one ends the run.

What a watch remembers from one evaluation to the next are a few numbers, arrays in the state: a checkpoint holds them,
and a step that depends on them is compiled once. They are float32 before they are compared, so that a run that goes on
compares what it would have compared.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnnjax.errors import InputError, unknown
from cnnjax.metrics import METRICS

Seen = dict[str, Any]  # what is remembered, NumPy scalars


class Monitor(NamedTuple):
    """What is remembered before the first evaluation, and after one, whose metrics are given."""

    begin: Seen
    look: Callable[[Seen, dict[str, float]], Seen]


def _improvement(metric: str, threshold: float) -> Monitor:
    """The best value, and how many evaluations ago it was; an improvement is by more than that share of the best."""
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    sign = METRICS[metric].sign

    def look(seen: Seen, metrics: dict[str, float]) -> Seen:
        value, best = np.float32(metrics[metric]), float(seen["best"])
        if sign * float(value) > sign * best * (1 + sign * threshold):
            return {"best": value, "since": np.int32(0)}
        return {"best": seen["best"], "since": np.int32(seen["since"] + 1)}

    return Monitor({"best": np.float32(-sign * np.inf), "since": np.int32(0)}, look)


def _check(name: str, **ranges: tuple[float, float, float]) -> None:
    """Raises InputError for the first argument, (value, least, most), that is out of its range."""
    for argument, (value, least, most) in ranges.items():
        if not least <= value <= most:
            expected = f"at least {least:g}" if most == np.inf else f"{least:g} to {most:g}"
            raise InputError(f"{name}: {argument} = {value!r}: expected {expected}")


def plateau(
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    lowest: float = 0.0,
    metric: str = "accuracy",
) -> Monitor:
    """Multiplies the rate by `factor` at the evaluation that is the (patience + 1)-th in a row without improvement.

    An improvement is by more than `threshold`, relative to the best. After a reduction `cooldown` evaluations do not
    count; the rate never falls below the share `lowest` of its peak. As PyTorch's ReduceLROnPlateau, to the evaluation.
    """
    _check(
        "plateau",
        factor=(factor, 0, 1),
        patience=(patience, 0, np.inf),
        threshold=(threshold, 0, 1),
        cooldown=(cooldown, 0, np.inf),
        lowest=(lowest, 0, 1),
    )
    begin, improvement = _improvement(metric, threshold)

    def look(seen: Seen, metrics: dict[str, float]) -> Seen:
        best, since = improvement(seen, metrics).values()
        rest, share = int(seen["cooldown"]), float(seen["factor"])
        if rest:
            since, rest = 0, rest - 1
        if since > patience:
            since, rest, share = 0, cooldown, max(share * factor, lowest)
        return {"best": best, "since": np.int32(since), "cooldown": np.int32(rest), "factor": np.float32(share)}

    return Monitor({**begin, "cooldown": np.int32(0), "factor": np.float32(1)}, look)


def early_stop(patience: int = 10, metric: str = "loss", threshold: float = 0.0) -> Monitor:
    """Ends the run at the evaluation that is the `patience`-th in a row without improvement (Prechelt 1998)."""
    _check("early_stop", patience=(patience, 1, np.inf), threshold=(threshold, 0, 1))
    begin, improvement = _improvement(metric, threshold)

    def look(seen: Seen, metrics: dict[str, float]) -> Seen:
        seen = improvement(seen, metrics)
        return {**seen, "stop": np.bool_(seen["since"] >= patience)}

    return Monitor({**begin, "stop": np.bool_(False)}, look)
