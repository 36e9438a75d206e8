"""The settings of a sweep: its file sweep.json, and the claim of its folder."""

import contextlib
import dataclasses
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution

from cnnjax import spec
from cnnjax.config import Config, check, current_name
from cnnjax.errors import InputError, missing, unknown
from cnnjax.metrics import METRICS
from cnnjax.runs import workdir
from cnnjax.sweep.samplers import PRUNERS, SAMPLERS
from cnnjax.sweep.space import distributions, example_value, with_settings
from cnnjax.training.recipe import parse_recipe

FILE = "sweep.json"


@dataclasses.dataclass
class Settings:
    """The settings of a sweep, as stored in sweep.json.

    Attributes:
        config: the fields of the `Config` that trials start from.
        source: the config file as given on the command line, 'FILE[:arg]'.
        space: setting -> a list of choices, or a range such as 'log(1e-3, 1)'.
        trials: number of trials to start, however they end.
        seeds: runs of each trial, with consecutive seeds from config['seed'] on; a trial's value is their mean.
        sampler: call string of a function in `SAMPLERS`.
        pruner: call string of a function in `PRUNERS`.
        metric: name of the validation metric to optimize, taken at the end of a run.
        data_dir: folder of the data sets; '' for TFDS's default.
        storage: URL of Optuna's database; '' for journal.log in the sweep's folder.
    """

    config: dict[str, Any]
    source: str
    space: dict[str, Any]
    trials: int = 20
    seeds: int = 1
    sampler: str = "tpe"
    pruner: str = "none"
    metric: str = "accuracy"
    data_dir: str = ""
    storage: str = ""


RESUMABLE = ("trials", "data_dir")  # may change when a sweep is resumed


def check_settings(settings: Settings) -> dict[str, BaseDistribution]:
    """Checks settings before anything runs, and returns Optuna's distribution of each setting in the space.

    Raises InputError for invalid settings, or without a validation split or fold.
    """
    config = check(Config(**settings.config))
    if not (config.val_split or config.fold or "fold" in settings.space):
        raise InputError(
            "config.val_split = '': a sweep compares trials on a validation split; give one, as in "
            "--config.train_split='train[:90%]' --config.val_split='train[90%:]', or a fold, as in "
            '--space.fold=\'["1/5", "2/5", ...]\''
        )
    if settings.metric not in METRICS:
        raise unknown("metric", settings.metric, METRICS)
    for name in ("trials", "seeds"):
        if getattr(settings, name) < 1:
            raise InputError(f"--{name}={getattr(settings, name)}: expected at least 1")
    if settings.seeds > 1 and "seed" in settings.space:
        raise InputError("--seeds repeats each trial with other seeds; leave 'seed' out of the space")
    space = distributions(settings.space, config)
    parse_recipe(with_settings(config, {name: example_value(values) for name, values in space.items()}))
    for name, values in space.items():
        if isinstance(values, CategoricalDistribution):
            for value in values.choices:
                parse_recipe(with_settings(config, {name: value}))
    spec.find("sampler", spec.parse(settings.sampler), SAMPLERS, seed=0)
    spec.build("pruner", settings.pruner, PRUNERS)
    ranges = [name for name, values in space.items() if not isinstance(values, CategoricalDistribution)]
    if spec.parse(settings.sampler).name == "grid" and ranges:
        raise InputError(f"space.{ranges[0]} = {settings.space[ranges[0]]!r}: a grid needs a list of choices")
    return space


def grid_size(settings: Settings, space: Mapping[str, BaseDistribution]) -> int:
    """Returns the number of combinations of a grid, 0 for another sampler.

    `space` is the result of `check_settings`.
    """
    if spec.parse(settings.sampler).name != "grid":
        return 0
    return math.prod(len(values.choices) for values in space.values())  # type: ignore[attr-defined]


@contextlib.contextmanager
def claim(folder: pathlib.Path, settings: Settings) -> Iterator[None]:
    """Context manager that makes `folder` the folder of this sweep, and locks it against other sweeps.

    Creates the folder and writes sweep.json. A folder that has this sweep already is kept; only `trials` and `data_dir`
    may have changed. If the space in sweep.json has earlier names of config fields, it replaces `settings.space`,
    because Optuna's record has these names, too. Raises InputError if the folder belongs to another sweep or contains
    other files, and if another sweep runs in it.
    """
    _check_folder(folder, settings)  # first without the lock, which would leave its file in a folder of something else
    folder.mkdir(parents=True, exist_ok=True)
    with workdir.hold_lock(folder, "sweep"):
        _check_folder(folder, settings)
        workdir.write_json(folder / FILE, dataclasses.asdict(settings))
        yield


def _check_folder(folder: pathlib.Path, settings: Settings) -> None:
    """Checks that `folder` is new or holds this sweep, as `claim` says, and takes its names of config fields."""
    if (folder / FILE).exists():
        stored = read(folder)
        if _with_current_names(stored.space) == _with_current_names(settings.space):
            settings.space = stored.space
        old, new = map(dataclasses.asdict, (stored, settings))
        if changes := workdir.differences(old, new, RESUMABLE):
            raise InputError(
                f"{folder} holds another sweep: {changes}. Pass another --workdir, or --workdir alone to resume"
            )
    elif folder.is_dir() and any(path.name not in (workdir.LOCK, f"{FILE}.part") for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and not a sweep's folder; pass another --workdir")


def read(folder: pathlib.Path) -> Settings:
    """Reads the settings of the sweep in `folder`.

    Config fields that an earlier version wrote get their present names. Raises InputError if sweep.json is missing or
    damaged.
    """
    if not folder.exists():
        raise InputError(missing(folder))
    if not (folder / FILE).exists():
        raise InputError(f"{folder} is not a sweep's folder: it has no {FILE}")
    try:
        settings = Settings(**workdir.read_json(folder / FILE))
        config = Config(**_with_current_names(settings.config))
        return dataclasses.replace(settings, config=dataclasses.asdict(config))
    except (TypeError, AttributeError) as error:
        raise InputError(f"{folder / 'sweep.json'} is damaged: {error}") from error


def _with_current_names(values: dict[str, Any]) -> dict[str, Any]:
    """Returns a dictionary by setting with the present names of renamed config fields."""
    return {current_name(name): value for name, value in values.items()}
