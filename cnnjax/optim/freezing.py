"""Frozen parameters: permanently (`freeze`) or until a step (`unfreeze`), and how their BatchNorm layers behave.

A frozen parameter has no gradient, so there is no backward pass below the lowest trained layer. It has no optimizer
state, no weight decay and no average. A checkpoint holds it like any other.
"""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from cnnjax.config import to_steps
from cnnjax.errors import InputError
from cnnjax.models.normalization import BatchNorm
from cnnjax.optim.masks import compile_pattern
from cnnjax.state import Tree, path_name

MAX_NAMES_SHOWN = 4  # parameters in an error about a pattern


@dataclasses.dataclass(frozen=True)
class Freezing:
    """The config fields `freeze`, `unfreeze` and `freeze_stats`, parsed.

    Attributes:
      freeze: pattern on parameter paths: which are frozen. None: all parameters are trained.
      unfreeze: pairs of a pattern and a duration: matching frozen parameters are trained from that time on.
      freeze_stats: whether BatchNorm layers use their running statistics, and keep them, while their parameters are
        frozen.
    """

    freeze: re.Pattern[str] | None
    unfreeze: tuple[tuple[re.Pattern[str], str], ...]
    freeze_stats: bool


def parse_freezing(freeze: str, unfreeze: str, freeze_stats: bool) -> Freezing:
    """Parses the config fields `freeze`, `unfreeze` and `freeze_stats`.

    `freeze` is a regular expression on parameter paths; '' freezes nothing. `unfreeze` is 'PATTERN:DURATION
    PATTERN:DURATION ...', such as '^stage3:2 epochs ^stage2:50%'; '' unfreezes nothing. Raises InputError for another
    form, and if `unfreeze` or freeze_stats=False is given without `freeze`.
    """
    times = []
    for word in re.split(r"\s+(?=\S*:)", unfreeze.strip()) if unfreeze.strip() else []:
        pattern, colon, duration = word.rpartition(":")
        if not (pattern and colon):
            raise InputError(f"config.unfreeze: {word!r}: expected PATTERN:DURATION, as in '^stage3:2 epochs'")
        to_steps(duration, epoch=1000, total=1_000_000)
        times.append((compile_pattern(pattern), duration))
    for name, value, default in (("unfreeze", unfreeze, ""), ("freeze_stats", freeze_stats, True)):
        if value != default and not freeze:
            raise InputError(f"config.{name} = {value!r}: nothing is frozen; give config.freeze")
    return Freezing(compile_pattern(freeze) if freeze else None, tuple(times), freeze_stats)


def trainable(freezing: Freezing, params: Tree) -> Tree:
    """Returns the subtree of `params` (arrays or shapes) that is trained at some step: all but the permanently frozen.

    Parameters that `unfreeze` matches are included. Raises InputError if `freeze` or `unfreeze` has a pattern that
    matches nothing, or if `freeze` matches all parameters.
    """
    if not freezing.freeze:
        return params
    never_trained = _frozen(freezing, params) - unfreeze_steps(freezing, params, epoch=1, total=1).keys()
    flat = flatten_dict(params, sep="/")
    return unflatten_dict({name: leaf for name, leaf in flat.items() if name not in never_trained}, sep="/")


def unfreeze_steps(freezing: Freezing, params: Tree, *, epoch: float, total: int) -> dict[str, int]:
    """Returns {parameter path: first step that trains it} for the frozen parameters that `unfreeze` matches.

    If several patterns match a path, the earliest step counts. `epoch` is the number of steps per epoch, `total` the
    number of steps of the whole training. Raises InputError for a pattern that matches no frozen parameter.
    """
    frozen, steps = _frozen(freezing, params) if freezing.unfreeze else set(), {}
    for pattern, duration in freezing.unfreeze:
        matches = {name for name in frozen if pattern.search(name)}
        if not matches:
            raise InputError(f"config.unfreeze: {pattern.pattern!r} matches no frozen parameter; {_examples(frozen)}")
        step = to_steps(duration, epoch=epoch, total=total)
        steps |= {name: min(step, steps.get(name, step)) for name in matches}
    return steps


