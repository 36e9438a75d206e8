"""From a config to one optax transformation: clipping, weight decay, the optimiser, the learning rate's schedule.

Optimisers and wrappers are in `optimizers`, schedules in `schedules`, what follows the validation metrics in `watch`.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnnjax import spec
from cnnjax.config import Config, to_steps
from cnnjax.errors import InputError
from cnnjax.optim.masks import matching, rate_factors
from cnnjax.optim.monitors import Monitor, Seen, early_stop
from cnnjax.optim.optimizers import OPTIMIZERS, WRAPPERS, eval_params
from cnnjax.optim.schedules import SCHEDULES
from cnnjax.state import Tree

__all__ = ["OPTIMIZERS", "SCHEDULES", "WRAPPERS", "eval_params", "matching", "rate_factors"]  # and what is below


def _calls(config: Config) -> list[spec.Call]:
    """The optimiser, and what is around it: at most one wrapper, for two would average one another's averages."""
    calls = spec.parse_pipeline(config.optimizer) or [spec.parse(config.optimizer)]
    if len(calls) > 2:
        raise InputError(f"config.optimizer = {config.optimizer!r}: expected an optimizer and one wrapper at most")
    return calls


def keeps_average(config: Config) -> bool:
    """Whether a run evaluates an average, `TrainState.ema`, in place of its parameters."""
    return bool(config.ema) or len(_calls(config)) > 1


def check(config: Config) -> None:
    """Raises InputError for what of a config's optimiser, schedule and watches does not exist or go together."""
    first, *wrappers = _calls(config)
    rule = spec.find("optimizer", first, OPTIMIZERS, weight_decay=optax.identity())
    for call in wrappers:
        spec.find("wrapper", call, WRAPPERS, inner=rule(), rate=optax.constant_schedule(1.0))()
    build_schedule(config, epoch=1000, total=1_000_000)
    if (found := monitors_of(config)) and not (config.val_split or config.fold):
        raise InputError(
            f"{next(iter(found))} watches the validation split: give config.val_split, as in 'train[90%:]'"
        )
    if config.sam_rho and first.name == "lbfgs":
        raise InputError(
            "config.sam_rho goes with any optimizer but lbfgs, whose line search is on the loss where it is"
        )
    if any(call.name == "schedule_free" for call in wrappers):
        if config.ema:
            raise InputError(f"config.ema = {config.ema!r}: schedule_free has an average of its own; use 0")
        bound = inspect.signature(rule.func).bind(*rule.args, **rule.keywords)
        bound.apply_defaults()
        for name in ("momentum", "b1"):
            if bound.arguments.get(name):
                raise InputError(f"schedule_free takes the place of momentum: use {first.name}({name}=0.0)")


def build_schedule(config: Config, epoch: float, total: int) -> optax.Schedule:
    """The learning rate as a function of the step. `epoch`: steps per epoch; `total`: steps of the training."""

    def steps(duration: str) -> int:
        return to_steps(duration, epoch=epoch, total=total)

    share = spec.build("schedule", config.schedule, SCHEDULES, steps=steps, total=total)
    return lambda step: config.lr * share(step)


def build(config: Config, params: Tree, schedule: optax.Schedule) -> optax.GradientTransformationExtraArgs:
    """The whole update rule of a config; `params` may be shapes. Raises InputError for what does not exist.

    Its update takes `value_fn`, the loss of the batch as a function of the parameters, beside what optax's take; and
    where the config unfreezes, `awake`, for each parameter whether its time has come. Until then its rate is 0.
    """
    factors = rate_factors(config.lr_factors, params)
    decay = optax.identity()
    if config.weight_decay:  # what decays loses the same share in each step, whatever its factor
        mask = matching(config.decay_mask, params)
        shares = jax.tree.map(
            lambda hit, factor: config.weight_decay / factor if hit and factor else 0.0, mask, factors
        )

        def decayed(update: jax.Array, p: jax.Array, share: float) -> jax.Array:
            return update + share * p if share else update

        decay = optax.stateless(lambda updates, params: jax.tree.map(decayed, updates, params, shares))
    clip = optax.clip_by_global_norm(config.grad_clip_norm) if config.grad_clip_norm else optax.identity()
    first, *wrappers = _calls(config)
    rules = [clip, spec.find("optimizer", first, OPTIMIZERS, weight_decay=decay)()]
    rules.append(optax.scale_by_learning_rate(schedule))
    if config.lr_factors:  # last, so that the states before it stand where they stand without
        rules.append(optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, factors)))
    if config.unfreeze:
        rules.append(optax.GradientTransformationExtraArgs(optax.init_empty_state, _held))
    rule = optax.with_extra_args_support(optax.chain(*rules))
    for call in wrappers:
        rule = spec.find("wrapper", call, WRAPPERS, inner=rule, rate=schedule)()
    return rule


def _held(updates: Tree, state: Tree, params: Tree = None, *, awake: Tree = None, **more: Any) -> tuple[Tree, Tree]:
    return jax.tree.map(lambda update, now: jnp.where(now, update, 0.0), updates, awake), state


def sam_perturb(params: Tree, grads: Tree, radius: float) -> Tree:
    """Where the loss is highest within `radius` of the parameters, to first order (SAM: Foret et al. 2021, eq. 2).

    The gradient is that of the whole batch, on all devices.
    """
    scale = radius / (optax.tree.norm(grads) + 1e-12)
    return jax.tree.map(lambda p, g: p + scale * g, params, grads)


# ------------------------------------------------------------------------------------ what follows the validation split


def monitors_of(config: Config) -> dict[str, Monitor]:
    """What watches the validation metrics of a run, by its name: 'plateau', 'early_stop'."""
    found: dict[str, Monitor] = {}
    if spec.parse(config.schedule).name == "plateau":
        found["plateau"] = spec.build("schedule", config.schedule, SCHEDULES, steps=lambda _: 0).watch
    if config.early_stop:
        found["early_stop"] = spec.build("early_stop", config.early_stop, {"early_stop": early_stop})
    return found


def init_monitors(config: Config) -> dict[str, Seen]:
    """What they have seen before the first evaluation: `TrainState.watched`."""
    return {name: watch.begin for name, watch in monitors_of(config).items()}


def update_monitors(config: Config, watched: dict[str, Seen], metrics: dict[str, float]) -> dict[str, Seen]:
    """What they have seen after an evaluation that gave these metrics."""
    return {name: watch.look(watched[name], metrics) for name, watch in monitors_of(config).items()}


def scaled_schedule(schedule: optax.Schedule, watched: dict[str, Seen]) -> optax.Schedule:
    """The schedule, times the factor of a plateau where there is one."""
    if "plateau" not in watched:
        return schedule
    return lambda step: watched["plateau"]["factor"] * schedule(step)


def stop_reason(config: Config, watched: dict[str, Seen]) -> str:
    """Why a run ends before its time; '' while it does not."""
    seen = watched.get("early_stop")
    if seen is None or not seen["stop"]:
        return ""
    return (
        f"{config.early_stop}: no evaluation of the last {seen['since']} was better than {np.float32(seen['best']):.6g}"
    )
