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
from cnnjax.spec import Fraction, NonNegative, Positive, PositiveFraction

ToSteps = Callable[[str], int]


def _with_warmup(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """Multiplies a schedule by a linear ramp from 1 / `warmup`, at step 0, to 1, at step `warmup` - 1 and later."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def constant(steps: ToSteps, warmup: str = "0 steps") -> optax.Schedule:
    """Keeps the peak learning rate: returns 1.0 at every step after a linear warm-up of the duration `warmup`.

    `steps` converts a duration such as '5 epochs' to a number of steps.
    """
    return _with_warmup(optax.constant_schedule(1.0), steps(warmup))


def piecewise(steps: ToSteps, at: Sequence[str], factor: Positive = 0.1, warmup: str = "0 steps") -> optax.Schedule:
    """Step decay: returns a multiplier of the peak learning rate, 1.0 at first, times `factor` at each time in `at`.

    Example: piecewise(("32000 steps", "75%")). These durations count from step 0, the warm-up included. `warmup` is the
    duration of a linear warm-up. `steps` converts a duration to a number of steps.
    """
    boundaries: dict[int, float] = {}
    for step in map(steps, (at,) if isinstance(at, str) else at):
        boundaries[step] = boundaries.get(step, 1.0) * factor  # two may round to the same step
    return _with_warmup(optax.piecewise_constant_schedule(1.0, boundaries), steps(warmup))


def exponential(
    steps: ToSteps,
    factor: PositiveFraction = 0.94,
    every: str = "2 epochs",
    staircase: bool = True,
    warmup: str = "0 steps",
) -> optax.Schedule:
    """Exponential decay: returns a multiplier of the peak learning rate, factor ** (step / period).

    The period is the duration `every`. With `staircase` the exponent is rounded down, so that the rate falls in jumps.
    The decay counts from step 0; a linear warm-up of the duration `warmup` multiplies it. `steps` converts a duration
    to a number of steps. The defaults are TF-Slim's for the Inception networks.
    """
    if not (period := steps(every)):
        raise InputError(f"exponential: every = {every!r}: expected a duration of more than 0")
    return _with_warmup(optax.exponential_decay(1.0, period, factor, staircase=staircase), steps(warmup))


def cosine(steps: ToSteps, total: int, warmup: str = "0 steps", final: Fraction = 0.0) -> optax.Schedule:
    """Cosine decay: returns a multiplier of the peak learning rate, from 1.0 after the warm-up to `final` at the end.

    Loshchilov & Hutter 2017 (SGDR), arXiv:1608.03983, eq. 5, without restarts. The linear warm-up has the duration
    `warmup`. `total` is the number of steps of the training; `steps` converts a duration to a number of steps.
    """
    start = steps(warmup)
    decay = optax.cosine_decay_schedule(1.0, max(total - start, 1), final)
    return _with_warmup(lambda step: decay(jnp.maximum(step - start, 0)), start)


def polynomial(steps: ToSteps, total: int, power: NonNegative = 2.0, warmup: str = "0 steps") -> optax.Schedule:
    """Polynomial decay: returns a multiplier of the peak learning rate, (remaining fraction of the training) ** power.

    This is Caffe's 'poly' policy. The decay starts after a linear warm-up of the duration `warmup`. `total` is the
    number of steps of the training; `steps` converts a duration to a number of steps.
    """
    start = steps(warmup)
    return _with_warmup(optax.polynomial_schedule(1.0, 0.0, power, max(total - start, 1), start), start)


def one_cycle(
    total: int, steps: ToSteps, peak: str = "30%", start: Fraction = 0.04, final: Fraction = 0.0
) -> optax.Schedule:
    """One-cycle schedule: returns a multiplier of the peak learning rate, linear from `start` to 1.0, then to `final`.

    Smith & Topin 2019 (Super-Convergence), arXiv:1708.07120. The maximum is at the duration `peak` after step 0.
    `total` is the number of steps of the training; `steps` converts a duration to a number of steps.
    """
    top = max(steps(peak), 1)
    if top >= total:
        raise InputError(f"one_cycle: its peak at {peak!r} (step {top}) is not before the end (step {total})")
    up, down = optax.linear_schedule(start, 1.0, top), optax.linear_schedule(1.0, final, total - top)
    return optax.join_schedules([up, down], [top])


@dataclasses.dataclass(frozen=True)
class Plateau:
    """A schedule together with a monitor of a validation metric that lowers it.

    Calling it returns `schedule(step)` without the monitor's factor: the training step multiplies by that
    (`optim.scaled_schedule`).
    """

    schedule: optax.Schedule
    monitor: monitors.Monitor

    def __call__(self, step: jax.Array) -> jax.Array:
        return jnp.asarray(self.schedule(step))


def plateau(
    steps: ToSteps,
    factor: Fraction = 0.1,
    patience: monitors.Evaluations = 10,
    threshold: Fraction = 1e-4,
    cooldown: monitors.Evaluations = 0,
    lowest: Fraction = 0.0,
    metric: str = "accuracy",
    warmup: str = "0 steps",
) -> Plateau:
    """Constant rate after a linear warm-up, multiplied by `factor` whenever a validation metric stops improving.

    `warmup` is the duration of the warm-up; `steps` converts a duration to a number of steps. The other arguments are
    those of `monitors.plateau`.
    """
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
