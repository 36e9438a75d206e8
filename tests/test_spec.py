"""Call strings: what they mean, and what is refused with which words."""

import re
from collections.abc import Sequence
from typing import Any

import pytest

from cnnjax import spec
from cnnjax.errors import MAX_NAMES_SHOWN, InputError, nearest


def f(given: int, a: int, b: int = 2, *, c: str = "x") -> tuple:
    return given, a, b, c


def sized(*sizes: int, flip: bool = True) -> tuple:
    return sizes, flip


TABLE = {"f": f, "other": f}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f", spec.Call("f", (), {})),
        ("f()", spec.Call("f", (), {})),
        ("  f ( 1 ) ", spec.Call("f", (1,), {})),
        ("f(-1, 0.5, True, None)", spec.Call("f", (-1, 0.5, True, None), {})),
        ("f(a='b|c(d)', e=(1, 2))", spec.Call("f", (), {"a": "b|c(d)", "e": (1, 2)})),
        ("f([1, [2]], {'k': [3]})", spec.Call("f", ((1, (2,)), {"k": (3,)}), {})),
    ],
)
def test_a_call_string_is_a_name_and_literals(text: str, expected: spec.Call) -> None:
    assert spec.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "1", "None", "class", "a b", "\0", "f(1", "f)", "(" * 300),
        *("__import__('os').system('x')", "f(__import__('os'))", "f(open('x'))", "f(g)", "f(x=g(1))", "f(1 + 1)"),
        *("a.b", "a.b(1)", "f[0]", "f(1)(2)", "lambda: 1", "f(x for x in 'ab')", "f(f'{1}')", "x := 1", "f(10**9)"),
        *("f(*[1])", "f(**{'a': 1})", "f(a=1, a=2)", "f({[]: 1})", "f|g"),
    ],
)
def test_anything_but_literals_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"{text!r} is not a call string; expected name or name(value")):
        spec.parse(text)


@pytest.mark.parametrize("depth", [200, 2000, 9000, 100_000])
@pytest.mark.parametrize("sign", ["-", "(", "[", "f(", "{1: ", "not ", "a|", "f(x=", "'"])
def test_what_is_nested_too_deeply_is_refused_in_a_short_message(sign: str, depth: int) -> None:
    for parse in (spec.parse, spec.parse_pipeline):
        with pytest.raises(InputError, match=r"is not a (pipeline|call string); expected") as error:
            parse(f"f({sign * depth}1")
        assert len(str(error.value)) < 1200
    if sign in "-not (":
        with pytest.raises(InputError, match=r"is not a (pipeline|call string); expected"):
            spec.parse(sign * depth + "1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("  ", []),
        ("a", ["a"]),
        ("a|b(4)|c", ["a", "b", "c"]),
        (" a | b ('x|y') ", ["a", "b"]),
    ],
)
def test_a_pipeline_is_calls_joined_by_bars(text: str, expected: list[str]) -> None:
    assert [call.name for call in spec.parse_pipeline(text)] == expected


def test_a_bar_inside_quotes_does_not_split() -> None:
    assert spec.parse_pipeline("a('x|y', k=\"|\")|b(1)") == [
        spec.Call("a", ("x|y",), {"k": "|"}),
        spec.Call("b", (1,), {}),
    ]


@pytest.mark.parametrize("text", ["a|", "|a", "a||b", "a|1", "a|b.c", "a & b", "a|(b|c)", "a|g(h())", "a,b", "a|'b'"])
def test_a_wrong_pipeline_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"is not a (pipeline|call string); expected"):
        spec.parse_pipeline(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f(1)", (7, 1, 2, "x")),
        ("f(1, 3)", (7, 1, 3, "x")),
        ("f(b=3, a=1, c='y')", (7, 1, 3, "y")),
    ],
)
def test_a_call_gets_its_own_arguments_and_those_of_the_program(text: str, expected: tuple) -> None:
    assert spec.build("thing", text, TABLE, given=7, not_declared=8) == expected


