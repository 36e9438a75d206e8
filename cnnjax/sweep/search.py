"""Hyperparameter search: trials of a space, run in parallel, with Optuna's samplers and pruners.

A sweep is a folder with `sweep.json`, its settings; `journal.log`, Optuna's record of the trials; `trials/`, a run for
each trial (and seed); and the report. A sweep resumes from its folder alone.
"""

import itertools
import pathlib
from collections.abc import Callable

from optuna.trial import FrozenTrial, Trial, TrialState

from cnnjax import spec
from cnnjax.errors import InputError
from cnnjax.runs.executors import Start
from cnnjax.runs.supervise import End, Run, has_result, is_at_last_step, read_metrics, supervise
from cnnjax.sweep.record import UNSAMPLED, Sweep, open_sweep, report_evaluations, run_folders, tell_result, trial_runs
from cnnjax.sweep.samplers import SAMPLERS
from cnnjax.sweep.settings import Settings, check_settings, claim
from cnnjax.training.recipe import parse_recipe

Log = Callable[[str], None]


def sweep(
    folder: pathlib.Path,
    settings: Settings,
    start: Start,
    *,
    workers: int,
    stall_timeout: float,
    show: Callable[[Sweep, list[Run]], None],
    log: Log,
) -> Sweep:
    """Runs the missing trials of a sweep, `workers` runs in parallel, and returns the sweep with its trials.

    The runs of a trial (its seeds) follow one another; only the first may be pruned. A trial fails if one of its runs
    fails, or if its combination of settings is invalid. `start` launches a run's command, as an executor of
    `cnnjax.runs.executors` returns it. A run without output for `stall_timeout` seconds fails. `show(sweep, runs in
    progress)` is called at every poll. `log` gets a line when the record and the folders of the trials disagree. Raises
    InputError for invalid settings or if another sweep runs in the folder, and Interrupted after SIGINT or SIGTERM.
    """
    check_settings(settings)
    with claim(folder, settings):
        search = _Search(open_sweep(folder, settings, log, writable=True), log)
        supervise(search.next_run, start, workers=workers, stall_timeout=stall_timeout, should_stop=search.should_prune,
                  on_end=search.on_end, show=lambda active: show(search.sweep, active))  # fmt: skip
    return search.sweep


class _Search:
    """A sweep in progress: passes runs to `supervise`, reports their metrics to Optuna, and records how trials end."""

    def __init__(self, sweep: Sweep, log: Log) -> None:
        self.sweep, self.study, self.settings, self.log = sweep, sweep.study, sweep.settings, log
        self.total = self.settings.trials
        self.trials: dict[pathlib.Path, Trial] = {}  # by the folder of the run in progress
        self.unfinished: list[Trial] = []  # that were interrupted, or have further seeds to run
        for frozen in self.study.get_trials(states=[TrialState.RUNNING]):
            trial = Trial(self.study, frozen._trial_id)
            if sweep.is_sampled(frozen):
                self.unfinished.append(trial)
            else:
                self._replace_unsampled(trial, frozen)
        if spec.parse(self.settings.sampler).name == "grid":
            self._enqueue_grid()

    def _replace_unsampled(self, trial: Trial, frozen: FrozenTrial) -> None:
        """Records that a trial without all its settings has failed. If it was enqueued, enqueues it again."""
        with self.sweep.transaction():
            self._fail(trial, UNSAMPLED)
            if point := frozen.system_attrs.get("fixed_params"):
                self.study.enqueue_trial(point)

    def _enqueue_grid(self) -> None:
        """Enqueues every combination of the choices in Optuna's study, at most `settings.trials` of them."""
        space = self.sweep.space
        points = list(itertools.product(*(values.choices for values in space.values())))  # type: ignore[attr-defined]
        self.total = min(self.total, len(points))
        with self.sweep.transaction():
            for point in points[: self.total]:
                self.study.enqueue_trial(dict(zip(space, point, strict=True)), skip_if_exists=True)

    def next_run(self) -> Run | None:
        """Returns the next run to start, or None if no trials are left. Unfinished trials come before new ones."""
        while True:
            sampled = sum(map(self.sweep.is_sampled, self.study.get_trials(deepcopy=False)))
            if self.unfinished:
                trial = self.unfinished.pop(0)
            elif sampled < self.total:
                trial = self._ask(seed=sampled)
            else:
                return None
            if run := self._next_run_of(trial):
                return run

    def _ask(self, seed: int) -> Trial:
        """Returns a new trial: the next one enqueued, or one of the sampler with this seed."""
        with self.sweep.transaction():  # a trial has all its settings or does not exist
            self.study.sampler = spec.build("sampler", self.settings.sampler, SAMPLERS, seed=seed)
            return self.study.ask(self.sweep.space)

    def _next_run_of(self, trial: Trial) -> Run | None:
        """Returns the first incomplete run of a trial.

        Returns None if the trial has ended, after recording how: complete, pruned by the evaluations of its interrupted
        run, or failed because its settings are invalid together or its metrics are not all there.
        """
        try:
            runs = trial_runs(self.sweep, trial.number, trial.params)
            parse_recipe(runs[0].config)
            for run in runs:
                if has_result(run, self.log, self.sweep.resumable):
                    continue
                self.trials[run.folder] = trial
                run.metrics = read_metrics(run.folder)
                if run.metrics and self.should_prune(run):
                    self.on_end(run, End("stopped"))
                    return None
                return run
            tell_result(self.sweep, trial)
        except InputError as error:
            self._fail(trial, str(error))
        return None

    def should_prune(self, run: Run) -> bool:
        """Reports a run's new evaluations to Optuna, and returns whether to stop the run and prune its trial.

        Returns False for runs after a trial's first, and at the last step.
        """
        trial = self.trials[run.folder]
        if run.folder != run_folders(self.sweep.folder, self.settings, trial.number)[0]:
            return False
        report_evaluations(self.sweep, trial, run.metrics)
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
        with self.sweep.transaction():
            trial.set_user_attr("failure", reason)
            self.study.tell(trial, state=TrialState.FAIL)
