"""The evaluation part of a config, parsed: what an image goes through before and after the network."""

import dataclasses

from cnnjax import config as configs
from cnnjax import losses, spec
from cnnjax.config import Config
from cnnjax.data import pipeline
from cnnjax.evaluation import protocols


@dataclasses.dataclass(frozen=True)
class EvalRecipe:
    """The settings of a scoring, with every call string parsed and checked."""

    model: str  # the call string, for errors and for other forms of the network
    dtype: str
    host_ops: tuple[spec.Call, ...]  # of config.preprocess: those that change sizes
    step_ops: tuple[spec.Call, ...]  # of config.preprocess: those that run on the device
    normalize: str
    protocol: protocols.Protocol
    protocol_text: str
    average: str  # 'probabilities' or 'logits'
    loss: str
    batch_size: int  # views per device call
    cache: str
    seed: int


def parse_eval_recipe(config: Config) -> EvalRecipe:
    """Parses what a config says of evaluation. Raises InputError for a name or an argument that does not exist."""
    host_ops, step_ops = pipeline.split_ops(config.preprocess)
    losses.build(config.loss)
    return EvalRecipe(
        model=config.model,
        dtype=config.dtype,
        host_ops=tuple(host_ops),
        step_ops=tuple(step_ops),
        normalize=config.normalize,
        protocol=protocols.build(config.protocol),
        protocol_text=config.protocol,
        average=config.average,
        loss=config.loss,
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
        protocols.check_preprocess(protocol, pipeline.split_ops(config.preprocess)[0])
    given = {"preprocess": preprocess, "protocol": protocol, "average": average}
    changes = {name: value for name, value in given.items() if value is not None}
    size = batch_size or config.eval_batch_size
    return configs.check(dataclasses.replace(config, cache="host", eval_batch_size=size, **changes))
