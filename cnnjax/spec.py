"""Call strings: 'name(arg, key=value)', the one grammar for every "which one, with what" in a config.

A call names a function in a table and gives it literal arguments; calls joined by '|' are a pipeline. Only
literals are evaluated, never code.
"""

import ast
import functools
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, get_args, get_origin

from cnnjax.errors import InputError, nearest, unknown


class Call(NamedTuple):
    """A parsed call string."""

    name: str
    args: tuple
    kwargs: dict[str, Any]


def parse(text: str) -> Call:
    """Reads 'name' or 'name(1, key="x")'. Raises InputError when it is anything else."""
    expected = f"{text!r} is not a call string; expected name or name(value, key=value), literals only"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(expected) from error
    if isinstance(node, ast.Name):
        return Call(node.id, (), {})
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise InputError(expected)
    try:
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        kwargs = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
    except (ValueError, TypeError) as error:
        raise InputError(expected) from error
    if len(kwargs) != len(node.keywords):
        raise InputError(expected)
    return Call(node.func.id, args, kwargs)


def parse_pipeline(text: str) -> list[Call]:
    """Reads 'a|b(4)|c'; an empty string is the empty pipeline. A '|' inside quotes does not split."""
    if not text.strip():
        return []
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(f"{text!r} is not a pipeline; expected calls joined by '|', as in 'a|b(4)'") from error
    calls: list[Call] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        calls.insert(0, parse(ast.unparse(node.right)))
        node = node.left
    return [parse(ast.unparse(node)), *calls]


def _fits(value: Any, expected: Any) -> bool:
    """Whether a literal has the type of a parameter; True for a type that no literal has."""
    kind, of = get_origin(expected), get_args(expected)
    if kind is types.UnionType:
        return any(_fits(value, one) for one in of)
    if kind is tuple and type(value) is tuple:
        of = of[:1] * len(value) if of[1:] == (...,) else of
        return len(value) == len(of) and all(map(_fits, value, of))
    if kind is Sequence and isinstance(value, Sequence):
        return all(_fits(item, of[0]) for item in value)
    if expected is float:
        return type(value) in (int, float)
    if expected in (bool, int, str, types.NoneType):
        return type(value) is expected
    return kind not in (tuple, Sequence)


def find(kind: str, call: Call, table: Mapping[str, Callable[..., Any]], **given: Any) -> functools.partial[Any]:
    """The call, bound to its function in `table` and checked but not made yet.

    Of the arguments `given` by the program, the function gets those it declares; the call string cannot set them.
    Raises InputError for a name, keyword, type or number of arguments that does not fit, naming the ones that do.
    """
    if call.name not in table:
        raise unknown(kind, call.name, table)
    function = table[call.name]
    parameters = inspect.signature(function).parameters
    given = {name: value for name, value in given.items() if name in parameters}
    settable = [name for name, p in parameters.items() if name not in given and p.kind is not p.VAR_POSITIONAL]
    for name in call.kwargs:
        if name not in settable:
            raise InputError(f"{kind} {call.name!r} has no argument {name!r}; {nearest(name, settable)}")
    several = [name for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]  # takes all that have no name
    args, positional = (call.args, {}) if several else ((), dict(zip(settable, call.args, strict=False)))
    try:
        if not several and len(call.args) > len(settable):
            raise TypeError(f"takes at most {len(settable)} arguments, got {len(call.args)}")
        if twice := positional.keys() & call.kwargs.keys():
            raise TypeError(f"argument {min(twice)!r} is given twice")
        inspect.signature(function).bind(*args, **given, **positional, **call.kwargs)
    except TypeError as error:
        signature = f"{call.name}({', '.join(str(parameters[name]) for name in settable)})"
        raise InputError(f"{kind} {call.name!r}: {error}; expected {signature}") from error
    for name, value in [*(positional | call.kwargs).items(), *((several[0], value) for value in args)]:
        if not _fits(value, expected := parameters[name].annotation):
            shown = str(expected).replace("collections.abc.", "") if get_origin(expected) else expected.__name__
            raise InputError(f"{kind} {call.name!r}: {name} = {value!r}: expected {shown}")
    return functools.partial(function, *args, **given, **positional, **call.kwargs)


def build(kind: str, text: str, table: Mapping[str, Callable[..., Any]], **given: Any) -> Any:
    """Parses the call string `text`, finds its function in `table` and calls it: see `find`."""
    return find(kind, parse(text), table, **given)()


def render(call: Call) -> str:
    """The call string that `parse` reads as this call."""
    arguments = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs.items())]
    return f"{call.name}({', '.join(arguments)})" if arguments else call.name


def with_argument(text: str, path: Sequence[str], value: Any) -> str:
    """The call string or pipeline `text` with one argument set: by ('dropout',), or ('cutout', 'size') in a pipeline.

    Raises InputError when it has no such call. Whether the function takes the argument, `find` says.
    """
    calls = parse_pipeline(text)
    *names, argument = path
    found = [i for i, call in enumerate(calls) if names in ([], [call.name])]
    if len(found) != 1 or len(names) > 1:
        where = ".".join(path)
        raise InputError(
            f"{where!r} is not one argument in {text!r}; {nearest(where, (c.name + '.NAME' for c in calls))}"
        )
    call = calls[found[0]]
    calls[found[0]] = call._replace(kwargs=call.kwargs | {argument: value})
    return "|".join(map(render, calls))
