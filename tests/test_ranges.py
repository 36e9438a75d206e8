"""The arguments of call strings have ranges: every number in every table, in one form, checked in one place."""

import inspect
import math
import types
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Union, get_args, get_origin

import pytest

from cnnjax import losses, optim, spec
from cnnjax.augment import MIXING, OPS, PROVIDED_ARGUMENTS, normalize
from cnnjax.config import to_steps
from cnnjax.data.operations import ALL_HOST_OPS
from cnnjax.errors import InputError
from cnnjax.evaluation.protocols import PROTOCOLS
from cnnjax.optim.monitors import early_stop
from cnnjax.optim.optimizers import WRAPPERS
from cnnjax.runs.executors import EXECUTORS
from cnnjax.spec import Ascending, Count, Fraction, Positive, Range
from cnnjax.sweep.samplers import PRUNERS, SAMPLERS
from cnnjax.training.distill import distill

TABLES: Mapping[str, Mapping[str, Any]] = {
    "optimizer": optim.OPTIMIZERS, "wrapper": WRAPPERS, "schedule": optim.SCHEDULES, "loss": losses.LOSSES,
    "augmentation": OPS | MIXING, "operation": ALL_HOST_OPS, "normalization": normalize.NORMALIZE,
    "protocol": PROTOCOLS, "monitor": {"early_stop": early_stop}, "distillation": {"distill": distill},
    "executor": EXECUTORS, "sampler": SAMPLERS, "pruner": PRUNERS,
}  # fmt: skip
GIVEN = {*PROVIDED_ARGUMENTS, "total", "seed", "workers"}  # by the program, not in a call string


def numbers_without_range(annotation: Any) -> list[type]:
    """Returns the numbers in an annotation that have no Range around them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated and arguments[0] in (int, float):
        return [] if any(isinstance(condition, Range) for condition in arguments[1:]) else [arguments[0]]
    if origin is Annotated:
        return numbers_without_range(arguments[0])
    if origin in (types.UnionType, Union, tuple, Sequence):
        return [number for argument in arguments for number in numbers_without_range(argument)]
    return [annotation] if annotation in (int, float) else []


PARAMETERS = [
    (kind, name, parameter)
    for kind, table in TABLES.items()
    for name, function in table.items()
    for parameter in inspect.signature(function).parameters.values()
    if parameter.name not in GIVEN
]


@pytest.mark.parametrize(
    ("kind", "name", "parameter"), PARAMETERS, ids=[f"{kind}-{name}-{p.name}" for kind, name, p in PARAMETERS]
)
def test_every_number_has_a_range_and_its_default_is_in_it(kind: str, name: str, parameter: inspect.Parameter) -> None:
    assert numbers_without_range(parameter.annotation) == []
    if parameter.default is not parameter.empty:
        assert spec._has_type(parameter.default, parameter.annotation)


@pytest.mark.parametrize(
    ("annotation", "valid", "invalid", "text"),
    [
        (Fraction, [0, 1, 0.5], [-1e-9, 1.1, math.nan, math.inf, True, "1"], "float of 0 to 1"),
        (Positive, [1e-300, 1e300], [0, -1, math.inf], "float of more than 0"),
        (Count, [1, 1_000_000], [0, 1_000_001, 1.0, 10**400], "int of 1 to 1,000,000"),
        (spec.BelowOne, [0, 0.999], [1, -0.1], "float of at least 0 and less than 1"),
        (spec.PositiveFraction, [1, 1e-9], [0, 2], "float of more than 0 and at most 1"),
        (spec.Finite, [-1e9, 0], [math.inf, -math.inf, math.nan, 10**400], "finite float"),
        (Fraction | None, [None, 1], [2], "float of 0 to 1 or None"),
        (Sequence[Positive], [(), [1, 2]], [(0,), 1], "list of float of more than 0"),
        (
            Annotated[tuple[Positive, Positive], Ascending()],
            [(1, 2), (2, 2)],
            [(2, 1), (0, 1), (1,), 1],
            "(float of more than 0, float of more than 0) of low <= high",
        ),
    ],
)
def test_a_range_is_checked_wherever_it_stands(annotation: Any, valid: list, invalid: list, text: str) -> None:
    def f(x: Any) -> Any:
        return x

    f.__annotations__["x"] = annotation
    for value in valid:
        assert spec.find("thing", spec.Call("f", (value,), {}), {"f": f})() == value
    for value in invalid:
        with pytest.raises(InputError) as error:
            spec.find("thing", spec.Call("f", (), {"x": value}), {"f": f})
        assert str(error.value).endswith(f": expected {text}")


@pytest.mark.parametrize(
    ("kind", "call", "expected"),
    [
        ("optimizer", "sgd(momentum=-5)", "momentum = -5: expected float of at least 0 and less than 1"),
        ("optimizer", "adam(b2=1.5)", "b2 = 1.5: expected float of at least 0 and less than 1"),
        ("schedule", "cosine(final=2)", "final = 2: expected float of 0 to 1"),
        ("schedule", "cosine(warmup='200%')", "'200%' is too long; expected at most 100%"),
        ("loss", "focal(gamma=-1)", "gamma = -1: expected float of at least 0"),
        ("augmentation", "cutout(0)", "size = 0: expected int of 1 to 65,535"),
        ("augmentation", "flip_lr(1e999)", "probability = inf: expected float of 0 to 1"),
        ("operation", "resize((0, 3))", "size = (0, 3): expected int of 1 to 65,535 or (int of 1 to 65,535, int of"),
        ("protocol", "ten_crop(100000)", "size = 100000: expected int of 1 to 65,535"),
    ],
)
def test_what_makes_no_sense_is_refused(kind: str, call: str, expected: str) -> None:
    given = dict.fromkeys(
        ("weight_decay", "inner", "rate", "key", "image", "images", "target", "mean", "logits", "rng")
    )
    steps = {"steps": lambda duration: to_steps(duration, epoch=10, total=100), "total": 100}
    with pytest.raises(InputError) as error:
        spec.build(kind, call, TABLES[kind], **given, **steps)
    assert expected in str(error.value)
