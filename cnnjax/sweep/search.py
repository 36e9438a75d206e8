"""Hyperparameter search: trials of a space, run in parallel, with Optuna's samplers and pruners.

A sweep is a folder with `sweep.json`, its settings; `journal.log`, Optuna's record of the trials; `trials/`, a run for
each trial (and seed); and the report. A sweep resumes from its folder alone.
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
from cnnjax.config import ALIASES, Config, check
from cnnjax.errors import InputError, unknown
from cnnjax.metrics import METRICS
from cnnjax.runs import workdir
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, is_at_last_step, is_complete, read_metrics, supervise
from cnnjax.sweep.space import current_name, distributions, example_value, with_settings
from cnnjax.training.recipe import parse_recipe

# --------------------------------------------------------------------------------------------------- samplers, pruners


def tpe(seed: int, startup: int = 10) -> optuna.samplers.BaseSampler:
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
    return optuna.samplers.QMCSampler(qmc_type="halton", scramble=True, seed=seed, warn_independent_sampling=False)


def none() -> optuna.pruners.BasePruner:
    """Returns a pruner that never stops a trial early."""
    return optuna.pruners.NopPruner()


def median(startup: int = 5, warmup: int = 0) -> optuna.pruners.BasePruner:
    """Returns Optuna's median pruner.

    It stops a trial whose best value so far is worse than the median of the complete trials at the same evaluation. No
    trial is pruned until `startup` trials are complete, and none before its evaluation number `warmup`.
    """
    return optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)


def hyperband(least: int = 1, factor: int = 3) -> optuna.pruners.BasePruner:
    """Returns Optuna's Hyperband pruner (Li et al. 2018).

    No trial is pruned before `least` evaluations; at each rung of successive halving, the best 1/`factor` of a
    bracket's trials go on.
    """
    return optuna.pruners.HyperbandPruner(min_resource=least, reduction_factor=factor)


SAMPLERS = {"tpe": tpe, "random": random, "grid": grid, "cmaes": cmaes, "halton": halton}
PRUNERS = {"none": none, "median": median, "hyperband": hyperband}
JOURNAL = "journal.log"

# ----------------------------------------------------------------------------------------------------------- the sweep


@dataclasses.dataclass
class Settings:
    """The settings of a sweep, as stored in sweep.json.

    Attributes:
        config: the fields of the `Config` that trials start from.
        source: the config file as given on the command line, 'FILE[:arg]'.
        space: setting -> a list of choices, or a range such as 'log(1e-3, 1)'.
        trials: number of trials to start, however they end.
        seeds: runs of each trial, with consecutive seeds from config['seed'] on; a trial's value is their mean.
        sampler: call string of a function in `SAMPLERS`.
        pruner: call string of a function in `PRUNERS`.
        metric: name of the validation metric to optimize, taken at the end of a run.
        data_dir: folder of the data sets; '' for TFDS's default.
        storage: URL of Optuna's database; '' for journal.log in the sweep's folder.
    """

    config: dict[str, Any]
    source: str
    space: dict[str, Any]
    trials: int = 20
    seeds: int = 1
    sampler: str = "tpe"
    pruner: str = "none"
    metric: str = "accuracy"
    data_dir: str = ""
    storage: str = ""


RESUMABLE = ("trials", "data_dir")  # may change when a sweep is resumed


def check_settings(settings: Settings) -> dict[str, BaseDistribution]:
    """Checks settings before anything runs, and returns Optuna's distribution of each setting in the space.

    Raises InputError for invalid settings, or without a validation split or fold.
    """
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
    parse_recipe(with_settings(config, {name: example_value(values) for name, values in space.items()}))
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            for value in values.choices:
                parse_recipe(with_settings(config, {name: value}))
    spec.find("sampler", spec.parse(settings.sampler), SAMPLERS, seed=0)
    spec.build("pruner", settings.pruner, PRUNERS)
    ranges = [name for name, values in space.items() if not isinstance(values, CategoricalDistribution)]
    if spec.parse(settings.sampler).name == "grid" and ranges:
        raise InputError(f"space.{ranges[0]} = {settings.space[ranges[0]]!r}: a grid needs a list of choices")
    return space


def claim(folder: pathlib.Path, settings: Settings) -> None:
    """Makes `folder` the folder of this sweep: creates it and writes sweep.json.

    A folder that has this sweep already is kept; only `trials` and `data_dir` may have changed. If the space in
    sweep.json has earlier names of config fields, it replaces `settings.space`, because Optuna's record has these
    names, too. Raises InputError if the folder belongs to another sweep, or contains other files.
    """
    path = folder / "sweep.json"
    if path.exists():
        stored = read(folder)
        if _with_current_names(stored.space) == _with_current_names(settings.space):
            settings.space = stored.space
        old, new = map(dataclasses.asdict, (stored, settings))
        if changes := workdir.differences(old, new, RESUMABLE):
            raise InputError(
                f"{folder} holds another sweep: {changes}. Pass another --workdir, or --workdir alone to resume"
            )
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and not a sweep's folder; pass another --workdir")
    folder.mkdir(parents=True, exist_ok=True)
    workdir.write_json(path, dataclasses.asdict(settings))


def read(folder: pathlib.Path) -> Settings:
    """Reads the settings of the sweep in `folder`.

    Config fields that an earlier version wrote get their present names. Raises InputError if sweep.json is missing or
    damaged.
    """
    if not (folder / "sweep.json").exists():
        raise InputError(f"{folder} is not a sweep's folder: it has no sweep.json")
    try:
        settings = Settings(**workdir.read_json(folder / "sweep.json"))
        config = Config(**{ALIASES.get(name, name): value for name, value in settings.config.items()})
        return dataclasses.replace(settings, config=dataclasses.asdict(config))
    except (TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'sweep.json'} is damaged: {error}") from error


def _with_current_names(space: dict[str, Any]) -> dict[str, Any]:
    """Returns the space with the present names of renamed config fields."""
    return {current_name(name): values for name, values in space.items()}


def open_study(folder: pathlib.Path, settings: Settings) -> optuna.Study:
    """Creates or loads Optuna's study of a sweep, with its sampler and pruner.

    The sampler is seeded with the number of trials so far, so that a resumed sweep does not sample the same settings
    again. Raises InputError if the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = spec.build("pruner", settings.pruner, PRUNERS)
    with warnings.catch_warnings(category=optuna.exceptions.ExperimentalWarning, action="ignore"):
        try:
            storage = settings.storage or JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
            study = optuna.create_study(
                storage=storage,
                study_name=str(folder.resolve()) if settings.storage else "sweep",  # a journal may move with its folder
                direction="maximize" if METRICS[settings.metric].higher_is_better else "minimize",
                pruner=pruner,
                load_if_exists=True,
            )
        except Exception as error:  # from the file system, SQLAlchemy or a database driver
            location = f"--storage={settings.storage}" if settings.storage else str(folder / JOURNAL)
            raise InputError(f"{location}: {str(error).splitlines()[0]}") from error
        study.sampler = spec.build("sampler", settings.sampler, SAMPLERS, seed=len(study.trials))
    return study


