"""From call strings to one optax transformation: gradient clipping, weight decay, optimizer, learning-rate schedule.

Optimizers and their wrappers are in `optimizers`, schedules in `schedules`, what follows validation metrics in
`monitors`, frozen parameters in `freezing`.
"""

import dataclasses
import inspect
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import spec
from cnnjax.config import Config, to_steps
from cnnjax.errors import InputError
from cnnjax.optim.freezing import Freezing, parse_freezing
from cnnjax.optim.masks import LrFactors, compile_pattern, lr_factor_tree, parse_lr_factors, path_mask
from cnnjax.optim.monitors import Monitor, MonitorState, parse_early_stop
from cnnjax.optim.optimizers import OPTIMIZERS, WRAPPERS, eval_params
from cnnjax.optim.schedules import SCHEDULES
from cnnjax.state import Tree

__all__ = ["OPTIMIZERS", "SCHEDULES", "WRAPPERS", "eval_params", "parse_lr_factors", "path_mask"]  # and what is below


def parse_optimizer(text: str) -> tuple[spec.Call, ...]:
    """Parses 'OPTIMIZER' or 'OPTIMIZER|WRAPPER', such as 'sgd(momentum=0.9)|lookahead', and checks the arguments.

    Returns one call (the optimizer) or two (the optimizer, then its wrapper). Raises InputError for an unknown name or
    argument, for several wrappers, and for schedule_free around an optimizer with momentum or b1 other than 0.
    """
    calls = spec.parse_pipeline(text) or [spec.parse(text)]
    if len(calls) > 2:
        raise InputError(f"config.optimizer = {text!r}: expected an optimizer and one wrapper at most")
    optimizer, wrappers = calls[0], calls[1:]
    rule = spec.find("optimizer", optimizer, OPTIMIZERS, weight_decay=optax.identity())
    for call in wrappers:
        spec.find("wrapper", call, WRAPPERS, inner=rule(), rate=optax.constant_schedule(1.0))()
    if any(call.name == "schedule_free" for call in wrappers):
        bound = inspect.signature(rule.func).bind(*rule.args, **rule.keywords)
        bound.apply_defaults()
        for name in ("momentum", "sgd_momentum", "b1"):
            if bound.arguments.get(name):
                raise InputError(f"schedule_free replaces momentum: use {optimizer.name}({name}=0.0)")
    return tuple(calls)


def _clip_norm(max_norm: float, unfreeze: bool) -> optax.GradientTransformation:
    """Builds the transformation that limits the global norm of the gradient; with `unfreeze`, that of what is trained.

    Gradients of still frozen parameters, which moments see, are limited together with all others.
    """
    clip = optax.clip_by_global_norm(max_norm)

    def update(updates: Tree, state: Any, params: Tree = None, *, is_unfrozen: Tree = None, **extra: Any) -> Any:
        trained, _ = clip.update(zero_where_frozen(updates, is_unfrozen), state)
        together, _ = clip.update(updates, state)
        return jax.tree.map(jnp.where, is_unfrozen, trained, together), state

    return optax.GradientTransformationExtraArgs(clip.init, update) if unfreeze else clip


def _weight_decay(
    weight_decay: float, mask: re.Pattern[str], factors: Tree, params: Tree
) -> optax.GradientTransformation:
    """Builds the transformation that adds (weight_decay / factor) * parameter to the update of each parameter.

    Later, the update is multiplied by the parameter's learning-rate factor, which cancels the division. Nothing is
    added where the path does not match `mask` or the factor is 0. `factors` is a tree of floats like `params`.
    """
    rates = jax.tree.map(
        lambda hit, factor: weight_decay / factor if hit and factor else 0.0, path_mask(mask, params), factors
    )

    def add_decay(update: jax.Array, p: jax.Array, rate: float) -> jax.Array:
        return update + rate * p if rate else update

    return optax.stateless(lambda updates, params: jax.tree.map(add_decay, updates, params, rates))


def zero_where_frozen(updates: Tree, is_unfrozen: Tree) -> Tree:
    """Replaces the update or gradient of each parameter by zeros where `is_unfrozen`, a tree like it, is False."""
    return jax.tree.map(lambda update, unfrozen: jnp.where(unfrozen, update, 0.0), updates, is_unfrozen)


def _hold_frozen(
    updates: Tree, state: Tree, params: Tree = None, *, is_unfrozen: Tree = None, **extra: Any
) -> tuple[Tree, Tree]:
    """Does the same as `zero_where_frozen`, as an optax `update` function."""
    return zero_where_frozen(updates, is_unfrozen), state


