"""The page of a run: its result first, then its training, mistakes, data, network, settings and commands."""

import dataclasses
import datetime
import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnnjax import __version__, register, sealed
from cnnjax import config as configs
from cnnjax.config import Config
from cnnjax.errors import InputError
from cnnjax.evaluation.comparison import find_evaluation
from cnnjax.evaluation.evaluate import evaluate as evaluate_run
from cnnjax.metrics import METRICS
from cnnjax.pages import curves, data, evaluations, network, page, provenance
from cnnjax.pages.charts import Chart
from cnnjax.pages.data import DataSection
from cnnjax.pages.evaluations import Mistakes, Result
from cnnjax.pages.network import NetworkSection
from cnnjax.register import command_line
from cnnjax.runs import checkpoint, history, workdir
from cnnjax.runs.duration import format_duration, training_seconds
from cnnjax.tables import Table
from cnnjax.training.progress import describe_shares

FILE = "report.html"  # in the run's folder
RELOAD_SECONDS = 30  # of a page while its run trains
LIVE_SECONDS = 60  # at least, between two pages of a run that trains
TEMPLATE = "run.html"
Log = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Gap:
    """Says why a section has nothing to show, and the command that changes that; '' if there is none."""

    reason: str
    command: str = ""


@dataclasses.dataclass(frozen=True)
class RunPage:
    """Holds what the page of a run shows.

    Attributes:
      title: the network and the data set.
      folder: the run's folder.
      progress: how far the training has come.
      reload_seconds: the browser reloads the page after this time; 0, never, if the run is not training.
      result: the result on the test split; None before there is one.
      charts: curves of the training.
      time: how long the training took, and how the time was spent; '' if unknown.
      mistakes: what the network gets wrong; None without an evaluation.
      data: the data; None if they cannot be read.
      network: the network; None if it cannot be built here.
      settings: the settings that differ from their defaults.
      config: all settings, as JSON.
      commands: pairs of a purpose and a shell command.
      versions: the software and the devices.
      gaps: why a section, 'result' or 'data', has nothing to show.
      version: the version of cnnjax that wrote the page.
      written: the time when it did.
    """

    title: str
    folder: str
    progress: str
    reload_seconds: int
    result: Result | None
    charts: tuple[Chart, ...]
    time: str
    mistakes: Mistakes | None
    data: DataSection | None
    network: NetworkSection | None
    settings: Table
    config: str
    commands: tuple[tuple[str, str], ...]
    versions: Table
    gaps: Mapping[str, Gap]
    version: str
    written: str

    def sections(self) -> list[tuple[str, str]]:
        """Returns the id and the name of each section that the page has, in their order."""
        has = {
            "result": True,
            "curves": bool(self.charts),
            "mistakes": self.mistakes is not None,
            "data": self.data is not None or "data" in self.gaps,
            "network": self.network is not None,
            "settings": True,
            "commands": True,
        }
        names = {"curves": "Training", "mistakes": "What it gets wrong", "commands": "Do it again"}
        return [(name, names.get(name, name.capitalize())) for name, is_there in has.items() if is_there]


def report(
    folder: pathlib.Path | str,
    to: pathlib.Path | str = "",
    *,
    data_dir: str = "",
    evaluate: bool = True,
    log: Log = print,
) -> pathlib.Path:
    """Writes the page of a run: one self-contained HTML file.

    Args:
      folder: the run's folder.
      to: the file, whose name ends in .html; '' for report.html in the folder.
      data_dir: folder of the data sets; '' for the one that the training was given, or else the default one.
      evaluate: whether the last checkpoint is evaluated if it is not yet, there is one, and its data set is there.
      log: called with lines of text.

    Returns:
      The path of the file.

    Raises:
      InputError: a folder that is no run's, a damaged file in it, or a name that cannot be written.
    """
    folder = pathlib.Path(folder)
    path = pathlib.Path(to or folder / FILE)
    page.check_path(path)
    page.write(path, render(read_run(folder, data_dir=data_dir, evaluate=evaluate, log=log)))
    return path


def render(run: RunPage) -> str:
    """Returns the HTML of a run's page."""
    return page.render(TEMPLATE, page=run)


def write_quick(folder: pathlib.Path, log: Log) -> None:
    """Writes report.html of a run quickly: without pictures, without its data set, and without evaluating it.

    A page that cannot be written is logged: no training ends because of it.
    """
    try:
        page.write(folder / FILE, render(read_run(folder, evaluate=False, pictures=False, log=log)))
    except Exception as error:  # a page of a network from outside may fail in many ways
        reason = str(error) if isinstance(error, InputError) else repr(error)
        log(f"the page of the run is not written: {reason}")


def live_updates(folder: pathlib.Path, log: Log) -> Callable[[], None]:
    """Returns a function that writes the page of a run in progress by `write_quick`, at most once in LIVE_SECONDS.

    A message that is repeated is logged once.
    """
    next_time, logged = 0.0, set[str]()

    def log_once(line: str) -> None:
        if line not in logged:
            logged.add(line)
            log(line)

    def update() -> None:
        nonlocal next_time
        if time.monotonic() >= next_time:
            write_quick(folder, log_once)
            next_time = time.monotonic() + LIVE_SECONDS

    return update


