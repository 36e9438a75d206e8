"""Patterns on parameter paths: those whose matching could take for ever are refused at once."""

import re

import pytest

from cnnjax.errors import InputError
from cnnjax.optim.masks import MAX_REPETITIONS, compile_pattern

PATTERNS = [
    *(
        "",
        ".*",
        "kernel$",
        "^(?!head)",
        "^(stage1|stage2)_",
        r"(conv\d+|norm)/kernel",
        "^(?:a|b)?c",
        "(?i)Head",
        "(a)+",
    ),
    *("(a)+", "[*+?(|)]+", "[]|()+*]+", r"\(a\+\)+", "a{2,3}", "(?P<name>a)", "(?<=a)b", "a{", "{}", "[[]", r"[^\]+]+"),
    r"stage\d+_block\d+/.*kernel",
]
ENDLESS = [
    *("(a+)+$", "(a*)*", "(a|aa)+$", "((a)+)*", "(?:a?){30}a{30}", "(.*a){20}", "((a{1,9}){1,9}){1,9}", "(a?b)+?"),
    *("(a|b){2,}", "(?:(?:a|b)c)+", "x(y(z*))*", "([ab]|c)+", r"(\d+/)+"),
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_usual_pattern_is_compiled(pattern: str) -> None:
    assert compile_pattern(pattern).pattern == pattern


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_could_match_for_ever_is_refused(pattern: str) -> None:
    expected = f"{pattern!r}: a repeated group may have no repetition or | inside: matching could hang"
    with pytest.raises(InputError, match=re.escape(expected)):
        compile_pattern(pattern)


def test_a_pattern_has_few_repetitions() -> None:
    compile_pattern(".*" * MAX_REPETITIONS)
    with pytest.raises(InputError, match=f"has {MAX_REPETITIONS + 1} repetitions .*: expected at most"):
        compile_pattern(".*" * (MAX_REPETITIONS + 1))


@pytest.mark.parametrize("pattern", ["(", "[", "*", "a**", "(?P<1>a)", "(" * 5000, "a{99999999999999999999}"])
def test_what_is_no_regular_expression_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match="is not a regular expression: "):
        compile_pattern(pattern)
