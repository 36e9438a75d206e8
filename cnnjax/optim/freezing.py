"""What of a network is not trained, for good or until its time, and what its normalisations do meanwhile.

A frozen parameter has no gradient, and so no backward pass where only frozen ones are before it; no state of the
optimiser, no weight decay, no average. A checkpoint has it like any other.
"""

import contextlib
import math
import re
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax.config import Config, to_steps
from cnnjax.errors import InputError
from cnnjax.models.normalization import BatchNorm
from cnnjax.optim.masks import compiled
from cnnjax.state import Tree, path_name

NAMED = 4  # parameters in an error about a pattern


def check(config: Config) -> None:
    """Raises InputError for what of `freeze` and `unfreeze` has not its form, or is of no use."""
    compiled(config.freeze)
    _times(config, epoch=1000, total=1_000_000)
    for name, none in (("unfreeze", ""), ("freeze_stats", True)):
        if (value := getattr(config, name)) != none and not config.freeze:
            raise InputError(f"config.{name} = {value!r}: nothing is frozen; give config.freeze")
    if config.unfreeze and config.optimizer.startswith("lbfgs"):
        raise InputError("config.unfreeze goes with any optimizer but lbfgs, whose line search is along all parameters")


def trainable(config: Config, params: Tree) -> Tree:
    """The parameters that are trained, at once or later, as a tree of their own; `params` may be shapes.

    Raises InputError for a pattern that matches no parameter, and when all are frozen.
    """
    if not config.freeze:
        return params
    for_good = _frozen(config, params) - unfreeze_steps(config, params, epoch=1, total=1).keys()
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({name: leaf for name, leaf in flat.items() if name not in for_good}, sep="/")


def unfreeze_steps(config: Config, params: Tree, *, epoch: float, total: int) -> dict[str, int]:
    """How many steps each parameter that `config.unfreeze` matches waits, by path: the fewest that it says.

    `epoch`: steps per epoch; `total`: steps of the training. Raises InputError for a pattern without a frozen one.
    """
    frozen, found = _frozen(config, params) if config.unfreeze else set(), {}
    for pattern, steps in _times(config, epoch, total):
        hits = {name for name in frozen if re.search(pattern, name)}
        if not hits:
            raise InputError(f"config.unfreeze: {pattern!r} matches no frozen parameter; {_some(frozen)}")
        found |= {name: min(steps, found.get(name, steps)) for name in hits}
    return found


def is_unfrozen(params: Tree, waits: Mapping[str, int], step: jax.Array) -> Tree:
    """For each parameter whether its time has come, after so many steps."""
    return jax.tree_util.tree_map_with_path(lambda path, _: step >= waits.get(path_name(path), 0), params)


def freeze_batch_stats(
    config: Config, params: Tree, waits: Mapping[str, int], step: jax.Array
) -> contextlib.AbstractContextManager[Any]:
    """Freezes, as a context, the running statistics of BatchNorm layers whose parameters are frozen.

    A BatchNorm stays frozen until its first parameter is unfrozen; then it uses batch statistics again, because the
    running ones no longer match the trained features.
    """
    if not (config.freeze and config.freeze_stats):
        return contextlib.nullcontext()
    frozen, begins = _frozen(config, params), {}
    for name in flatten_dict(params, sep="/"):
        layer = name.rpartition("/")[0]
        begins[layer] = min(begins.get(layer, math.inf), waits.get(name, math.inf if name in frozen else 0))

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        begin = begins.get("/".join(module.path), math.inf)
        if not isinstance(module, BatchNorm) or context.method_name != "__call__" or begin == 0:
            return call(*args, **kwargs)
        rests = True if begin == math.inf else step < begin
        return call(*args, **{**kwargs, "use_running_average": rests})

    return nn.intercept_methods(intercept)


def _frozen(config: Config, params: Tree) -> set[str]:
    """The paths that `config.freeze` matches. Raises InputError when these are none, or all."""
    names = sorted(flatten_dict(params, sep="/"))
    found = {name for name in names if compiled(config.freeze).search(name)}
    if not found:
        raise InputError(f"config.freeze = {config.freeze!r} matches no parameter; {_some(names)}")
    if len(found) == len(names):
        raise InputError(f"config.freeze = {config.freeze!r} leaves no parameter to train; {_some(names)}")
    return found


def _times(config: Config, epoch: float, total: int) -> list[tuple[str, int]]:
    """Pattern and steps of each part of `config.unfreeze`, which begin at words with a colon."""
    found = []
    for part in re.split(r"\s+(?=\S*:)", config.unfreeze.strip()) if config.unfreeze.strip() else []:
        pattern, colon, duration = part.rpartition(":")
        if not (pattern and colon):
            raise InputError(f"config.unfreeze: {part!r}: expected PATTERN:DURATION, as in '^stage3:2 epochs'")
        found.append((compiled(pattern).pattern, to_steps(duration, epoch=epoch, total=total)))
    return found


def _some(names: Any) -> str:
    """Paths from all of a network, for an error: the first ones and the last."""
    names = sorted(names)
    shown = names if len(names) <= NAMED else [*names[: NAMED - 1], "...", names[-1]]
    return f"there are {', '.join(shown)}"
