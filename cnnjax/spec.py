"""Call strings: 'name(arg, key=value)', the grammar of every config field that names a function.

A call names a function in a table and gives it literal arguments; calls joined by '|' are a pipeline. Only
literals are evaluated, never code.
"""

import ast
import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, Union, get_args, get_origin

from cnnjax.errors import InputError, nearest, unknown

MAX_LENGTH = 10_000  # characters of a call string or pipeline
# What Python's parser raises for a text that is no expression, or is nested too deeply.
PARSER_ERRORS = (SyntaxError, ValueError, TypeError, RecursionError, MemoryError)


class Range(NamedTuple):
    """The valid values of a number, in its annotation: `momentum: Annotated[float, Range(0, 1, below=True)]`.

    Attributes:
      minimum: the smallest valid number; with `above`, numbers have to be larger.
      maximum: the largest valid number; with `below`, numbers have to be smaller.
    """

    minimum: float = -math.inf
    maximum: float = math.inf
    above: bool = False
    below: bool = False

    def holds(self, value: float) -> bool:
        """Returns whether a number is valid. Infinity and NaN never are."""
        high_enough = self.minimum < value if self.above else self.minimum <= value
        low_enough = value < self.maximum if self.below else value <= self.maximum
        return high_enough and low_enough and abs(value) <= sys.float_info.max

    def __str__(self) -> str:
        least = "" if self.minimum == -math.inf else f"{'more than' if self.above else 'at least'} {self.minimum:,}"
        most = "" if self.maximum == math.inf else f"{'less than' if self.below else 'at most'} {self.maximum:,}"
        if least and most and not (self.above or self.below):
            return f"{self.minimum:,} to {self.maximum:,}"
        return " and ".join(filter(None, (least, most)))


class Ascending(NamedTuple):
    """In the annotation of a pair (low, high): low is not larger than high."""

    def holds(self, value: tuple[float, float]) -> bool:
        """Returns whether low <= high."""
        return value[0] <= value[1]

    def __str__(self) -> str:
        return "low <= high"


Finite = Annotated[float, Range()]
NonNegative = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Fraction = Annotated[float, Range(0, 1)]
PositiveFraction = Annotated[float, Range(0, 1, above=True)]
BelowOne = Annotated[float, Range(0, 1, below=True)]
Count = Annotated[int, Range(1, 1_000_000)]
Pixels = Annotated[int, Range(1, 65_535)]  # a JPEG's largest side


class Call(NamedTuple):
    """A parsed call string: 'cutout(8, fill=0)' has the name 'cutout', args (8,) and kwargs {'fill': 0}."""

    name: str
    args: tuple
    kwargs: dict[str, Any]


NOT_A_CALL = "{!r} is not a call string; expected name or name(value, key=value), literals only"


def parse(text: str) -> Call:
    """Parses a call string, 'name' or 'name(1, key="x")', whose arguments are literals. Raises InputError otherwise."""
    return _to_call(_parse_expression(text, message := NOT_A_CALL.format(text)), message)


def _parse_expression(text: str, message: str) -> ast.expr:
    """Parses a Python expression. Raises InputError(message) if it is none, too long or nested too deeply."""
    if len(text) > MAX_LENGTH:
        raise InputError(f"{message}, of at most {MAX_LENGTH:,} characters")
    try:
        return ast.parse(text.strip(), mode="eval").body
    except PARSER_ERRORS as error:
        raise InputError(message) from error


def _to_call(node: ast.expr, message: str) -> Call:
    """Converts an expression, `name` or `name(1, key="x")`, to a call. Raises InputError(message) for any other."""
    if isinstance(node, ast.Name):
        return Call(node.id, (), {})
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise InputError(message)
    try:
        args = tuple(_literal(arg) for arg in node.args)
        kwargs = {keyword.arg: _literal(keyword.value) for keyword in node.keywords if keyword.arg}
    except PARSER_ERRORS as error:
        raise InputError(message) from error
    if len(kwargs) != len(node.keywords):
        raise InputError(message)
    return Call(node.func.id, args, kwargs)


