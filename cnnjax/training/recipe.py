"""A config with every call string parsed: the first stage of a training (recipe -> setup -> state -> step -> loop)."""

import copy
import dataclasses

from cnnjax import config as configs
from cnnjax import optim, spec
from cnnjax.config import Config, parse_duration
from cnnjax.data.operations import Operations, parse_operations, required_statistics
from cnnjax.errors import InputError
from cnnjax.evaluation.recipe import EvalRecipe, parse_eval_recipe
from cnnjax.models import create_model
from cnnjax.training import distill

DURATIONS = ("duration", "log_every", "eval_every", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training, parsed and checked. Making one reads nothing from the disk."""

    config: Config  # a copy of its own, for plain values
    operations: Operations  # of config.augment
    normalization: spec.Call
    statistics: frozenset[str]  # of the training split that these need, beside mean and std
    loss: spec.Call
    optim: optim.OptimRecipe
    distill: distill.DistillConfig | None
    evaluation: EvalRecipe


def parse_recipe(config: Config) -> Recipe:
    """Parses and checks a config. Raises InputError for a value, a name or an argument that does not exist."""
    config = configs.check(copy.copy(config))
    create_model(config.model, 10, config.dtype)
    evaluation = parse_eval_recipe(config)
    operations, normalization = parse_operations(config.augment), evaluation.normalization
    for name in DURATIONS:
        if not parse_duration(getattr(config, name), epoch=1000, total=1_000_000):
            raise InputError(f"config.{name} = {getattr(config, name)!r}: expected more than 0")
    if config.init_partial and not config.init:
        raise InputError("config.init_partial = True: there is nothing to initialize from; give config.init")
    return Recipe(
        config=config,
        operations=operations,
        normalization=normalization,
        statistics=frozenset(required_statistics(operations, evaluation.operations, normalization=normalization)),
        loss=evaluation.loss,
        optim=optim.parse(config),
        distill=distill.parse(config.distill) if config.distill else None,
        evaluation=evaluation,
    )