def _holding_frozen(wrapped: optax.GradientTransformationExtraArgs) -> optax.GradientTransformationExtraArgs:
    """Returns a wrapped rule whose updates are 0 for frozen parameters: schedule_free would change their last bits."""

    def update(updates: Tree, state: Any, params: Tree = None, *, is_unfrozen: Tree = None, **extra: Any) -> Any:
        updates, state = wrapped.update(updates, state, params, is_unfrozen=is_unfrozen, **extra)
        return zero_where_frozen(updates, is_unfrozen), state

    return optax.GradientTransformationExtraArgs(wrapped.init, update)


def sam_perturb(params: Tree, grads: Tree, radius: float) -> Tree:
    """Moves the parameters by the distance `radius` (L2 norm) along the gradient, which increases the loss.

    This is the perturbation of SAM (Foret et al. 2021, arXiv:2010.01412, eq. 2). `grads` is the gradient of the global
    batch.
    """
    scale = radius / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)


# -------------------------------------------------------------------------------------------- schedules and monitors


def parse_schedule(text: str) -> spec.Call:
    """Parses a schedule's call string, such as 'cosine(warmup="5 epochs")', and checks its name and arguments.

    Raises InputError for an unknown name or argument.
    """
    call = spec.parse(text)
    _relative_rate(call, epoch=1000, total=1_000_000)
    return call


def _relative_rate(call: spec.Call, *, epoch: float, total: int) -> optax.Schedule:
    """Builds the schedule that `call` names: a function of the step that returns a multiplier of the peak rate.

    `epoch` is the number of steps per epoch, `total` the number of steps of the whole training.
    """

    def steps(duration: str) -> int:
        return to_steps(duration, epoch=epoch, total=total)

    return spec.find("schedule", call, SCHEDULES, steps=steps, total=total)()


def scaled_schedule(schedule: optax.Schedule, states: Mapping[str, MonitorState]) -> optax.Schedule:
    """Multiplies `schedule` by the current factor of the plateau monitor, states["plateau"]["factor"].

    Without a plateau monitor, returns `schedule` unchanged.
    """
    if "plateau" not in states:
        return schedule
    return lambda step: states["plateau"]["factor"] * schedule(step)


def build_monitors(schedule: spec.Call, early_stop: str) -> dict[str, Monitor]:
    """Builds the monitors of a training by name: 'plateau' and 'early_stop', either, or none.

    'plateau' exists if that is the schedule's name, 'early_stop' if its call string is not ''.
    """
    monitors: dict[str, Monitor] = {}
    if schedule.name == "plateau":
        monitors["plateau"] = spec.find("schedule", schedule, SCHEDULES, steps=lambda _: 0)().monitor
    if early_stop:
        monitors["early_stop"] = parse_early_stop(early_stop)
    return monitors


def init_monitors(monitors: Mapping[str, Monitor]) -> dict[str, MonitorState]:
    """Returns the initial state of each monitor by name, for a new `TrainState.monitors`."""
    return {name: monitor.init for name, monitor in monitors.items()}


def update_monitors(
    monitors: Mapping[str, Monitor], states: Mapping[str, MonitorState], metrics: Mapping[str, float]
) -> dict[str, MonitorState]:
    """Returns the new state of each monitor by name, after an evaluation with these mean validation metrics."""
    return {name: monitor.update(states[name], metrics) for name, monitor in monitors.items()}


def stop_reason(early_stop: str, states: Mapping[str, MonitorState]) -> str:
    """Returns a message that says why early stopping ends the training, or '' if it goes on.

    `early_stop` is the call string of the config, which the message repeats. `states` are the states of the monitors.
    """
    state = states.get("early_stop")
    if state is None or not state["stop"]:
        return ""
    return f"{early_stop}: no evaluation of the last {state['since']} was better than {np.float32(state['best']):.6g}"


# ------------------------------------------------------------------------------------------------- from a whole config


