"""Readers of config files, sweep spaces and studies: Python files that users write. Errors are one line."""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import inspect
import os
import pathlib
import re
import types
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from cnnjax import paths, register
from cnnjax.config import FIELDS, HINTS, Config, check, current_name, load, pick_recipe, unknown_field
from cnnjax.errors import InputError, nearest

EXPECTED = {int: "a whole number", float: "a number", bool: "True or False"}  # by type of the field


def read_config(location: str, overrides: Sequence[str] = (), flag_names: Iterable[str] = ("config",)) -> Config:
    """Reads a config by path or name and applies flags such as '--config.lr=0.2', as ml_collections does.

    Args:
      location: 'FILE' or 'FILE:arg', where `arg` is passed to the file's get_config(); FILE is as in `find_file`, and
        may be a run's config.json.
      overrides: flags '--config.FIELD=VALUE'; a field may have the name that it had in an earlier version.
      flag_names: the flags of the command without dashes, to suggest one in the error about an unknown flag.

    Raises InputError for a file, field or value that is not valid.
    """
    from absl import flags
    from ml_collections import config_flags

    name, arg = paths.split_argument(location)
    path = find_file(name, "configs", "config")
    config = _load_json(path) if path.suffix == ".json" else _call_config_file(str(path), arg)
    values = flags.FlagValues()
    words = ["cnnjax", *map(_with_current_name, overrides)]
    try:
        config_flags.DEFINE_config_dataclass("config", config, flag_values=values, sys_argv=words)
        rest = values(words)[1:]
    except InputError:
        raise
    except Exception as error:  # absl's and config_flags' errors have no common base
        raise _flag_error(error, overrides, flag_names) from error
    if rest:
        raise InputError(f"unexpected argument {rest[0]!r}; settings are given as --config.FIELD=VALUE")
    config: Any = values["config"].value
    return check(config)


def _with_current_name(word: str) -> str:
    """Renames a flag of a config field to its current name (see `config.ALIASES`); returns other words unchanged."""
    prefix, dot, rest = word.partition(".")
    name, equals, value = rest.partition("=")
    return f"{prefix}{dot}{current_name(name)}{equals}{value}" if prefix == "--config" else word


def load_config(location: str, **changes: Any) -> Config:
    """Loads a config from a path, or by name from ./configs or the package.

    'digits_lenet5' loads digits_lenet5.py; 'mnist_lenet5:fashion_mnist' loads mnist_lenet5.py and passes
    'fashion_mnist' to its get_config(). `changes` are fields to replace, as in lr=0.2. Raises InputError for a file,
    field or value that is not valid.
    """
    config = read_config(location)
    for name, value in changes.items():
        setattr(config, name, value)
    return check(config)


def find_file(name: str, kind: str, what: str) -> pathlib.Path:
    """Finds a config file or a study by path or name. A file in the current folder takes precedence over the package's.

    Args:
      name: path, or name without folder and suffix, as in 'digits_lenet5'.
      kind: folder to search, here and in the package: 'configs' or 'experiments'.
      what: noun for the error: 'config' or 'study'.

    Raises InputError that suggests the nearest valid name.
    """
    path = pathlib.Path(name)
    stem = path.stem if path.suffix == ".py" else path.name
    candidates = [path, path.parent / f"{path.name}.py", pathlib.Path(kind, f"{path.name}.py")]
    if path.parent in (pathlib.Path(), pathlib.Path(kind)):
        candidates += [packaged for packaged in bundled_files(kind) if packaged.stem == stem]
    for candidate in candidates:
        if os.path.isfile(candidate):
            return candidate
    valid = {candidate.stem for candidate in (*pathlib.Path(kind).glob("*.py"), *bundled_files(kind))}
    kind_of_name = f"{what} file" if path.suffix else what
    raise InputError(f"there is no {kind_of_name} {name!r}; {nearest(stem, valid, kind=what)}")


def is_config(location: str) -> bool:
    """Returns whether there is a config file of this path or name; an argument after it, ':arg', is ignored."""
    with contextlib.suppress(InputError):
        return bool(find_file(paths.split_argument(location)[0], "configs", "config"))
    return False


def bundled_files(kind: str) -> list[pathlib.Path]:
    """Lists the config files ('configs') or studies ('experiments') that come with the package, sorted by name."""
    checkout = pathlib.Path(__file__).resolve().parents[1]
    if (checkout / "pyproject.toml").is_file():
        return sorted((checkout / kind).glob("*.py"))
    files = importlib.metadata.files("cnnjax") or []
    matching = [file for file in files if file.parts[-3:-1] == ("cnnjax", kind) and file.suffix == ".py"]
    return sorted((pathlib.Path(str(file.locate())).resolve() for file in matching), key=lambda path: path.name)


def config_files(kind: str = "configs") -> list[pathlib.Path]:
    """Lists the config files in ./configs, then the package's, each sorted by name; 'experiments' lists studies.

    The package's files that have the same name as a local file are left out.
    """
    local = sorted(pathlib.Path(kind).glob("*.py"))
    names = {path.name for path in local}
    return [*local, *(path for path in bundled_files(kind) if path.name not in names)]


def _load_json(path: pathlib.Path) -> Config:
    """Loads a run's config.json. Raises InputError if the run needs imported code that is not imported."""
    register.check_imports(path.parent)
    return load(path.resolve())  # a link that a person names is followed


