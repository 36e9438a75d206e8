"""Checks a study before anything runs."""

from collections import Counter
from typing import get_args

from cnnjax.config import Config, to_steps
from cnnjax.errors import InputError, nearest
from cnnjax.optim import build_schedule
from cnnjax.study import CHAPTERS, Claim, Comparison, Sign, Study
from cnnjax.training.recipe import parse_recipe


def check_study(study: Study) -> None:
    """Checks a study before anything runs.

    Raises InputError for fewer than one seed, arm or panel, `max_seeds` below `seeds`, an invalid config, an arm that
    starts from one that is not trained from scratch, a fraction that is no metric, two claims of one name, an invalid
    claim, and for what only a study with claims, or only one without, can have.
    """
    numbers = (min(study.first_seeds().values(), default=1), len(study.arms), len(study.panels))
    for name, number in zip(("seeds", "arms", "panels"), numbers, strict=True):
        if number < 1:
            raise InputError(f"a study of {number} {name}: expected at least 1")
    if study.max_seeds and study.max_seeds < study.seeds:
        raise InputError(f"max_seeds={study.max_seeds}: expected at least seeds = {study.seeds}, or 0 for no more")
    if unknown_arms := study.seeds_of.keys() - study.arms.keys():
        raise InputError(f"seeds_of: no arm {min(unknown_arms)!r}; {nearest(min(unknown_arms), study.arms)}")
    if study.claims and study.seeds_of:
        raise InputError("seeds_of: arms that claims compare have equal numbers of seeds")
    if not study.claims and study.max_seeds > study.seeds:
        raise InputError(f"max_seeds={study.max_seeds}: only a study with claims adds seeds, and this one has none")
    _check_panels(study)
    measured = {*study.metrics, *(panel.metric for panel in study.panels)}
    for name in study.fractions:
        if name not in measured:
            raise InputError(f"fractions: no metric {name!r}; {nearest(name, measured)}")
    for arm, config in study.arms.items():
        try:
            _check_config(config)
        except InputError as error:
            raise InputError(f"arm {arm!r}: {error}") from error
    for arm, source in study.starts.items():
        if not {arm, source} <= study.arms.keys() - (study.starts.keys() - {arm}):
            raise InputError(f"arm {arm!r} starts from {source!r}: expected an arm that is trained from scratch")
    for name, count in Counter(claim.name for claim in study.claims).items():
        if count > 1:
            raise InputError(f"{count} claims have the name {name!r}: expected one")
    for claim in study.claims:
        try:
            _check_claim(claim, study)
        except InputError as error:
            raise InputError(f"claim {claim.name!r}: {error}") from error


def _check_panels(study: Study) -> None:
    """Checks that a scatter plot has an x axis, and stands in a study without claims. Raises InputError."""
    for panel in study.panels:
        if panel.kind == "scatter":
            if study.claims:
                raise InputError(f"panel {panel.title!r}: a scatter plot is for a study without claims")
            for metric in (panel.x, panel.metric):
                if metric not in study.metrics:
                    raise InputError(f"panel {panel.title!r}: no metric {metric!r}; {nearest(metric, study.metrics)}")


def _check_config(config: Config) -> None:
    """Checks the config of an arm. Raises InputError, also for a schedule that does not fit a duration in steps."""
    recipe = parse_recipe(config)
    if config.duration.endswith("steps"):  # how many steps an epoch has depends on the data
        build_schedule(recipe.optim, epoch=1.0, total=to_steps(config.duration, epoch=1.0))


def _check_claim(claim: Claim, study: Study) -> None:
    """Checks the chapter and the comparisons of a claim. Raises InputError."""
    if claim.chapter not in CHAPTERS:
        raise InputError(f"unknown chapter {claim.chapter!r}; {nearest(claim.chapter, CHAPTERS)}")
    if not claim.comparisons:
        raise InputError("no comparisons; expected at least 1")
    for comparison in claim.comparisons:
        _check_comparison(comparison, study)


def _check_comparison(comparison: Comparison, study: Study) -> None:
    """Checks one comparison of a claim. Raises InputError."""
    for arm in (comparison.a, comparison.b):
        if arm not in study.arms:
            raise InputError(f"no arm {arm!r}; {nearest(arm, study.arms)}")
    if comparison.a == comparison.b:
        raise InputError(f"arm {comparison.a!r} is compared with itself; expected two arms")
    if comparison.metric not in study.metrics:
        raise InputError(f"no metric {comparison.metric!r}; {nearest(comparison.metric, study.metrics)}")
    if comparison.sign not in get_args(Sign):
        raise InputError(f"unknown sign {comparison.sign!r}; {nearest(comparison.sign, get_args(Sign))}")
    if not comparison.margin >= 0:
        raise InputError(f"margin={comparison.margin:g}; expected 0 or more ('at_least' allows a difference)")
    if comparison.sign == "equal" and not comparison.margin:
        raise InputError("'equal' needs a margin above 0: the smallest difference that matters")
