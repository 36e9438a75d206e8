"""Trackers: what a stand-in of each library is told of a training, and that no training ends because of one."""

import contextlib
import pathlib
import sys
import types
from typing import Any

import pytest

from cnnjax import cli, sealed
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.runs import tracking
from cnnjax.runs.signals import Interrupted
from tests import tiny

LINES = [{"step": 2, "epoch": 0.5, "train/loss": 1.5}, {"step": 2, "epoch": 0.5, "val/accuracy": 0.25}]
VALUES = [{"epoch": 0.5, "train/loss": 1.5}, {"epoch": 0.5, "val/accuracy": 0.25}]
VARIABLES = {"wandb": "WANDB_PROJECT", "mlflow": "MLFLOW_EXPERIMENT_NAME"}  # that name the project


class Library(types.ModuleType):
    """A stand-in for a tracker's library, which takes its calls and says what they were in words of its own.

    `told` has the starts, as (project, name, settings, whether the run is new), the metrics, as (step, values), and the
    end, as the library's own status. `broken` is the name of the function that fails.
    """

    def __init__(self, name: str, broken: str = "") -> None:
        super().__init__(name)
        self.told: list[Any] = []
        self.broken, self.runs, self.experiment, self.config = broken, set(), "", {}

    def called(self, name: str) -> None:
        if name == self.broken:
            raise ConnectionError("no route to host\nmore of it")

    def metrics(self, values: dict[str, float], step: int) -> None:
        self.called("log")
        self.told.append((step, values))

    def end(self, status: object) -> None:
        self.called("finish")
        self.told.append(status)


class Trackio(Library):
    def init(self, project: str, name: str, config: dict[str, Any], resume: str) -> Any:
        self.called("start")
        assert resume == "allow"
        self.told.append((project, name[:-7], config, name not in self.runs))
        self.runs.add(name)
        return types.SimpleNamespace(log=self.metrics, finish=lambda: self.end("ended"))


class Wandb(Library):
    Settings = staticmethod(dict)

    def init(self, *, project: str, name: str, config: dict[str, Any], **others: Any) -> Any:
        self.called("start")
        assert (others["resume"], others["settings"]) == ("allow", {"console": "off"})
        assert pathlib.Path(others["dir"]).name == name
        self.told.append((project, name, config, others["id"] not in self.runs))
        self.runs.add(others["id"])
        return types.SimpleNamespace(log=self.metrics, finish=lambda exit_code: self.end(exit_code))


class Mlflow(Library):
    def set_experiment(self, name: str) -> None:
        self.experiment = name

    def start_run(self, run_id: str = "", run_name: str = "") -> Any:
        self.called("start")
        assert not run_id or run_id in self.runs
        self.runs.add("made by the server")
        self.told.append((self.experiment, run_name or "run", self.config, not run_id))
        return types.SimpleNamespace(info=types.SimpleNamespace(run_id="made by the server"))

    def log_params(self, settings: dict[str, Any]) -> None:
        assert not self.config, "MLflow lets none change"
        self.config.update(settings)

    def log_metrics(self, values: dict[str, float], step: int) -> None:
        self.metrics(values, step)

    def end_run(self, status: str) -> None:
        self.end(status)


LIBRARIES = {"trackio": Trackio, "wandb": Wandb, "mlflow": Mlflow}
ENDS: dict[str, list[Any]] = {  # finished, interrupted, failed
    "trackio": ["ended"] * 3,
    "wandb": [0, 1, 1],
    "mlflow": ["FINISHED", "KILLED", "FAILED"],
}


@pytest.fixture(params=tracking.TRACKERS)
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Library:
    for variable in VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    stand_in = LIBRARIES[request.param](request.param)
    monkeypatch.setitem(sys.modules, request.param, stand_in)
    return stand_in


