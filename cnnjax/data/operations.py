"""Parsed operation pipelines, such as 'random_crop(28)|flip_lr|mixup(0.2)', and the statistics that they need."""

import collections
import dataclasses
import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from cnnjax import spec
from cnnjax.augment import MIXING, OPS, PROVIDED_ARGUMENTS, normalize
from cnnjax.data.transforms import HOST_OPS
from cnnjax.data.views import VIEWS
from cnnjax.errors import InputError, unknown

# Everything that runs on the host. Views come last, and only in evaluation.
ALL_HOST_OPS: Mapping[str, Callable[..., np.ndarray]] = collections.ChainMap(HOST_OPS, VIEWS)
# Those that set the size of an image. The others keep it.
SIZE_OPS = frozenset((
    "resize", "random_resize", "center_crop", "pad", "random_crop", "random_resized_crop", "corners_and_center",
    "crops_of_squares",
))  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Operations:
    """Holds the parsed operations of a pipeline, in order, by where they run.

    Attributes:
        host: of `HOST_OPS`: on the host, on one uint8 image, whose size may change.
        step: of `augment.OPS`: inside the compiled training step, on float32 images of one size.
        mixing: of `augment.MIXING`: in the step after normalization, on whole batches and their targets.
    """

    host: tuple[spec.Call, ...] = ()
    step: tuple[spec.Call, ...] = ()
    mixing: tuple[spec.Call, ...] = ()


def parse_operations(text: str) -> Operations:
    """Parses a pipeline such as 'random_crop(28)|flip_lr|mixup(0.2)'; '' has no operations.

    Raises InputError for an unknown name, for arguments that do not fit, and for a wrong order: host operations come
    first and mixing operations last.
    """
    calls = spec.parse_pipeline(text)
    tables = {"host": HOST_OPS, "step": OPS, "mixing": MIXING}
    groups: dict[str, list[spec.Call]] = {group: [] for group in tables}
    for call in calls:
        group = next((group for group, table in tables.items() if call.name in table), None)
        if group is None:
            raise unknown("operation", call.name, HOST_OPS | OPS | MIXING)
        if group == "host" and (groups["step"] or groups["mixing"]):
            name = calls[len(groups["host"])].name
            raise InputError(f"{text!r}: {call.name!r} runs on the host, so it must come before {name!r}")
        groups[group].append(call)
    for call, following in itertools.pairwise(calls):
        if call.name in MIXING and following.name not in MIXING:
            raise InputError(f"{text!r}: {call.name!r} mixes whole batches, so it must come after {following.name!r}")
    provided = dict.fromkeys((*PROVIDED_ARGUMENTS, "rng"))
    for group, table in tables.items():
        for call in groups[group]:
            spec.find("operation", call, table, **provided)
    return Operations(*map(tuple, groups.values()))


def parse_normalization(text: str) -> spec.Call:
    """Parses a normalization such as 'mean_std'. Raises InputError for an unknown name or arguments that do not fit."""
    call = spec.parse(text)
    spec.find("normalization", call, normalize.NORMALIZE, **dict.fromkeys(PROVIDED_ARGUMENTS))
    return call


def required_statistics(*pipelines: str | Operations, normalization: str | spec.Call) -> set[str]:
    """Returns the names of the statistics in `normalize.ON_DEMAND` that these pipelines or this normalization use.

    An operation uses a statistic if its function has a parameter of that name. Pipelines and the normalization are call
    strings, or already parsed.
    """
    final = spec.parse(normalization) if isinstance(normalization, str) else normalization
    functions: list[Callable] = [normalize.NORMALIZE[final.name]]
    for pipeline in pipelines:
        operations = parse_operations(pipeline) if isinstance(pipeline, str) else pipeline
        functions += [(OPS | MIXING)[call.name] for call in (*operations.step, *operations.mixing)]
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    return parameters & {*normalize.ON_DEMAND}


def is_random(calls: Sequence[spec.Call]) -> bool:
    """Returns True if any of these host operations draws random numbers, which means that it has a parameter `rng`."""
    return any("rng" in inspect.signature(ALL_HOST_OPS[call.name]).parameters for call in calls)
