"""SIGINT and SIGTERM: end a training after the current step, with its state saved."""

import signal
from types import FrameType

import jax
import numpy as np
from jax.experimental import multihost_utils

AGREE_EVERY = 10  # steps between the exchanges of several processes


class Interrupted(Exception):
    """Raised after a signal, once the state is saved. `signal` is the signal's number."""

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal_number


class Signals:
    """Context manager that records the first SIGINT or SIGTERM; a second one has its usual effect."""

    def __init__(self) -> None:
        self.signal: int | None = None  # the number of the one received

    def __enter__(self) -> "Signals":
        self._previous = {number: signal.signal(number, self._record) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _record(self, number: int, _: FrameType | None) -> None:
        self.signal = number
        self.__exit__()

    def should_stop(self, step: int) -> bool:
        """Returns whether to stop after this step. Several processes agree on it, at multiples of `AGREE_EVERY`."""
        if jax.process_count() == 1:
            return self.signal is not None
        if step % AGREE_EVERY:
            return False
        received = multihost_utils.process_allgather(np.array(self.signal or 0))
        self.signal = int(received.max()) or None
        return self.signal is not None
