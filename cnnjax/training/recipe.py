"""A config with every call string parsed: the first stage of a training (recipe -> setup -> state -> step -> loop)."""

import copy
import dataclasses
import inspect

from cnnjax import config as configs
from cnnjax import optim, spec
from cnnjax.config import Config, parse_duration
from cnnjax.data.operations import Operations, parse_operations, required_statistics
from cnnjax.errors import InputError
from cnnjax.evaluation.recipe import EvalRecipe, parse_eval_recipe
from cnnjax.models import MODELS, create_model
from cnnjax.training import distill

KEY_SEEDS = 2**32  # a random key keeps the low 32 bits of its seed
DURATIONS = ("duration", "log_every", "eval_every", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The parsed and checked settings of a training. Building it reads no data.

    Attributes:
      config: a private copy of the config, for its plain values.
      operations: operations of config.augment.
      normalization: the call of config.normalize.
      statistics: names of the statistics of the training split, besides mean and std, that the operations and the
        normalization need.
      loss: the call of config.loss.
      optim: optimizer, learning rate and frozen parameters.
      distill: the teacher; None without distillation.
      evaluation: how the validation and test splits are scored.
    """

    config: Config
    operations: Operations
    normalization: spec.Call
    statistics: frozenset[str]
    loss: spec.Call
    optim: optim.OptimRecipe
    distill: distill.DistillConfig | None
    evaluation: EvalRecipe


def parse_recipe(config: Config) -> Recipe:
    """Parses and checks all fields of a config, without reading data or checkpoints.

    Raises InputError for an unknown name or argument, or a value out of its range.
    """
    config = configs.check(copy.copy(config))
    create_model(config.model, dtype=config.dtype)
    evaluation = parse_eval_recipe(config)
    operations, normalization = parse_operations(config.augment), evaluation.normalization
    for name in DURATIONS:
        total = 0 if name == "duration" else 1_000_000
        if not parse_duration(getattr(config, name), epoch=1000, total=total):
            raise InputError(f"config.{name} = {getattr(config, name)!r}: expected more than 0")
    update = optim.parse(config)
    if update.monitors and not (config.val_split or config.fold):
        name = next(iter(update.monitors))
        raise InputError(f"{name} monitors the validation split: give config.val_split, as in 'train[90%:]'")
    return Recipe(
        config=config,
        operations=operations,
        normalization=normalization,
        statistics=frozenset(required_statistics(operations, evaluation.operations, normalization=normalization)),
        loss=evaluation.loss,
        optim=update,
        distill=distill.parse(config.distill) if config.distill else None,
        evaluation=evaluation,
    )


def check_new(recipe: Recipe) -> None:
    """Raises InputError for settings that would have no effect. Older versions had trained with them.

    So this is not for a run that is resumed.
    """
    config, optimizer, model = recipe.config, recipe.optim.optimizer[0].name, spec.parse(recipe.config.model).name
    if config.seed >= KEY_SEEDS:
        raise InputError(f"config.seed = {config.seed}: expected less than {KEY_SEEDS}, as random keys have 32 bits")
    if config.weight_decay and "weight_decay" not in inspect.signature(optim.OPTIMIZERS[optimizer]).parameters:
        raise InputError(
            f"config.weight_decay = {config.weight_decay!r}: the optimizer {optimizer!r} has no parameter "
            "weight_decay, and would ignore it"
        )
    if config.dtype != "float32" and "dtype" not in inspect.signature(MODELS[model].build).parameters:
        raise InputError(
            f"config.dtype = {config.dtype!r}: the network {model!r} has no field dtype, and would ignore it"
        )
