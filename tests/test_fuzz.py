"""Ten thousand random inputs through every parser: an InputError or a result, never another exception and no hang."""

import copy
import dataclasses
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_ranges import TABLES

from cnnjax import cli, config_files, losses, optim, spec
from cnnjax import config as configs
from cnnjax.cli import shared
from cnnjax.config import FIELDS, Config
from cnnjax.data.operations import parse_operations
from cnnjax.errors import MAX_MESSAGE, InputError
from cnnjax.evaluation import protocols
from cnnjax.models import MODELS
from cnnjax.optim import freezing, masks
from cnnjax.sweep.space import distributions
from cnnjax.training.recipe import parse_recipe

pytestmark = pytest.mark.slow

GRAMMAR = "()[]{}|,=:.'\"\\-+*~%#@ \n\t_0123456789eEjxaNTFln"
NAMES = sorted({name for table in TABLES.values() for name in table} | {*MODELS, *FIELDS})
EXTREMES = [
    0,
    -1,
    1,
    2**31,
    2**63,
    -(2**63),
    10**400,
    1e-320,
    1e308,
    -0.0,
    "",
    "x",
    "1e999 epochs",
    "200%",
    "猫",
    "\udcff",
]

texts = st.one_of(st.text(max_size=40), st.text(GRAMMAR, max_size=60))
values = st.recursive(
    st.sampled_from([*EXTREMES, None, True, False]) | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(texts, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def calls(draw: st.DrawFn) -> str:
    """Draws a call string of a name that exists, mostly, with any arguments, perhaps damaged, or nested deeply."""
    name = draw(st.sampled_from(NAMES))
    words = ["momentum", "size", "warmup", "b1", "probability", "features", "at", "of", "x"]
    arguments = [repr(value).replace("nan", "1e999") for value in draw(st.lists(values, max_size=3))]
    keywords = draw(st.dictionaries(st.sampled_from(words), values, max_size=2))
    arguments += [f"{key}={value!r}" for key, value in keywords.items()]
    text = f"{name}({', '.join(arguments)})"
    if draw(st.booleans()):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(texts) + text[place:]
    if draw(st.integers(0, 9)) == 0:
        depth = draw(st.sampled_from([50, 500, 3000, 20_000]))
        text = draw(st.sampled_from(["(", "-", "[", "f(", "{1:", "~", "a|", "not ", "'"])) * depth + text
    return text


def survives(function: Any, *args: Any) -> None:
    """Calls a parser: it returns, or raises an InputError whose message is short."""
    message = "a result"
    try:
        function(*args)
    except InputError as error:
        message = str(error)
    assert 0 < len(message) < 2 * MAX_MESSAGE


PARSERS = {
    "call": spec.parse,
    "pipeline": spec.parse_pipeline,
    "optimizer": optim.parse_optimizer,
    "schedule": optim.parse_schedule,
    "early_stop": optim.parse_early_stop,
    "loss": losses.parse,
    "protocol": protocols.build,
    "operations": parse_operations,
    "pattern": masks.compile_pattern,
    "lr_factors": optim.parse_lr_factors,
    "unfreeze": lambda text: freezing.parse_freezing("x", text, True),
    "duration": lambda text: configs.to_steps(text, epoch=10, total=100),
    "image shape": lambda text: shared.parse_image_shape(text, (8, 8, 1)),
    "argument": lambda text: spec.with_argument(text, ("sgd", "momentum"), 1),
    "space": lambda text: distributions({"lr": text}, Config()),
}


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=300)
@given(text=st.one_of(calls(), texts, st.sampled_from([str(value) for value in EXTREMES])))
def test_a_string_is_parsed_or_refused(name: str, text: str) -> None:
    survives(PARSERS[name], text)


@settings(max_examples=2000)
@given(kind=st.sampled_from(sorted(TABLES)), arguments=st.lists(values, max_size=3), data=st.data())
def test_a_call_of_any_arguments_is_bound_or_refused(kind: str, arguments: list, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(TABLES[kind])))
    survives(spec.find, kind, spec.Call(name, tuple(arguments), {}), TABLES[kind])


@settings(max_examples=2500)
@given(changes=st.dictionaries(st.sampled_from(sorted(FIELDS)), st.one_of(values, calls()), max_size=3))
def test_a_config_of_any_values_is_checked_or_refused(changes: dict[str, Any]) -> None:
    def check() -> None:
        config = configs.check(Config(**copy.deepcopy(changes)))
        optim.parse(config)
        if all(isinstance(value, str) for value in changes.values()) and "model" not in changes:
            parse_recipe(config)
        dataclasses.asdict(config)

    survives(check)


words = st.one_of(
    texts,
    st.builds(
        "--{}={}".format,
        st.sampled_from(["workdir", "batch_size", "input", "config.lr", "top", "space.lr", "x"]),
        texts,
    ),
    st.builds("--config.{}={}".format, st.sampled_from(sorted(FIELDS)), st.one_of(texts, calls())),
)


@settings(max_examples=1000)
@given(command=st.sampled_from(sorted(cli.COMMANDS)), arguments=st.lists(words, max_size=4))
def test_a_command_line_is_parsed_or_refused(command: str, arguments: list[str]) -> None:
    parser = shared.Parser(prog="cnnjax")
    main = sys.modules["cnnjax.cli.main"]
    main.add_command_flags(parser, main.command_module(command))
    status = 0
    try:
        parser.parse_known_args(arguments)
    except SystemExit as error:
        status = error.code
    assert status in (0, 2)


@settings(max_examples=300)
@given(overrides=st.lists(words, max_size=3))
def test_overrides_of_a_config_are_applied_or_refused(overrides: list[str]) -> None:
    survives(config_files.read_config, "digits_lenet5", overrides)
