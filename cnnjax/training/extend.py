"""Changes the duration of an existing run: allowed if its steps so far would have been the same."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from cnnjax import config as configs
from cnnjax import optim
from cnnjax.config import is_due, parse_duration, to_steps
from cnnjax.errors import InputError
from cnnjax.optim import freezing
from cnnjax.runs import checkpoint, workdir
from cnnjax.training.setup import Setup


def check_duration(setup: Setup, folder: pathlib.Path) -> None:
    """Checks that the run in `folder` may continue with the duration of `setup`; a new run may have any.

    With the new duration from the start, the run must have done the same steps: the final parameters then are the same,
    bit for bit. Raises InputError if the learning rates so far, the steps at which layers are unfrozen or those of the
    evaluations that monitors see depend on the duration, or if more steps are done than it has.
    """
    path = folder / "config.json"
    if not path.exists() or (old := configs.load(path)).duration == setup.config.duration:
        return
    if workdir.changed_settings(folder, setup.config, configs.EXTENDABLE):
        return  # `workdir.claim` names all that differs
    done = max(checkpoint.steps(folder), default=0)
    total, old_total = setup.total_steps, to_steps(old.duration, epoch=setup.steps_per_epoch)
    change = f"config.duration = {setup.config.duration!r}: the run in {folder} had {old.duration!r}"
    if total < done:
        raise InputError(
            f"{change} and has done {done} steps, more than {total}; for a shorter run pass another --workdir"
        )
    if reason := _difference(setup, done, total, old_total):
        raise InputError(f"{change}, and {reason}. Start a new run, with --config.init={folder} to keep the weights")


def _difference(setup: Setup, done: int, total: int, old_total: int) -> str:
    """Says why the first `done` steps of a training of `total` steps are not those of one of `old_total`; '' if not."""
    recipe, epoch = setup.recipe, setup.steps_per_epoch
    steps = jnp.arange(done)
    rates = [np.asarray(jax.vmap(optim.build_schedule(recipe.optim, epoch, n))(steps)) for n in (old_total, total)]
    if changed := np.flatnonzero(rates[0] != rates[1]).tolist():
        step, name = changed[0], recipe.optim.schedule.name
        return (
            f"the schedule {name!r} depends on the duration: step {step} was taken with the learning rate "
            f"{rates[0][step]:.4g}, and needs {rates[1][step]:.4g} now"
        )
    times = [
        freezing.unfreeze_steps(recipe.optim.freezing, setup.shapes.params, epoch=epoch, total=n)
        for n in (old_total, total)
    ]
    if any(min(step, done) != min(times[1][name], done) for name, step in times[0].items()):
        return f"config.unfreeze = {setup.config.unfreeze!r} then gives other steps"
    if recipe.optim.monitors and _evaluations(setup, done, old_total) != _evaluations(setup, done, total):
        name = next(iter(recipe.optim.monitors))
        return f"{name} has seen evaluations at other steps, such as the former end"
    return ""


def _evaluations(setup: Setup, done: int, total: int) -> list[int]:
    """Returns the steps up to `done` after which a training of `total` steps evaluates."""
    period = parse_duration(setup.config.eval_every, epoch=setup.steps_per_epoch, total=total)
    return [step for step in range(1, done + 1) if is_due(step, period) or step == total]
