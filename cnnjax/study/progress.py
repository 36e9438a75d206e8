"""The progress of a study: how many of its runs are complete, and an estimate of the time left."""

import dataclasses
import pathlib
import statistics
from collections.abc import Mapping, Sequence

from cnnjax.config import to_steps
from cnnjax.runs.supervise import Run


@dataclasses.dataclass
class Progress:
    """The progress of a study's runs, and how long they take.

    Attributes:
      runs: all runs of each arm.
      workers: the number of runs in parallel.
      complete: the folders of the runs that have ended.
      begun: folder of a run in progress -> when it was first seen, in seconds of time.monotonic(), and how much of it
        was done then, in [0, 1].
      seconds: arm -> the seconds that each of its runs takes as a whole, as far as they were measured.
    """

    runs: Mapping[str, Sequence[Run]]
    workers: int
    complete: set[pathlib.Path]
    begun: dict[pathlib.Path, tuple[float, float]] = dataclasses.field(default_factory=dict)
    seconds: dict[str, list[float]] = dataclasses.field(default_factory=dict)

    def end(self, run: Run, now: float) -> None:
        """Records at the time `now` that a run has ended."""
        self.complete.add(run.folder)
        if run.folder in self.begun and (arm := self._arm(run)):
            begun, fraction = self.begun.pop(run.folder)
            if fraction < 1:
                self.seconds.setdefault(arm, []).append((now - begun) / (1 - fraction))

    def line(self, active: Sequence[Run], now: float) -> str:
        """Returns a text such as '5 of 12 runs complete, about 14 minutes left', at the time `now`.

        `active` are the runs in progress. The time is left out while there is nothing to estimate it from.
        """
        for run in active:
            self.begun.setdefault(run.folder, (now, fraction_done(run)))
        total = sum(map(len, self.runs.values()))
        text = f"{len(self.complete)} of {total} runs complete"
        seconds = self._seconds_left(active, now)
        return f"{text}, about {format_duration(seconds)} left" if seconds else text

    def _arm(self, run: Run) -> str:
        """Returns the name of a run's arm."""
        return next(arm for arm, runs in self.runs.items() if any(run.folder == other.folder for other in runs))

    def _seconds_left(self, active: Sequence[Run], now: float) -> float | None:
        """Estimates the seconds until the last run ends; None without a measured run.

        A run takes as long as the others of its arm or, without any, as the mean of all arms.
        """
        seconds = {arm: list(values) for arm, values in self.seconds.items()}
        fractions = {run.folder: fraction_done(run) for run in active}
        for run in active:
            begun, first = self.begun[run.folder]
            if (done := fractions[run.folder]) > first:
                seconds.setdefault(self._arm(run), []).append((now - begun) / (done - first))
        if not seconds:
            return None
        means = {arm: statistics.fmean(values) for arm, values in seconds.items()}
        overall = statistics.fmean(means.values())
        left = [
            means.get(arm, overall) * (1 - fractions.get(run.folder, 0.0))
            for arm, runs in self.runs.items()
            for run in runs
            if run.folder not in self.complete
        ]
        return max(sum(left) / self.workers, max(left, default=0.0))


def fraction_done(run: Run) -> float:
    """Returns how much of a run is done, in [0, 1], by the last line of its metrics."""
    if not run.metrics or not run.metrics[-1]["epoch"]:
        return 0.0
    last = run.metrics[-1]
    return min(1.0, last["step"] / to_steps(run.config.duration, epoch=last["step"] / last["epoch"]))


def format_duration(seconds: float) -> str:
    """Formats seconds in one unit: '40 seconds', '14 minutes' or '2.5 hours'."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds" if round(seconds) > 1 else "a second"
    return f"{round(seconds / 60)} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"
