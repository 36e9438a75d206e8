"""Searching for settings: trials of a space, given out to workers, on Optuna's samplers and pruners.

A sweep is a folder: `sweep.json`, what it was asked; `journal.log`, Optuna's record of the trials; `trials/`, an
ordinary run for each (and for each seed); and the report. It is all that going on needs.
"""

import dataclasses
import itertools
import math
import pathlib
import statistics
import warnings
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import Trial, TrialState

from cnnjax import spec
from cnnjax.config import Config, check
from cnnjax.errors import InputError, unknown
from cnnjax.metrics import METRICS
from cnnjax.runs import workdir
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, is_complete, is_last, metric_lines, supervise
from cnnjax.sweep.space import configured, distributions, one_of
from cnnjax.training.recipe import parse_recipe

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
JOURNAL = "journal.log"

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
    if not (config.val_split or config.fold or "fold" in settings.space):
        raise InputError(
            "config.val_split = '': a sweep compares trials on a validation split; give one, as in "
            "--config.train_split='train[:90%]' --config.val_split='train[90%:]', or a fold, as in "
            '--space.fold=\'["1/5", "2/5", ...]\''
        )
    if settings.metric not in METRICS:
        raise unknown("metric", settings.metric, METRICS)
    for name in ("trials", "seeds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name}={getattr(settings, name)}: expected at least 1")
    if settings.seeds > 1 and "seed" in settings.space:
        raise InputError("--seeds repeats each trial with other seeds; leave 'seed' out of the space")
    space = distributions(settings.space, config)
    parse_recipe(configured(config, {name: one_of(values) for name, values in space.items()}))
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            for value in values.choices:
                parse_recipe(configured(config, {name: value}))
    spec.find("sampler", spec.parse(settings.sampler), SAMPLERS, seed=0)
    spec.build("pruner", settings.pruner, PRUNERS)
    ranges = [name for name, values in space.items() if not isinstance(values, CategoricalDistribution)]
    if spec.parse(settings.sampler).name == "grid" and ranges:
        raise InputError(f"space.{ranges[0]} = {settings.space[ranges[0]]!r}: a grid needs a list of choices")
    return space


def claim(folder: pathlib.Path, settings: Settings) -> None:
    """Makes `folder` a sweep's. Raises InputError when it is another's, or holds something else."""
    path = folder / "sweep.json"
    if path.exists():
        old, new = (dataclasses.asdict(one) for one in (read(folder), settings))
        if what := workdir.differences(old, new, FREE):
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
    """Optuna's study of the sweep, made anew or as it stands. Raises InputError for a database that does not answer."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = spec.build("pruner", settings.pruner, PRUNERS)
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        try:
            storage = settings.storage or JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            study = optuna.create_study(
                storage=storage,
                study_name=str(folder.resolve()) if settings.storage else "sweep",  # a folder may be moved
                direction="maximize" if METRICS[settings.metric].higher_is_better else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # of the file, of SQLAlchemy, of any database's driver
            where = f"--storage={settings.storage}" if settings.storage else str(folder / JOURNAL)
            raise InputError(f"{where}: {str(error).splitlines()[0]}") from error
        study.sampler = spec.build("sampler", settings.sampler, SAMPLERS, seed=len(study.trials))
    return study


def run_folders(folder: pathlib.Path, settings: Settings, number: int) -> list[pathlib.Path]:
    """Where the runs of a trial are: one for each seed."""
    trial = folder / "trials" / f"{number:04}"
    first = settings.config["seed"]
    return [trial / f"seed{first + i}" for i in range(settings.seeds)] if settings.seeds > 1 else [trial]


def validations(lines: list[dict[str, Any]], metric: str) -> list[float]:
    """A metric of the validation split, each time it was scored."""
    return [line[f"val/{metric}"] for line in lines if f"val/{metric}" in line]


def values_of(folder: pathlib.Path, settings: Settings, number: int) -> list[float]:
    """The final value of each of a trial's runs that is complete."""
    complete = [run for run in run_folders(folder, settings, number) if is_complete(run)]
    return [validations(metric_lines(run), settings.metric)[-1] for run in complete]


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

    A trial is its runs, one after the other; pruners judge the first. It fails with the first that fails, and when its
    settings do not fit together. Raises InputError for a sweep that does not fit, and Interrupted after SIGINT or
    SIGTERM.
    """
    space = check_settings(settings)
    claim(folder, settings)
    study = open_study(folder, settings)
    config = Config(**settings.config)
    total = settings.trials
    if spec.parse(settings.sampler).name == "grid":
        points = list(itertools.product(*(values.choices for values in space.values())))  # type: ignore[attr-defined]
        total = min(total, len(points))
        for point in points[:total]:
            study.enqueue_trial(dict(zip(space, point, strict=True)), skip_if_exists=True)
    waiting = [Trial(study, old._trial_id) for old in study.get_trials(states=[TrialState.RUNNING])]
    trials: dict[pathlib.Path, Trial] = {}  # of the runs that go on

    def fail(trial: Trial, why: str) -> None:
        trial.set_user_attr("failure", why)
        study.tell(trial, state=TrialState.FAIL)

    def next_run(trial: Trial) -> Run | None:
        """The trial's first run that is missing; None, once the trial is told, when there is none."""
        try:
            settled = check(configured(config, trial.params))
            parse_recipe(settled)
        except InputError as error:
            fail(trial, str(error))
            return None
        for i, path in enumerate(run_folders(folder, settings, trial.number)):
            if not is_complete(path):
                trials[path] = trial
                return Run(dataclasses.replace(settled, seed=settled.seed + i), path, settings.data_dir)
        study.tell(trial, statistics.fmean(values_of(folder, settings, trial.number)))
        return None

    def take() -> Run | None:
        while waiting or _asked(study) < total:
            trial = waiting.pop(0) if waiting else study.ask(space)
            if run := next_run(trial):
                return run
        return None

    def watch(run: Run) -> bool:
        trial = trials[run.folder]
        if run.folder != run_folders(folder, settings, trial.number)[0]:
            return False
        known = study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for at, value in enumerate(validations(run.lines, settings.metric), 1):
            if at not in known and math.isfinite(value):
                trial.report(value, at)
        return not is_last(run) and trial.should_prune()

    def ended(run: Run, end: End) -> None:
        trial = trials.pop(run.folder)
        if end.kind == "complete":
            waiting.insert(0, trial)
        elif end.kind == "stopped":
            study.tell(trial, state=TrialState.PRUNED)
        else:
            fail(trial, end.text)

    supervise(take, start, workers=workers, silence=silence, watch=watch, ended=ended,
              show=lambda active: show(study, active))  # fmt: skip
    return study


def _asked(study: optuna.Study) -> int:
    """The trials that were given out, however they ended."""
    return len([trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING])
