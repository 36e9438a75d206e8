"""The trials of a sweep: Optuna's record of them, and the runs in their folders, which have to agree.

A trial is the run with its settings. So a result counts only if the config in the run's folder has them, and trials
that the record has lost are read from their folders.
"""

import contextlib
import dataclasses
import functools
import math
import pathlib
import statistics
from collections.abc import Callable
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages import JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.pool import NullPool

from cnnjax import config as configs
from cnnjax import spec
from cnnjax.config import RESUMABLE, Config, check, current_name
from cnnjax.errors import InputError
from cnnjax.metrics import METRICS
from cnnjax.runs import workdir
from cnnjax.runs.supervise import Run, complete_metrics, is_complete, read_metrics
from cnnjax.sweep.journal import Journal
from cnnjax.sweep.samplers import PRUNERS
from cnnjax.sweep.settings import Settings
from cnnjax.sweep.space import distributions, settings_in, with_settings

JOURNAL = "journal.log"
UNSAMPLED = "the sweep was killed before the trial had all its settings"
LOST = "the record of this trial is lost, and it has no run"


@dataclasses.dataclass(frozen=True)
class Sweep:
    """An open sweep.

    Attributes:
      folder: its folder.
      settings: its settings.
      study: Optuna's study, which has the trials.
      journal: the journal in which Optuna keeps them; None for a database.
      rejected: number of a trial -> why the result that it has in Optuna's record does not count.
    """

    folder: pathlib.Path
    settings: Settings
    study: optuna.Study
    journal: Journal | None
    rejected: dict[int, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def space(self) -> dict[str, BaseDistribution]:
        """Returns the distribution of each setting."""
        return distributions(self.settings.space, Config(**self.settings.config))

    @property
    def resumable(self) -> tuple[str, ...]:
        """Returns the config fields that may differ between a trial and its run: not searched, no effect on results."""
        searched = {current_name(name).partition(".")[0] for name in self.settings.space}
        return tuple(name for name in RESUMABLE if name not in searched)

    def transaction(self) -> contextlib.AbstractContextManager[None]:
        """Context manager: a kill leaves all of its changes to the record, or none. Has no effect on a database."""
        return self.journal.transaction() if self.journal else contextlib.nullcontext()

    def is_sampled(self, trial: FrozenTrial) -> bool:
        """Returns whether a trial has all its settings."""
        return self.settings.space.keys() <= trial.params.keys()


def open_sweep(folder: pathlib.Path, settings: Settings, log: Callable[[str], None], writable: bool = False) -> Sweep:
    """Opens the record of a sweep, compares it with the runs in the folder, and adds the trials that it lacks.

    Unless `writable`, all of this happens in memory, and no file changes. `log` gets a line about each disagreement.
    Raises InputError if the storage cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    journal = None if settings.storage else Journal(folder / JOURNAL, writable)
    pruner = spec.build("pruner", settings.pruner, PRUNERS)
    try:
        study = optuna.create_study(
            storage=JournalStorage(journal) if journal else _database(settings.storage),
            study_name="sweep" if journal else str(folder.resolve()),  # a journal may move with its folder
            direction="maximize" if METRICS[settings.metric].higher_is_better else "minimize",
            pruner=pruner,
            load_if_exists=True,
        )
    except Exception as error:  # from the file system, SQLAlchemy or a database driver
        location = f"--storage={settings.storage}" if settings.storage else str(folder / JOURNAL)
        lines = str(error).splitlines() or [type(error).__name__]
        raise InputError(f"{location}: {lines[0]}") from error
    sweep = Sweep(folder, settings, study, journal)
    if journal and journal.damage:
        log(f"{journal.damage}; the trials from there on are read from their folders")
    if writable or journal:
        _recover(sweep, log)
    if journal and not writable:
        _tell_finished(sweep)
    for trial in study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        if reason := _why_rejected(sweep, trial):
            sweep.rejected[trial.number] = reason
            log(f"trial {trial.number} does not count: {reason}")
    return sweep


def _database(url: str) -> RDBStorage:
    """Connects to Optuna's tables in a database; no connection stays open between the calls."""
    return RDBStorage(url, engine_kwargs={"poolclass": NullPool})


def run_folders(folder: pathlib.Path, settings: Settings, number: int) -> list[pathlib.Path]:
    """Returns the run folders of trial `number`: trials/0007 or, with several seeds, trials/0007/seed0, seed1, ..."""
    trial = folder / "trials" / f"{number:04}"
    first = settings.config["seed"]
    return [trial / f"seed{first + i}" for i in range(settings.seeds)] if settings.seeds > 1 else [trial]


def trial_runs(sweep: Sweep, number: int, params: dict[str, Any]) -> list[Run]:
    """Returns the runs of a trial with the settings `params`, one for each seed.

    Raises InputError if a setting is invalid.
    """
    config = check(with_settings(Config(**sweep.settings.config), params))
    folders = run_folders(sweep.folder, sweep.settings, number)
    return [
        Run(dataclasses.replace(config, seed=config.seed + i), folder, sweep.settings.data_dir)
        for i, folder in enumerate(folders)
    ]


def evaluations(lines: list[dict[str, Any]], metric: str) -> list[float]:
    """Returns the validation metric at each evaluation, in order, from the parsed lines of metrics.jsonl."""
    return [line[f"val/{metric}"] for line in lines if f"val/{metric}" in line]


def final_values(sweep: Sweep, number: int) -> list[float]:
    """Returns the validation metric at the end of each complete run of trial `number`; leaves out others.

    Raises InputError if a complete run was not evaluated at its end, or its metrics are not all there.
    """
    values, name = [], f"val/{sweep.settings.metric}"
    for folder in filter(is_complete, run_folders(sweep.folder, sweep.settings, number)):
        lines = complete_metrics(folder)
        last = [line for line in lines if name in line][-1:]
        if not last or last[0]["step"] != lines[-1]["step"]:
            raise InputError(f"{folder / 'metrics.jsonl'} lacks {name} at the last step")
        values.append(last[0][name])
    return values


def report_evaluations(sweep: Sweep, trial: Trial, metrics: list[dict[str, Any]]) -> None:
    """Reports to Optuna those evaluations in the metrics of a trial's first run that are new to it."""
    reported = sweep.study.get_trials(deepcopy=False)[trial.number].intermediate_values
    with sweep.transaction():
        for number, value in enumerate(evaluations(metrics, sweep.settings.metric), 1):
            if number not in reported and math.isfinite(value):
                trial.report(value, number)


def tell_result(sweep: Sweep, trial: Trial) -> None:
    """Records the result of a trial whose runs are complete.

    Raises InputError if it is infinite or NaN, or the metrics of a run are not all there.
    """
    report_evaluations(sweep, trial, read_metrics(run_folders(sweep.folder, sweep.settings, trial.number)[0]))
    value = statistics.fmean(final_values(sweep, trial.number))
    if not math.isfinite(value):
        raise InputError(f"its {sweep.settings.metric} is {value}")
    sweep.study.tell(trial, value)


def _tell_finished(sweep: Sweep) -> None:
    """Records the results of running trials whose runs are complete, as resuming the sweep does."""
    for frozen in filter(sweep.is_sampled, sweep.study.get_trials(states=[TrialState.RUNNING])):
        with contextlib.suppress(InputError):  # which resuming says
            runs = trial_runs(sweep, frozen.number, frozen.params)
            if all(is_complete(run.folder) and not _changes(sweep, run) for run in runs):
                tell_result(sweep, Trial(sweep.study, frozen._trial_id))


def _changes(sweep: Sweep, run: Run) -> str:
    """Returns how the config of a trial's run differs from the one in its folder, as `workdir.changed_settings`."""
    return workdir.changed_settings(run.folder, run.config, sweep.resumable)


def _recover(sweep: Sweep, log: Callable[[str], None]) -> None:
    """Adds to the record the trials whose folders are there, but whose numbers the record has not reached."""
    first = len(sweep.study.get_trials(deepcopy=False))
    names = {path.name for path in (sweep.folder / "trials").glob("*")}
    recovered: list[int] = []
    for number in range(first, first + sweep.settings.trials):
        trial = _trial_of_folder(sweep, number) if f"{number:04}" in names else None
        if trial is None:
            continue  # `search` moves a folder of something else out of the way
        with sweep.transaction():
            for _ in range(len(sweep.study.get_trials(deepcopy=False)), number):
                lost = {"failure": LOST}
                sweep.study.add_trial(optuna.trial.create_trial(state=TrialState.FAIL, user_attrs=lost))
            sweep.study.add_trial(trial)
        recovered.append(number)
    if recovered:
        numbers = f"trial{'s' * (len(recovered) > 1)} {', '.join(map(str, recovered))}"
        log(f"the record lacks {numbers}; read from the runs in {sweep.folder}/trials")


def _trial_of_folder(sweep: Sweep, number: int) -> FrozenTrial | None:
    """Returns trial `number`, running, with the settings of the run in its folder.

    Returns None if there is no run of this sweep.
    """
    for i, folder in enumerate(run_folders(sweep.folder, sweep.settings, number)):
        with contextlib.suppress(ValueError):  # damaged, without the settings, or with others than those of the space
            params = settings_in(configs.load(folder / "config.json"), sweep.space)
            if not _changes(sweep, trial_runs(sweep, number, params)[i]):
                space: dict[str, BaseDistribution] = dict(sweep.space)
                return optuna.trial.create_trial(state=TrialState.RUNNING, params=params, distributions=space)
    return None


def _why_rejected(sweep: Sweep, trial: FrozenTrial) -> str:
    """Returns why the result of a complete trial does not count; '' if its runs have its settings and its value.

    A run whose folder was deleted is ignored.
    """
    if not sweep.is_sampled(trial):
        return UNSAMPLED
    try:
        for run in trial_runs(sweep, trial.number, trial.params):
            if run.folder.exists() and (changes := _changes(sweep, run)):
                return f"{run.folder} holds a run with another config: {changes}"
        values = final_values(sweep, trial.number)
    except InputError as error:
        return str(error)
    if len(values) == sweep.settings.seeds and statistics.fmean(values) != trial.value:
        return f"its {sweep.settings.metric} is {trial.value} in the record, and {statistics.fmean(values)} in its run"
    return ""
