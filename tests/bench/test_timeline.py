"""The layer of each operation, and the time of each layer."""

from types import SimpleNamespace as Fake

import pytest

from cnnjax.bench import timeline

PATHS = {
    "jit(train_step)/transpose(jvp(LeNet5))/c1/reduce_sum": ("c1", "backward", "reduce_sum"),
    "jit(train_step)/jvp(ResNet)/stage1_block1/conv1/norm/mul": ("stage1_block1/conv1/norm", "forward", "mul"),
    "jit(train_step)/jvp(ResNet)/stage1_block1/jit(relu)/max": ("stage1_block1", "forward", "max"),
    "jit(train_step)/jvp(LeNet5)/tanh": ("LeNet5", "forward", "tanh"),
    "jit(<lambda>)/LeNet5/f6/dot_general": ("f6", "forward", "dot_general"),
    "jit(train_step)/add": ("", "", "add"),
    "add": ("", "", "add"),
}


@pytest.mark.parametrize("path", PATHS)
def test_the_layer_of_an_operation(path: str) -> None:
    assert timeline.parse_op_name(path) == PATHS[path]


PROGRAM = """
%inner (p: f32[2]) -> f32[2] {
  ROOT %q = f32[2]{0} add(%p, %p)
}

ENTRY %main (x: f32[2]) -> f32[2] {
  %x = f32[2]{0} parameter(0)
  %conv = f32[2]{0} custom-call(%x), metadata={op_name="jit(f)/jvp(Net)/conv1/conv" stack_frame_id=1}
  %copy.7 = f32[2]{0} copy(%conv)
  %wrapped.3 = f32[2]{0} fusion(%copy.7), kind=kLoop, calls=%inner
  ROOT %out = f32[2]{0} fusion(%wrapped.3), calls=%inner, metadata={op_name="jit(f)/transpose(jvp(Net))/fc/mul"}
}
"""


def test_what_xla_adds_counts_for_the_layer_that_it_is_made_for() -> None:
    ops = timeline.layer_ops(PROGRAM)
    assert ops["conv"] == ("conv1", "forward", "conv")
    assert ops["out"] == ("fc", "backward", "mul")
    assert ops["copy.7"] == ("fc", "backward", "copy")
    assert ops["wrapped.3"] == ("fc", "backward", "wrapped")


@pytest.mark.parametrize(
    ("spans", "expected"),
    [
        ([("a", 0, 2), ("b", 3, 4)], {"a": 2, "b": 1}),
        ([("a", 0, 4), ("b", 1, 3)], {"a": 3, "b": 1}),
        ([("a", 0, 2), ("b", 0, 2)], {"a": 1, "b": 1}),
        ([("a", 0, 2), ("a", 5, 6)], {"a": 3}),
        ([("a", 1, 1)], {}),
        ([], {}),
    ],
)
def test_a_moment_is_divided_among_what_runs_in_it(spans: list, expected: dict[str, float]) -> None:
    divided = timeline.divide_time([timeline.Span(*span) for span in spans])
    assert {name: seconds for name, seconds in divided.items() if seconds} == expected


def event(name: str, begin: float, end: float, **stats: object) -> Fake:
    return Fake(name=name, start_ns=begin * 1e9, end_ns=end * 1e9, stats=stats.items())


def test_an_instruction_ends_when_the_thread_that_completes_it_goes_on() -> None:
    """The profiler writes that it ended when that thread has run what follows, too."""
    starts = [event("add", 1, 2, hlo_op="add", _p=7), event("late", 20, 21, hlo_op="late", _p=8)]
    completes = [
        event("before", 0, 1, hlo_op="before"),
        event("conv", 3, 9, hlo_op="conv"),
        event("end: add", 9, 10, _c=7),
        event("end: late", 22, 23, _c=8),
    ]
    cpu = Fake(name="/host:CPU", lines=[Fake(events=starts), Fake(events=completes)])
    expected = {("add", 1, 3), ("late", 20, 23), ("before", 0, 1), ("conv", 3, 9)}
    assert set(timeline.spans_of(Fake(planes=[cpu]))) == expected
