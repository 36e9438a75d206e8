"""Selection of parameters by regular expressions on their paths, such as 'stage1_block2/conv1/kernel'."""

import re
import warnings

import jax

from cnnjax.errors import InputError
from cnnjax.state import Tree, path_name

LrFactors = tuple[tuple[re.Pattern[str], float], ...]  # (pattern, factor), the first match counts


MAX_REPETITIONS = 4  # in one pattern: matching takes time that grows with the length of a path to this power
# The parts of a regular expression: escapes, [classes], beginnings of groups, repetitions, and other characters.
_PARTS = re.compile(
    r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\((?:\?(?:<[=!]|P?<\w+>|[\w-]*:|[=!>]))?|(?:[*+?]|\{\d*,?\d*\})[?+]?|.", re.DOTALL
)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Compiles a regular expression. Raises InputError if it is invalid, or could take very long to match a path."""
    try:
        with warnings.catch_warnings(category=FutureWarning, action="ignore"):  # about [[, which may mean more one day
            compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from error
    _check_repetitions(pattern)
    return compiled


def _check_repetitions(pattern: str) -> None:
    """Raises InputError for a valid pattern that Python's backtracking engine might match for ever.

    These repeat a group that has repetitions or alternatives inside, such as (a+)+, where the number of ways to divide
    a path is exponential, or have more than MAX_REPETITIONS.
    """
    count, previous = 0, ""
    has_choices = [False]  # for the whole pattern and each open group: repetitions or alternatives inside
    closed = False  # the same for the group that has just ended
    for part in _PARTS.findall(pattern):
        is_repetition = part[0] in "*+?" or (part[0] == "{" and part[-1] != "{")
        if part[0] == "(":
            has_choices.append(False)
        elif part == ")" and len(has_choices) > 1:
            closed = has_choices.pop()
            has_choices[-1] |= closed
        elif part == "|" or is_repetition:
            has_choices[-1] = True
        count += is_repetition
        if is_repetition and part[0] != "?" and previous == ")" and closed:
            raise InputError(f"{pattern!r}: a repeated group may have no repetition or | inside: matching could hang")
        previous = part
    if count > MAX_REPETITIONS:
        raise InputError(f"{pattern!r} has {count} repetitions (*, +, ?, {{}}): expected at most {MAX_REPETITIONS}")


def path_mask(pattern: str | re.Pattern[str], params: Tree) -> Tree:
    """Returns a tree of booleans like `params`: whether `pattern` is found anywhere in each parameter's path.

    `params` may be arrays or shapes. Raises InputError if the pattern is found in no path.
    """
    pattern = compile_pattern(pattern) if isinstance(pattern, str) else pattern
    mask = jax.tree_util.tree_map_with_path(lambda path, _: bool(pattern.search(path_name(path))), params)
    if not any(jax.tree.leaves(mask)):
        example = path_name(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise InputError(f"{pattern.pattern!r} matches no parameter that is trained; one is {example!r}")
    return mask


def parse_lr_factors(text: str) -> LrFactors:
    """Parses learning-rate factors, 'PATTERN:FACTOR PATTERN:FACTOR ...', such as 'bias$:2 ^conv1:0'; '' gives ().

    The patterns are regular expressions on parameter paths. Raises InputError for another form, and for a factor that
    is negative or not finite.
    """
    factors = []
    for word in text.split():
        pattern, _, number = word.rpartition(":")
        try:
            factor = float(number)
            if not 0 <= factor < float("inf"):
                raise ValueError
        except ValueError:
            raise InputError(f"config.lr_factors: {word!r}: expected PATTERN:FACTOR, as in 'bias$:2'") from None
        factors.append((compile_pattern(pattern), factor))
    return tuple(factors)


def lr_factor_tree(factors: LrFactors, params: Tree) -> Tree:
    """Returns a tree of floats like `params`: the learning-rate factor of each parameter.

    The first pattern that is found in the path decides; without any, the factor is 1.0. Raises InputError for a pattern
    that is found in no path.
    """
    tree = jax.tree.map(lambda _: 1.0, params)
    for pattern, factor in reversed(factors):
        tree = jax.tree.map(lambda old, hit, new=factor: new if hit else old, tree, path_mask(pattern, params))
    return tree
