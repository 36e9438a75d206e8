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


@dataclasses.dataclass(frozen=True)
class Operations:
    """The operations of a pipeline, in order, by where they run: on the host, in the step, on whole batches."""

    host: tuple[spec.Call, ...] = ()  # names of `HOST_OPS`: uint8 images, the size may change
    step: tuple[spec.Call, ...] = ()  # names of `augment.OPS`: float32 images of one size, inside the compiled step
    mixing: tuple[spec.Call, ...] = ()  # names of `augment.MIXING`: batches and their targets, after normalization


def parse_operations(text: str) -> Operations:
    """Parses a pipeline and checks the name, arguments and position of each operation; '' has no operations.

    Raises InputError for a name or an argument that does not exist or fit, for a host operation after one in the step,
    and for a mixing operation before any other.
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
            raise InputError(f"{text!r}: {call.name!r} changes sizes on the host, so it must come before {name!r}")
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
    """Parses a normalization, such as 'mean_std', and checks its name and arguments. Raises InputError."""
    call = spec.parse(text)
    spec.find("normalization", call, normalize.NORMALIZE, **dict.fromkeys(PROVIDED_ARGUMENTS))
    return call


def required_statistics(*pipelines: str | Operations, normalization: str | spec.Call) -> set[str]:
    """Returns the names in `normalize.ON_DEMAND` that these operations and this normalization take as arguments."""
    final = spec.parse(normalization) if isinstance(normalization, str) else normalization
    functions: list[Callable] = [normalize.NORMALIZE[final.name]]
    for pipeline in pipelines:
        operations = parse_operations(pipeline) if isinstance(pipeline, str) else pipeline
        functions += [(OPS | MIXING)[call.name] for call in (*operations.step, *operations.mixing)]
    parameters = {name for function in functions for name in inspect.signature(function).parameters}
    return parameters & {*normalize.ON_DEMAND}


def is_random(calls: Sequence[spec.Call]) -> bool:
    """Returns whether any of these host operations draws random numbers, that is, has a parameter `rng`."""
    return any("rng" in inspect.signature(ALL_HOST_OPS[call.name]).parameters for call in calls)
