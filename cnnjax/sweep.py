"""Searching for settings: trials of a space, given out to workers, on Optuna's samplers and pruners.

A sweep is a folder: `sweep.json`, what it was asked; `journal.log`, Optuna's record of the trials; `trials/`, an ordinary
run for each (and for each seed); and the report. It is all that going on needs.

A space says for a setting what it may be: a list of choices, or a call of `SPACES`. A setting is a field of `Config`, or an
argument inside of one that is a call string: 'model.dropout', 'augment.cutout.size'.
"""

import ast
import csv
import dataclasses
import itertools
import math
import pathlib
import statistics
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnjax import runs, spec, workdir
from cnnjax.config import FIELDS, Config, check
from cnnjax.errors import InputError, nearest, unknown
from cnnjax.executors import Start
from cnnjax.runs import End, Run
from cnnjax.train import check_names

# ----------------------------------------------------------------------------------------------------------- the space


def uniform(low: float, high: float) -> BaseDistribution:
    """Any number from `low` to `high`."""
    return FloatDistribution(low, high)


def log(low: float, high: float) -> BaseDistribution:
    """Any number from `low` to `high`, each power of ten as likely as another."""
    return FloatDistribution(low, high, log=True)


def integer(low: int, high: int, step: int = 1, log: bool = False) -> BaseDistribution:
    """A whole number from `low` to `high`."""
    return IntDistribution(low, high, log=log, step=step)


SPACES: dict[str, Callable[..., BaseDistribution]] = {"uniform": uniform, "log": log, "integer": integer}
Space = Mapping[str, Any]  # setting -> a list of choices, or a call string of SPACES


def distributions(space: Space, config: Config) -> dict[str, BaseDistribution]:
    """The space as Optuna has it. Raises InputError for a setting that `config` does not have, and a wrong range."""
    if not space:
        raise InputError(
            "the sweep has no space; give --space.FIELD=[A, B] or =log(1e-3, 1), or sweep() in the config file"
        )
    return {name: _distribution(name, values, config) for name, values in space.items()}


def _distribution(name: str, values: Any, config: Config) -> BaseDistribution:
    field = name.partition(".")[0]
    if field not in FIELDS:
        raise unknown("config field", field, FIELDS)
    if isinstance(values, str):
        try:
            values = ast.literal_eval(values)
        except (ValueError, SyntaxError):
            try:
                return spec.build("space", values, SPACES)
            except ValueError as error:  # Optuna's, too
                raise InputError(f"space.{name} = {values!r}: {error}") from error
    scalar = (bool, int, float, str)
    if not isinstance(values, list | tuple) or not values or not all(isinstance(value, scalar) for value in values):
        raise InputError(f"space.{name} = {values!r}: expected a list of choices, or a range such as 'log(1e-3, 1)'")
    for value in values:
        check(configured(config, {name: value}))
    return CategoricalDistribution(values)


def configured(config: Config, values: Mapping[str, Any]) -> Config:
    """The config with these settings. Raises InputError for an argument that is in no call string."""
    config = dataclasses.replace(config)
    for name, value in values.items():
        field, *path = name.split(".")
        old = getattr(config, field)
        if path and not isinstance(old, str):
            raise InputError(f"{name!r}: config.{field} = {old!r} is not a call string")
        setattr(config, field, spec.with_argument(old, path, value) if path else value)
    return config


# --------------------------------------------------------------------------------------------------- samplers, pruners


def tpe(seed: int, startup: int = 10) -> optuna.samplers.BaseSampler:
    """Tree-structured Parzen estimators (Bergstra et al. 2011), after `startup` random trials."""
    return optuna.samplers.TPESampler(n_startup_trials=startup, seed=seed, constant_liar=True)


def random(seed: int) -> optuna.samplers.BaseSampler:
    """Independent draws (Bergstra & Bengio 2012)."""
    return optuna.samplers.RandomSampler(seed=seed)


def grid(seed: int) -> optuna.samplers.BaseSampler:
    """Every combination of a space of lists, once."""
    return optuna.samplers.RandomSampler(seed=seed)  # of nothing: all trials are enqueued