def read_run(
    folder: pathlib.Path, *, data_dir: str = "", evaluate: bool = True, pictures: bool = True, log: Log = print
) -> RunPage:
    """Reads what the page of a run shows. Arguments and errors are those of `report`; see there.

    `pictures` is False for a quick page: without pictures, and without opening the data set.
    """
    config, info = configs.load(folder / "config.json"), workdir.read_data_info(folder)
    register.check_imports(folder)
    recorded = workdir.read_json(folder / sealed.WITNESS)
    data_dir = data_dir or workdir.recorded_data_dir(recorded)
    opened = data_dir if pictures and data.is_there(config.dataset, data_dir) else None
    lines = [line.values for line in history.read(folder).lines]
    end = _read_end(folder)
    is_training = end is None and workdir.is_locked(folder)

    if evaluate and opened is not None and not is_training and checkpoint.steps(folder):
        _evaluate(folder, config, opened, log)
    found = evaluations.read_evaluations(folder)
    main = evaluations.main_evaluation(found, config)
    image = None if opened is None else data.example(config, opened)
    gaps = {} if main else {"result": _no_result(folder, data_dir, end, is_training)}
    if pictures and opened is None:
        gaps["data"] = _no_data(folder, config)
    return RunPage(
        title=f"{config.model} on {config.dataset}",
        folder=str(folder),
        progress=_progress(config, lines, end, is_training),
        reload_seconds=RELOAD_SECONDS if is_training else 0,
        result=evaluations.result_of(main, found, config.protocol) if main else None,
        charts=curves.charts(lines),
        time=_time(config, lines, end),
        mistakes=evaluations.mistakes_of(main, opened) if main and pictures else None,
        data=data.describe(config, info, opened, pictures),
        network=network.describe(folder, config, info, pictures, image, log),
        settings=provenance.changed_settings(config),
        config=json.dumps(dataclasses.asdict(config), indent=2, ensure_ascii=False),
        commands=provenance.commands(folder, data_dir, is_resumable=end is None and not is_training),
        versions=provenance.versions(recorded),
        gaps=gaps,
        version=__version__,
        written=_now(),
    )


def _evaluate(folder: pathlib.Path, config: Config, data_dir: str, log: Log) -> None:
    """Evaluates the last checkpoint of a run, if it is not yet; logs why, if that is not possible."""
    try:
        if find_evaluation(folder, config, "last", "", data_dir) is None:
            evaluate_run(folder, mistakes=True, data_dir=data_dir, log=log)
    except InputError as error:  # such as a run without a test split
        log(f"the run is not evaluated: {error}")


def _read_end(folder: pathlib.Path) -> Mapping[str, Any] | None:
    """Returns the content of result.json; None while there is none, as the training has not ended."""
    return workdir.read_json(folder / "result.json") if (folder / "result.json").exists() else None


def _progress(
    config: Config, lines: Sequence[Mapping[str, Any]], end: Mapping[str, Any] | None, is_training: bool
) -> str:
    """Returns how far a training has come, from the lines of its metrics and its result."""
    if end:
        why = f", stopped early by {end['stopped']}" if "stopped" in end else ""
        return f"Finished after step {end['step']:,}{why}"
    last = lines[-1] if lines else {"step": 0, "epoch": 0.0}
    whole = f" of {_total_steps(config, last):,}" if last["epoch"] else f" of {config.duration}"
    if is_training:
        reloads = f"reloads itself every {RELOAD_SECONDS} seconds"
        return f"Training: step {last['step']:,}{whole}, written at {_now()}; {reloads}"
    return f"Not finished: step {last['step']:,}{whole}"


def _total_steps(config: Config, line: Mapping[str, Any]) -> int:
    """Returns the number of steps of a training, from a line of its metrics, whose epoch is rounded to 4 digits."""
    images = round(config.batch_size * line["step"] / line["epoch"])  # of the training split
    return configs.to_steps(config.duration, epoch=images / config.batch_size)


def _time(config: Config, lines: Sequence[Mapping[str, Any]], end: Mapping[str, Any] | None) -> str:
    """Returns how long the training took and how the time was spent, as far as it is known; '' if it is not."""
    if not (trained := training_seconds(lines, config.batch_size)):
        return ""
    text = f"Training time: {format_duration(trained)}, without evaluations and checkpoints."
    seconds: Mapping[str, float] = end.get("loop_seconds", {}) if end else {}
    return f"{text} Since the start, or the last resume: {describe_shares(seconds)}." if seconds else text


def _no_result(folder: pathlib.Path, data_dir: str, end: Mapping[str, Any] | None, is_training: bool) -> Gap:
    """Returns why there is no evaluation, with the metrics at the end of the training, if it has ended."""
    if is_training:
        return Gap("The run is training. Its test split, if it has one, is scored at the end.")
    reason = "The run is not evaluated yet:"
    if end and "split" in end:
        values = ", ".join(f"{row.heading} {row.format(end[name])}" for name, row in METRICS.items() if name in end)
        reason = f"At the end of the training, on {end['split']}: {values}. {reason}"
    return Gap(reason, command_line("evaluate", str(folder), data_dir=data_dir))


def _no_data(folder: pathlib.Path, config: Config) -> Gap:
    """Returns why there are no examples of the data."""
    reason = (
        f"The data set {config.dataset} is not in the folder of data sets; with the right folder, examples are shown:"
    )
    return Gap(reason, command_line("report", str(folder), data_dir="DIR"))


def _now() -> str:
    """Returns the time of this machine, with its zone."""
    return datetime.datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")
