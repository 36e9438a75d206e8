"""Thousands of single corruptions of the files of a run: each is harmless or said, none used, none a traceback."""

import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import jax
import pytest

from cnnjax import config as configs
from cnnjax import register, sealed
from cnnjax.errors import InputError
from cnnjax.runs import checkpoint, history, workdir
from cnnjax.runs.digest import array_records
from cnnjax.training.recipe import parse_recipe
from cnnjax.training.setup import make_setup
from cnnjax.training.state import restore_or_init
from tests import tiny
from tests.test_sealed import corruptions

PER_SMALL_FILE, PER_CHECKPOINT_FILE = 300, 40
CHANGES: dict[str, Any] = {"normalize": "mean_image", "duration": "4 steps", "eval_every": "2 steps"}


def history_of(folder: pathlib.Path, log: Callable[[str], None]) -> list[str]:
    found = history.read(folder)
    if not found.is_whole:
        log("damaged lines")
    return [line.text for line in found.lines]


def imports_of(folder: pathlib.Path, log: Callable[[str], None]) -> Any:
    register.check_imports(folder)
    return sealed.read_json(folder / "imports" / "imports.json")


# Each file, and how it is read.
READERS: dict[str, Callable[[pathlib.Path, Callable[[str], None]], Any]] = {
    "config.json": lambda folder, log: configs.load(folder / "config.json"),
    "data.json": lambda folder, log: workdir.read_data_info(folder).to_dict(),
    "statistics.npz": lambda folder, log: workdir.read_data_info(folder).to_dict(),
    "versions.json": lambda folder, log: workdir.read_json(folder / "versions.json"),
    "result.json": lambda folder, log: workdir.read_json(folder / "result.json"),
    "imports/imports.json": imports_of,
    "metrics.jsonl": history_of,
    "metrics.crc": history_of,
}


@pytest.fixture(scope="module")
def run(digits_dir: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    folder = tmp_path_factory.mktemp("corrupted") / "run"
    code = folder.with_name("own_loss.py")
    code.write_text("import cnnjax\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(register, "_imports", {})
        register.import_code(str(code))
        tiny.run(folder, digits_dir, **CHANGES)
        yield folder


def as_text(value: Any) -> str:
    return repr(jax.tree.map(lambda x: x.tolist() if hasattr(x, "tolist") else x, value))


def check(path: pathlib.Path, read: Callable[[Callable[[str], None]], Any], count: int) -> int:
    """Asserts that a corrupted file is never used without a word. Returns the number of corruptions that are said."""
    data, heard = path.read_bytes(), 0
    clean = as_text(read(pytest.fail))
    for number, changed in enumerate(corruptions(data, count)):
        path.write_bytes(changed)
        said: list[str] = []
        try:
            value = as_text(read(said.append))
            assert value == clean or said, f"{path.name}, corruption {number}"
        except InputError as error:
            said.append(str(error))
        heard += bool(said)
    path.write_bytes(data)
    return heard


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_corruption_of_a_small_file_is_used(name: str, run: pathlib.Path) -> None:
    heard = check(run / name, functools.partial(READERS[name], run), PER_SMALL_FILE)
    print(f"{name}: {PER_SMALL_FILE + 1} corruptions, {heard} said, 0 used")
    assert heard > PER_SMALL_FILE // 2


@pytest.mark.slow
def test_no_corruption_of_a_checkpoint_is_used(run: pathlib.Path, digits_dir: str) -> None:
    setup = make_setup(
        parse_recipe(configs.load(run / "config.json")), folder=run, data_dir=digits_dir, mesh=tiny.mesh(), log=print
    )

    def read(log: Callable[[str], None]) -> Any:
        state = restore_or_init(setup, run, log, set_aside=False)
        best = checkpoint.best(run, log)
        return best, array_records(jax.tree.map(jax.device_get, (state.step, state.params, state.opt_state)))

    newest = checkpoint.FOLDER + "/00000004"
    total = heard = 0
    for path in sorted(path for path in (run / newest).rglob("*") if path.is_file() and path.stat().st_size):
        heard += check(path, read, PER_CHECKPOINT_FILE)
        total += PER_CHECKPOINT_FILE + 1
    print(f"checkpoint: {total} corruptions, {heard} said, 0 used")
    assert total > 500