def cmaes(seed: int) -> optuna.samplers.BaseSampler:
    """Covariance matrix adaptation (Hansen 2016) of the ranges; choices are drawn at random."""
    return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)


def halton(seed: int) -> optuna.samplers.BaseSampler:
    """Halton's sequence, scrambled (Bousquet et al. 2017): fills the space more evenly than draws."""
    return optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=seed, warn_independent_sampling=False)


def none() -> optuna.pruners.BasePruner:
    """Every trial runs to its end."""
    return optuna.pruners.NopPruner()


def median(startup: int = 5, warmup: int = 0) -> optuna.pruners.BasePruner:
    """Stops a trial that is worse than the median of the others at the same validation, after `warmup` of them.

    `startup` trials run to their end before.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)


def hyperband(least: int = 1, factor: int = 3) -> optuna.pruners.BasePruner:
    """Hyperband (Li et al. 2018): of each bracket one trial in `factor` goes on, from `least` validations on."""
    return optuna.pruners.HyperbandPruner(min_resource=least, reduction_factor=factor)


SAMPLERS = {"tpe": tpe, "random": random, "grid": grid, "cmaes": cmaes, "halton": halton}
PRUNERS = {"none": none, "median": median, "hyperband": hyperband}
METRICS = {"accuracy": "maximize", "top5": "maximize", "loss": "minimize"}

# ----------------------------------------------------------------------------------------------------------- the sweep


@dataclasses.dataclass
class Settings:
    """What a sweep was asked; sweep.json holds it."""

    config: dict[str, Any]
    source: str  # the config file, as it was given
    space: dict[str, Any]
    trials: int = 20
    seeds: int = 1  # runs of each trial, with seeds from config.seed on; its value is their mean
    sampler: str = "tpe"
    pruner: str = "none"
    metric: str = "accuracy"  # of the validation split, at the end of a run
    data_dir: str = ""
    storage: str = ""  # the URL of a database; '' for the journal in the folder


FREE = ("trials", "data_dir")  # may change when a sweep goes on


def check_settings(settings: Settings) -> dict[str, BaseDistribution]:
    """The space. Raises InputError for settings that do not fit, before anything is run."""
    config = check(Config(**settings.config))
    if not config.val_split:
        raise InputError(
            "config.val_split = '': a sweep compares trials on a validation split; give one, as in "
            "--config.train_split='train[:90%]' --config.val_split='train[90%:]'"
        )
    if settings.metric not in METRICS:
        raise unknown("metric", settings.metric, METRICS)
    for name in ("trials", "seeds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name}={getattr(settings, name)}: expected at least 1")
    if settings.seeds > 1 and "seed" in settings.space:
        raise InputError("--seeds repeats each trial with other seeds; leave 'seed' out of the space")
    space = distributions(settings.space, config)
    check_names(configured(config, {name: _some(values) for name, values in space.items()}))
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            for value in values.choices:
                check_names(configured(config, {name: value}))
    spec.find("sampler", spec.parse(settings.sampler), SAMPLERS, seed=0)
    spec.build("pruner", settings.pruner, PRUNERS)
    ranges = [name for name, values in space.items() if not isinstance(values, CategoricalDistribution)]
    if spec.parse(settings.sampler).name == "grid" and ranges:
        raise InputError(f"space.{ranges[0]} = {settings.space[ranges[0]]!r}: a grid needs a list of choices")
    return space


def _some(values: BaseDistribution) -> Any:
    return values.choices[0] if isinstance(values, CategoricalDistribution) else values.low  # type: ignore[attr-defined]


def claim(folder: pathlib.Path, settings: Settings) -> None:
    """Makes `folder` a sweep's. Raises InputError when it is another's, or holds something else."""
    path = folder / "sweep.json"
    if path.exists():
        old, new = (dataclasses.asdict(one) for one in (read(folder), settings))
        changed = [name for name in new if old[name] != new[name] and name not in FREE]
        if changed:
            what = ", ".join(f"{name} = {old[name]!r} there, {new[name]!r} now" for name in changed)
            raise InputError(f"{folder} is another sweep: {what}. Give another --workdir, or only that to go on")
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and not a sweep's folder; give another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(path, dataclasses.asdict(settings))


def read(folder: pathlib.Path) -> Settings:
    """What the sweep in `folder` was asked. Raises InputError when there is none."""
    if not (folder / "sweep.json").exists():
        raise InputError(f"{folder} is not a sweep's folder: it has no sweep.json")
    try:
        return Settings(**workdir.read_json(folder / "sweep.json"))
    except TypeError as error:
        raise InputError(f"{folder / 'sweep.json'} is damaged: {error}") from error


def open_study(folder: pathlib.Path, settings: Settings) -> optuna.Study:
    """Optuna's study of the sweep, made anew or as it stands."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage: Any = settings.storage
    if not storage:
        backend = optuna.storages.journal.JournalFileBackend(str(folder / "journal.log"))
        storage = optuna.storages.JournalStorage(backend)
    pruner = spec.build("pruner", settings.pruner, PRUNERS)
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        study = optuna.create_study(
            storage=storage,
            study_name=folder.name,
            direction=METRICS[settings.metric],
            pruner=pruner,
            load_if_exists=True,
        )
        study.sampler = spec.build("sampler", settings.sampler, SAMPLERS, seed=len(study.trials))
    return study


