"""Schedules: functions of `steps`, which converts a duration to steps, and of `total`, the steps of the training.

Each returns the share of the peak rate, from 0 to 1, as a function of the step.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnnjax.errors import InputError
from cnnjax.optim import monitors

Steps = Callable[[str], int]


def _with_warmup(schedule: optax.Schedule, warmup: int) -> optax.Schedule:
    """Rises linearly to the schedule's own value over the first `warmup` steps, the first of which is not idle."""
    return lambda step: schedule(step) * jnp.minimum(1.0, (step + 1) / max(warmup, 1))


def constant(steps: Steps, warmup: str = "0 steps") -> optax.Schedule:
    """The peak throughout."""
    return _with_warmup(optax.constant_schedule(1.0), steps(warmup))


def piecewise(steps: Steps, at: Sequence[str], factor: float = 0.1, warmup: str = "0 steps") -> optax.Schedule:
    """Times `factor` at each of the durations `at`, counted from the start: piecewise(("32000 steps", "75%"))."""
    boundaries: dict[int, float] = {}
    for step in map(steps, (at,) if isinstance(at, str) else at):
        boundaries[step] = boundaries.get(step, 1.0) * factor  # two may round to the same step
    return _with_warmup(optax.piecewise_constant_schedule(1.0, boundaries), steps(warmup))


def exponential(
    steps: Steps, factor: float = 0.94, every: str = "2 epochs", staircase: bool = True, warmup: str = "0 steps"
) -> optax.Schedule:
    """Times `factor` after each duration `every` from the start, at once or, without `staircase`, little by little.

    TF-Slim's of the Inception networks, as it stands.
    """
    if not (0 < factor <= 1 and (period := steps(every))):
        raise InputError(
            f"exponential: factor = {factor!r}, every = {every!r}: expected a factor above 0, up to 1, and a duration"
        )
    return _with_warmup(optax.exponential_decay(1.0, period, factor, staircase=staircase), steps(warmup))


def cosine(steps: Steps, total: int, warmup: str = "0 steps", final: float = 0.0) -> optax.Schedule:
    """Half a cosine from the end of the warm-up to the end of the training (Loshchilov & Hutter 2017)."""
    start = steps(warmup)
    decay = optax.cosine_decay_schedule(1.0, max(total - start, 1), final)
    return _with_warmup(lambda step: decay(jnp.maximum(step - start, 0)), start)


def polynomial(steps: Steps, total: int, power: float = 2.0, warmup: str = "0 steps") -> optax.Schedule:
    """A power of what is left of the training, from the end of the warm-up to 0: Caffe's 'poly'."""
    start = steps(warmup)
    return _with_warmup(optax.polynomial_schedule(1.0, 0.0, power, max(total - start, 1), start), start)


def one_cycle(total: int, steps: Steps, peak: str = "30%", start: float = 0.04, final: float = 0.0) -> optax.Schedule:
    """Linearly up from `start` to the peak, and linearly down to `final` (Smith & Topin 2019)."""
    top = max(steps(peak), 1)
    if top >= total:
        raise InputError(f"one_cycle: its peak at {peak!r} (step {top}) is not before the end (step {total})")
    up, down = optax.linear_schedule(start, 1.0, top), optax.linear_schedule(1.0, final, total - top)
    return optax.join_schedules([up, down], [top])


class Plateau(NamedTuple):
    """A schedule, and what lowers its rate: the step multiplies it by the factor that the watch keeps in the state."""

    share: optax.Schedule
    watch: monitors.Monitor

    def __call__(self, step: jax.Array) -> jax.Array:
        return jnp.asarray(self.share(step))


def plateau(
    steps: Steps,
    factor: float = 0.1,
    patience: int = 10,
    threshold: float = 1e-4,
    cooldown: int = 0,
    lowest: float = 0.0,
    metric: str = "accuracy",
    warmup: str = "0 steps",
) -> Plateau:
    """The peak, times `factor` whenever a metric of the validation split has stopped improving: `watch.plateau`."""
    return Plateau(constant(steps, warmup), monitors.plateau(factor, patience, threshold, cooldown, lowest, metric))


SCHEDULES = {
    "constant": constant,
    "piecewise": piecewise,
    "exponential": exponential,
    "cosine": cosine,
    "polynomial": polynomial,
    "one_cycle": one_cycle,
    "plateau": plateau,
}