def read_space(location: str) -> dict[str, Any]:
    """Returns the search space of a sweep: the dict that sweep() of a config file returns.

    Returns {} if the file has no sweep() or is a run's config.json. Raises InputError if there is no such file, or
    sweep() fails or returns no dict.
    """
    file = find_file(paths.split_argument(location)[0], "configs", "config")
    if file.suffix == ".json":
        return {}
    path = str(file)
    with _as_input_error(path):
        space = getattr(_import_file(path), "sweep", dict)()
        if not isinstance(space, dict):
            raise InputError(f"sweep() returned a {type(space).__name__}, expected a dict of settings")
        return space


def _call_config_file(path: str, arg: str) -> Config:
    """Returns the result of get_config() in a Python file; of get_config(arg) unless `arg` is ''.

    For a study, a file with get_study() alone, returns the config of the arm `arg` with the standard budget. Raises
    InputError if that fails or returns no Config.
    """
    with _as_input_error(path + (arg and f":{arg}")):
        module = _import_file(path)
        if hasattr(module, "get_study") and not hasattr(module, "get_config"):
            return pick_recipe(arg, module.get_study("standard").arms)
        if not hasattr(module, "get_config"):
            raise InputError("it has no get_config()")
        if arg and not inspect.signature(module.get_config).parameters:
            raise InputError(f"its get_config() takes no argument, got {arg!r}")
        config = module.get_config(*([arg] if arg else []))
    if not isinstance(config, Config):
        raise InputError(f"{path}: get_config() returned a {type(config).__name__}, expected a cnnjax.config.Config")
    return config


def read_study(path: str, budget: str) -> Any:
    """Returns the `cnnjax.study.Study` that get_study(budget) of a Python file returns.

    `path` may also be a name as in `find_file`. Raises InputError if the function is missing, fails or returns no
    Study.
    """
    from cnnjax.study import Study

    path = str(find_file(path, "experiments", "study"))
    with _as_input_error(path, "study"):
        module = _import_file(path)
        if not hasattr(module, "get_study"):
            raise InputError("it has no get_study(budget)")
        study = module.get_study(budget)
        if not isinstance(study, Study):
            raise InputError(f"get_study() returned a {type(study).__name__}, expected a cnnjax.study.Study")
    digest = hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()[:16]
    return dataclasses.replace(study, digest=digest)


def read_facts(path: str) -> tuple[Any, ...]:
    """Returns the facts (`cnnjax.study.facts.Fact`) that get_facts() of a Python file returns, () without get_facts().

    `path` may also be a name as in `find_file`. Raises InputError if the function fails or returns anything else.
    """
    path = str(find_file(path, "experiments", "study"))
    with _as_input_error(path, "study"):
        module = _import_file(path)
        if not hasattr(module, "get_facts"):
            return ()
        from cnnjax.study.facts import Fact

        facts = tuple(module.get_facts())
        if not facts or not all(isinstance(fact, Fact) for fact in facts):
            raise InputError("get_facts() returned something other than a tuple of cnnjax.study.facts.Fact")
    return facts


def _import_file(path: str) -> types.ModuleType:
    """Imports the Python file `path`. Lets any exception of its code through."""
    module_spec = importlib.util.spec_from_file_location(pathlib.Path(path).stem, path)
    if module_spec is None or module_spec.loader is None:
        raise InputError("expected a .py file with get_config()")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    return module


@contextlib.contextmanager
def _as_input_error(where: str, what: str = "config") -> Iterator[None]:
    """Context manager that turns any exception into an InputError: '<where> gives no <what>: ...'."""
    try:
        yield
    except Exception as error:
        kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
        raise InputError(f"{where} gives no {what}: {kind}{error}") from error


def unknown_flag(overrides: Sequence[str], flag_names: Iterable[str]) -> InputError | None:
    """Returns the error about the first of `overrides` that is not a flag, with the nearest valid one; None if all are.

    `flag_names` are the flags of the command, except --config.FIELD.
    """
    for word in overrides:
        name = word.split("=")[0].lstrip("-")
        if name.startswith("config.") and name.removeprefix("config.") not in FIELDS:
            return unknown_field(name.removeprefix("config."))
        if word.startswith("-") and not name.startswith("config."):
            if name in FIELDS or name in HINTS:
                return InputError(f"unknown flag {word!r}; settings are given as --config.{word.lstrip('-')}")
            return InputError(f"unknown flag {word!r}; {nearest(name, flag_names, '--')}")
    return None


def _flag_error(error: Exception, overrides: Sequence[str], flag_names: Iterable[str]) -> InputError:
    """Returns an InputError for an exception of absl or config_flags about the flags `overrides`."""
    if unknown := unknown_flag(overrides, flag_names):
        return unknown
    if match := re.match(rf"flag --config\.({'|'.join(FIELDS)})=", str(error)):
        default = FIELDS[match[1]].default
        value = str(error)[match.end() :].removesuffix(f": {error.__context__}")
        expected = EXPECTED.get(type(default), type(default).__name__)
        return InputError(f"--config.{match[1]}={value}: expected {expected}, as in {default!r}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return InputError(lines[0].removeprefix("flag --"))
