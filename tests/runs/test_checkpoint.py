"""Checkpoints: what is kept, and that a damaged one is noticed and never read for another."""

import dataclasses
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnnjax import sealed
from cnnjax.config import Config
from cnnjax.distributed import sharding
from cnnjax.errors import InputError
from cnnjax.runs import checkpoint, workdir
from cnnjax.state import TrainState

STEPS = (1, 2, 3)


def state(step: int, tx: optax.GradientTransformation | None = None, **shapes: tuple[int, ...]) -> TrainState:
    """A state with something of everything, different at each step; `shapes` are of further parameters."""
    keys = iter(jax.random.split(jax.random.key(step), 10))
    shapes = {"kernel": (40, 30), "bias": (30,)} | shapes
    params = {"dense": {name: jax.random.normal(next(keys), shape) for name, shape in shapes.items()}}
    opt_state = jax.tree.map(lambda x: x + step, (tx or optax.adam(0.1)).init(params))
    stats = {"batch_stats": {"mean": jax.random.normal(next(keys), (30,))}}
    return TrainState(jnp.int32(step), params, stats, opt_state, jax.tree.map(jnp.copy, params))


def abstract(of: TrainState) -> TrainState:
    whole = sharding.replicated(sharding.make_mesh(jax.devices()[:1]))
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), of)


def save(workdir: pathlib.Path, accuracies: dict[int, float | None], keep: int = 3) -> None:
    with checkpoint.Saver(workdir, keep) as saver:
        for step, accuracy in accuracies.items():
            saver.save(state(step), None if accuracy is None else {"loss": 1.0, "accuracy": accuracy})


def restore(workdir: pathlib.Path, **options: Any) -> tuple[TrainState | None, str]:
    said: list[str] = []
    return checkpoint.restore(workdir, abstract(state(0)), said.append, **options), "\n".join(said)


def equal(a: Any, b: Any) -> bool:
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype and np.array_equal(x, y), a, b)
    return jax.tree.structure(a) == jax.tree.structure(b) and all(jax.tree.leaves(same))


def listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A run's folder with three intact checkpoints, of which the last is the best."""
    folder = tmp_path_factory.mktemp("whole")
    save(folder, {1: 0.5, 2: 0.6, 3: 0.7})
    return folder


