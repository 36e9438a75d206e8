"""Comparisons with PyTorch: the turns that both take, the workers, and their networks and data."""

import pathlib
import sys
from typing import Any

import numpy as np
import pytest

from cnnjax import cli
from cnnjax.augment import OPS
from cnnjax.bench import measure, peer, torch_worker
from cnnjax.cli.bench import ZOO
from cnnjax.config import Config
from cnnjax.data.build import load
from cnnjax.data.transforms import HOST_OPS
from cnnjax.errors import InputError
from cnnjax.models import MODELS


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
    """Builds the peer with this script as the worker; returns the seconds of three steps, and the source."""
    path.write_text(script)
    monkeypatch.setattr(peer, "WORKER", path)
    subject = measure.of_model("lenet5", 10, (28, 28, 1), 8, "float32")
    with peer.start_workers(sys.executable) as workers:
        built = peer.build_peer(workers, subject, "train", params)
        return built and (built.run(3), built.source)


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
    "reports an error": (WORKER.replace("ANSWER", '{"error": "OutOfMemory: no"}'), "OutOfMemory: no"),
    "dies at once": ("import torch_that_is_not_there", "No module named 'torch_that_is_not_there'"),
    "dies later": (WORKER.replace("ANSWER", "sys.exit('killed')"), "ended with 'killed'"),
    "is something else": ("print('hello')", "ended with 'hello'"),
}


@pytest.mark.parametrize("case", FAILING)
def test_what_goes_wrong_with_the_peer_is_said(
    case: str, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    script, message = FAILING[case]
    with pytest.raises(InputError) as error:
        build(monkeypatch, tmp_path / "w.py", script)
    assert message in str(error.value)


@pytest.mark.parametrize("python", ["/nonexistent/python", "/", __file__])
def test_the_peers_python_must_be_one(python: str) -> None:
    with pytest.raises(InputError, match="expected the path of a Python that has torch"), peer.start_workers(python):
        pass


def test_every_peer_is_one_of_our_networks_and_the_zoo_has_peers() -> None:
    assert set(torch_worker.PEERS) <= set(MODELS)
    assert set(ZOO) <= set(torch_worker.PEERS)


@pytest.mark.slow
@pytest.mark.parametrize("model", ZOO)
@pytest.mark.parametrize("what", ["train", "forward"])
def test_the_peer_is_the_same_network_and_runs(model: str, what: str, torch_python: str, quick: None) -> None:
    variant = MODELS[model]
    shape = (64, 64, 3) if variant.input_shape[0] > 64 else variant.input_shape
    shape = variant.input_shape if model.startswith("vgg") else shape  # its fully connected layers are for that size
    subject = measure.of_model(model, variant.num_classes, shape, 8, "float32")
    with peer.start_workers(torch_python) as workers:
        built = peer.build_peer(workers, subject, what, variant.params)
        assert built is not None
        assert built.run(1) > 0


def test_the_peer_has_our_operations_by_their_names() -> None:
    assert set(torch_worker.TRANSFORMS) <= set(HOST_OPS | OPS)


def test_the_peer_gets_the_data_of_the_config(digits_dir: str, tmp_path: pathlib.Path) -> None:
    config = Config(augment="resize(9)|random_crop(8)|flip_lr(probability=0.2)", train_split="train[:20]")
    request = peer.export_data(tmp_path, config, digits_dir)
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
