"""What `cnnjax bench` measures: the arithmetic in tables, with steps whose times are known; and the command itself."""

import dataclasses
import os
import pathlib
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest

from cnnjax import cli
from cnnjax.augment import OPS
from cnnjax.bench import kept, measure, peer, rows, start, timeline, torch_worker
from cnnjax.cli.bench import ZOO
from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.data.transforms import HOST_OPS
from cnnjax.errors import InputError
from cnnjax.models import MODELS

TINY = "mlp(features=(8,))"


@pytest.fixture(autouse=True)
def cached() -> Iterator[None]:
    """The command measures compilations without the cache that the other tests want."""
    before = jax.config.values["jax_compilation_cache_dir"]
    yield
    jax.config.update("jax_compilation_cache_dir", before)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Short blocks and no pauses; the machine's peaks are made up."""
    monkeypatch.setattr(measure, "BLOCK", 0.005)
    monkeypatch.setattr(measure, "peaks", lambda dtype: measure.Peaks(1e9, 1e9))
    monkeypatch.setattr(peer, "SETTLE", 0.0)


# ---------------------------------------------------------------------------------------------------------- arithmetic


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

    def step(state: Any, batch: Any, key: Any) -> tuple[Any, dict]:
        seen.append((state, batch))
        return state + 1, {}

    run = measure._train_run(step, lambda: jax.numpy.zeros(()), iter(range(100)))  # pyright: ignore[reportArgumentType]
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


# ------------------------------------------------------------------------------------------------------ where time goes

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
    assert timeline.part(path) == PATHS[path]


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
    found = timeline.parts(PROGRAM)
    assert found["conv"] == ("conv1", "forward", "conv")
    assert found["out"] == ("fc", "backward", "mul")
    assert found["copy.7"] == ("fc", "backward", "copy")
    assert found["wrapped.3"] == ("fc", "backward", "wrapped")


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
    found = timeline.share([timeline.Span(*span) for span in spans])
    assert {name: seconds for name, seconds in found.items() if seconds} == expected


# --------------------------------------------------------------------------------------------------------------- kept


def row(seconds: float | None = 1.0, spread: float = 0.1, **changes: Any) -> rows.Row:
    values = {field.name: "" for field in dataclasses.fields(rows.Row) if field.default is dataclasses.MISSING}
    values |= {"machine": "Abacus", "cores": 2, "devices": 1, "model": "lenet5", "batch": 8, "what": "train"}
    times = (
        {} if seconds is None else {"seconds": seconds, "seconds_q1": seconds - spread, "seconds_q3": seconds + spread}
    )
    return rows.Row(**values | times | changes)  # pyright: ignore[reportArgumentType]


def lines(path: pathlib.Path, *added: rows.Row) -> list[kept.Line]:
    for one in added:
        kept.append(path, one)
    return kept.read(path)


def test_rows_are_kept_as_they_were(tmp_path: pathlib.Path) -> None:
    model = 'lenet5(activation="tanh", pool="max")'
    found = lines(tmp_path / "kept.csv", row(model=model), row(seconds=None, memory_bytes=7))
    assert [one["model"] for one in found] == [model, "lenet5"]
    assert [one["seconds"] for one in found] == ["1.0", ""]
    assert found[1]["memory_bytes"] == "7"


# Kept, today's, the word, and whether the command fails with a tolerance of 10 %.
CHANGES = {
    "the same": (row(), row(), "same", False),
    "slower within the spread": (row(1.0, 0.2), row(1.3, 0.2), "same", False),
    "slower within the tolerance": (row(1.0, 0.01), row(1.05, 0.01), "slower", False),
    "slower": (row(1.0, 0.01), row(1.2, 0.01), "slower", True),
    "faster": (row(1.0, 0.01), row(0.8, 0.01), "faster", False),
    "larger": (row(None, memory_bytes=100), row(None, memory_bytes=120), "larger", True),
    "smaller": (row(None, memory_bytes=100), row(None, memory_bytes=80), "smaller", False),
    "as large": (row(None, memory_bytes=1000), row(None, memory_bytes=1001), "same", False),
}


@pytest.mark.parametrize("case", CHANGES)
def test_what_has_become_slower(case: str, tmp_path: pathlib.Path) -> None:
    before, now, word, worse = CHANGES[case]
    (verdict,) = kept.compare([now], lines(tmp_path / "kept.csv", row(9.0, machine="other"), before), 0.1)
    assert (verdict.word, verdict.worse) == (word, worse)


def test_the_newest_row_counts_and_what_was_not_kept_is_said(tmp_path: pathlib.Path) -> None:
    found = lines(tmp_path / "kept.csv", row(5.0), row(1.0))
    first, second = kept.compare([row(2.0), row(2.0, model="vgg16")], found, 0.1)
    assert first.ratio == 2.0
    assert second == (row(2.0, model="vgg16"), None, "not kept", False)


