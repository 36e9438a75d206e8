"""Trackers: a run's settings and metrics also go to Trackio, Weights & Biases or MLflow while it trains.

A tracker is a function `(run, ...) -> Session` in TRACKERS, which starts a run in the library of its name, or resumes
it. The library is an extra of the same name, too, and is imported only if the tracker is requested.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import secrets
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

from cnnjax import __version__, extras, sealed, spec
from cnnjax.config import Config
from cnnjax.runs.history import Metrics
from cnnjax.runs.signals import Interrupted

FILE = "tracking.json"  # in the run's folder: tracker -> the id of the run there
PROJECT = "cnnjax"
Status = Literal["finished", "stopped", "failed"]


@dataclasses.dataclass(frozen=True)
class Run:
    """A run, as a tracker needs it.

    Attributes:
      folder: its folder, whose name becomes the run's name.
      settings: its config, and the version of cnnjax.
      id: the id that the tracker gave it before; '' for a run that is new to the tracker.
    """

    folder: pathlib.Path
    settings: Mapping[str, Any]
    id: str


@dataclasses.dataclass(frozen=True)
class Session:
    """A run that a library tracks.

    Attributes:
      id: by which the library finds the run again.
      log: passes metrics, name -> value, and their step to the library.
      finish: ends the run in the library, with its status.
    """

    id: str
    log: Callable[[Mapping[str, float], int], object]
    finish: Callable[[Status], object]


def trackio(run: Run, project: str = PROJECT) -> Session:
    """Starts a run in a project of Trackio, whose dashboard is the command `trackio show`.

    Trackio knows a run by its name, and records no status.
    """
    name = run.id or f"{run.folder.name}-{secrets.token_hex(3)}"
    tracked = extras.load("trackio").init(project=project, name=name, config=dict(run.settings), resume="allow")
    return Session(name, lambda values, step: tracked.log(dict(values), step=step), lambda _: tracked.finish())


def wandb(run: Run, project: str = "") -> Session:
    """Starts a run in Weights & Biases; its files are in the folder `wandb` of the run's folder.

    `project` is '' for $WANDB_PROJECT, or else 'cnnjax'.
    """
    library, identity = extras.load("wandb"), run.id or secrets.token_hex(4)
    tracked = library.init(
        project=_project(project, "WANDB_PROJECT"), id=identity, name=run.folder.name, config=dict(run.settings),
        resume="allow", dir=str(run.folder), settings=library.Settings(console="off"),  # the progress bar stays ours
    )  # fmt: skip
    return Session(
        identity,
        lambda values, step: tracked.log(dict(values), step=step),
        lambda status: tracked.finish(exit_code=int(status != "finished")),
    )


def mlflow(run: Run, experiment: str = "") -> Session:
    """Starts a run in MLflow, on the server in $MLFLOW_TRACKING_URI, or else in mlflow.db of the current folder.

    `experiment` is '' for $MLFLOW_EXPERIMENT_NAME, or else 'cnnjax'. The settings are those of the run's first start:
    MLflow lets none change.
    """
    library = extras.load("mlflow")
    if run.id:
        tracked = library.start_run(run_id=run.id)
    else:
        library.set_experiment(_project(experiment, "MLFLOW_EXPERIMENT_NAME"))
        tracked = library.start_run(run_name=run.folder.name)
        library.log_params(dict(run.settings))
    statuses = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
    return Session(
        tracked.info.run_id,
        lambda values, step: library.log_metrics(dict(values), step=step),
        lambda status: library.end_run(statuses[status]),
    )


TRACKERS = {"trackio": trackio, "wandb": wandb, "mlflow": mlflow}


def _project(name: str, variable: str) -> str:
    """Returns the name of a project: `name`, else the environment variable, else PROJECT."""
    return name or os.environ.get(variable) or PROJECT


@contextlib.contextmanager
def track(
    tracker: str, folder: pathlib.Path, config: Config, log: Callable[[str], None]
) -> Iterator[Callable[[Metrics], None]]:
    """Context manager that gives a function for the argument `on_metrics` of `train`.

    The first line of metrics starts the run in the tracker, or goes on with it if this folder's run is there already;
    the lines since the last checkpoint are then sent again, with the same values. The end of the context finishes the
    run. A tracker that fails is logged, and gets nothing more: no training ends because of it.

    Args:
      tracker: call string of a function in TRACKERS.
      folder: the run's folder.
      config: the run's settings.
      log: called with lines of text.

    Raises:
      InputError: an unknown tracker or argument, or a library that is not installed.
    """
    call = spec.parse(tracker)
    find = functools.partial(spec.find, "tracker", call, TRACKERS)
    find(run=None)  # for its errors
    extras.load(call.name)
    session: Session | None = None
    has_failed = False

    def attempt(action: Callable[[], Any]) -> Any:
        """Returns what an action of the tracker returns; None if it or an earlier one failed."""
        nonlocal has_failed
        if has_failed:
            return None
        try:
            return action()
        except Exception as error:  # of any library, for any reason
            has_failed = True
            reason = next(iter(str(error).strip().splitlines()), "")
            log(f"{call.name} failed and is no longer used; training continues: {type(error).__name__}: {reason}")

    def start() -> Session:
        """Starts the run in the tracker, and keeps its id in the run's folder."""
        path = folder / FILE
        ids = sealed.read_json(path) if path.exists() else {}
        settings = dataclasses.asdict(config) | {"cnnjax": __version__}
        started: Session = find(run=Run(folder, settings, ids.get(call.name, "")))()
        sealed.write_json(path, ids | {call.name: started.id})
        return started

    def send(metrics: Metrics) -> None:
        """Passes a line of metrics to the tracker."""
        nonlocal session
        session = session or attempt(start)
        if session:
            values = {name: value for name, value in metrics.items() if name != "step"}
            attempt(functools.partial(session.log, values, int(metrics["step"])))

    status: Status = "failed"
    try:
        yield send
        status = "finished"
    except (Interrupted, KeyboardInterrupt):
        status = "stopped"
        raise
    finally:
        if session:
            attempt(functools.partial(session.finish, status))
