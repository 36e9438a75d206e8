"""Stopping a run from outside, after a step and with its state saved."""

import signal
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils


class Interrupted(Exception):
    """What ran was asked to stop, and has saved its state. `signal` is the number of the signal that asked."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal_number


class Signals:
    """Within this context SIGINT and SIGTERM ask the loop to stop after the step; a second one stops at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "Signals":
        self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self.__exit__()

    def agreed(self, step: int) -> bool:
        """Whether to stop after this step. Several processes ask one another every ten steps, and stop together."""
        if jax.process_count() == 1:
            return self.signal is not None
        if step % 10:
            return False
        asked = multihost_utils.process_allgather(np.array(self.signal or 0))
        self.signal = int(asked.max()) or None
        return self.signal is not None
