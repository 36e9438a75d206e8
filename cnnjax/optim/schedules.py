"""Learning-rate schedules: functions that return the fraction of the peak rate, from 0 to 1, at each step.

A schedule is given `steps`, which converts a duration such as '5 epochs' to steps, and `total`, the number of steps of
the training, where it declares them. `warmup` is a duration.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cnnjax.errors import InputError
from cnnjax.optim import monitors

ToSteps = Callable[[str], int]


def _with_warmup(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """Multiplies a schedule by a linear ramp from 1 / warmup, at step 0, to 1."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def constant(steps: ToSteps, warmup: str = "0 steps") -> optax.Schedule:
    """Keeps the peak rate."""
    return _with_warmup(optax.constant_schedule(1.0), steps(warmup))


def piecewise(steps: ToSteps, at: Sequence[str], factor: float = 0.1, warmup: str = "0 steps") -> optax.Schedule:
    """Multiplies the rate by `factor` at each of the durations `at`: piecewise(("32000 steps", "75%")).

    Durations are counted from the start of the training.
    """
    boundaries: dict[int, float] = {}
    for step in map(steps, (at,) if isinstance(at, str) else at):
        boundaries[step] = boundaries.get(step, 1.0) * factor  # two may round to the same step
    return _with_warmup(optax.piecewise_constant_schedule(1.0, boundaries), steps(warmup))


def exponential(
    steps: ToSteps, factor: float = 0.94, every: str = "2 epochs", staircase: bool = True, warmup: str = "0 steps"
) -> optax.Schedule:
    """Multiplies the rate by `factor` after each duration `every`: at once or, without `staircase`, continuously.

    The defaults are TF-Slim's for the Inception networks.
    """
    if not (0 < factor <= 1 and (period := steps(every))):
        raise InputError(
            f"exponential: factor = {factor!r}, every = {every!r}: expected a factor above 0, up to 1, and a duration"
        )
    return _with_warmup(optax.exponential_decay(1.0, period, factor, staircase=staircase), steps(warmup))


def cosine(steps: ToSteps, total: int, warmup: str = "0 steps", final: float = 0.0) -> optax.Schedule:
    """Decays along half a cosine to `final`, from the end of the warm-up to the end of the training.

    Loshchilov & Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5, without restarts.
    """
    start = steps(warmup)
    decay = optax.cosine_decay_schedule(1.0, max(total - start, 1), final)
    return _with_warmup(lambda step: decay(jnp.maximum(step - start, 0)), start)


def polynomial(steps: ToSteps, total: int, power: float = 2.0, warmup: str = "0 steps") -> optax.Schedule:
    """Decays to 0 as the remaining fraction of the training to `power`, after the warm-up: Caffe's 'poly' policy."""
    start = steps(warmup)
    return _with_warmup(optax.polynomial_schedule(1.0, 0.0, power, max(total - start, 1), start), start)


def one_cycle(total: int, steps: ToSteps, peak: str = "30%", start: float = 0.04, final: float = 0.0) -> optax.Schedule:
    """Rises linearly from `start` to 1 at the duration `peak`, then falls linearly to `final`.

    Smith & Topin 2019 (Super-Convergence), arXiv:1708.07120.
    """
    top = max(steps(peak), 1)
    if top >= total:
        raise InputError(f"one_cycle: its peak at {peak!r} (step {top}) is not before the end (step {total})")
    up, down = optax.linear_schedule(start, 1.0, top), optax.linear_schedule(1.0, final, total - top)
    return optax.join_schedules([up, down], [top])


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A schedule, and the monitor whose factor the training step multiplies it by (see `optim.scaled_schedule`)."""

    schedule: optax.Schedule
    monitor: monitors.Monitor

    def __call__(self, step: jax.Array) -> jax.Array:
        return jnp.asarray(self.schedule(step))


def plateau(
    steps: ToSteps,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    lowest: float = 0.0,
    metric: str = "accuracy",
    warmup: str = "0 steps",
) -> Plateau:
    """Keeps the peak rate, times `factor` whenever a validation metric has stopped improving: `monitors.plateau`."""
    monitor = monitors.plateau(factor, patience, threshold, cooldown, lowest, metric)
    return Plateau(constant(steps, warmup), monitor)


SCHEDULES: dict[str, Callable[..., Any]] = {
    "constant": constant,
    "piecewise": piecewise,
    "exponential": exponential,
    "cosine": cosine,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "plateau": plateau,
}
