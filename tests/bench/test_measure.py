"""The timing of steps, with steps whose times are known, and the programs that are timed."""

import types
from typing import Any

import jax
import pytest

from cnnjax.bench import measure, rows
from cnnjax.models import MODELS

TINY = "mlp(features=(8,))"


@pytest.mark.parametrize(
    ("values", "expected"),
    [([3.0], (3, 3, 3)), ([1.0, 3.0], (1.5, 2, 2.5)), ([5.0, 1.0, 4.0, 2.0, 3.0], (2, 3, 4))],
)
def test_quartiles(values: list[float], expected: tuple[float, ...]) -> None:
    assert rows.quartiles(values) == expected


@pytest.mark.parametrize(
    ("flops", "accessed", "expected"),
    [(100, 10, 50), (100, 1, 200), (100, 2.5, 200), (100, 0, 200)],  # of memory, of arithmetic, of both, not known
)
def test_the_roofline_is_the_smaller_of_two_speeds(flops: float, accessed: float, expected: float) -> None:
    assert measure.roofline(flops, accessed, measure.Peaks(flops=200, bytes=5)) == expected


@pytest.mark.parametrize(("step", "expected"), [(0.01, 100), (0.3, 3), (7.0, 1), (1.0, 1), (1e-4, 10_000)])
def test_a_block_is_as_many_steps_as_take_a_second(step: float, expected: int) -> None:
    asked = []

    def run(steps: int) -> float:
        asked.append(steps)
        return steps * step + (100 if len(asked) == 1 else 0)  # the first step compiles, and does not count

    assert measure.steps_in_a_block(run) == expected
    assert asked == [1, 1, min(10, expected)]
    asked.clear()
    assert measure.blocks(run, 4) == pytest.approx([step] * 4)
    assert asked[-4:] == [expected] * 4


def test_a_run_takes_its_steps_one_after_the_other_and_goes_on_where_it_stopped() -> None:
    seen = []

    def step(state: Any, batch: Any, key: Any, teacher_variables: Any) -> tuple[Any, dict]:
        seen.append((state, batch))
        return state + 1, {}

    setup: Any = types.SimpleNamespace(steps_per_call=1, teacher=None)
    start: Any = lambda: jax.numpy.zeros(())  # noqa: E731
    run = measure._train_run(step, start, iter(range(100)), setup)
    assert run(3) > 0
    run(2)
    assert [(int(state), batch) for state, batch in seen] == [(i, i) for i in range(5)]


@pytest.mark.parametrize(("what", "times"), [("train", 6), ("forward", 2)])
def test_the_operations_of_a_step(what: str, times: int) -> None:
    subject = measure.of_model("lenet5", 10, (28, 28, 1), 16, "float32")
    assert measure.step_flops(subject, what) == times * 16 * MODELS["lenet5"].macs


@pytest.mark.parametrize("what", ["train", "forward"])
def test_what_is_compiled_is_the_network_and_it_runs(what: str) -> None:
    subject = measure.of_model(TINY, 10, (28, 28, 1), 16, "float32")
    program = measure.compile_step(subject, what)
    params = 28 * 28 * 8 + 8 + 8 * 10 + 10
    assert program.params == params
    assert program.compile_seconds > 0
    # At least the weights, in training with their momentum; the donated state does not count twice.
    held = 4 * params * (2 if what == "train" else 1)
    images = 16 * 28 * 28 * 4 / 8
    assert held + images <= program.memory_bytes < 2.5 * held + 4 * images
    assert program.bytes_accessed > held
    assert program.run(2) > 0
