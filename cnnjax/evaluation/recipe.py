"""The evaluation part of a config, parsed: what an image goes through before and after the network."""

import dataclasses

from cnnjax import config as configs
from cnnjax import losses, spec
from cnnjax.config import Config
from cnnjax.data.operations import Operations, parse_normalization, parse_operations
from cnnjax.errors import InputError
from cnnjax.evaluation import protocols


@dataclasses.dataclass(frozen=True)
class EvalRecipe:
    """The settings of a scoring, with every call string parsed and checked."""

    model: str  # the call string, for errors and for other forms of the network
    dtype: str
    operations: Operations  # of config.preprocess
    normalization: spec.Call
    protocol: protocols.Protocol
    protocol_text: str
    average: str  # 'probabilities' or 'logits'
    loss: spec.Call
    batch_size: int  # views per device call
    cache: str
    seed: int


def parse_eval_recipe(config: Config) -> EvalRecipe:
    """Parses what a config says of evaluation. Raises InputError for a name or an argument that does not exist."""
    operations = parse_operations(config.preprocess)
    if operations.mixing:
        name = operations.mixing[0].name
        raise InputError(f"{name!r} mixes the images of a training batch: its place is config.augment")
    return EvalRecipe(
        model=config.model,
        dtype=config.dtype,
        operations=operations,
        normalization=parse_normalization(config.normalize),
        protocol=protocols.build(config.protocol),
        protocol_text=config.protocol,
        average=config.average,
        loss=losses.parse(config.loss),
        batch_size=config.eval_batch_size,
        cache=config.cache,
        seed=config.seed,
    )


def with_views(
    config: Config,
    *,
    batch_size: int = 0,
    preprocess: str | None = None,
    protocol: str | None = None,
    average: str | None = None,
) -> Config:
    """Returns a copy of `config` with these evaluation settings; None, and batch_size 0, keep the config's own.

    Images are then read from the host as needed. Raises InputError where `protocol` and the config's own preprocess
    do not go together.
    """
    if protocol not in (None, config.protocol) and preprocess is None:
        protocols.check_preprocess(protocol, parse_operations(config.preprocess).host)
    given = {"preprocess": preprocess, "protocol": protocol, "average": average}
    changes = {name: value for name, value in given.items() if value is not None}
    size = batch_size or config.eval_batch_size
    return configs.check(dataclasses.replace(config, cache="host", eval_batch_size=size, **changes))