@dataclasses.dataclass(frozen=True)
class OptimRecipe:
    """The optimizer, learning rate and frozen parameters of a config, parsed.

    Attributes:
      optimizer: the optimizer, then its wrapper if there is one.
      schedule: the learning-rate schedule, relative to `lr`.
      lr: peak learning rate.
      weight_decay: coefficient of the decay; 0 for none.
      decay_mask: pattern on parameter paths: which decay.
      lr_factors: factors of the learning rate by parameter path.
      grad_clip_norm: largest global norm of the gradient; 0 for no clipping.
      ema: decay of the moving average of the weights; 0 for none.
      monitors: monitors of validation metrics by name: 'plateau', 'early_stop'.
      early_stop: call string of the early stopping, for messages; '' for none.
      freezing: parameters that are not trained, or not from the start.
    """

    optimizer: tuple[spec.Call, ...]
    schedule: spec.Call
    lr: float
    weight_decay: float
    decay_mask: re.Pattern[str]
    lr_factors: LrFactors
    grad_clip_norm: float
    ema: float
    monitors: Mapping[str, Monitor]
    early_stop: str
    freezing: Freezing

    @property
    def keeps_average(self) -> bool:
        """Returns whether evaluation uses averaged parameters (`TrainState.ema`): with `ema` or with a wrapper."""
        return bool(self.ema) or len(self.optimizer) > 1


def parse(config: Config) -> OptimRecipe:
    """Parses and checks the fields of a config about the optimizer, schedule, early stopping and frozen parameters.

    Raises InputError for an unknown name or argument, and for fields that exclude each other.
    """
    optimizer, schedule = parse_optimizer(config.optimizer), parse_schedule(config.schedule)
    monitors = build_monitors(schedule, config.early_stop)
    is_lbfgs = optimizer[0].name == "lbfgs"
    if config.sam_rho and is_lbfgs:
        raise InputError("config.sam_rho does not work with lbfgs, whose line search uses the unperturbed loss")
    if config.unfreeze and is_lbfgs:
        raise InputError("config.unfreeze does not work with lbfgs, whose line search moves all parameters")
    if config.ema and any(call.name == "schedule_free" for call in optimizer[1:]):
        raise InputError(f"config.ema = {config.ema!r}: schedule_free has an average of its own; use 0")
    return OptimRecipe(
        optimizer=optimizer,
        schedule=schedule,
        lr=config.lr,
        weight_decay=config.weight_decay,
        decay_mask=compile_pattern(config.decay_mask),
        lr_factors=parse_lr_factors(config.lr_factors),
        grad_clip_norm=config.grad_clip_norm,
        ema=config.ema,
        monitors=monitors,
        early_stop=config.early_stop,
        freezing=parse_freezing(config.freeze, config.unfreeze, config.freeze_stats),
    )


def build_schedule(recipe: OptimRecipe, epoch: float, total: int) -> optax.Schedule:
    """Builds the absolute learning rate as a function of the step: the peak rate times the schedule's multiplier.

    `epoch` is the number of steps per epoch, `total` the number of steps of the whole training.
    """
    multiplier = _relative_rate(recipe.schedule, epoch=epoch, total=total)
    return lambda step: recipe.lr * multiplier(step)


def build(recipe: OptimRecipe, params: Tree, schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """Builds the complete optax update rule: clipping, optimizer, learning rate, per-parameter factors, wrapper.

    Args:
      recipe: the settings.
      params: the trained parameters, or their shapes.
      schedule: the learning rate, absolute, as a function of the step.

    Returns:
      An optax transformation. Its `update` also takes `value_fn`, the loss of the batch as a function of the
      parameters, which only lbfgs uses. If some parameters are frozen until a later step, it needs `is_unfrozen` too, a
      tree of booleans like `params`: parameters where it is False do not change.

    Raises:
      InputError: a pattern that matches no parameter.
    """
    factors, unfreeze = lr_factor_tree(recipe.lr_factors, params), bool(recipe.freezing.unfreeze)
    clip = _clip_norm(recipe.grad_clip_norm, unfreeze) if recipe.grad_clip_norm else optax.identity()
    decay = optax.identity()
    if recipe.weight_decay:
        decay = _weight_decay(recipe.weight_decay, recipe.decay_mask, factors, params)
    optimizer, *wrappers = recipe.optimizer
    rules = [clip, spec.find("optimizer", optimizer, OPTIMIZERS, weight_decay=decay)()]
    rules.append(optax.scale_by_learning_rate(schedule))
    if recipe.lr_factors:  # last, so that the optimizer's state is at the same paths with and without
        rules.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    if unfreeze:
        rules.append(optax.GradientTransformationExtraArgs(optax.init_empty_state, _hold_frozen))
    rule = optax.with_extra_args_support(optax.chain(*rules))
    for call in wrappers:
        rule = spec.find("wrapper", call, WRAPPERS, inner=rule, rate=schedule)()
        rule = _holding_frozen(rule) if unfreeze else rule
    return rule