def _literal(node: ast.expr) -> Any:
    """Evaluates a literal. Its lists become tuples, since Flax hashes the fields of a network.

    Raises one of PARSER_ERRORS for any other expression.
    """
    return with_tuples(ast.literal_eval(node))


def with_tuples(value: Any) -> Any:
    """Returns a literal with tuples in place of lists, nested ones too."""
    if isinstance(value, dict):
        return {key: with_tuples(item) for key, item in value.items()}
    return tuple(map(with_tuples, value)) if type(value) in (list, tuple) else value


def parse_pipeline(text: str) -> list[Call]:
    """Parses call strings joined by '|', such as 'a|b(4)|c', into a list of calls; '' gives [].

    A '|' inside quotes does not separate calls. Raises InputError for anything else.
    """
    if not text.strip():
        return []
    node = _parse_expression(text, f"{text!r} is not a pipeline; expected calls joined by '|', as in 'a|b(4)'")
    nodes: list[ast.expr] = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        nodes.append(node.right)
        node = node.left
    return [_to_call(part, NOT_A_CALL.format(_source(part))) for part in (node, *reversed(nodes))]


def parse_list(text: str) -> list[Call]:
    """Parses call strings joined by commas, such as 'a,b(4, c=1)', into a list of calls; '' gives [].

    Raises InputError for anything else.
    """
    if not text.strip():
        return []
    message = f"{text!r} is not a list; expected calls joined by commas, as in 'a,b(4)'"
    node = _parse_expression(f"({text.strip().rstrip(',')},)", message)
    nodes = node.elts if isinstance(node, ast.Tuple) else []
    if not nodes:
        raise InputError(message)
    return [_to_call(part, NOT_A_CALL.format(_source(part))) for part in nodes]


def _source(node: ast.expr) -> str:
    """Returns an expression as text, for a message; '...' if it is nested too deeply."""
    try:
        return ast.unparse(node)
    except RecursionError:
        return "..."


def _has_type(value: Any, annotation: Any) -> bool:
    """Returns whether a literal has the annotated type and range. An int is a float, too, but a bool is not an int.

    Checks bool, int, float, str, None, and unions, tuples and sequences of these; returns True for other annotations.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _has_type(value, arguments[0]) and all(condition.holds(value) for condition in arguments[1:])
    if origin in (types.UnionType, Union):
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


def _describe(annotation: Any) -> str:
    """Returns an annotated type and its range as text: 'int of at least 1', '(float, float)', 'list of str'."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Finite:
        return "finite float"
    if origin is Annotated:
        return f"{_describe(arguments[0])} of {' and '.join(map(str, arguments[1:]))}"
    if origin in (types.UnionType, Union):
        return " or ".join(map(_describe, arguments))
    if origin is tuple:
        return f"({', '.join('...' if argument is ... else _describe(argument) for argument in arguments)})"
    if origin is Sequence:
        return f"list of {_describe(arguments[0])}"
    return "None" if annotation is types.NoneType else getattr(annotation, "__name__", str(annotation))


def _show(parameter: inspect.Parameter) -> str:
    """Returns a parameter as text, with its type and its default: 'momentum: float of at least 0 = 0.0'."""
    default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
    stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
    return f"{stars}{parameter.name}: {_describe(parameter.annotation)}{default}"


def find(kind: str, call: Call, table: Mapping[str, Callable[..., Any]], **given: Any) -> functools.partial[Any]:
    """Looks up the function of a call in `table` and binds the call's arguments to it, without calling the function.

    Args:
      kind: noun for messages, as in 'optimizer'.
      call: the parsed call string.
      table: functions by name.
      given: arguments from the program. The function gets those that it declares; a call string cannot set these.

    Raises InputError for an unknown name or keyword, a value that is not of the annotated type or in its `Range`, or a
    wrong number of arguments.
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
        signature = f"{call.name}({', '.join(_show(parameters[name]) for name in settable)})"
        raise InputError(f"{kind} {call.name!r}: {error}; expected {signature}") from error
    for name, value in [*(positional | call.kwargs).items(), *((variadic[0], value) for value in args)]:
        if not _has_type(value, annotation := parameters[name].annotation):
            raise InputError(f"{kind} {call.name!r}: {name} = {value!r}: expected {_describe(annotation)}")
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