def trial_folder(folder: pathlib.Path, number: int) -> pathlib.Path:
    return folder / "trials" / f"{number:04}"


def sweep(
    folder: pathlib.Path,
    settings: Settings,
    start: Start,
    *,
    workers: int,
    silence: float,
    show: Callable[[optuna.Study, list[Run]], None],
) -> optuna.Study:
    """Runs what is missing of a sweep, `workers` runs at a time, and returns its study.

    Raises InputError for settings that do not fit, and Interrupted after SIGINT or SIGTERM.
    """
    space = check_settings(settings)
    claim(folder, settings)
    study = open_study(folder, settings)
    config = Config(**settings.config)
    if spec.parse(settings.sampler).name == "grid":
        names, choices = list(space), [values.choices for values in space.values()]  # type: ignore[attr-defined]
        for point in itertools.product(*choices):
            study.enqueue_trial(dict(zip(names, point, strict=True)), skip_if_exists=True)
    total = settings.trials
    by_folder: dict[pathlib.Path, Trial] = {}

    def run_of(trial: Trial) -> Run | None:
        """The next of a trial's runs that is missing; None when there is none, or when it does not fit."""
        try:
            settled = check(configured(config, trial.params))
            check_names(settled)
        except InputError as error:
            fail(trial, str(error))
            return None
        for i in range(settings.seeds):
            path = trial_folder(folder, trial.number) / (f"seed{config.seed + i}" if settings.seeds > 1 else "")
            if not runs.is_complete(path):
                by_folder[path] = trial
                one = dataclasses.replace(settled, seed=settled.seed + i) if i else settled
                return Run(one, path, settings.data_dir, f"{trial.number}")
        values = [final(runs.metric_lines(path), settings.metric) for path in run_folders(folder, trial.number)]
        trial.set_user_attr("values", values)
        study.tell(trial, statistics.fmean(values))
        return None

    def fail(trial: Trial, why: str) -> None:
        trial.set_user_attr("failure", why)
        study.tell(trial, state=TrialState.FAIL)

    waiting = [Trial(study, old._trial_id) for old in study.get_trials(states=[TrialState.RUNNING])]

    def take() -> Run | None:
        while waiting or count_asked(study) < total:
            trial = waiting.pop(0) if waiting else study.ask(space)
            if run := run_of(trial):
                return run
        return None

    def watch(run: Run) -> bool:
        trial = by_folder[run.folder]
        known = study._storage.get_trial(trial._trial_id).intermediate_values
        for at, value in enumerate(validations(run.lines, settings.metric), 1):
            if at not in known and math.isfinite(value) and run.config.seed == config.seed:
                trial.report(value, at)
        return run.config.seed == config.seed and trial.should_prune()

    def ended(run: Run, end: End) -> None:
        trial = by_folder.pop(run.folder)
        if end.kind == "complete":
            waiting.insert(0, trial)
        elif end.kind == "stopped":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            fail(trial, end.text)

    runs.supervise(take, start, workers=workers, silence=silence, watch=watch, ended=ended,
                   show=lambda active: show(study, active))  # fmt: skip
    return study