def run_folders(folder: pathlib.Path, settings: Settings, number: int) -> list[pathlib.Path]:
    """Returns the run folders of trial `number`: trials/0007 or, with several seeds, trials/0007/seed0, seed1, ..."""
    trial = folder / "trials" / f"{number:04}"
    first = settings.config["seed"]
    return [trial / f"seed{first + i}" for i in range(settings.seeds)] if settings.seeds > 1 else [trial]


def evaluations(lines: list[dict[str, Any]], metric: str) -> list[float]:
    """Returns the validation metric at each evaluation, in order, from the parsed lines of metrics.jsonl."""
    return [line[f"val/{metric}"] for line in lines if f"val/{metric}" in line]


def final_values(folder: pathlib.Path, settings: Settings, number: int) -> list[float]:
    """Returns the validation metric at the end of each complete run of trial `number`; leaves out others."""
    complete = [run for run in run_folders(folder, settings, number) if is_complete(run)]
    return [evaluations(read_metrics(run), settings.metric)[-1] for run in complete]


def sweep(
    folder: pathlib.Path,
    settings: Settings,
    start: Start,
    *,
    workers: int,
    stall_timeout: float,
    show: Callable[[optuna.Study, list[Run]], None],
) -> optuna.Study:
    """Runs the missing trials of a sweep, `workers` runs in parallel, and returns Optuna's study.

    The runs of a trial (its seeds) follow one another; only the first may be pruned. A trial fails if one of its runs
    fails, or if its combination of settings is invalid. `start` launches a run's command, as an executor of
    `cnnjax.runs.executors` returns it. A run without output for `stall_timeout` seconds fails. `show(study, runs in
    progress)` is called at every poll. Raises InputError for invalid settings, and Interrupted after SIGINT or SIGTERM.
    """
    check_settings(settings)
    claim(folder, settings)
    search = _Search(folder, settings, open_study(folder, settings))
    if spec.parse(settings.sampler).name == "grid":
        search.enqueue_grid()
    supervise(search.next_run, start, workers=workers, stall_timeout=stall_timeout, should_stop=search.should_prune,
              on_end=search.on_end, show=lambda active: show(search.study, active))  # fmt: skip
    return search.study


