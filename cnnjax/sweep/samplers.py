"""Samplers and pruners of a sweep: functions, named in call strings, that build Optuna's.

A new sampler is built for each trial, with the number of earlier trials as its seed. So a trial's settings depend on
the earlier trials alone, and a sweep that was killed and resumed chooses the same ones.
"""

import warnings
from typing import Annotated

import optuna

from cnnjax.spec import Count, Range

Trials = Annotated[int, Range(0, 1_000_000)]  # or evaluations


def tpe(seed: int, startup: Trials = 10) -> optuna.samplers.BaseSampler:
    """Returns Optuna's TPE sampler (Bergstra et al. 2011); the first `startup` trials are random."""
    return optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed, constant_liar=True)


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Returns Optuna's random sampler (Bergstra & Bengio 2012)."""
    return optuna.samplers.RandomSampler(seed=seed)


def grid(seed: int) -> optuna.samplers.BaseSampler:
    """Returns a sampler that is never used: `sweep` itself enqueues every combination of the choices."""
    return optuna.samplers.RandomSampler(seed=seed)  # never samples: `sweep` enqueues all trials


def cmaes(seed: int) -> optuna.samplers.BaseSampler:
    """Returns Optuna's CMA-ES sampler (Hansen 2016); settings with a list of choices are sampled at random."""
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def halton(seed: int) -> optuna.samplers.BaseSampler:
    """Returns Optuna's scrambled Halton sampler (Bousquet et al. 2017); lists of choices are sampled at random."""
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        return optuna.samplers.QMCSampler(
            qmc_type="halton", scramble=True, seed=0,  # with another seed it would be another sequence
            independent_sampler=optuna.samplers.RandomSampler(seed=seed), warn_independent_sampling=False,
        )  # fmt: skip


def none() -> optuna.pruners.BasePruner:
    """Returns a pruner that never stops a trial early."""
    return optuna.pruners.NopPruner()


def median(startup: Trials = 5, warmup: Trials = 0) -> optuna.pruners.BasePruner:
    """Returns Optuna's median pruner.

    It stops a trial whose best value so far is worse than the median of the complete trials at the same evaluation. No
    trial is pruned until `startup` trials are complete, and none before its evaluation number `warmup`.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)


def hyperband(least: Count = 1, factor: Annotated[int, Range(2, 1000)] = 3) -> optuna.pruners.BasePruner:
    """Returns Optuna's Hyperband pruner (Li et al. 2018).

    No trial is pruned before `least` evaluations; at each rung of successive halving, the best 1/`factor` of a
    bracket's trials go on.
    """
    return optuna.pruners.HyperbandPruner(min_resource=least, reduction_factor=factor)


SAMPLERS = {"tpe": tpe, "random": random, "grid": grid, "cmaes": cmaes, "halton": halton}
PRUNERS = {"none": none, "median": median, "hyperband": hyperband}
