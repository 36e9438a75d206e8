"""SIGINT and SIGTERM: end a training after the current step, with its state saved."""

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

AGREE_EVERY = 10  # steps between the exchanges of several processes


class Interrupted(Exception):
    """Raised when SIGINT or SIGTERM has ended trainings, after their checkpoints are saved.

    The attribute `signal` is the signal's number.
    """

    def __init__(self, signal_number: int, message: str) -> None:
        super().__init__(message)
        self.signal = signal_number


def handle_signals(handler: Callable[[int, FrameType | None], Any]) -> dict[int, Any]:
    """Sets the handler of SIGINT and SIGTERM. Returns the previous handlers by signal number, for `restore_handlers`.

    Does nothing outside the main thread, where Python forbids it, and returns {}.
    """
    if threading.current_thread() is not threading.main_thread():
        return {}
    return {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}


def restore_handlers(handlers: dict[int, Any]) -> None:
    """Sets the handlers that `handle_signals` has returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


class Signals:
    """Context manager that records the first SIGINT or SIGTERM, instead of ending the process.

    The attribute `signal` is the number of the signal received, None so far. A second signal has its usual effect.
    Outside the main thread signals are not handled.
    """

    def __init__(self) -> None:
        self.signal: int | None = None  # the number of the one received

    def __enter__(self) -> "Signals":
        self._previous = handle_signals(self._record)
        return self

    def __exit__(self, *_: object) -> None:
        restore_handlers(self._previous)

    def _record(self, number: int, _: FrameType | None) -> None:
        """Signal handler: records the signal and restores the previous handlers."""
        self.signal = number
        self.__exit__()

    def should_stop(self, step: int) -> bool:
        """Returns whether a training should stop after `step` because a signal was received.

        With several processes, all have to call this at every step. A signal to any of them counts for all, at the next
        multiple of `AGREE_EVERY` steps.
        """
        if jax.process_count() == 1:
            return self.signal is not None
        if step % AGREE_EVERY:
            return False
        received = multihost_utils.process_allgather(np.array(self.signal or 0))
        self.signal = int(received.max()) or None
        return self.signal is not None