class _Search:
    """A sweep in progress: passes runs to `supervise`, reports their metrics to Optuna, and records how trials end."""

    def __init__(self, folder: pathlib.Path, settings: Settings, study: optuna.Study) -> None:
        self.folder, self.settings, self.study = folder, settings, study
        self.config = Config(**settings.config)
        self.space = distributions(settings.space, self.config)
        self.total = settings.trials
        # Trials that were interrupted, or that have further seeds to run.
        self.unfinished = [Trial(study, old._trial_id) for old in study.get_trials(states=[TrialState.RUNNING])]
        self.trials: dict[pathlib.Path, Trial] = {}  # by the folder of the run in progress

    def enqueue_grid(self) -> None:
        """Enqueues every combination of the choices in Optuna's study, at most `settings.trials` of them."""
        points = list(itertools.product(*(values.choices for values in self.space.values())))  # type: ignore[attr-defined]
        self.total = min(self.total, len(points))
        for point in points[: self.total]:
            self.study.enqueue_trial(dict(zip(self.space, point, strict=True)), skip_if_exists=True)

    def next_run(self) -> Run | None:
        """Returns the next run to start, or None if no trials are left. Unfinished trials come before new ones."""
        while self.unfinished or _count_started(self.study) < self.total:
            trial = self.unfinished.pop(0) if self.unfinished else self.study.ask(self.space)
            if run := self._next_run_of(trial):
                return run
        return None

    def _next_run_of(self, trial: Trial) -> Run | None:
        """Returns the first incomplete run of a trial.

        Returns None if there is none, after telling Optuna the trial's value, or if the settings are invalid together,
        after recording that the trial failed.
        """
        try:
            config = check(with_settings(self.config, trial.params))
            parse_recipe(config)
        except InputError as error:
            self._fail(trial, str(error))
            return None
        for i, path in enumerate(run_folders(self.folder, self.settings, trial.number)):
            if not is_complete(path):
                self.trials[path] = trial
                return Run(dataclasses.replace(config, seed=config.seed + i), path, self.settings.data_dir)
        self.study.tell(trial, statistics.fmean(final_values(self.folder, self.settings, trial.number)))
        return None

    def should_prune(self, run: Run) -> bool:
        """Reports a run's new evaluations to Optuna, and returns whether to stop the run and prune its trial.

        Returns False for runs after a trial's first, and at the last step.
        """
        trial = self.trials[run.folder]
        if run.folder != run_folders(self.folder, self.settings, trial.number)[0]:
            return False
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for number, value in enumerate(evaluations(run.metrics, self.settings.metric), 1):
            if number not in reported and math.isfinite(value):
                trial.report(value, number)
        return not is_at_last_step(run) and trial.should_prune()

    def on_end(self, run: Run, end: End) -> None:
        """Handles the end of a run: its trial goes on, or is recorded as pruned (run stopped) or as failed."""
        trial = self.trials.pop(run.folder)
        if end.kind == "complete":
            self.unfinished.insert(0, trial)
        elif end.kind == "stopped":
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self._fail(trial, end.reason)

    def _fail(self, trial: Trial, reason: str) -> None:
        """Records that a trial failed, with the reason as its attribute 'failure'."""
        trial.set_user_attr("failure", reason)
        self.study.tell(trial, state=TrialState.FAIL)


def _count_started(study: optuna.Study) -> int:
    """Returns the number of trials in any state but enqueued: running, complete, pruned or failed."""
    return len([trial for trial in study.get_trials(deepcopy=False) if trial.state != TrialState.WAITING])
