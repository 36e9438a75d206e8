"""Which parameters: regular expressions on their paths."""

import re

import jax

from cnnjax.errors import InputError
from cnnjax.state import Tree, path_name


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression. Raises InputError when it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InputError(f"{pattern!r} is not a regular expression: {error}") from error


def matching(pattern: str, params: Tree) -> Tree:
    """True for the parameters whose path, such as 'stage1_block2/conv1/kernel', matches the regular expression."""
    expression = compiled(pattern)
    mask = jax.tree_util.tree_map_with_path(lambda path, _: bool(expression.search(path_name(path))), params)
    if not any(jax.tree.leaves(mask)):
        one = path_name(jax.tree_util.tree_leaves_with_path(params)[0][0])
        raise InputError(f"{pattern!r} matches no parameter that is trained; one is {one!r}")
    return mask


def rate_factors(text: str, params: Tree) -> Tree:
    """The factor of the learning rate for each parameter: of 'PATTERN:FACTOR PATTERN:FACTOR', the first that matches.

    Raises InputError for a pattern that matches no parameter, and for what is no factor.
    """
    factors = jax.tree.map(lambda _: 1.0, params)
    for part in reversed(text.split()):
        pattern, _, number = part.rpartition(":")
        try:
            factor = float(number)
            if not 0 <= factor < float("inf"):
                raise ValueError
        except ValueError:
            raise InputError(f"config.lr_factors: {part!r}: expected PATTERN:FACTOR, as in 'bias$:2'") from None
        factors = jax.tree.map(lambda f, hit, new=factor: new if hit else f, factors, matching(pattern, params))
    return factors