@pytest.mark.parametrize("column", ["machine", "cores", "devices", "model", "batch", "input", "dtype", "what"])
def test_only_the_same_is_compared(column: str, tmp_path: pathlib.Path) -> None:
    found = lines(tmp_path / "kept.csv", row(**{column: 77}))
    with pytest.raises(InputError, match="nothing kept is comparable to lenet5 train, batch 8, on Abacus, 2 cores"):
        kept.compare([row()], found, 0.1)


DAMAGED = {
    "empty": (lambda text: "", "has no column 'date'"),
    "another file": (lambda text: "a,b\n1,2\n", "has no column 'date'"),
    "a column is gone": (lambda text: text.replace("seconds_q3", "q3", 1), "has no column 'seconds_q3'"),
    "no number": (lambda text: text.replace(",1.0,", ",fast,"), "row 2: seconds = 'fast': expected a number"),
    "cut off": (lambda text: text[: text.index(",1.0,")], "row 2 has not the columns of the first line"),
    "no text": (lambda text: "\0\xff", "is not a CSV file"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_file_is_named_with_its_fault(case: str, tmp_path: pathlib.Path) -> None:
    damage, said = DAMAGED[case]
    path = tmp_path / "kept.csv"
    lines(path, row())
    path.write_text(damage(path.read_text()), encoding="latin-1")
    with pytest.raises(InputError, match=r"kept\.csv") as error:
        kept.read(path)
    assert said in str(error.value)


# ----------------------------------------------------------------------------------------------------------- the peer


def test_the_two_take_turns_and_alternate_who_begins(quick: None) -> None:
    turns = []

    def side(name: str, step: float) -> measure.Run:
        def run(steps: int) -> float:
            turns.append((name, steps))
            return steps * step

        return run

    ours, theirs = peer.interleave(side("A", 0.001), side("B", 0.002), 4)
    counted = turns[-15::2]  # each begins with a step that is not
    assert "".join(name for name, _ in counted) == "ABBAABBA"
    assert turns[-16::2] == [(name, 1) for name, _ in counted]
    assert ours == pytest.approx([0.001] * 4)
    assert theirs == pytest.approx([0.002] * 4)


WORKER = """
import json, os, sys
print(json.dumps({"torch": "0.1", "cuda": False}), flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["do"] == "build":
        answer = ANSWER
    else:
        slow = os.environ.get("OMP_WAIT_POLICY") != "PASSIVE"
        answer = {"seconds": request["steps"] * (2.0 if slow else 1.0)}
    print(json.dumps(answer), flush=True)
"""


def build(monkeypatch: pytest.MonkeyPatch, path: pathlib.Path, script: str, params: int = 5) -> Any:
    """What peer.build makes of a worker that is this script."""
    path.write_text(script)
    monkeypatch.setattr(peer, "WORKER", path)
    subject = measure.of_model("lenet5", 10, (28, 28, 1), 8, "float32")
    with peer.start_all(sys.executable) as workers:
        built = peer.build(workers, subject, "train", params)
        return built and (built[0](3), built[1])


def test_the_peer_is_the_faster_of_its_workers(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script = WORKER.replace("ANSWER", '{"params": 5, "source": "lib 2"}')
    assert build(monkeypatch, tmp_path / "w.py", script) == (3.0, "lib 2, torch 0.1")


def test_a_network_without_a_peer_has_none(
    quick: None, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    assert build(monkeypatch, tmp_path / "w.py", WORKER.replace("ANSWER", '{"params": None}')) is None


FAILING = {
    "parameters": (
        WORKER.replace("ANSWER", '{"params": 6, "source": "lib 2"}'),
        "lenet5 has 5 parameters, and its peer in lib 2 6: they are not the same network",
    ),
    "what it says": (WORKER.replace("ANSWER", '{"error": "OutOfMemory: no"}'), "OutOfMemory: no"),
    "dies at once": ("import torch_that_is_not_there", "No module named 'torch_that_is_not_there'"),
    "dies later": (WORKER.replace("ANSWER", "sys.exit('killed')"), "ended with 'killed'"),
    "is something else": ("print('hello')", "ended with 'hello'"),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_goes_wrong_with_the_peer_is_said(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script, said = FAILING[case]
    with pytest.raises(InputError) as error:
        build(monkeypatch, tmp_path / "w.py", script)
    assert said in str(error.value)


@pytest.mark.parametrize("python", ["/nonexistent/python", "/", __file__])
def test_the_peers_python_must_be_one(python: str) -> None:
    with pytest.raises(InputError, match="expected the path of a Python that has torch"), peer.start_all(python):
        pass


def test_every_peer_is_one_of_our_networks_and_the_zoo_has_peers() -> None:
    assert set(torch_worker.PEERS) <= set(MODELS)
    assert set(ZOO) <= set(torch_worker.PEERS)


@pytest.fixture(scope="module")
def torch_python() -> str:
    if not (python := os.environ.get("CNNJAX_TORCH_PYTHON")):
        pytest.skip("needs CNNJAX_TORCH_PYTHON, the path of a Python that has torch, torchvision, timm and pytorchcv")
    return python


@pytest.mark.slow
@pytest.mark.parametrize("model", ZOO)
@pytest.mark.parametrize("what", ["train", "forward"])
def test_the_peer_is_the_same_network_and_runs(model: str, what: str, torch_python: str, quick: None) -> None:
    variant = MODELS[model]
    shape = (64, 64, 3) if variant.input_shape[0] > 64 else variant.input_shape
    shape = variant.input_shape if model.startswith("vgg") else shape  # its full connections are for that size
    subject = measure.of_model(model, variant.num_classes, shape, 8, "float32")
    with peer.start_all(torch_python) as workers:
        built = peer.build(workers, subject, what, variant.params)
        assert built is not None
        assert built[0](1) > 0


def test_the_peer_has_our_operations_by_their_names() -> None:
    assert set(torch_worker.TRANSFORMS) <= set(HOST_OPS | OPS)


def test_the_peer_gets_the_data_of_the_config(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = Config(augment="resize(9)|random_crop(8)|flip_lr(probability=0.2)", train_split="train[:20]")
    request = peer.export(tmp_path, config, digits_dir)
    assert request["augment"] == [
        ["resize", (9,), {}],
        ["random_crop", (8,), {}],
        ["flip_lr", (), {"probability": 0.2}],
    ]
    images, labels = load("digits", "train[:20]", digits_dir).read(np.arange(20))
    np.testing.assert_array_equal(np.load(tmp_path / "images.npy"), images)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels)


@pytest.mark.slow
def test_a_config_is_compared_with_a_dataloader(
    digits_dir: str, torch_python: str, quick: None, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["bench", "--config=configs/digits_lenet5.py", "--repeats=2", f"--vs={torch_python}"]
    assert cli.main([*typed, f"--data_dir={digits_dir}"]) == 0
    shown = capsys.readouterr().out
    assert "lenet5 input: " in shown
    assert "lenet5 loop: " in shown
    assert shown.count("of the time of ") == 2


@pytest.mark.slow
def test_the_command_prints_the_ratio(torch_python: str, quick: None, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["bench", "lenet5", "--batch=8", "--repeats=2", "--what=train", f"--vs={torch_python}"]) == 0
    assert "of the time of torch " in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_measures_keeps_and_compares(
    quick: None, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept.csv"
    typed = ["bench", TINY, "--batch=8", "--repeats=2"]
    assert cli.main([*typed, "--what=train,forward,memory", f"--csv={path}", f"--profile={tmp_path / 'trace'}"]) == 0
    shown = capsys.readouterr().out
    assert "outside" in shown
    assert "dot_general" in shown
    assert list((tmp_path / "trace").rglob("*.xplane.pb"))
    train, forward, memory = kept.read(path)
    assert [one["what"] for one in (train, forward, memory)] == ["train", "forward", "memory"]
    for one in (train, forward):
        assert float(one["images_per_second"]) == pytest.approx(8 / float(one["seconds"]))
        assert float(one["seconds_q1"]) <= float(one["seconds"]) <= float(one["seconds_q3"])
        assert float(one["roofline"]) > 0
    assert memory["memory_bytes"] == train["memory_bytes"]
    assert not memory["seconds"]

    # Beside a step that took next to no time, and beside one that took ages.
    header = path.read_text().splitlines()[0]
    for factor, expected in ((1e-6, 1), (1e6, 0)):
        other = dict(train)
        for name in ("seconds", "seconds_q1", "seconds_q3"):
            other[name] = str(float(train[name]) * factor)
        path.write_text(header + "\n" + ",".join(f'"{value}"' for value in other.values()) + "\n")
        assert cli.main([*typed, "--what=train", f"--against={path}"]) == expected
        assert ("slower, by more than 10%" if expected else "faster") in capsys.readouterr().out


def test_a_configs_own_batches_and_step_are_measured(quick: None, digits_dir: str, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "kept.csv"
    settings = [f"--config.model={TINY}", f"--data_dir={digits_dir}", "--batch=16", f"--csv={path}", "--repeats=1"]
    assert cli.main(["bench", "--config=configs/digits_lenet5.py", "--what=input,train", *settings]) == 0
    assert [(one["what"], one["batch"], one["model"]) for one in kept.read(path)] == [
        ("input", "16", TINY),
        ("train", "16", TINY),
    ]
    assert {one["input"] for one in kept.read(path)} == {"28x28x1"}


@pytest.mark.slow
def test_a_start_is_measured_to_its_first_step(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = Config(model=TINY, augment="resize(28)", preprocess="resize(28)")
    assert 1 < start.seconds(config, digits_dir, tmp_path) < 120
    assert list(tmp_path.iterdir())
    with pytest.raises(InputError, match=r"the run ended before its first step: .*'tets'; did you mean 'test'"):
        start.seconds(dataclasses.replace(config, test_split="tets"), digits_dir, tmp_path)