def is_unfrozen(params: Tree, unfreeze_steps: Mapping[str, int], step: jax.Array) -> Tree:
    """Returns a tree of booleans like `params`: whether each parameter is trained at `step`.

    A parameter that is not in `unfreeze_steps` counts as trained.
    """
    return jax.tree_util.tree_map_with_path(lambda path, _: step >= unfreeze_steps.get(path_name(path), 0), params)


def freeze_batch_stats(
    freezing: Freezing, params: Tree, unfreeze_steps: Mapping[str, int], step: jax.Array
) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which BatchNorm layers with frozen parameters use, and do not update, running statistics.

    The layers are those of `cnnjax.models.normalization` and of flax.linen. One without parameters of its own stays
    frozen if `freeze` would match its scale and `unfreeze` would not. From the step at which the first parameter of a
    layer is unfrozen, the layer uses batch statistics again, because the running ones no longer match the trained
    features. The context changes nothing without `freeze` or with freeze_stats=False. `params` are all parameters;
    `unfreeze_steps` is the result of the function of this name.
    """
    if not (freezing.freeze and freezing.freeze_stats):
        return contextlib.nullcontext()
    frozen, layer_steps = _frozen(freezing, params), {}
    for name in flatten_dict(params, sep="/"):
        layer = name.rpartition("/")[0]
        first = unfreeze_steps.get(name, math.inf if name in frozen else 0)
        layer_steps[layer] = min(layer_steps.get(layer, math.inf), first)

    def first_step(layer: str) -> float:
        """Returns the step from which a layer uses batch statistics."""
        patterns = freezing.freeze, *(pattern for pattern, _ in freezing.unfreeze)
        matches = [bool(pattern and pattern.search(f"{layer}/scale")) for pattern in patterns]
        return layer_steps.get(layer, math.inf if matches[0] and not any(matches[1:]) else 0)

    def intercept(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        is_norm = isinstance(module, BatchNorm | nn.BatchNorm) and context.method_name == "__call__" and module.path
        first = first_step("/".join(module.path)) if is_norm else 0
        if first == 0:
            return call(*args, **kwargs)
        use_running_average = True if first == math.inf else step < first
        if isinstance(module, nn.BatchNorm):
            return _call_frozen(module, call, args, kwargs, use_running_average)
        return call(*args, **{**kwargs, "use_running_average": use_running_average})

    return nn.intercept_methods(intercept)


def _call_frozen(module: nn.BatchNorm, call: Any, args: Any, kwargs: Any, is_frozen: bool | jax.Array) -> Any:
    """Calls a BatchNorm of flax; where `is_frozen`, which may be traced, it uses and keeps its running statistics.

    `call`, `args` and `kwargs` are those of its method. The layer itself takes no traced `use_running_average`.
    """
    variables = module.variables
    frozen = module.clone(parent=None, use_running_average=True)
    frozen_kwargs = {name: value for name, value in kwargs.items() if name != "use_running_average"}
    by_average: Any = frozen.apply(variables, *args[:1], **frozen_kwargs)
    if is_frozen is True:
        return by_average
    statistics = dict(variables["batch_stats"])  # a copy: the call updates those of the layer in place
    by_batch = call(*args, **kwargs)
    for name, old in statistics.items():
        module.put_variable("batch_stats", name, jnp.where(is_frozen, old, module.get_variable("batch_stats", name)))
    return jnp.where(is_frozen, by_average, by_batch)


def _frozen(freezing: Freezing, params: Tree) -> set[str]:
    """Returns the paths that `freeze` matches, whether or not they are unfrozen later.

    Raises InputError if `freeze` matches no parameter or all of them.
    """
    names, pattern = sorted(flatten_dict(params, sep="/")), freezing.freeze or re.compile("(?!)")
    frozen = {name for name in names if pattern.search(name)}
    if not frozen:
        raise InputError(f"config.freeze = {pattern.pattern!r} matches no parameter; {_examples(names)}")
    if len(frozen) == len(names):
        raise InputError(f"config.freeze = {pattern.pattern!r} leaves no parameter to train; {_examples(names)}")
    return frozen


def _examples(names: Iterable[str]) -> str:
    """Returns 'there are a, b, ..., z' with at most MAX_NAMES_SHOWN entries, for an error message."""
    names = sorted(names)
    shown = names if len(names) <= MAX_NAMES_SHOWN else [*names[: MAX_NAMES_SHOWN - 1], "...", names[-1]]
    return f"there are {', '.join(shown)}"