@pytest.fixture
def copy(whole: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
    return shutil.copytree(whole, tmp_path / "copy")


@pytest.mark.parametrize(
    "name",
    ["a [x]", "a*b", "a**b", "a?b", "a{b}", "[/b]", ":smile:", "50%", "a#b", "$HOME", "~", "\x1b[31m", "é", "a\nb"],
)
def test_a_folder_may_have_any_name_in_utf8(name: str, tmp_path: pathlib.Path) -> None:
    save(tmp_path / name, {1: 0.5, 2: 0.6})
    found, said = restore(tmp_path / name)
    assert equal(found, state(2))
    assert said == ""


@pytest.mark.parametrize("name", ["a\\b", "\udcff"])
def test_a_name_in_which_nothing_could_be_saved_is_refused_before_the_training(
    name: str, tmp_path: pathlib.Path
) -> None:
    refused = pytest.raises(InputError, match=r"the path of a run .*; choose another folder")
    with refused, workdir.claim(tmp_path / name, Config()):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_is_restored_is_what_was_saved_to_the_bit(whole: pathlib.Path) -> None:
    found, said = restore(whole)
    assert equal(found, state(3))
    assert said == ""
    for step, number in {"last": 3, "best": 3, "2": 2}.items():
        target = {"params": state(0).params, "model_state": state(0).model_state, "ema": state(0).ema}
        got, model = checkpoint.restore_model(whole, abstract(target), step, print)  # type: ignore[arg-type]
        assert got == number
        assert equal(model, {name: getattr(state(number), name) for name in target})


def test_a_folder_without_checkpoints_restores_nothing(tmp_path: pathlib.Path) -> None:
    assert restore(tmp_path) == (None, "")
    (tmp_path / "checkpoints").mkdir()
    assert restore(tmp_path) == (None, "")


# ------------------------------------------------------------------------------------------------------------- damage


def _flip(path: pathlib.Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    if content:
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def _cut(path: pathlib.Path, rng: random.Random) -> None:
    path.write_bytes(path.read_bytes()[: rng.randrange(max(1, path.stat().st_size))])


DAMAGE: dict[str, Callable[[pathlib.Path, random.Random], object]] = {
    "a bit is flipped": _flip,
    "the end is cut off": _cut,
    "nothing is left in it": lambda path, rng: path.write_bytes(b""),
    "it is gone": lambda path, rng: path.unlink(),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damage_to_any_file_is_harmless_or_noticed(kind: str, whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rng, noticed = random.Random(kind), set()
    files = [path.relative_to(whole) for path in whole.glob("checkpoints/00000003/**/*") if path.is_file()]
    for number, name in enumerate(sorted(files)):
        folder = shutil.copytree(whole, tmp_path / str(number))
        DAMAGE[kind](folder / name, rng)
        before = listing(folder)
        found, said = restore(folder)
        assert equal(found, state(2 if said else 3)), f"{name}: {said}"
        if said:
            noticed.add(name.parts[2])
            assert f"{folder / 'checkpoints' / '00000003'} is damaged: " in said
            assert "using the newest intact checkpoint, step 2" in said
        assert listing(folder) == before
    assert noticed >= {"model", "optimizer", "digest"}


@pytest.mark.parametrize("part", ["model", "optimizer", "digest"])
@pytest.mark.parametrize("put", ["nothing", "an empty folder", "a file", "that of another step"])
def test_a_part_that_is_not_what_was_saved_is_noticed(part: str, put: str, copy: pathlib.Path) -> None:
    path = copy / "checkpoints" / "00000003" / part
    shutil.rmtree(path)
    if put == "an empty folder":
        path.mkdir()
    elif put == "a file":
        path.write_text("{}")
    elif put == "that of another step":
        shutil.copytree(copy / "checkpoints" / "00000002" / part, path)
    found, said = restore(copy)
    assert equal(found, state(2))
    assert "00000003 is damaged" in said


def _empty_folder(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def _file(folder: pathlib.Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def _half_deleted(folder: pathlib.Path) -> None:
    shutil.rmtree(folder / "digest")


BROKEN = {"empty folder": _empty_folder, "file": _file, "half-deleted folder": _half_deleted}


@pytest.mark.parametrize("kind", BROKEN)
def test_damaged_steps_are_moved_away_and_saved_again(kind: str, copy: pathlib.Path) -> None:
    for attempt in (0, 1):
        BROKEN[kind](copy / "checkpoints" / "00000003")
        found, _ = restore(copy, set_aside=True)
        assert equal(found, state(2))
        assert (copy / "damaged" / f"00000003-{attempt}").exists()
        assert checkpoint.steps(copy) == [1, 2]
        save(copy, {3: 0.7})
        assert equal(restore(copy)[0], state(3))


def test_training_goes_on_beside_older_damage(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    rng = random.Random(0)
    folder = shutil.copytree(whole, tmp_path / "run")
    for path in sorted(folder.glob("checkpoints/0000000[12]/**/*")):
        if path.is_file():
            _cut(path, rng)
    _empty_folder(folder / "checkpoints" / "00000001")
    assert restore(folder, set_aside=True)[1] == ""
    save(folder, {4: 0.1, 5: 0.2}, keep=2)
    assert checkpoint.steps(folder) == [3, 4, 5]
    assert checkpoint.best(folder) == 3


def test_evaluation_passes_over_damage_or_names_it(copy: pathlib.Path) -> None:
    _flip(copy / "checkpoints" / "00000003" / "digest" / "metadata", random.Random(1))
    before = listing(copy)
    target: Any = abstract({"params": state(0).params, "model_state": state(0).model_state, "ema": state(0).ema})  # type: ignore[arg-type]
    said: list[str] = []
    assert checkpoint.restore_model(copy, target, "last", said.append)[0] == 2
    assert "00000003 is damaged" in said[0]
    for step in ("1", 1):
        assert checkpoint.restore_model(copy, target, step, pytest.fail)[0] == 1
    with pytest.raises(InputError, match=r"00000003 is damaged: its digest .*; others: 1, 2, 3"):
        checkpoint.restore_model(copy, target, "3", print)
    for name in ("7", 7, -1, "²", "-1", "9" * 5000, "newest"):
        with pytest.raises(InputError, match=f"no checkpoint of step '{str(name)[:9]}.*'; valid: last, best, 1, 2, 3"):
            checkpoint.restore_model(copy, target, name, print)
    assert listing(copy) == before


def test_when_all_are_damaged_one_error_says_so_and_nothing_is_touched(copy: pathlib.Path) -> None:
    for step in STEPS:
        shutil.rmtree(copy / "checkpoints" / f"{step:08d}" / "model")
    before = listing(copy)
    with pytest.raises(InputError, match="no intact checkpoint; damaged: 1, 2, 3"):
        restore(copy, set_aside=True)
    assert listing(copy) == before


# ------------------------------------------------------------------------------------------------- another's, and kept


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: state(0, kernel=(40, 31)), r"dense/kernel is float32\[40, 30\] there, float32\[40, 31\] in this"),
        (lambda: state(0, scale=(30,)), r"dense/scale is missing there, float32\[30\] in this"),
        (lambda: state(0, optax.sgd(0.1, momentum=0.9)), r"opt_state/0/count is int32\[\] there, missing in this"),
        (
            lambda: dataclasses.replace(state(0), ema={}),
            r"ema/dense/bias is float32\[30\] there, missing in this config",
        ),
        (
            lambda: dataclasses.replace(state(0), step=jnp.float32(0)),
            r"step is int32\[\] there, float32\[\] in this config",
        ),
    ],
    ids=["shape", "layer", "optimiser", "ema", "type"],
)
def test_another_networks_checkpoint_is_named_not_read(
    other: Callable[[], TrainState], message: str, whole: pathlib.Path
) -> None:
    before = listing(whole)
    with pytest.raises(InputError, match=message):
        checkpoint.restore(whole, abstract(other()), print, set_aside=True)
    assert listing(whole) == before


@pytest.mark.parametrize("reopened", [False, True], ids=["at once", "in two runs"])
@pytest.mark.parametrize(
    ("keep", "accuracies", "kept", "best"),
    [
        (1, [None, None, None, None], [4], None),
        (2, [None, None, None, None], [3, 4], None),
        (9, [0.1, None, 0.3], [1, 2, 3], 3),
        (2, [0.1, 0.9, 0.2, 0.3, 0.4], [2, 4, 5], 2),
        (1, [0.1, 0.2, 0.3, 0.4], [4], 4),
        (1, [0.5, 0.5, 0.1, 0.1], [2, 4], 2),
        (1, [0.0, None, None], [1, 3], 1),
        (1, [0.9, None, 0.1, None], [1, 4], 1),
    ],
)
def test_the_newest_and_the_best_are_kept(
    keep: int, accuracies: list, kept: list[int], best: int | None, reopened: bool, tmp_path: pathlib.Path
) -> None:
    numbered = dict(enumerate(accuracies, start=1))
    half = len(numbered) // 2 if reopened else 0
    save(tmp_path, {step: value for step, value in numbered.items() if step <= half}, keep)
    save(tmp_path, {step: value for step, value in numbered.items() if step > half}, keep)
    assert checkpoint.steps(tmp_path) == kept
    assert checkpoint.best(tmp_path) == best


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({}, "its config has no val_split"),
        ({"val_split": "test"}, "none has a score on its validation split"),
        ({"fold": "1/5"}, "none has a score on its validation split"),
    ],
)
def test_without_validation_there_is_no_best(settings: dict[str, Any], why: str, tmp_path: pathlib.Path) -> None:
    save(tmp_path, {1: None})
    sealed.write_json(tmp_path / "config.json", dataclasses.asdict(Config(**settings)))
    target: Any = abstract({"params": state(0).params, "model_state": state(0).model_state, "ema": state(0).ema})  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"no best checkpoint: {why}; use --step=last"):
        checkpoint.restore_model(tmp_path, target, "best", print)


def test_a_step_is_never_saved_over_a_later_one(whole: pathlib.Path) -> None:
    before = listing(whole)
    with pytest.raises(InputError, match="has a later checkpoint than step 2 already"):
        save(whole, {2: None})
    assert listing(whole) == before


def test_what_other_processes_fail_at_is_not_the_folders_fault(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """A process left alone fails where it collects the state: `processes.peer_failure` explains that."""

    def gone(leaf: jax.Array) -> np.ndarray:
        raise ValueError("UNKNOWN: Gloo AllGather failed: Read error: Connection reset by peer")

    monkeypatch.setattr(checkpoint, "to_host", gone)
    with pytest.raises(InputError, match=f"cannot save in {tmp_path}.*: UNKNOWN: Gloo"):
        save(tmp_path, {1: None})
    monkeypatch.setattr(checkpoint.processes, "is_distributed", lambda: True)
    with pytest.raises(ValueError, match=r"^UNKNOWN: Gloo AllGather failed"):
        save(tmp_path, {1: None})
