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
    """The evaluation fields of a config, with every call string parsed and checked.

    Attributes:
      model: call string of the network, for error messages and for building variants of it.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      matmul_precision: how float32 numbers are multiplied, as in config.matmul_precision.
      operations: operations of config.preprocess.
      normalization: the call of config.normalize.
      protocol: the views in which each image is scored.
      protocol_text: call string of the protocol.
      average: what is averaged over the views of an image, 'probabilities' or 'logits'.
      loss: the call of config.loss.
      batch_size: views per device call.
      cache: where the images are kept: 'device', 'host' or 'auto'.
      seed: seed of random host operations.
    """

    model: str
    dtype: str
    matmul_precision: str
    operations: Operations
    normalization: spec.Call
    protocol: protocols.Protocol
    protocol_text: str
    average: str
    loss: spec.Call
    batch_size: int
    cache: str
    seed: int


def parse_eval_recipe(config: Config) -> EvalRecipe:
    """Parses and checks the evaluation fields of a config. Raises InputError for an unknown name or argument."""
    operations = parse_operations(config.preprocess)
    if operations.mixing:
        name = operations.mixing[0].name
        raise InputError(f"{name!r} mixes the images of a training batch: use it in config.augment")
    return EvalRecipe(
        model=config.model,
        dtype=config.dtype,
        matmul_precision=config.matmul_precision,
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
    """Returns a copy of `config` with other evaluation settings, and with cache='host'.

    None (for `batch_size`, 0) keeps the config's own value. Raises InputError if a new `protocol` does not go together
    with the config's own preprocess.
    """
    if protocol not in (None, config.protocol) and preprocess is None:
        protocols.check_preprocess(protocol, parse_operations(config.preprocess).host)
    given = {"preprocess": preprocess, "protocol": protocol, "average": average}
    changes = {name: value for name, value in given.items() if value is not None}
    size = batch_size or config.eval_batch_size
    return configs.check(dataclasses.replace(config, cache="host", eval_batch_size=size, **changes))
