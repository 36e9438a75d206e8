"""Progress of a training: a live bar on a terminal, plain lines elsewhere, and the use of time at the end."""

import time
from collections.abc import Mapping

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cnnjax import metrics
from cnnjax.console import Console

LINE_SECONDS = 10  # between two plain lines
LABELS = {"step": "training steps", "dispatch": "dispatching", "reports": "reporting"}  # of laps, where not their name


class Bar:
    """Context manager that shows progress: a live bar on a terminal, else a line every LINE_SECONDS.

    `start` is the step from which the run goes on, `total` its last step, `epoch` the number of steps per epoch.
    """

    def __init__(self, console: Console, start: int, total: int, epoch: float) -> None:
        self.console, self.step, self.total, self.epoch = console, start, total, epoch
        self.start, self.begun, self.last_line = start, time.monotonic(), time.monotonic()
        self.text = ""
        columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24),
                   TextColumn("{task.fields[text]}", markup=False),
                   TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
        self.live = Progress(*columns, console=console, transient=True) if console.is_terminal else None
        if self.live:
            self.task = self.live.add_task(self._where(), completed=start, total=total, text="compiling ...")

    def __enter__(self) -> "Bar":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def _where(self) -> str:
        """Returns the position as text, such as 'epoch 1.5/10  step 600/4000'."""
        return (
            f"epoch {self.step / self.epoch:.1f}/{round(self.total / self.epoch, 1):g}  step {self.step}/{self.total}"
        )

    def advance(self, step: int) -> None:
        """Moves the bar to `step`, the number of training steps done; prints nothing without a terminal."""
        self.step = step
        if self.live:
            self.live.update(self.task, completed=step, description=self._where())

    def show(self, values: dict[str, float]) -> None:
        """Shows the newest mean training metrics, which include "lr" and "images_per_second".

        Without a terminal, prints them as a line with the estimated time left, at most every LINE_SECONDS and at the
        last step.
        """
        self.text = "  ".join(
            (metrics.describe(values, "  "), f"lr {values['lr']:.3g}",
             f"{values['images_per_second']:,.0f} images/s")
        )  # fmt: skip
        if self.live:
            self.live.update(self.task, text=self.text)
        elif time.monotonic() - self.last_line >= LINE_SECONDS or self.step == self.total:
            self.last_line = time.monotonic()
            left = (self.last_line - self.begun) / (self.step - self.start) * (self.total - self.step)
            self.console.print(f"{self._where()}  {self.text}  {left:.0f} s left", soft_wrap=True)

    def note(self, line: str) -> None:
        """Prints a line, above the bar if there is one."""
        self.console.print(line, soft_wrap=True)


def describe_shares(seconds: Mapping[str, float]) -> str:
    """Returns the share of each lap in the total, the largest first: '62% input, 38% saving'; leaves 0% out."""
    total, longest = sum(seconds.values()), sorted(seconds, key=lambda name: -seconds[name])
    shares = ((name, seconds[name] / total) for name in longest)
    return ", ".join(f"{share:.0%} {LABELS.get(name, name)}" for name, share in shares if share >= 0.005)


class Laps:
    """A stopwatch that sums the seconds spent on each kind of work in a loop."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        """Adds the seconds since the previous call (or since construction) to the total of `name`."""
        now = time.monotonic()
        self.seconds[name] = self.seconds.get(name, 0.0) + now - self._last
        self._last = now

    def line(self) -> str:
        """Returns how the time was spent, as in 'time: 62% input, 30% training steps, 8% saving'."""
        return f"time: {describe_shares(self.seconds)}"
