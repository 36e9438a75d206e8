"""The duration of a training: one definition and one format, for commands, pages, studies and cards."""

from collections.abc import Iterable, Mapping
from typing import Any


def training_seconds(lines: Iterable[Mapping[str, Any]], batch_size: int) -> float:
    """Returns the time of all training steps, with their input and compilation; 0 without any.

    Counts the steps before a restart, too, but no evaluations and checkpoints. `lines` are those of metrics.jsonl, such
    as {"step": 20, "epoch": 1.5, "train/images_per_second": 900}.
    """
    seconds, done = 0.0, 0
    for line in lines:
        if speed := line.get("train/images_per_second"):
            seconds += (line["step"] - done) * batch_size / speed
            done = line["step"]
    return seconds


def format_duration(seconds: float) -> str:
    """Formats a time: '7.2 s', '12 min 5 s' or '3 h 20 min'."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
