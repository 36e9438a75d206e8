"""A config with every call string parsed: the first stage of a training (recipe -> setup -> state -> step -> loop)."""

import copy
import dataclasses

from cnnjax import config as configs
from cnnjax import optim, spec
from cnnjax.augment import GIVEN, MIXING, OPS
from cnnjax.augment.normalize import NORMALIZE
from cnnjax.config import Config, parse_duration
from cnnjax.data import pipeline
from cnnjax.errors import InputError
from cnnjax.evaluation.recipe import EvalRecipe, parse_eval_recipe
from cnnjax.models import create_model
from cnnjax.optim import freezing
from cnnjax.training import distill

DURATIONS = ("duration", "log_every", "eval_every", "checkpoint_every")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The settings of a training, checked. Parsing one reads nothing from the disk."""

    config: Config  # a copy of its own, for plain values
    host_ops: tuple[spec.Call, ...]  # of config.augment: those that change sizes, on the host
    step_ops: tuple[spec.Call, ...]  # of config.augment: those on single images, in the step
    mixing_ops: tuple[spec.Call, ...]  # of config.augment: those on whole batches, in the step
    statistics: frozenset[str]  # of the training split that operations and normalization need, beside mean and std
    evaluation: EvalRecipe
    distill: distill.DistillConfig | None


def parse_recipe(config: Config) -> Recipe:
    """Parses and checks a config. Raises InputError for a value, a name or an argument that does not exist."""
    config = configs.check(copy.copy(config))
    create_model(config.model, 10, config.dtype)
    evaluation = parse_eval_recipe(config)
    host_ops, step_ops = pipeline.split_ops(config.augment)
    for call in (*step_ops, *evaluation.step_ops):
        spec.find("operation", call, OPS | MIXING, **dict.fromkeys(GIVEN))
    spec.find("normalization", spec.parse(config.normalize), NORMALIZE, **dict.fromkeys(GIVEN))
    optim.check(config)
    freezing.check(config)
    for name in DURATIONS:
        if not parse_duration(getattr(config, name), epoch=1000, total=1_000_000):
            raise InputError(f"config.{name} = {getattr(config, name)!r}: expected more than 0")
    if config.init_partial and not config.init:
        raise InputError("config.init_partial = True: there is nothing to initialize from; give config.init")
    single_ops, mixing_ops = pipeline.split_mixing(step_ops)
    statistics = pipeline.required_statistics(config.augment, config.preprocess, normalization=config.normalize)
    return Recipe(
        config=config,
        host_ops=tuple(host_ops),
        step_ops=tuple(single_ops),
        mixing_ops=tuple(mixing_ops),
        statistics=frozenset(statistics),
        evaluation=evaluation,
        distill=distill.parse(config.distill) if config.distill else None,
    )