def test_a_call_may_have_any_number_of_arguments() -> None:
    table = {"sized": sized}
    assert spec.build("thing", "sized(1, 2, flip=False)", table, given=7) == ((1, 2), False)
    assert spec.build("thing", "sized", table) == ((), True)
    assert spec.build("thing", "sized(3, 4, 5)", table) == ((3, 4, 5), True)
    with pytest.raises(InputError, match="thing 'sized': sizes = 'x': expected int"):
        spec.build("thing", "sized(3, 'x')", table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("othr(1)", "unknown thing 'othr'; did you mean 'other'? valid: f, other"),
        ("f(1, d=3)", "thing 'f' has no argument 'd'; valid: a, b, c"),
        ("f(1, given=3)", "thing 'f' has no argument 'given'; valid: a, b, c"),
        ("f()", "thing 'f': missing a required argument: 'a'; expected f(a: int, b: int = 2, c: str = 'x')"),
        ("f(1, 2, 'z', 4)", "thing 'f': takes at most 3 arguments, got 4; expected f(a"),
        ("f(1, a=2)", "thing 'f': argument 'a' is given twice; expected f(a"),
    ],
)
def test_a_call_that_does_not_fit_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        spec.build("thing", text, TABLE, given=7)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("annotation", "good", "bad"),
    [
        (int, ["1", "-2"], ["1.0", "True", "'1'", "None"]),
        (float, ["1", "1.5"], ["True", "'1'", "None", "(1,)"]),
        (bool, ["True"], ["1", "None"]),
        (str, ["'a'"], ["1", "None"]),
        (int | None, ["1", "None"], ["1.0", "'a'"]),
        (int | tuple[int, int], ["1", "(1, 2)"], ["(1,)", "(1, 2, 3)", "(1, 'a')", "'a'"]),
        (tuple[int, ...], ["()", "(1, 2, 3)"], ["1", "(1, 2.5)"]),
        (Sequence[str], ["('a', 'b')", "'a'"], ["1", "('a', 1)"]),
        (Any, ["1", "None"], []),
    ],
)
def test_an_argument_has_the_type_of_its_parameter(annotation: Any, good: list[str], bad: list[str]) -> None:
    def typed(x: Any) -> Any:
        return x

    typed.__annotations__["x"] = annotation
    for text in good:
        assert repr(spec.build("thing", f"typed({text})", {"typed": typed})) == text
    for text in bad:
        with pytest.raises(InputError, match=re.escape(f"thing 'typed': x = {text}: expected ")):
            spec.build("thing", f"typed(x={text})", {"typed": typed})


def test_finding_checks_without_calling() -> None:
    def explode(a: int) -> Any:
        raise AssertionError(a)

    call = spec.find("thing", spec.parse("explode(3)"), {"explode": explode})
    with pytest.raises(AssertionError, match="3"):
        call()


@pytest.mark.parametrize(
    ("name", "valid", "expected"),
    [
        ("restnet", ["resnet", "lenet"], "did you mean 'resnet'? valid: lenet, resnet"),
        ("net20", ["net50", "cifar_net20"], "did you mean 'cifar_net20'? valid: cifar_net20, net50"),
        ("adamW", ["adam", "adamw"], "did you mean 'adamw'? valid: adam, adamw"),
        ("vgg61", ["vgg16", "vgg19"], "did you mean 'vgg16'? valid: vgg16, vgg19"),
        ("zzz", ["b", "a"], "valid: a, b"),
        ("zzz", [], "valid: none"),
    ],
)
def test_the_nearest_name_is_suggested(name: str, valid: list[str], expected: str) -> None:
    assert nearest(name, valid) == expected


def test_of_many_names_the_closest_are_listed() -> None:
    text = nearest("name7x", [f"name{i}" for i in range(100)])
    assert text.startswith("did you mean 'name7'? valid, of 100: name7")
    assert text.count(",") == MAX_NAMES_SHOWN + 1
    assert text.endswith(", ...")


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        ("weights", "NET3.b", "did you mean 'net3.b'? `cnnjax weights` lists all"),
        ("weights", "net", "did you mean 'net9.b'? similar: net9.a, net8.b, net8.a; `cnnjax weights` lists all"),
        ("config", "nothing", "`cnnjax configs` lists all"),
    ],
)
def test_where_a_command_lists_the_names_few_are_shown(kind: str, name: str, expected: str) -> None:
    assert nearest(name, [f"net{i}.{letter}" for i in range(10) for letter in "ab"], kind=kind) == expected


def test_a_list_of_calls_is_joined_by_commas() -> None:
    calls = [spec.Call("a", (), {}), spec.Call("b", (4,), {"c": (1, 2)}), spec.Call("d", (), {})]
    assert spec.parse_list("a,b(4, c=(1, 2)), d,") == calls
    assert spec.parse_list(" ") == []
    for text in ("a b", ",", "a,(b", "(a,b)", "a,,b", "a)+(b", "*a"):
        with pytest.raises(InputError, match="is not a"):
            spec.parse_list(text)
