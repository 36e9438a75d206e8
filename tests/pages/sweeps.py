"""A sweep whose trials were never run."""

import dataclasses
import pathlib

import optuna
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from cnnjax.sweep.record import Sweep
from cnnjax.sweep.settings import Settings
from tests import tiny

SPACE = {"lr": "log(1e-3, 1)", "model.activation": ["tanh", "relu"]}


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
