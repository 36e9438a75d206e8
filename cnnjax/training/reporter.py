"""Reports of a running training: training metrics, validation metrics, and the time they took."""

import time
from typing import Any

import jax
import numpy as np

from cnnjax import metrics
from cnnjax.console import Console
from cnnjax.runs import history
from cnnjax.training.progress import Bar, Laps
from cnnjax.training.setup import Setup


class Reporter:
    """Context manager that collects the metrics of training steps, and writes their means to console and metrics.jsonl.

    Shows a live progress bar on a terminal. `start` is the step from which the run goes on, `total` its last step.
    """

    def __init__(self, setup: Setup, file: history.MetricsWriter, console: Console, start: int, total: int) -> None:
        self.laps = Laps()
        self._file, self._epoch, self._batch_size = file, setup.steps_per_epoch, setup.config.batch_size
        self._bar = Bar(console, start, total, setup.steps_per_epoch)
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []  # (steps in the call, what it returned)
        self._step, self._since = start, time.monotonic()

    def __enter__(self) -> "Reporter":
        self._bar.__enter__()
        self.laps, self._since = Laps(), time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.__exit__()

    def called(self, step: int, sums: dict[str, jax.Array]) -> None:
        """Records the metric sums of a device call whose last step is `step`.

        Waits for the call before, so that at most two are in flight.
        """
        self._pending.append((step - self._step, sums))
        self._step = step
        self._bar.advance(step)
        self.laps.lap("dispatch" if "step" in self.laps.seconds else "compilation")
        jax.block_until_ready(self._pending[-2:][0])

    def train(self) -> None:
        """Shows the mean training metrics since the last `restart`, and adds them to metrics.jsonl.

        Waits for the device. Raises FloatingPointError, with the step, if a loss is not finite.
        """
        values = _finite_means(self._pending, self._step)
        self.laps.lap("step")
        images = self._batch_size * sum(count for count, _ in self._pending)
        values["images_per_second"] = images / (time.monotonic() - self._since)
        self._bar.show(values)
        self._file.write(self._step, self._step / self._epoch, "train", values)
        self.laps.lap("reports")

    def validation(self, values: dict[str, float]) -> None:
        """Shows the mean metrics of the validation split, and adds them to metrics.jsonl."""
        epoch = self._step / self._epoch
        self._file.write(self._step, epoch, "val", values)
        self._bar.note(f"epoch {epoch:.1f}: val {metrics.describe(values)}")
        self.laps.lap("evaluation")

    def restart(self) -> None:
        """Discards the metrics collected so far, so that the next `train` averages later steps only."""
        self._pending, self._since = [], time.monotonic()


def _finite_means(pending: list[tuple[int, dict[str, jax.Array]]], step: int) -> dict[str, float]:
    """Returns the mean metrics over the pending calls, and as "lr" the learning rate of the last step.

    `pending` has (number of steps, metric sums) of each device call; `step` is the last step's number. Raises
    FloatingPointError for the first step whose loss is not finite.
    """
    columns: dict[str, list[Any]] = {}
    for count, sums in jax.device_get(pending):
        stacked = np.ndim(sums["count"]) > 0  # several steps in one call
        for name, values in sums.items():
            columns.setdefault(name, []).extend(values[:count] if stacked else [values])
    for ago, loss in zip(range(len(columns["loss"]) - 1, -1, -1), columns["loss"], strict=True):
        if not np.isfinite(loss):
            raise FloatingPointError(f"the loss became {loss:.0f} at step {step - ago}")
    rate = float(columns.pop("lr")[-1])
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return metrics.means(metrics.add(rows)) | {"lr": rate}
