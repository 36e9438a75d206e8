"""The looks of a study: runs all arms, judges the claims, and adds seeds to the arms of those that are undecided."""

import pathlib
from collections.abc import Callable, Mapping, Sequence

from cnnjax.errors import InputError
from cnnjax.runs.supervise import Run
from cnnjax.study import Study
from cnnjax.study.conduct import Result, all_runs, collect, last_value
from cnnjax.study.record import UNDECIDED
from cnnjax.study.verdict import Values, judge_claim, looks

Runs = dict[str, list[Run]]  # arm -> one run for each seed
Results = Mapping[str, Sequence[Result]]  # arm -> one for each complete run


def run_looks(
    study: Study,
    runs_of: Callable[[Mapping[str, int]], Runs],
    train: Callable[[Runs], Sequence[str]],
    log: Callable[[str], None],
) -> tuple[Runs, Results]:
    """Runs a study until each claim is decided, or has `study.max_seeds`. Returns all runs and their metrics.

    `runs_of` returns the runs for the seeds of each arm, as `all_runs` does. `train` trains those that are missing, and
    returns a line for each that failed. What is done depends on the complete runs alone, so a study that was killed
    goes on where it stopped. `log` gets a line for each look. Raises InputError if runs failed.
    """
    seeds = study.first_seeds()
    while True:
        runs = runs_of(seeds)
        if failures := train(runs):
            total = sum(map(len, runs.values()))
            raise InputError(f"{len(failures)} of {total} runs failed, so there is no report. {failures[0]}")
        results = {arm: [collect(run, study, log) for run in arm_runs] for arm, arm_runs in runs.items()}
        more = next_seeds(study, values_of(study, results), seeds)
        if more == seeds:
            return runs, results
        added = ", ".join(arm for arm in more if more[arm] > seeds[arm])
        log(f"undecided with {min(seeds[arm] for arm in more if more[arm] > seeds[arm])} seeds: more runs of {added}")
        seeds = more


def next_seeds(study: Study, values: Values, seeds: Mapping[str, int]) -> dict[str, int]:
    """Returns the number of seeds of each arm at the next look: `seeds` if no claim needs more.

    `values` are the metrics of the runs so far. The undecided comparisons of undecided claims get the seeds of the next
    look, and so do arms whose weights others start from.
    """
    schedule, more = looks(study.seeds, study.max_seeds), dict(seeds)
    for claim in study.claims:
        verdict, findings = judge_claim(claim, values, schedule)
        for finding in findings if verdict == UNDECIDED else ():
            larger = [number for number in schedule if number > finding.seeds]
            if finding.verdict == UNDECIDED and larger:
                for arm in (finding.comparison.a, finding.comparison.b):
                    more[arm] = max(more[arm], larger[0])
    for arm, source in study.starts.items():
        more[source] = max(more[source], more[arm])
    return more


def values_of(study: Study, results: Results) -> Values:
    """Returns the metrics of all runs: arm -> metric -> one value for each run. Raises InputError if one is missing."""
    return {
        arm: {metric: [last_value(metric, result) for result in arm_results] for metric in study.metrics}
        for arm, arm_results in results.items()
    }


def complete_runs(root: pathlib.Path, study: Study, data_dir: str) -> Runs:
    """Returns the runs of each arm that are complete, up to the first seed that is not. Changes nothing."""
    runs = all_runs(root, study, data_dir, {arm: max(n, study.max_seeds) for arm, n in study.first_seeds().items()})
    return {arm: arm_runs[: _leading(arm_runs)] for arm, arm_runs in runs.items()}


def _leading(runs: Sequence[Run]) -> int:
    """Returns the number of complete runs before the first that is not."""
    complete = [(run.folder / "result.json").exists() for run in runs]
    return (complete + [False]).index(False)
