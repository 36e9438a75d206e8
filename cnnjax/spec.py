"""Call strings: 'name(arg, key=value)', the grammar of every config field that names a function.

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
    """A parsed call string: 'cutout(8, fill=0)' has the name 'cutout', args (8,) and kwargs {'fill': 0}."""

    name: str
    args: tuple
    kwargs: dict[str, Any]


def parse(text: str) -> Call:
    """Parses a call string, 'name' or 'name(1, key="x")', whose arguments are literals. Raises InputError otherwise."""
    message = f"{text!r} is not a call string; expected name or name(value, key=value), literals only"
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise InputError(message) from error
    if isinstance(node, ast.Name):
        return Call(node.id, (), {})
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise InputError(message)
    try:
        args = tuple(ast.literal_eval(arg) for arg in node.args)
        kwargs = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords if keyword.arg}
    except (ValueError, TypeError) as error:
        raise InputError(message) from error
    if len(kwargs) != len(node.keywords):
        raise InputError(message)
    return Call(node.func.id, args, kwargs)


def parse_pipeline(text: str) -> list[Call]:
    """Parses call strings joined by '|', such as 'a|b(4)|c', into a list of calls; '' gives [].

    A '|' inside quotes does not separate calls. Raises InputError for anything else.
    """
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


def _has_type(value: Any, annotation: Any) -> bool:
    """Returns whether a literal has the annotated type. An int is a float, too, but a bool is not an int.

    Checks bool, int, float, str, None, and unions, tuples and sequences of these; returns True for other annotations.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is types.UnionType:
        return any(_has_type(value, argument) for argument in arguments)
    if origin is tuple and type(value) is tuple:
        arguments = arguments[:1] * len(value) if arguments[1:] == (...,) else arguments
        return len(value) == len(arguments) and all(map(_has_type, value, arguments))
    if origin is Sequence and isinstance(value, Sequence):
        return all(_has_type(item, arguments[0]) for item in value)
    if annotation is float:
        return type(value) in (int, float)
    if annotation in (bool, int, str, types.NoneType):
        return type(value) is annotation
    return origin not in (tuple, Sequence)


def find(kind: str, call: Call, table: Mapping[str, Callable[..., Any]], **given: Any) -> functools.partial[Any]:
    """Looks up the function of a call in `table` and binds the call's arguments to it, without calling the function.

    Args:
      kind: noun for messages, as in 'optimizer'.
      call: the parsed call string.
      table: functions by name.
      given: arguments from the program. The function gets those that it declares; a call string cannot set these.

    Raises InputError for an unknown name or keyword, a value that is not of the annotated type, or a wrong number of
    arguments.
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
    variadic = [name for name, p in parameters.items() if p.kind is p.VAR_POSITIONAL]  # *args takes all positional ones
    args, positional = (call.args, {}) if variadic else ((), dict(zip(settable, call.args, strict=False)))
    try:
        if not variadic and len(call.args) > len(settable):
            raise TypeError(f"takes at most {len(settable)} arguments, got {len(call.args)}")
        if repeated := positional.keys() & call.kwargs.keys():
            raise TypeError(f"argument {min(repeated)!r} is given twice")
        inspect.signature(function).bind(*args, **given, **positional, **call.kwargs)
    except TypeError as error:
        signature = f"{call.name}({', '.join(str(parameters[name]) for name in settable)})"
        raise InputError(f"{kind} {call.name!r}: {error}; expected {signature}") from error
    for name, value in [*(positional | call.kwargs).items(), *((variadic[0], value) for value in args)]:
        if not _has_type(value, annotation := parameters[name].annotation):
            text = str(annotation).replace("collections.abc.", "") if get_origin(annotation) else annotation.__name__
            raise InputError(f"{kind} {call.name!r}: {name} = {value!r}: expected {text}")
    return functools.partial(function, *args, **given, **positional, **call.kwargs)


def build(kind: str, text: str, table: Mapping[str, Callable[..., Any]], **given: Any) -> Any:
    """Parses the call string `text`, calls the function that it names in `table`, and returns the result.

    The arguments and errors are those of `find`.
    """
    return find(kind, parse(text), table, **given)()


def render(call: Call) -> str:
    """Converts a call to a call string, the inverse of `parse`."""
    arguments = [*map(repr, call.args), *(f"{name}={value!r}" for name, value in call.kwargs.items())]
    return f"{call.name}({', '.join(arguments)})" if arguments else call.name


def with_argument(text: str, path: Sequence[str], value: Any) -> str:
    """Returns the call string or pipeline `text` with one keyword argument set to `value`.

    `path` is ('dropout',) for a single call, and ('cutout', 'size') for the call cutout(...) of a pipeline. Raises
    InputError unless exactly one call matches. Does not check that the function has such an argument.
    """
    calls = parse_pipeline(text)
    *names, argument = path
    matching = [i for i, call in enumerate(calls) if names in ([], [call.name])]
    if len(matching) != 1 or len(names) > 1:
        dotted = ".".join(path)
        raise InputError(
            f"{dotted!r} is not one argument in {text!r}; {nearest(dotted, (call.name + '.NAME' for call in calls))}"
        )
    call = calls[matching[0]]
    calls[matching[0]] = call._replace(kwargs=call.kwargs | {argument: value})
    return "|".join(map(render, calls))
