"""The duration of a training: what it counts, and its format."""

import pytest

from cnnjax.runs.duration import format_duration, training_seconds


def test_the_time_is_that_of_the_steps_between_the_lines() -> None:
    lines = [
        {"step": 2, "train/images_per_second": 100},
        {"step": 2, "val/accuracy": 0.5},
        {"step": 6, "train/images_per_second": 50},
    ]
    assert training_seconds(lines, 16) == pytest.approx(16 * (2 / 100 + 4 / 50))
    assert training_seconds([], 16) == 0


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (59.97, "1 min 0 s"), (3599.6, "1 h 0 min"), (12000, "3 h 20 min")]
)
def test_a_duration_has_at_most_two_units(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text
