"""A sweep whose trials were never run."""

import dataclasses
import pathlib
from collections.abc import Sequence

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from cnnjax.sweep.record import Sweep
from cnnjax.sweep.settings import Settings
from tests import tiny

SPACE = {"lr": "log(1e-3, 1)", "model.activation": ["tanh", "relu"]}


def sweep_over_folds(folder: pathlib.Path, trials: Sequence[tuple[float, str, float]]) -> Sweep:
    """Returns a cross-validation over three folds whose complete trials have these (lr, fold, accuracy)."""
    space = {"lr": [0.1, 0.2], "fold": ["1/3", "2/3", "3/3"]}
    study = optuna.create_study(direction="maximize")
    distributions: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(choices) for name, choices in space.items()
    }
    for lr, fold, value in trials:
        study.add_trial(create_trial(params={"lr": lr, "fold": fold}, distributions=distributions, value=value))
    return Sweep(folder, Settings(dataclasses.asdict(tiny.config(val_split="")), "tiny.py", space), study, None)


def make_sweep(folder: pathlib.Path, trials: int) -> Sweep:
    """Returns a sweep with complete trials, the best of which is the first, and with a failed one."""
    settings = Settings(dataclasses.asdict(tiny.config()), "tiny.py", SPACE, trials=trials)
    study = optuna.create_study(direction="maximize")
    distributions = {
        "lr": FloatDistribution(1e-3, 1, log=True),
        "model.activation": CategoricalDistribution(["tanh", "relu"]),
    }
    for i in range(trials):
        params = {"lr": 10 ** -(1 + i / trials), "model.activation": ["tanh", "relu"][i % 2]}
        values = {1: 0.5, 2: 0.9 - 0.05 * i}
        study.add_trial(
            create_trial(params=params, distributions=distributions, value=values[2], intermediate_values=values)
        )
    if trials:
        study.add_trial(
            create_trial(
                params={"lr": 0.5, "model.activation": "relu"},
                distributions=distributions,
                state=TrialState.FAIL,
                user_attrs={"failure": "exit status 1\nthe loss became nan at step 3"},
            )
        )
    return Sweep(folder, settings, study, None)