def follow(tracker: str, folder: pathlib.Path, error: BaseException | None = None) -> list[str]:
    """Sends LINES to a tracker, as a training that ends with `error` does; returns what is logged."""
    folder.mkdir(exist_ok=True)
    logged: list[str] = []
    ended = pytest.raises(type(error)) if error else contextlib.nullcontext()
    with ended, tracking.track(tracker, folder, Config(model="lenet5"), logged.append) as send:
        for line in LINES:
            send(line)
        if error:
            raise error
    return logged


def test_a_tracker_gets_settings_metrics_and_the_status_and_goes_on_with_a_run(
    library: Library, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, folder = library.__name__, tmp_path / "run"
    errors = [None, Interrupted(15, "stopped"), FloatingPointError("not finite")]
    for number, (error, end) in enumerate(zip(errors, ENDS[name], strict=True)):
        assert follow(name, folder, error) == []
        (project, title, settings, is_new), *metrics, status = library.told
        assert (project, title, is_new) == ("cnnjax", "run", number == 0)
        assert settings["model"] == "lenet5"
        assert settings.keys() >= {"lr", "seed", "cnnjax"}
        assert metrics == [(2, values) for values in VALUES]
        assert status == end
        library.told.clear()
    assert list(sealed.read_json(folder / tracking.FILE)) == [name]

    for variable in VARIABLES.values():
        monkeypatch.setenv(variable, "from the environment")
    projects = {f"{name}('thesis')": "thesis", name: "from the environment" if name in VARIABLES else "cnnjax"}
    for tracker, project in projects.items():
        library.config = {}
        follow(tracker, tmp_path / project)
        assert library.told[0][0] == project
        assert library.told[0][3] or name == "mlflow"  # whose stand-in gives one id
        library.told.clear()


@pytest.mark.parametrize("broken", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_logged_once_and_gets_nothing_more(
    broken: str, library: Library, tmp_path: pathlib.Path
) -> None:
    library.broken = broken
    (line,) = follow(library.__name__, tmp_path / "run")
    reason = "failed and is no longer used; training continues: ConnectionError: no route to host"
    assert line == f"{library.__name__} {reason}"
    assert len(library.told) == {"start": 0, "log": 1, "finish": 3}[broken]


def test_a_tracker_that_is_not_there_is_an_error_before_the_training(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in tracking.TRACKERS:
        monkeypatch.setitem(sys.modules, name, None)
    expected = {
        "wandb": r"wandb is not installed; pip install 'cnnjax\[wandb\]' in this environment",
        "wandv": "unknown tracker 'wandv'; did you mean 'wandb'",
        "mlflow(project='a')": "tracker 'mlflow' has no argument 'project'",
        "trackio(3)": "tracker 'trackio': project = 3: expected str",
    }
    for tracker, message in expected.items():
        with (
            pytest.raises(InputError, match=message),
            tracking.track(tracker, tmp_path, Config(model="lenet5"), pytest.fail),
        ):
            pytest.fail("a training begins")


def test_the_command_tracks_every_line_and_resumes_with_the_tracker(
    digits_dir: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, library = tmp_path / "run", Wandb("wandb")
    monkeypatch.setitem(sys.modules, "wandb", library)
    flags = [f"--config.{name}={value}" for name, value in tiny.CONFIG.items()]
    words = ["train", "digits_lenet5", *flags, f"--workdir={folder}", f"--data_dir={digits_dir}", "--track=wandb"]
    with monkeypatch.context() as patch:
        tiny.send_at(patch, 4)
        assert cli.main(words) == 128 + 15
    assert f"train --workdir={folder} --track=wandb --data_dir={digits_dir}\n" in capsys.readouterr().out
    assert library.told.pop() == 1
    assert cli.main(words) == 0
    starts = [told for told in library.told if len(told) == 4] if library.told.pop() == 0 else []
    assert [start[3] for start in starts] == [True, False]
    sent = [(told[0], name) for told in library.told if len(told) == 2 for name in told[1] if name.endswith("loss")]
    steps = [(2, "train"), (4, "train"), (4, "val"), (6, "train"), (8, "train"), (8, "val"), (8, "test")]
    assert sent == [(step, f"{group}/loss") for step, group in steps]
